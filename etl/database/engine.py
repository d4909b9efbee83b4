"""Open engines with our transaction rules."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from etl.database.dialects import DIALECTS, dialect
from etl.database.dialects.sqlite_driver import IS_READ_ONLY
from etl.database.errors import hide_values
from etl.errors import ConfigError, SchemaError

T = TypeVar("T")

READ_ONLY: Final = {IS_READ_ONLY: True}
"""Execution options of a connection that will not write: SQLite then takes no write lock."""

CAREFUL: Final = "verify_etl_careful"


def parse_url(url: str) -> URL:
    """Read a database address; plain schemes mean psycopg 3 and PyMySQL.

    Raises ``ConfigError``. Its message never shows the address, which may hold a password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # ValueError: a '/' or '@' in the password makes its rest the port, which is quoted.
        msg = "DATABASE_URL is not a database address."
        raise ConfigError(
            msg,
            hint="Write sqlite:///FILE, postgresql://USER@HOST/NAME or mariadb://USER@HOST/NAME.",
        ) from None
    if "@" in (parsed.host or ""):
        # The rest of the password would be the host, which the driver's error would quote.
        msg = "DATABASE_URL has an @ in its password or user."
        raise ConfigError(msg, hint="Write it as %40 (and / as %2F, : as %3A, % as %25).")
    scheme = "postgresql" if parsed.drivername == "postgres" else parsed.drivername
    if scheme in DIALECTS:
        scheme = dialect(scheme).driver.name
    parsed = parsed.set(drivername=scheme)
    if parsed.get_backend_name() not in DIALECTS:
        msg = f"DATABASE_URL names {parsed.get_backend_name()!r}, which is not supported."
        raise ConfigError(msg, hint="Use SQLite, PostgreSQL, MariaDB or MySQL.")
    return parsed


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
    except NoSuchModuleError as error:
        msg = f"DATABASE_URL names a driver that does not exist: {parsed.drivername}."
        raise ConfigError(
            msg, hint="Write postgresql:// or mariadb:// without a driver."
        ) from error
    except ImportError as error:
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
