"""Open engines, and hold the few differences between the databases in one place.

SQLite: ``BEGIN IMMEDIATE`` for every transaction that may write (a plain BEGIN loses half of
concurrent read-then-writes to busy errors). PostgreSQL and MariaDB: READ COMMITTED, and
``FOR UPDATE SKIP LOCKED`` with SELECT then UPDATE in one transaction.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from etl.database import bounds
from etl.database.errors import hide_values, name_file
from etl.errors import ConfigError

T = TypeVar("T")

READ_ONLY: Final = {"verify_etl_read_only": True}
"""Execution options of a connection that will not write: SQLite then takes no write lock."""

_DRIVERS: Final = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
CAREFUL: Final = "verify_etl_careful"
_EXTRAS: Final = {"psycopg": "postgres", "pymysql": "mysql"}
_BUSY_TIMEOUT_MS: Final = 10_000
# Room for the leaves of the indexes on SIDs that one page of attempts touches; with the default of
# 2 MB a transaction writes them out and reads them back before its end.
_SQLITE_CACHE_KB: Final = 32_768


def parse_url(url: str) -> URL:
    """Read a database address; plain schemes mean psycopg 3 and PyMySQL.

    Raises ``ConfigError`` that never shows the address, for it may hold a password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # ValueError: a password with an unescaped '/' or '@' is read as the port, and quoted.
        msg = "DATABASE_URL is not a database address."
        raise ConfigError(
            msg,
            hint="Write sqlite:///FILE, postgresql://USER@HOST/NAME or mariadb://USER@HOST/NAME.",
        ) from None
    if "@" in (parsed.host or ""):
        # The rest of the password, which an error of the driver would quote as the host.
        msg = "DATABASE_URL has an @ in its password or user."
        raise ConfigError(msg, hint="Write it as %40 (and / as %2F, : as %3A, % as %25).")
    parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
    if parsed.get_backend_name() not in {"sqlite", "postgresql", "mysql", "mariadb"}:
        msg = f"DATABASE_URL names {parsed.get_backend_name()!r}, which is not supported."
        raise ConfigError(msg, hint="Use SQLite, PostgreSQL, MariaDB or MySQL.")
    return parsed


def open_engine(url: str) -> Engine:
    """Create an engine with our transaction rules; nothing is connected yet.

    Raises ``ConfigError`` for an address that cannot be read or a driver that is not installed.
    """
    parsed = parse_url(url)
    backend = parsed.get_backend_name()
    options: dict[str, Any] = {"hide_parameters": True}
    if backend == "postgresql":
        options["isolation_level"] = "READ COMMITTED"
        options["connect_args"] = {"connect_timeout": 10, **_KEEPALIVE}
    elif backend in {"mysql", "mariadb"}:
        parsed = parsed.update_query_dict({"charset": "utf8mb4"})
        options["isolation_level"] = "READ COMMITTED"
        answer_s = bounds.ANSWER_S
        options["connect_args"] = {
            "connect_timeout": 10, "read_timeout": answer_s, "write_timeout": answer_s,
        }  # fmt: skip
    else:
        options["json_deserializer"] = _any_json
    if backend == "mysql":
        # MySQL has no bound for idle transactions alone: a session that rests as long is ended.
        options["pool_recycle"] = bounds.IDLE_S - 5
    try:
        engine = create_engine(parsed, **options)
    except NoSuchModuleError as error:
        msg = f"DATABASE_URL names a driver that does not exist: {parsed.drivername}."
        raise ConfigError(
            msg, hint="Write postgresql:// or mariadb:// without a driver."
        ) from error
    except ImportError as error:
        extra = _EXTRAS.get(error.name or "", "all")
        msg = f"the driver for {backend} is not installed."
        raise ConfigError(msg, hint=f"Run: pip install 'verify-attempts-etl[{extra}]'") from error
    event.listen(engine, "connect", _SETUP[backend])
    if backend == "sqlite":
        event.listen(engine, "do_connect", _own_file)
        event.listen(engine, "begin", _begin_sqlite)
        event.listen(engine, "handle_error", _name_file)
    else:
        event.listen(engine, "begin", bounds.begin)
    event.listen(engine, "handle_error", _hide_values)
    return engine


