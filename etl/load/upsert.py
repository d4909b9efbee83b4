"""Write attempts: merge with what is known, note what changed, upsert.

The newest *fetch* wins, for ``date_updated`` is not known to move with the price; a null never
wipes a known price. The caller holds the transaction, and in it finishes the queue's rows.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    CursorResult,
    Insert,
    RowMapping,
    Select,
    Table,
    select,
)

from etl.database import bulk
from etl.database.bulk import among
from etl.database.dialects import Columns, Dialect, dialect
from etl.database.engine import as_text
from etl.database.schema import TRACKED, attempt_changes, attempt_channel_data, attempts
from etl.records import Attempt, Fetched
from etl.rollups import marks

_ATTEMPT_FIELDS: Final = tuple(name for name in Attempt._fields if name in attempts.c)
_CHANNEL_FIELDS: Final = tuple(name for name in Attempt._fields if name in attempt_channel_data.c)
_CHANGE: Final = ("attempt_sid", "field", "old_value", "new_value", "seen_at")
_PLACE: Final = (attempts.c.date_created, attempts.c.verification_sid)
_VALUES: Final = attrgetter(*_ATTEMPT_FIELDS, *_CHANNEL_FIELDS)


@dataclass(frozen=True, slots=True)
class Known:
    """Hold what the tables say of an attempt: when it was fetched, and the tracked fields."""

    fetched_at: int
    is_final: bool
    values: Mapping[str, Any]
    date_created: object = None
    verification_sid: str | None = None
    first_fetched_at: int | None = None


class Merged(NamedTuple):
    """Hold an attempt ready to be written; ``known`` is what it replaces."""

    attempt: Attempt
    sent_at: int
    known: Known | None

    @property
    def is_final(self) -> bool:
        """Say whether the row that it replaces is final, which no later fetch undoes."""
        return self.known is not None and self.known.is_final


def known(connection: Connection, sids: Collection[str]) -> dict[str, Known]:
    """Lock and read what the tables say of these SIDs, in one order so that nobody deadlocks.

    The attempt's lock stands for both tables. The channel data is read afterwards: a join would
    show PostgreSQL's newest attempt beside the channel data of before the wait for its lock.
    """
    statement = (
        select(
            attempts.c.sid,
            attempts.c.fetched_at,
            attempts.c.is_final,
            attempts.c.first_fetched_at,
            *_PLACE,
            *_tracked(attempts),
        )
        .where(among(connection, attempts.c.sid, sids))
        .order_by(attempts.c.sid)
        .with_for_update()
    )
    rows = _read(connection, statement)
    if not rows:
        return {}
    key = attempt_channel_data.c.attempt_sid
    statement = select(key, *_tracked(attempt_channel_data)).where(
        among(connection, key, [row["sid"] for row in rows])
    )
    channel = {data["attempt_sid"]: data for data in _read(connection, statement)}
    return {row["sid"]: _known({**channel.get(row["sid"], {}), **row}) for row in rows}


def _read(connection: Connection, statement: Select[Any]) -> Sequence[RowMapping]:
    return as_text(connection, lambda: connection.execute(statement).mappings().all())


def _known(row: Mapping[str, Any]) -> Known:
    return Known(
        _whole(row["fetched_at"]) or 0,
        row["is_final"],
        {name: row.get(name) for name in TRACKED},
        row["date_created"],
        row["verification_sid"],
        _whole(row["first_fetched_at"]),
    )


def sample(connection: Connection, sid: str) -> Attempt:
    """Return an attempt as the tables hold one, or one of which nothing is known, under a SID."""
    statement = select(attempts, attempt_channel_data).join(attempt_channel_data)
    row = connection.execute(statement.order_by(attempts.c.sid).limit(1)).mappings().first()
    found: dict[str, Any] = {name: row and row.get(name) for name in Attempt._fields}
    return Attempt(**found | {"sid": sid, "warnings": ()})


def _whole(number: object) -> int | None:
    # SQLite keeps whatever others write.
    return number if isinstance(number, int) else None


def _tracked(table: Table) -> list[Column[Any]]:
    return [table.c[name] for name in TRACKED if name in table.c]


def merge(fetched: Fetched, known: Known | None) -> Merged:
    """Keep a known price when the newer fetch has none."""
    attempt = fetched.attempt
    if known and attempt.price_amount is None and known.values["price_amount"] is not None:
        attempt = attempt._replace(
            price_amount=known.values["price_amount"],
            price_currency=known.values["price_currency"],
        )
    return Merged(attempt, fetched.sent_at, known)


def write(connection: Connection, rows: Sequence[tuple[Merged, bool]]) -> int:
    """Upsert (merged, is final) pairs that are newer than what is there; return changes noted.

    An older fetch writes nothing, nor does a newer one of a final row in which nothing differs. A
    row that the database refuses raises its ``DBAPIError``; the caller, who holds a savepoint,
    writes the others alone.
    """
    newer = [
        (merged, final)
        for merged, final in rows
        if merged.known is None or merged.known.fetched_at < merged.sent_at
    ]
    if same := _same(connection, [merged for merged, _ in newer if merged.is_final]):
        newer = [pair for pair in newer if pair[0].attempt.sid not in same]
    if not newer:
        return 0
    winners = _upsert(connection, newer)
    if winners:
        _send(connection, _upsert_channel_data, _channel_columns(winners))
    _mark(connection, [merged for merged, _ in newer])
    changes = [change for merged in winners for change in _changes(merged)]
    if changes:
        _send(connection, _insert_changes, _by_column(_CHANGE, changes))
    return len(changes)


def _same(connection: Connection, final: Sequence[Merged]) -> Collection[str]:
    """Return the SIDs of final rows that hold every value of the fetch already."""
    if not final:
        return ()
    statement = (
        select(
            *(attempts.c[n] for n in _ATTEMPT_FIELDS),
            *(attempt_channel_data.c[n] for n in _CHANNEL_FIELDS),
        )
        .join(attempt_channel_data, attempt_channel_data.c.attempt_sid == attempts.c.sid)
        .where(among(connection, attempts.c.sid, [merged.attempt.sid for merged in final]))
    )
    found = _read(connection, statement)
    stored = {row["sid"]: [_plain(value) for value in row.values()] for row in found}
    return {
        merged.attempt.sid
        for merged in final
        if stored.get(merged.attempt.sid) == [_plain(value) for value in _VALUES(merged.attempt)]
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - any column's
    """Make times comparable: databases without zones return them naive, to the millisecond."""
    if not isinstance(value, datetime):
        return value
    value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def _mark(connection: Connection, rows: Sequence[Merged]) -> None:
    """Mark the roll-ups of these attempts' times and verifications, the former ones too."""
    former = [row.known for row in rows if row.known is not None]
    # The times of those that have a verification are found with their siblings'.
    alone = [row.attempt for row in rows if row.attempt.verification_sid is None]
    verifications = {row.attempt.verification_sid for row in rows}
    verifications.update(known.verification_sid for known in former)
    times = {known.date_created for known in former} | {attempt.date_created for attempt in alone}
    marks.mark(connection, times, verifications)


