"""Take away what is no longer needed: settled rows of the queue, and personal data.

Both walk a key in short steps, a transaction each: whatever they are stopped at, the next run goes
on. Every function takes a connection inside the caller's transaction. What is personal is decided
in ``etl/privacy.py``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import uuid4

from sqlalchemy import (
    JSON,
    Boolean,
    ColumnElement,
    Connection,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal_column,
    select,
    update,
)

from etl import privacy
from etl.database.bulk import among
from etl.database.dialects import dialect
from etl.database.engine import any_text
from etl.database.locks import locked
from etl.database.schema import attempt_changes as changes
from etl.database.schema import attempt_channel_data as data
from etl.database.schema import attempt_queue as q
from etl.database.schema import attempts, sweeps, sync_runs, verification_queue
from etl.database.times import moment, within
from etl.rollups import marks
from etl.rollups.cubes import ROLLUPS
from etl.rollups.tables import rollups

STEP: Final = 1_000
"""Rows that one transaction looks at."""


@dataclass(frozen=True, slots=True)
class Redacted:
    """Say what one step did; ``last`` is the key to go on from, None at the end.

    ``columns``: attempts that lost the value of any other column. ``changes``: entries of
    ``attempt_changes`` that lost a value.
    """

    looked_at: int
    destinations: int
    extras: int
    columns: int
    changes: int
    last: str | None


Values: TypeAlias = Mapping[str, Any]
Pair: TypeAlias = tuple[Values, Values]
"""A row as it is, and what may stay of it."""

_UNSUMMED: Final = frozenset(
    {"destination", "extra", "url", "locale", "account_sid", "code_length"}
)
"""The columns that no roll-up holds or counts by."""


def redact(
    connection: Connection, *, before: int, after: str, write: bool, step: int = STEP
) -> Redacted:
    """Remove personal data of attempts created before ``before`` (ms), next after SID ``after``.

    Of each column stays what ``privacy.attempt`` says. An attempt without a creation time, or
    with one that is none, counts from its first fetch. Roll-ups lose what the rows lose, in the same transaction.
    """
    last = _end_of_step(connection, attempts.c.sid, after, step)
    if last is None:
        return Redacted(0, 0, 0, 0, 0, None)
    is_time = dialect(connection).readable("attempts.date_created")
    dated: ColumnElement[bool] = literal_column(f"({is_time})", Boolean)
    created = within(connection, attempts.c.date_created, end=moment(before))
    old = case((dated, created), else_=attempts.c.first_fetched_at < before)
    here = and_(attempts.c.sid > after, attempts.c.sid <= last, old)
    rows = _attempts(connection, here)
    sids = [row["sid"] for row in rows]
    found, ledger = _to_clean(rows, privacy.attempt), _changes(connection, sids)
    if write and (found or ledger):
        # Before the first lock. Looked at without one, for most rows have nothing to lose.
        marks.enter(connection)
        # Else SQLite leaves it in the file's free space.
        dialect(connection).overwrite_deleted(connection)
        mine = among(connection, attempts.c.sid, [row["sid"] for row, _ in found])
        # The attempt's lock stands for both tables; a fetch may have changed them meanwhile.
        connection.execute(locked(select(attempts.c.sid).where(mine).order_by(attempts.c.sid)))
        found = _to_clean(_attempts(connection, and_(mine, old)), privacy.attempt)
        ledger = _changes(connection, sids)
        _write_attempts(connection, found)
        _write(connection, changes, "id", ledger)
    return Redacted(
        looked_at=len(rows),
        destinations=sum(row["destination"] is not None for row, _ in found),
        extras=sum("extra" in _lost(row, kept) for row, kept in found),
        columns=sum(bool(_lost(row, kept) - {"destination", "extra"}) for row, kept in found),
        changes=len(ledger),
        last=last,
    )


def _end_of_step(connection: Connection, key: ColumnElement[Any], after: object, most: int) -> Any:  # noqa: ANN401 - any key
    """Return the last key of the next step, None when there is no row any more."""
    step = select(key.label("key")).where(key > after).order_by(key).limit(most).subquery()
    return connection.execute(select(func.max(step.c.key))).scalar()


def _attempts(connection: Connection, which: ColumnElement[bool]) -> Sequence[Values]:
    # Others write it, too, and SQLite keeps any text.
    created = dialect(connection).as_stored(attempts.c.date_created)
    columns = [(attempts if name in attempts.c else data).c[name] for name in privacy.CLEANED]
    statement = (
        select(
            attempts.c.sid,
            created.label("created"),
            *columns,
            cast(data.c.extra, Text).label("extra"),
        )
        .select_from(attempts.outerjoin(data, data.c.attempt_sid == attempts.c.sid))
        .where(which)
        .order_by(attempts.c.sid)
    )
    return _read(connection, statement)


def _read(connection: Connection, statement: Select[Any]) -> list[Values]:
    with any_text(connection):
        return [row._asdict() for row in connection.execute(statement)]


def _changes(connection: Connection, sids: Sequence[str]) -> list[Pair]:
    """Find the entries of ``attempt_changes`` to be cleaned; nobody else ever updates one."""
    columns = (changes.c.id, changes.c.field, changes.c.old_value, changes.c.new_value)
    statement = select(*columns).where(among(connection, changes.c.attempt_sid, sids))
    return _to_clean(_read(connection, statement), privacy.change) if sids else []


def _to_clean(rows: Sequence[Values], clean: Callable[[Values], Values]) -> list[Pair]:
    pairs = [(row, clean(row)) for row in rows]
    return [(row, kept) for row, kept in pairs if _lost(row, kept)]


def _lost(row: Values, kept: Values) -> set[str]:
    """Name the columns whose value goes, in part or whole; JSON was read as its text."""
    return {
        name
        for name, value in kept.items()
        if row[name] is not None
        and (value is None or value != (privacy.parsed(row[name]) if name in _JSON else row[name]))
    }


_JSON: Final = frozenset({"extra", "asked", "did"})


def _write_attempts(connection: Connection, found: Sequence[Pair]) -> None:
    summed = [row for row, kept in found if _lost(row, kept) - _UNSUMMED]
    if summed:
        # With their siblings, and so before they lose their verification.
        times = {row["created"] for row in summed}
        starts = marks.mark(connection, times, {row["verification_sid"] for row in summed})
        _forget_sums(connection, starts)
    _write(connection, attempts, "sid", found)
    _write(connection, data, "sid", found)


def _forget_sums(connection: Connection, starts: Sequence[int]) -> None:
    """Delete the roll-ups of marked quarters: nobody reads them, and they repeat what goes."""
    for rollup in ROLLUPS:
        table = rollups[rollup.name]
        for length in rollup.lengths:
            stretches = sorted({start // length * length for start in starts})
            which = among(connection, table.c.start, stretches)
            connection.execute(delete(table).where(table.c.length_s == length, which))


def _write(connection: Connection, table: Table, key: str, found: Sequence[Pair]) -> None:
    """Write what may stay of each row, by the table's first column."""
    names = [name for name in (found[0][1] if found else ()) if name in table.c]
    rows = [
        {"b_key": row[key]} | {f"b_{name}": kept[name] for name in names}
        for row, kept in found
        if _lost(row, kept) & {*names}
    ]
    if not rows:
        return
    values = {name: bindparam(f"b_{name}", type_=table.c[name].type) for name in names}
    which = next(iter(table.c)) == bindparam("b_key")
    connection.execute(update(table).where(which).values(values), rows)


