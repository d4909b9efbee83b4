"""Read the attempts as they were known at a moment: undo later changes.

An attempt was known once its first request had been sent. A tracked field (``schema.TRACKED``) had
the old value of the earliest change that was seen later, else today's. Every other field is
today's; nothing in the tables says what it was.

Whether a row was final is not tracked. A row fetched last by the moment is as final as today. For
other rows, look at the newest recorded fetch by the moment: the first fetch, or one with a change. It
made the row final, if neither price nor conversion could change at that age.

No row counts as final before it was. A final row may count as not final: if its final fetch showed no
change, and another came after the moment.

Each value is a CASE. It looks into ``attempt_changes``, by the index, only for rows fetched after
the moment. So a window reads no more rows than it does today.
"""

# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import BigInteger, Connection, Integer, String, Table, Text, text

from etl.database.schema import TRACKED, attempt_channel_data, attempts
from etl.database.types import Money
from etl.final import Policy, final_sql
from etl.sql.scope import Scope


@dataclass(frozen=True, slots=True)
class AsOf:
    """Hold the moment (seconds since 1970), and when rows are final."""

    at: float
    policy: Policy = field(default_factory=Policy)

    @property
    def at_ms(self) -> int:
        """Give the moment in milliseconds, as in the tables."""
        return math.floor(self.at * 1000)

    @property
    def moment(self) -> datetime:
        """Give the moment in UTC."""
        return datetime.fromtimestamp(self.at, UTC)


def looked_back(scope: Scope, as_of: AsOf) -> Scope:
    """Give the scope with the rows known at the moment, which is bound later."""
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
    # No WHERE: the join with the known attempts leaves out the others.
    return _table(attempt_channel_data, columns, "")


def _table(table: Table, columns: list[str], where: str) -> str:
    listed = ", ".join(
        f"{column} AS {name}" for column, name in zip(columns, table.c.keys(), strict=True)
    )
    return f"(SELECT {listed} FROM {table.name} r{f' WHERE {where}' if where else ''})"


_LATEST_MS: Final = 253_402_300_799_999

# Only rows fetched later can differ.
_MOVED: Final = "r.fetched_at > @as_of@ AND "
# The newest recorded fetch by then.
_SHOWN: Final = (
    "COALESCE((SELECT MAX(c.seen_at) FROM attempt_changes c "
    "WHERE c.attempt_sid = r.sid AND c.seen_at <= @as_of@), r.first_fetched_at)"
)


_TYPES: Final = {c.name: c.type for table in (attempts, attempt_channel_data) for c in table.c}
# Changes are kept as text, and a CASE takes one type. Every database knows DECIMAL.
_OLD: Final[dict[type, str]] = {
    String: "n.old_value",
    Text: "n.old_value",
    Integer: "CAST(n.old_value AS DECIMAL(20, 0))",
    BigInteger: "CAST(n.old_value AS DECIMAL(20, 0))",
    Money: "CAST(n.old_value AS DECIMAL(18, 6))",
}


def _value(name: str, sid: str, moved: str) -> str:
    """Give a field's value at the moment."""
    if name not in TRACKED:
        return f"r.{name}"
    return _before(name, f"n.attempt_sid = {sid} AND n.seen_at > @as_of@", moved, "r")


def first_value(name: str, row: str) -> str:
    """Give a tracked field as the first fetch showed it."""
    return _before(name, f"n.attempt_sid = {row}.sid", "", row)


def value_before(name: str, row: str, change: str) -> str:
    """Give a tracked field as it was known until a change was seen."""
    return _before(name, f"n.attempt_sid = {row}.sid AND n.seen_at >= {change}.seen_at", "", row)


def value_after(name: str, row: str, change: str) -> str:
    """Give a tracked field as it has been known since a change was seen."""
    return _before(name, f"n.attempt_sid = {row}.sid AND n.seen_at > {change}.seen_at", "", row)


def _before(name: str, changes: str, moved: str, row: str) -> str:
    """Give the old value of the earliest of these changes, else the row's value."""
    found = f"FROM attempt_changes n WHERE {changes} AND n.field = '{name}'"
    old = _OLD[type(_TYPES[name])]
    return (
        f"CASE WHEN {moved}EXISTS (SELECT 1 {found}) "
        f"THEN (SELECT {old} {found} ORDER BY n.seen_at LIMIT 1) ELSE {row}.{name} END"
    )


def _shown_final(scope: Scope, as_of: AsOf) -> str:
    """Say whether the newest recorded fetch by then was late enough to be final."""
    # Round up to whole seconds, so that no age is too high.
    age = f"{_SHOWN} - ({scope.dialect.seconds('r.date_created')} + 1) * 1000"
    price = _value("price_amount", "r.sid", _MOVED)
    return final_sql(as_of.policy, age=age, price=price)


def first_known(connection: Connection) -> datetime | None:
    """Say when the first stored answer was asked for; None without any."""
    # Skip values that are no time: other programs may write any, SQLite even text.
    sound = f"first_fetched_at BETWEEN 0 AND {_LATEST_MS}"
    sql = f"SELECT MIN(first_fetched_at) FROM attempts WHERE {sound}"
    found = connection.execute(text(sql)).scalar()
    return None if found is None else datetime.fromtimestamp(int(found) / 1000, UTC)
