"""Sort what a database says into what to do about it, and say it in words.

Each driver names a lost connection, a full disk and a refused row differently: by SQLSTATE, by
MySQL's numbers, by SQLite's codes. Their words are passed on where they name servers, files, tables
and rights; where they may quote a row, names take their place (``hide_values``).
"""

import re
import sqlite3
from enum import Enum
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from etl.database.names import function_of, names_of, replace_words
from etl.database.schema import VERSION_TABLE
from etl.errors import ConfigError, DatabaseBusy, EtlError, SchemaError, StorageError, WriteRefused


class Fault(Enum):
    """Sort what a database says into what to do about it."""

    BUSY = "busy"
    LOST = "lost"
    STORAGE = "storage"
    SCHEMA = "schema"
    CONFIG = "config"
    REFUSED = "refused"
    # Nobody foresaw it: the run's, not the row's.
    OTHER = "other"


_POSTGRES: Final = {
    "40001": Fault.BUSY, "40P01": Fault.BUSY, "55P03": Fault.BUSY, "53300": Fault.BUSY,
    "57014": Fault.BUSY, "25P02": Fault.BUSY, "25P03": Fault.LOST, "25P04": Fault.BUSY,
    "40003": Fault.LOST,
    "53100": Fault.STORAGE, "25006": Fault.STORAGE, "3F000": Fault.SCHEMA,
    "28P01": Fault.CONFIG, "28000": Fault.CONFIG, "3D000": Fault.CONFIG,
}  # fmt: skip
_POSTGRES_CLASSES: Final = {
    "08": Fault.LOST, "40": Fault.BUSY, "42": Fault.SCHEMA, "53": Fault.BUSY, "57": Fault.LOST,
    "58": Fault.STORAGE, "72": Fault.BUSY, "XX": Fault.STORAGE,
    # Wrong values, constraints, limits, and what a trigger says: the row's own fault.
    "09": Fault.REFUSED, "22": Fault.REFUSED, "23": Fault.REFUSED, "27": Fault.REFUSED,
    "38": Fault.REFUSED, "39": Fault.REFUSED, "44": Fault.REFUSED, "54": Fault.REFUSED,
    "P0": Fault.REFUSED,
}  # fmt: skip
_MYSQL: Final = {
    1213: Fault.BUSY, 1205: Fault.BUSY, 1020: Fault.BUSY, 1040: Fault.BUSY, 1203: Fault.BUSY,
    1969: Fault.BUSY, 3024: Fault.BUSY, 1412: Fault.BUSY, 1047: Fault.BUSY,
    1135: Fault.BUSY, 1206: Fault.BUSY, 1226: Fault.BUSY,
    0: Fault.LOST, 2003: Fault.LOST, 2006: Fault.LOST, 2013: Fault.LOST, 2014: Fault.LOST,
    1053: Fault.LOST, 1927: Fault.LOST, 1317: Fault.LOST, 4031: Fault.LOST,
    1021: Fault.STORAGE, 1114: Fault.STORAGE, 1290: Fault.STORAGE, 1836: Fault.STORAGE,
    1792: Fault.STORAGE, 1030: Fault.STORAGE, 1036: Fault.STORAGE, 1026: Fault.STORAGE,
    1180: Fault.STORAGE,
    1158: Fault.LOST, 1159: Fault.LOST, 1160: Fault.LOST, 1161: Fault.LOST,
    1064: Fault.SCHEMA, 1146: Fault.SCHEMA, 1054: Fault.SCHEMA, 1142: Fault.SCHEMA, 1143: Fault.SCHEMA,
    1044: Fault.CONFIG, 1045: Fault.CONFIG, 1049: Fault.CONFIG, 1698: Fault.CONFIG,
    # Wrong values, constraints, limits, and what a trigger says: the row's own fault.
    1048: Fault.REFUSED, 1062: Fault.REFUSED, 1153: Fault.REFUSED, 1264: Fault.REFUSED,
    1265: Fault.REFUSED, 1292: Fault.REFUSED, 1300: Fault.REFUSED, 1364: Fault.REFUSED,
    1366: Fault.REFUSED, 1406: Fault.REFUSED, 1451: Fault.REFUSED, 1452: Fault.REFUSED,
    1644: Fault.REFUSED, 1690: Fault.REFUSED, 3140: Fault.REFUSED, 3819: Fault.REFUSED,
    4025: Fault.REFUSED,
    # As above; partitions and views of the user's, and what fails inside a trigger.
    1365: Fault.REFUSED, 1369: Fault.REFUSED, 1411: Fault.REFUSED, 1441: Fault.REFUSED,
    1442: Fault.REFUSED, 1526: Fault.REFUSED, 1586: Fault.REFUSED, 1748: Fault.REFUSED,
    1172: Fault.REFUSED, 1242: Fault.REFUSED, 1305: Fault.REFUSED, 1329: Fault.REFUSED,
    1422: Fault.REFUSED, 1456: Fault.REFUSED, 1761: Fault.REFUSED, 1762: Fault.REFUSED,
}  # fmt: skip
# A trigger's SIGNAL may carry any number, and is known by its SQLSTATE.
_MYSQL_CLASSES: Final = {
    "02": Fault.REFUSED, "21": Fault.REFUSED, "22": Fault.REFUSED, "23": Fault.REFUSED,
    "44": Fault.REFUSED, "45": Fault.REFUSED,
}  # fmt: skip
_QUOTES_THE_STATEMENT: Final = 1064
_BUILDS: Final = re.compile(r"\s*(?:CREATE|ALTER|DROP|COMMENT|GRANT|REVOKE)\b")
GRANT: Final = "Grant this user SELECT, INSERT, UPDATE and DELETE on our tables (and USAGE on their sequences)."
MEND_REFUSALS: Final = (
    "Nothing is lost and no row pays; change the constraint, trigger or column, then run it again."
)
_SQLITE: Final = {
    sqlite3.SQLITE_BUSY: Fault.BUSY, sqlite3.SQLITE_LOCKED: Fault.BUSY,
    sqlite3.SQLITE_FULL: Fault.STORAGE, sqlite3.SQLITE_READONLY: Fault.STORAGE,
    sqlite3.SQLITE_IOERR: Fault.STORAGE, sqlite3.SQLITE_CANTOPEN: Fault.STORAGE,
    sqlite3.SQLITE_CORRUPT: Fault.STORAGE, sqlite3.SQLITE_NOTADB: Fault.STORAGE,
    sqlite3.SQLITE_PERM: Fault.STORAGE,
    sqlite3.SQLITE_PROTOCOL: Fault.BUSY, sqlite3.SQLITE_ERROR: Fault.SCHEMA,
    sqlite3.SQLITE_CONSTRAINT: Fault.REFUSED, sqlite3.SQLITE_TOOBIG: Fault.REFUSED,
    sqlite3.SQLITE_MISMATCH: Fault.REFUSED, sqlite3.SQLITE_RANGE: Fault.REFUSED,
}  # fmt: skip