# A peer that vanished without a word is noticed within a minute, not after the kernel's two hours.
_KEEPALIVE: Final = {
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


def _own_file(_dialect: object, _record: object, args: Any, options: Any) -> None:  # noqa: ANN401 - the driver's
    """Create a new file for its owner alone: it will hold numbers. SQLite's journals follow it."""
    name = str(args[0])
    if options.get("uri"):
        address = urlsplit(name)
        name = unquote(address.path)
        if parse_qs(address.query).get("mode", ["rwc"]) != ["rwc"]:
            return
    if name and not name.startswith(":"):
        # One that is there keeps its mode; why another cannot be created, SQLite will say.
        with suppress(OSError):
            os.close(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _setup_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's
    # The driver's own transactions are switched off: BEGIN is ours (see _begin_sqlite).
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    connection.execute(f"PRAGMA cache_size = -{_SQLITE_CACHE_KB}")
    connection.execute("PRAGMA foreign_keys = ON")
    if wal_is_safe(sqlite3.sqlite_version_info):
        # Best effort: it needs the file to itself for a moment, and is kept once it worked.
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")


def _setup_postgresql(connection: Any, record: Any) -> None:  # noqa: ANN401 - the driver's
    waits = connection.wait
    connection.wait = lambda steps, *args, **options: waits(
        bounds.answered(connection, steps, record.info), *args, **options
    )
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
        cursor.execute("SET DateStyle = 'ISO'")
        cursor.execute(f"SET lock_timeout = '{bounds.LOCK_S}s'")
        cursor.execute(bounds.postgresql(patient=False, local=False))
        # A plan that is kept was made for a table of another size, and searches arrays linearly.
        cursor.execute("SET plan_cache_mode = force_custom_plan")
        # It would compile for half a second what runs for a tenth. Forks may not have it.
        cursor.execute("SELECT set_config(name, 'off', false) FROM pg_settings WHERE name = 'jit'")
    connection.commit()


def _setup_mysql(connection: Any, record: Any) -> None:  # noqa: ANN401 - the driver's
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION time_zone = '+00:00'")
        cursor.execute(bounds.MYSQL_LOOK)
        cursor.execute(bounds.mysql(record.info, cursor.fetchall(), patient=False))
        cursor.execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')")


_SETUP: Final = {
    "sqlite": _setup_sqlite,
    "postgresql": _setup_postgresql,
    "mysql": _setup_mysql,
    "mariadb": _setup_mysql,
}


def _name_file(context: ExceptionContext) -> None:
    if context.engine is not None:
        name_file(context.original_exception, context.engine.url.database)


def _hide_values(context: ExceptionContext) -> None:
    if isinstance(context.sqlalchemy_exception, DBAPIError):
        hide_values(context.sqlalchemy_exception)


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get("verify_etl_read_only")
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
    # What is read to be shown may be text of others that is no UTF-8; see also any_text.
    driver: Any = connection.connection.driver_connection
    driver.text_factory = _shown if read_only else str


def _shown(sent: bytes) -> str:
    return sent.decode("utf-8", "replace")


def _any_json(sent: Any) -> Any:  # noqa: ANN401 - as the driver gives it
    """Parse JSON; what others wrote that is none is itself, where it is text."""
    try:
        return json.loads(sent)
    except (TypeError, ValueError, RecursionError):
        return sent if isinstance(sent, str | int | float) else None


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """Say whether this SQLite has the fix without which WAL can corrupt (sqlite.org, 2026)."""
    if version >= (3, 51, 3):
        return True
    return (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


@contextmanager
def any_text(connection: Connection, errors: str = "surrogateescape") -> Iterator[None]:
    """Read text as it was written, be it UTF-8 or not: SQLite keeps whatever bytes it is given.

    What is no UTF-8 comes as surrogates, or as ``errors`` says, instead of an error that no row
    could be blamed for.
    """
    driver = connection.connection.driver_connection
    if connection.dialect.name != "sqlite" or driver is None:
        yield
        return
    usual = driver.text_factory
    driver.text_factory = lambda sent: sent.decode("utf-8", errors)
    try:
        yield
    finally:
        driver.text_factory = usual


def as_text(connection: Connection, read: Callable[[], T]) -> T:
    """Read rows, and again with any text in them where SQLite holds some that is no UTF-8.

    Faster than ``any_text`` where there is none; what is none then reads as U+FFFD.
    """
    try:
        return read()
    except OperationalError as error:
        # Python's own error of text that is no UTF-8 has no code of SQLite's.
        if connection.dialect.name != "sqlite" or hasattr(error.orig, "sqlite_errorcode"):
            raise
    with any_text(connection, "replace"):
        return read()


def carefully(connection: Connection) -> bool:
    """Say whether this transaction was refused before, so that rows are to be written singly."""
    return bool(connection.info.get(CAREFUL))