def _upsert(connection: Connection, newer: Sequence[tuple[Merged, bool]]) -> Sequence[Merged]:
    """Upsert the attempts and return those that stand now.

    A row that was not there cannot be locked, so another worker may have inserted a newer fetch of
    it meanwhile; the upsert let that one stand, and its channel data must stand too.
    """
    done = _send(connection, _upsert_attempts, _attempt_columns(newer))
    if dialect(connection).writes_alone:
        return [merged for merged, _ in newer]
    if done.returns_rows:
        written = set(done.scalars())
        return [merged for merged, _ in newer if merged.attempt.sid in written]
    fresh = {merged.attempt.sid: merged.sent_at for merged, _ in newer if merged.known is None}
    statement = select(attempts.c.sid, attempts.c.fetched_at).where(attempts.c.sid.in_(fresh))
    lost = {row.sid for row in connection.execute(statement) if row.fetched_at != fresh[row.sid]}
    return [merged for merged, _ in newer if merged.attempt.sid not in lost]


def _attempt_columns(rows: Sequence[tuple[Merged, bool]]) -> Columns:
    columns = _by_column(Attempt._fields, [merged.attempt for merged, _ in rows])
    sent = [merged.sent_at for merged, _ in rows]
    return {
        **{name: columns[name] for name in _ATTEMPT_FIELDS},
        "first_fetched_at": sent,
        "fetched_at": sent,
        "is_final": [final for _, final in rows],
    }


def _channel_columns(rows: Sequence[Merged]) -> Columns:
    columns = _by_column(Attempt._fields, [merged.attempt for merged in rows])
    return {"attempt_sid": columns["sid"], **{name: columns[name] for name in _CHANNEL_FIELDS}}


def _by_column(names: Iterable[str], rows: Iterable[Iterable[Any]]) -> Columns:
    return dict(zip(names, zip(*rows, strict=True), strict=True))


def _changes(merged: Merged) -> Iterable[tuple[object, ...]]:
    if merged.known is None:
        return
    for name in TRACKED:
        old, new = merged.known.values[name], getattr(merged.attempt, name)
        if old != new:
            yield merged.attempt.sid, name, _text(old), _text(new), merged.sent_at


def _text(value: object) -> str | None:
    if isinstance(value, Decimal):
        # Six decimals on every database, whatever precision it read back with.
        return f"{value:.6f}"
    return None if value is None else str(value)


def _send(
    connection: Connection, upsert: Callable[[Dialect], Insert], columns: Columns
) -> CursorResult[Any]:
    return bulk.execute(connection, upsert(dialect(connection)), columns)


@cache
def _upsert_attempts(dialect: Dialect) -> Insert:
    """Insert, or update if this fetch is newer; ``first_fetched_at`` stays."""
    names = [*_ATTEMPT_FIELDS[1:], "is_final", "fetched_at"]
    return dialect.upsert(attempts, names, newer="fetched_at")


@cache
def _upsert_channel_data(dialect: Dialect) -> Insert:
    return dialect.upsert(attempt_channel_data, _CHANNEL_FIELDS)


@cache
def _insert_changes(dialect: Dialect) -> Insert:
    return dialect.insert(attempt_changes, _CHANGE)