_FILE: Final = "verify_etl_file"


def name_file(error: BaseException, file: str | None) -> None:
    """Note on SQLite's error which file it could not open: it names none itself."""
    if isinstance(error, sqlite3.Error):
        setattr(error, _FILE, file)


def classify(error: DBAPIError) -> Fault:
    """Sort an error by the driver's own code; each driver names a lost connection differently.

    A row is to blame only for what is known to be a row's fault; whatever else a database says is
    the run's, so that a broken server parks no rows.
    """
    error = first(error)
    cause: Any = error.orig
    if isinstance(cause, sqlite3.Error):
        said = str(cause)
        if said.startswith(("no such table", "no such column")) or "has no column named" in said:
            return Fault.SCHEMA
        code = getattr(cause, "sqlite_errorcode", None)
        # The low byte is the primary code; the rest says more than we need.
        return _SQLITE.get(code & 0xFF, Fault.OTHER) if code is not None else Fault.REFUSED
    code = cause.args[0] if cause is not None and cause.args else None
    # PyMySQL's own numbers first: since 1.2 its errors have a sqlstate, too, and a coarser one.
    if not isinstance(code, int) and hasattr(cause, "sqlstate"):
        return _classify_postgresql(error, cause.sqlstate)
    if error.connection_invalidated:
        return Fault.LOST
    if not isinstance(code, int):
        return Fault.REFUSED
    sqlstate = getattr(cause, "sqlstate", None) or ""
    return _MYSQL.get(code) or _MYSQL_CLASSES.get(sqlstate[:2], Fault.OTHER)


def _classify_postgresql(error: DBAPIError, sqlstate: str | None) -> Fault:
    if sqlstate is None:
        # psycopg has no code for a refused password or an absent database at connect time.
        said = str(error.orig)
        absent = "does not exist" in said and ('database "' in said or 'role "' in said)
        if "authentication failed" in said or "no pg_hba.conf entry" in said or absent:
            return Fault.CONFIG
        return Fault.LOST if type(error.orig).__name__ in _CONNECTION_ERRORS else Fault.REFUSED
    fault = _POSTGRES.get(sqlstate) or _POSTGRES_CLASSES.get(sqlstate[:2])
    if fault in {None, Fault.SCHEMA} and function_of(error.orig):
        # What a user's trigger raises, or lacks.
        return Fault.REFUSED
    return fault or (Fault.LOST if error.connection_invalidated else Fault.OTHER)


_CONNECTION_ERRORS: Final = {"OperationalError", "ConnectionTimeout", "InterfaceError"}


