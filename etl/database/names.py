"""Name what refused a statement: table, column, constraint, function; never what is said of the row.

A database quotes rows ("Failing row contains (…)", "Duplicate entry '…'"), and a trigger says what
its author liked. So words are made of names alone, each found where only a name can stand.
"""

import re
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

_STATEMENT: Final = re.compile(r"\s*(?:INSERT INTO|UPDATE|DELETE FROM)\s+[`\"]?(\w+)")
_FUNCTION: Final = re.compile(r'function "?([\w$.]+)')

_COLUMN: Final = r"'(?P<column>[^']+)'"
_IN_COLUMN: Final = re.compile(
    r".* for column `[^`]*`\.`(?P<table>[^`]+)`\.`(?P<column>[^`]+)` at ", re.DOTALL
)
_KEY: Final = re.compile(r".* for key '(?:\w+\.)?(?P<constraint>[^']+)'$", re.DOTALL)
_FOREIGN: Final = re.compile(
    r".*constraint fails \(`[^`]*`\.`(?P<table>[^`]+)`, CONSTRAINT `(?P<constraint>[^`]+)`",
    re.DOTALL,
)
_MYSQL: Final = {
    1048: re.compile(rf"Column {_COLUMN} cannot be null$"),
    1062: _KEY, 1586: _KEY,
    1264: re.compile(rf"Out of range value for column {_COLUMN} at "),
    1265: re.compile(rf"Data truncated for column {_COLUMN} at "),
    1292: _IN_COLUMN, 1366: _IN_COLUMN,
    1364: re.compile(rf"Field {_COLUMN} doesn't have a default value$"),
    1406: re.compile(rf"Data too long for column {_COLUMN} at "),
    1451: _FOREIGN, 1452: _FOREIGN,
    3819: re.compile(r"Check constraint '(?P<constraint>[^']+)' is violated"),
    4025: re.compile(r"CONSTRAINT `(?P<constraint>[^`]+)` failed for `[^`]*`\.`(?P<table>[^`]+)`$"),
}  # fmt: skip
_SQLITE_CONSTRAINT_DATATYPE: Final = 3091
# A CHECK without a name goes by its text, which is no name.
_SQLITE: Final = {
    sqlite3.SQLITE_CONSTRAINT_CHECK: re.compile(
        r"CHECK constraint failed: (?P<constraint>[\w$-]+)$"
    ),
    _SQLITE_CONSTRAINT_DATATYPE: re.compile(
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
_SAID: Final = "verify_etl_said"
_NAMED: Final = ("table", "column", "constraint", "function")


def names_of(error: DBAPIError) -> str:
    """Say what refused a statement, such as ``table attempts, constraint mine (CheckViolation)``."""
    cause: Any = error.orig
    if known := getattr(cause, _SAID, None):
        return str(known)
    kind, names = _read(cause)
    if not names.get("table") and (found := _STATEMENT.match(error.statement or "")):
        names = {**names, "table": found[1]}
    where = ", ".join(f"{what} {names[what]}" for what in _NAMED if names.get(what))
    return f"{where} ({kind})" if where else kind


def replace_words(error: DBAPIError, said: str) -> None:
    """Let an error and its cause say nothing but these words, which ``names_of`` finds again."""
    cause: Any = error.orig
    if cause is not None:
        code = cause.args[0] if cause.args else None
        cause.args = (code, said) if isinstance(code, int) else (said,)
        setattr(cause, _SAID, said)
    error.args = (said,)


def function_of(cause: Any) -> str | None:  # noqa: ANN401 - the driver's
    """Name the function in which PostgreSQL raised an error: a trigger's, and so the user's."""
    context = getattr(getattr(cause, "diag", None), "context", None)
    found = _FUNCTION.search(context or "")
    return found and found[1]


def _read(cause: Any) -> tuple[str, Mapping[str, str | None]]:  # noqa: ANN401 - the driver's
    kind = type(cause).__name__
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        name = getattr(cause, "sqlite_errorname", kind)
        # Python has no name for a newer one.
        kind = f"SQLite error {code}" if name == "unknown" else name
        return kind, _find(_SQLITE, code, str(cause))
    if diag := getattr(cause, "diag", None):
        sqlstate = diag.sqlstate
        names = {
            "table": diag.table_name,
            "column": diag.column_name,
            "constraint": diag.constraint_name,
            "function": function_of(cause),
        }
        return f"{kind} {sqlstate}" if sqlstate else kind, names
    code = cause.args[0] if cause is not None and cause.args else None
    if not isinstance(code, int):
        return kind, {}
    # A trigger's SIGNAL, whatever number it carries, is in its author's words.
    signalled = (getattr(cause, "sqlstate", None) or "").startswith("45")
    return f"error {code}", {} if signalled else _find(_MYSQL, code, str(cause.args[-1]))


def _find(
    patterns: Mapping[int, re.Pattern[str]], code: int | None, said: str
) -> Mapping[str, str | None]:
    pattern = patterns.get(code or 0)
    found = pattern.match(said) if pattern else None
    return found.groupdict() if found else {}
