"""Open SQLite's files, and read SQLite's errors.

``BEGIN IMMEDIATE`` begins every transaction that may write: a plain BEGIN loses half of concurrent
read-then-writes to busy errors.
"""

# ruff: noqa: D102 - driver.py says once what each method gives
# ruff: noqa: ARG002 - not every database needs all that it is given

import json
import os
import re
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError

from etl.database.dialects.driver import Driver, Fault, refuse_old, refuse_unknown
from etl.errors import ConfigError

IS_READ_ONLY: Final = "verify_etl_read_only"
"""The execution option of a connection that will not write: it takes no write lock."""

OLDEST: Final = (3, 34)
"""Older ones lack ``RANGE`` with an offset and ``UPDATE ... FROM``."""
_KNOWN: Final = {
    "uri", "timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements",
}  # fmt: skip
_BUSY_TIMEOUT_MS: Final = 10_000
# Room for the leaves of the indexes on SIDs that one page of attempts touches; with the default of
# 2 MB a transaction writes them out and reads them back before its end.
_CACHE_KB: Final = 32_768
_FILE: Final = "verify_etl_file"

_FAULTS: Final = {
    sqlite3.SQLITE_BUSY: Fault.BUSY, sqlite3.SQLITE_LOCKED: Fault.BUSY,
    sqlite3.SQLITE_FULL: Fault.STORAGE, sqlite3.SQLITE_READONLY: Fault.STORAGE,
    sqlite3.SQLITE_IOERR: Fault.STORAGE, sqlite3.SQLITE_CANTOPEN: Fault.STORAGE,
    sqlite3.SQLITE_CORRUPT: Fault.STORAGE, sqlite3.SQLITE_NOTADB: Fault.STORAGE,
    sqlite3.SQLITE_PERM: Fault.STORAGE,
    sqlite3.SQLITE_PROTOCOL: Fault.BUSY, sqlite3.SQLITE_ERROR: Fault.SCHEMA,
    sqlite3.SQLITE_CONSTRAINT: Fault.REFUSED, sqlite3.SQLITE_TOOBIG: Fault.REFUSED,
    sqlite3.SQLITE_MISMATCH: Fault.REFUSED, sqlite3.SQLITE_RANGE: Fault.REFUSED,
}  # fmt: skip
_CONSTRAINT_DATATYPE: Final = 3091
# A CHECK without a name goes by its text, which is no name.
_NAMES: Final = {
    sqlite3.SQLITE_CONSTRAINT_CHECK: re.compile(
        r"CHECK constraint failed: (?P<constraint>[\w$-]+)$"
    ),
    _CONSTRAINT_DATATYPE: re.compile(
        r"cannot store \w+ value in \w+ column (?P<table>\w+)\.(?P<column>\w+)$"
    ),
    **dict.fromkeys(
        (
            sqlite3.SQLITE_CONSTRAINT_NOTNULL,
            sqlite3.SQLITE_CONSTRAINT_UNIQUE,
            sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
        ),
        re.compile(r"\w+(?: \w+)? constraint failed: (?P<table>\w+)\.(?P<column>\w+)"),
    ),
}


class SqliteDriver(Driver):
    """Open SQLite's files."""

    name = "sqlite"
    busy = "the database is locked by another process"

    def address(self, url: URL) -> URL:
        refuse_old("SQLite", sqlite3.sqlite_version_info, OLDEST)
        if url.host or url.username or url.password:
            msg = "DATABASE_URL names a host or a user, and SQLite has neither."
            hint = "Write sqlite:///FILE with three slashes, or four before an absolute path."
            raise ConfigError(msg, hint=hint)
        if not (url.database or "").startswith("file:"):
            refuse_unknown(url, _KNOWN, {})
        return url

    def options(self) -> dict[str, Any]:
        return {"json_deserializer": _any_json}

    def listen(self, engine: Engine) -> None:
        super().listen(engine)
        event.listen(engine, "do_connect", _own_file)
        event.listen(engine, "handle_error", _name_file)

    def connected(self, connection: Any, record: Any) -> None:  # noqa: ANN401 - the driver's
        # The driver's own transactions are switched off: BEGIN is ours.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        connection.execute("PRAGMA foreign_keys = ON")
        if wal_is_safe(sqlite3.sqlite_version_info):
            # Best effort: it needs the file to itself for a moment, and is kept once it worked.
            with suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA journal_mode = WAL")

    def begin(self, connection: Connection) -> None:
        read_only = connection.get_execution_options().get(IS_READ_ONLY)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
        # What is read to be shown may be text of others that is no UTF-8; see also any_text.
        driver: Any = connection.connection.driver_connection
        driver.text_factory = _shown if read_only else str

    def raised(self, cause: Any) -> bool:  # noqa: ANN401 - any driver's
        return isinstance(cause, sqlite3.Error)

    def fault(self, error: DBAPIError) -> Fault:
        said = str(error.orig)
        if said.startswith(("no such table", "no such column")) or "has no column named" in said:
            return Fault.SCHEMA
        code = getattr(error.orig, "sqlite_errorcode", None)
        # The low byte is the primary code; the rest says more than we need.
        return _FAULTS.get(code & 0xFF, Fault.OTHER) if code is not None else Fault.REFUSED

    def names(self, cause: Any) -> tuple[str, Mapping[str, str | None]]:  # noqa: ANN401 - the driver's
        code = getattr(cause, "sqlite_errorcode", None)
        kind = getattr(cause, "sqlite_errorname", type(cause).__name__)
        pattern = _NAMES.get(code or 0)
        found = pattern.match(str(cause)) if pattern else None
        # Python has no name for a newer one.
        kind = f"SQLite error {code}" if kind == "unknown" else kind
        return kind, found.groupdict() if found else {}

    def unopened(self, cause: Any) -> str | None:  # noqa: ANN401 - the driver's
        if getattr(cause, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_CANTOPEN:
            return None
        return getattr(cause, _FILE, None) or ""


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


def _name_file(context: ExceptionContext) -> None:
    if context.engine is not None:
        name_file(context.original_exception, context.engine.url.database)


def name_file(error: BaseException, file: str | None) -> None:
    """Note on SQLite's error which file it could not open: it names none itself."""
    if isinstance(error, sqlite3.Error):
        setattr(error, _FILE, file)


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
