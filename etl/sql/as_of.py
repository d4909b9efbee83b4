"""Read the attempts as they were known at a moment: what later fetches changed is turned back.

An attempt was known once its first request had been sent. A tracked field (``schema.TRACKED``) had
the old value of the earliest change that was seen later, else today's. Every other field is
today's; nothing in the tables says what it was.

Whether a row was final is not tracked. It was, if its last fetch is not later than the moment and
it is final; or if a fetch not later than the moment, of which we know because it was the first or
showed a change, was sent at an age at which neither price nor conversion can change. So a row is
never called final that was not; one that a fetch without news had made final, and that was fetched
again since, is called not final.

No tables of its own and no common table expressions: each value is a CASE that looks into
``attempt_changes`` (by its index) only for rows fetched since, so a window reads what it would.
"""

# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, Table, text

from etl.database.schema import TRACKED, attempt_channel_data, attempts
from etl.final import Policy, final_sql
from etl.sql.scope import Scope


@dataclass(frozen=True, slots=True)
class AsOf:
    """Hold the moment (seconds since 1970), and the ages at which rows are final."""

    at: float
    policy: Policy = field(default_factory=Policy)

    @property
    def at_ms(self) -> int:
        """Give the moment as the tables hold moments."""
        return math.floor(self.at * 1000)

    @property
    def moment(self) -> datetime:
        """Give the moment as people read it, UTC."""
        return datetime.fromtimestamp(self.at, UTC)


def looked_back(scope: Scope, as_of: AsOf) -> Scope:
    """Give the scope whose rows are those known at the moment; the moment itself is bound."""
    return replace(
        scope,
        attempts=_attempts(scope, as_of),
        channel_data=_channel_data(),
        as_of=as_of.at_ms,
        raw=True,
    )


def _attempts(scope: Scope, as_of: AsOf) -> str:
    past = {
        "fetched_at": f"CASE WHEN r.fetched_at <= @as_of@ THEN r.fetched_at ELSE {_SHOWN} END",
        "is_final": (
            "CASE WHEN r.fetched_at <= @as_of@ THEN r.is_final "
            f"WHEN {_shown_final(scope, as_of)} THEN TRUE ELSE FALSE END"
        ),
    }
    columns = [
        past.get(column.name) or _value(column.name, "r.sid", _MOVED) for column in attempts.c
    ]
    return _table(attempts, columns, "r.first_fetched_at <= @as_of@")


def _channel_data() -> str:
    columns = [_value(column.name, "r.attempt_sid", "") for column in attempt_channel_data.c]
    # Rows of attempts that were not known yet join none of those that were.
    return _table(attempt_channel_data, columns, "")


def _table(table: Table, columns: list[str], where: str) -> str:
    listed = ", ".join(
        f"{column} AS {name}" for column, name in zip(columns, table.c.keys(), strict=True)
    )
    return f"(SELECT {listed} FROM {table.name} r{f' WHERE {where}' if where else ''})"


_LATEST_MS: Final = 253_402_300_799_999

# Only a row that was fetched since can differ.
_MOVED: Final = "r.fetched_at > @as_of@ AND "
# The newest fetch of which we know by then.
_SHOWN: Final = (
    "COALESCE((SELECT MAX(c.seen_at) FROM attempt_changes c "
    "WHERE c.attempt_sid = r.sid AND c.seen_at <= @as_of@), r.first_fetched_at)"
)


def _value(name: str, sid: str, moved: str) -> str:
    """Give a field's value at the moment."""
    if name not in TRACKED:
        return f"r.{name}"
    return _before(name, f"c.attempt_sid = {sid} AND c.seen_at > @as_of@", moved, "r")


def first_value(name: str, row: str) -> str:
    """Give a tracked field of an attempt as its first fetch showed it."""
    return _before(name, f"c.attempt_sid = {row}.sid", "", row)


def _before(name: str, changes: str, moved: str, row: str) -> str:
    """Give the old value of the earliest of some changes; where there is none, the row's."""
    found = f"FROM attempt_changes c WHERE {changes} AND c.field = '{name}'"
    old = "CAST(c.old_value AS DECIMAL(18, 6))" if name == "price_amount" else "c.old_value"
    return (
        f"CASE WHEN {moved}EXISTS (SELECT 1 {found}) "
        f"THEN (SELECT {old} {found} ORDER BY c.seen_at LIMIT 1) ELSE {row}.{name} END"
    )


def _shown_final(scope: Scope, as_of: AsOf) -> str:
    """Say whether the newest fetch known by then was sent late enough to be the last word."""
    # Seconds are whole: rounded up, so that no age is taken for more than it was.
    age = f"{_SHOWN} - ({scope.dialect.seconds('r.date_created')} + 1) * 1000"
    price = _value("price_amount", "r.sid", _MOVED)
    return final_sql(as_of.policy, age=age, price=price)


def first_known(connection: Connection) -> datetime | None:
    """Say when the first request was sent whose answer is here; None: nothing is."""
    # Others may have written what is no time; SQLite keeps text, too.
    sound = f"first_fetched_at BETWEEN 0 AND {_LATEST_MS}"
    sql = f"SELECT MIN(first_fetched_at) FROM attempts WHERE {sound}"
    found = connection.execute(text(sql)).scalar()
    return None if found is None else datetime.fromtimestamp(int(found) / 1000, UTC)