@dataclass(frozen=True, slots=True)
class _Others:
    """Describe a table that has no attempts, and may hold what somebody wrote."""

    table: Table
    since: str
    columns: tuple[str, ...]
    clean: Callable[[Values], Values]


_OTHERS: Final = {
    described.table.name: described
    for described in (
        _Others(
            q, "enqueued_at", ("sid", "state", "outcome", "last_error", "source"), privacy.queued
        ),
        _Others(verification_queue, "enqueued_at", ("sid", "source"), privacy.verification),
        _Others(sync_runs, "started_at", ("asked", "did", "error"), privacy.run),
        _Others(sweeps, "created_at", ("state", "next_page"), privacy.window),
    )
}
OTHERS: Final = tuple(_OTHERS)
"""The tables that ``redact_others`` walks."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Say what one step did; ``last`` is the key to go on from, None at the end."""

    rows: int
    last: int | None


def redact_others(  # noqa: PLR0913 - what a step may see
    connection: Connection, name: str, *, before: int, after: int, write: bool, step: int = STEP
) -> Cleaned:
    """Remove what may be personal from rows of ``OTHERS`` begun before ``before``, after an id.

    What stands in a queue and is no SID is replaced, so that the row stays: it has been parked, or
    will be.
    """
    asked = _OTHERS[name]
    key = asked.table.c.id
    last = _end_of_step(connection, key, after, step)
    if last is None:
        return Cleaned(0, None)
    old = asked.table.c[asked.since] < moment(before)
    found = _others(connection, asked, and_(key > after, key <= last, old))
    if write and found:
        # Else SQLite leaves it in the file's free space.
        dialect(connection).overwrite_deleted(connection)
        # Others may be working with them.
        mine = key.in_([row["id"] for row, _ in found])
        found = _others(connection, asked, mine, lock=True)
        _write(connection, asked.table, "id", found)
    return Cleaned(len(found), last)


def _others(
    connection: Connection, asked: _Others, which: ColumnElement[bool], *, lock: bool = False
) -> list[Pair]:
    columns: list[ColumnElement[Any]] = [
        cast(column, Text).label(column.name) if isinstance(column.type, JSON) else column
        for column in (asked.table.c[name] for name in asked.columns)
    ]
    statement = select(asked.table.c.id, *columns).where(which).order_by(asked.table.c.id)
    rows = _read(connection, locked(statement) if lock else statement)
    return [(row, _named(kept)) for row, kept in _to_clean(rows, asked.clean)]


def _named(kept: Values) -> Values:
    """Give what is no SID a name that nobody else has; the column is unique and not NULL."""
    if kept.get("sid", "") is not None:
        return kept
    return {**kept, "sid": f"{privacy.REDACTED}{uuid4().hex}"}
