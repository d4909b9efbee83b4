"""Open engines with our transaction rules."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, OperationalError

from etl.database.address import parse_url
from etl.database.dialects import dialect
from etl.database.dialects.sqlite_driver import IS_READ_ONLY
from etl.database.errors import hide_values
from etl.errors import ConfigError, SchemaError

T = TypeVar("T")

READ_ONLY: Final = {IS_READ_ONLY: True}
"""Execution options of a connection that will not write: SQLite then takes no write lock."""

CAREFUL: Final = "verify_etl_careful"


def open_engine(url: str, *, create: bool = True) -> Engine:
    """Create an engine with our transaction rules; nothing is connected yet.

    Unless it may ``create`` an SQLite file, one must be there: looking would make it. Raises
    ``ConfigError`` for an address that cannot be read or a driver that is not installed.
    """
    parsed = parse_url(url)
    kind = dialect(parsed.get_backend_name())
    if not create and kind.is_file and _absent(parsed.database):
        msg = f"There is no database {parsed.database} yet."
        raise SchemaError(msg, hint="Run: verify-etl db upgrade (or set DATABASE_URL).")
    driver = kind.driver
    try:
        engine = create_engine(driver.address(parsed), hide_parameters=True, **driver.options())
    except (ImportError, NoSuchModuleError) as error:
        msg = f"the driver for {parsed.get_backend_name()} is not installed."
        raise ConfigError(msg, hint=f"Run: pip install '{driver.package}'") from error
    driver.listen(engine)
    event.listen(engine, "handle_error", _hide_values)
    return engine


def _absent(database: str | None) -> bool:
    """Say that a file is not there, in a folder that is; of another address SQLite may judge."""
    if not database or database.startswith((":", "file:")):
        return False
    path = Path(database)
    return path.parent.is_dir() and not path.exists()


def _hide_values(context: ExceptionContext) -> None:
    if isinstance(context.sqlalchemy_exception, DBAPIError):
        hide_values(context.sqlalchemy_exception)


def any_text(
    connection: Connection, errors: str = "surrogateescape"
) -> AbstractContextManager[None]:
    """Read text as it was written, be it UTF-8 or not: SQLite keeps whatever bytes it is given.

    Such bytes come as surrogates, or as ``errors`` says. The usual error would name no row.
    """
    return dialect(connection).any_text(connection, errors)


def as_text(connection: Connection, read: Callable[[], T]) -> T:
    """Read rows; if SQLite holds text that is not UTF-8, read once more with any text.

    It is faster than ``any_text`` for proper text. Bytes that are not UTF-8 read as U+FFFD.
    """
    try:
        return read()
    except OperationalError as error:
        # Python's own error of text that is no UTF-8 has no code of SQLite's.
        if not dialect(connection).keeps_any_text or hasattr(error.orig, "sqlite_errorcode"):
            raise
    with any_text(connection, "replace"):
        return read()


def carefully(connection: Connection) -> bool:
    """Say whether this transaction was refused before. Rows are then written one by one."""
    return bool(connection.info.get(CAREFUL))
