"""Read rows whose creation time is none: SQLite keeps any text, PostgreSQL has its infinity.

Such a row counts as one of unknown time. The roll-ups and the index know nothing of it, so all rows
are looked at; where there is no such row, looking for one costs a few steps into the index.
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
    """Warn of the attempts whose creation time is none, if there are any."""
    if count := unreadable(connection):
        have = "attempt has" if count == 1 else "attempts have"
        _log.warning(
            "%s %s a creation time that is none, and count as of unknown time; another program"
            " wrote it: set date_created to NULL, or to a time.", f"{count:,}", have,
        )  # fmt: skip


def without_odd(scope: Scope) -> Scope:
    """Give the scope whose rows have a creation time that is one, or none at all."""
    known = f"CASE WHEN {scope.dialect.readable(f'o.{_AT}')} THEN o.{_AT} END"
    columns = ", ".join(
        f"{known} AS {column.name}" if column.name == _AT else f"o.{column.name}"
        for column in attempts.c
    )
    return replace(scope, attempts=f"(SELECT {columns} FROM {scope.attempts} o)", raw=True)