def first(error: DBAPIError) -> DBAPIError:
    """Return the error that ended a transaction, when it made the savepoint's end fail too.

    SQLite rolls all of it back on a full disk, MariaDB at a deadlock, and then knows of no savepoint.
    """
    found: BaseException | None = error
    while found is not None and _NO_SAVEPOINT.search(str(found)):
        found = found.__context__
    return found if isinstance(found, DBAPIError) else error


_NO_SAVEPOINT: Final = re.compile(r"no such savepoint|SAVEPOINT \S+ does not exist")


def hide_values(error: DBAPIError) -> None:
    """Put names in the place of what a database says where that may quote a row, for all to see.

    Tracebacks and logs say what an exception says, so it must not say it.
    """
    if first(error) is not error or _quotable(error):
        return
    replace_words(error, names_of(error))


def _quotable(error: DBAPIError) -> bool:
    """Say whether a database's words name servers, files, tables and rights, and nothing else."""
    cause: Any = error.orig
    fault = classify(error)
    if fault is Fault.OTHER:
        return bool(_BUILDS.match(error.statement or ""))
    if fault is Fault.REFUSED or function_of(cause):
        return False
    return not (cause is not None and cause.args and cause.args[0] == _QUOTES_THE_STATEMENT)


def explain(error: DBAPIError, doing: str) -> EtlError:
    """Say a database's error in words; no row's values are among them."""
    fault = classify(error)
    error = first(error)
    said = (str(error.orig).strip().splitlines() or [fault.value])[0]
    if not _quotable(error):
        said = names_of(error)
    is_sqlite = isinstance(error.orig, sqlite3.Error)
    if fault is Fault.BUSY:
        why = (
            "the database is locked by another process"
            if is_sqlite
            else f"the database is busy ({said})"
        )
        return DatabaseBusy(f"While {doing}, {why}.", hint="Nothing is lost; run it again.")
    if fault is Fault.LOST:
        if _stood_still(error.orig):
            why, hint = "ended the session, which had stood still", ""
        else:
            why, hint = "could not be reached", "check DATABASE_URL and "
        return DatabaseBusy(
            f"While {doing}, the database {why} ({said}).",
            hint=f"Nothing is lost; {hint}run it again.",
        )
    if fault in {Fault.STORAGE, Fault.OTHER}:
        return _storage_error(doing, said, error.orig, known=fault is Fault.STORAGE)
    if fault is Fault.SCHEMA:
        return _schema_error(doing, said)
    if fault is Fault.CONFIG:
        return ConfigError(
            f"While {doing}, the database refused the login ({said}).", hint="Check DATABASE_URL."
        )
    return WriteRefused(f"While {doing}, the database refused it: {said}.", hint=MEND_REFUSALS)


def _stood_still(cause: Any) -> bool:  # noqa: ANN401 - any driver's
    """Say whether the server names our silence as its reason; MariaDB only closes the connection."""
    code = cause.args[0] if cause.args else None
    return code == 4031 or getattr(cause, "sqlstate", None) in {"25P03", "57P05"}  # noqa: PLR2004 - as in _MYSQL


def _schema_error(doing: str, said: str) -> SchemaError:
    if "denied" in said:
        return SchemaError(f"While {doing}, a table was not as expected ({said}).", hint=GRANT)
    hint = "Run: verify-etl db upgrade (or check DATABASE_URL)."
    why = (
        f"the database was found without our tables ({said})"
        if VERSION_TABLE in said
        else f"a table was not as expected ({said})"
    )
    return SchemaError(f"While {doing}, {why}.", hint=hint)


def _unopened(doing: str, said: str, name: str) -> StorageError:
    """Say why SQLite's file cannot be opened: a path is no secret, and most often mistyped."""
    file, hint = Path(name), "Check DATABASE_URL."
    why = ""
    if not name or name.startswith((":", "file:")):
        hint += " Check the file's permissions."
    elif file.is_dir():
        why = ": it is a folder"
    elif not file.parent.is_dir():
        why, hint = f": there is no folder {file.parent}", "Check DATABASE_URL, or make the folder."
    else:
        hint = "Check the permissions of the file and its folder."
    msg = f"While {doing}, {name or 'the file'} could not be opened ({said}){why}."
    return StorageError(msg, hint=hint)


def _storage_error(
    doing: str, said: str, cause: BaseException | None, *, known: bool
) -> StorageError:
    if getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CANTOPEN:
        return _unopened(doing, said, getattr(cause, _FILE, None) or "")
    if not known:
        msg = f"While {doing}, the database failed ({said})."
        return StorageError(msg, hint="Its log may say more; nothing is lost.")
    if "not a database" in said:
        msg = f"While {doing}, the file was found to be no database ({said})."
        return StorageError(msg, hint="Check DATABASE_URL.")
    return StorageError(
        f"While {doing}, the database could not be written ({said}).",
        hint="Check the disk's space and the file's permissions.",
    )
