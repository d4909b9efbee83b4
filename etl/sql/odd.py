"""Read rows with an unreadable creation time: any text on SQLite, infinity on PostgreSQL.

Such a row counts as one of unknown time. Roll-ups leave it out, so a report then reads all raw
rows. Without such rows the check takes a few steps in the index.
"""

# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound

import logging
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, text

from etl.database.dialects import dialect
from etl.database.schema import attempts
from etl.sql.scope import Scope

_AT: Final = "date_created"

_log = logging.getLogger(__name__)


def unreadable(connection: Connection, where: str = "", **values: object) -> int:
    """Count the attempts whose creation time is there and is none."""
    odd = dialect(connection).odd(_AT, attempts.name)
    sql = f"SELECT COUNT(*) FROM attempts WHERE {odd}{where}"
    return int(connection.execute(text(sql), values).scalar_one())


def say(connection: Connection) -> None:
    """Warn of attempts with an unreadable creation time."""
    if count := unreadable(connection):
        have = "attempt has" if count == 1 else "attempts have"
        _log.warning(
            "%s %s a creation time that is none, and count as of unknown time; another program"
            " wrote it: set date_created to NULL, or to a time.", f"{count:,}", have,
        )  # fmt: skip


def without_odd(scope: Scope) -> Scope:
    """Give the scope that reads an unreadable creation time as NULL."""
    known = f"CASE WHEN {scope.dialect.readable(f'o.{_AT}')} THEN o.{_AT} END"
    columns = ", ".join(
        f"{known} AS {column.name}" if column.name == _AT else f"o.{column.name}"
        for column in attempts.c
    )
    return replace(scope, attempts=f"(SELECT {columns} FROM {scope.attempts} o)", raw=True)
