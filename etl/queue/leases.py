"""Finish leased rows: fence them, write their verdicts, or give them back."""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Final

from sqlalchemy import (
    Connection,
    Insert,
    Update,
    select,
    update,
)

from etl.database import bulk
from etl.database.bulk import among
from etl.database.dialects import Columns, Dialect, dialect
from etl.database.engine import any_text
from etl.database.locks import locked
from etl.database.schema import attempt_queue as q
from etl.database.times import moment
from etl.queue import attempts
from etl.queue.attempts import BACK
from etl.records import Lease, Outcome, State, Verdict


def as_columns(verdicts: Sequence[Verdict]) -> Columns:
    """Lay out by column what verdicts say of their rows."""
    return {
        "state": [verdict.state.value for verdict in verdicts],
        "due_at": [verdict.due_at for verdict in verdicts],
        "expires_at": [verdict.expires_at for verdict in verdicts],
        "attempts": [verdict.attempts for verdict in verdicts],
        "outcome": [verdict.outcome and verdict.outcome.value for verdict in verdicts],
        "last_error": [verdict.error for verdict in verdicts],
    }


def insert_listed(connection: Connection, found: Sequence[tuple[str, Verdict]], *, now: int) -> int:
    """Enqueue listed attempts that cannot rest yet; return how many are new.

    A SID that is there keeps its row, whoever enqueued it.
    """
    known: set[str] = set()
    if not dialect(connection).counts_inserts:
        there = select(q.c.sid).where(among(connection, q.c.sid, [sid for sid, _ in found]))
        known.update(connection.execute(there).scalars())
    new = [pair for pair in found if pair[0] not in known]
    if not new:
        return 0
    verdicts, died_at = [verdict for _, verdict in new], moment(now)
    columns: Columns = {
        "sid": [sid for sid, _ in new],
        **as_columns(verdicts),
        "fetches": [int(verdict.state is State.REFRESH) for verdict in verdicts],
        "source": ["discover"] * len(new),
        "settled_at": [died_at if v.state is State.DEAD else None for v in verdicts],
    }
    done = bulk.execute(connection, _insert_found(dialect(connection), tuple(columns)), columns)
    return done.rowcount if dialect(connection).counts_inserts else len(new)


@cache
def _insert_found(dialect: Dialect, names: tuple[str, ...]) -> Insert:
    return dialect.insert_new(q, "sid", names)


def lock_leases(connection: Connection, leases: Collection[Lease]) -> tuple[set[int], set[int]]:
    """Lock rows; return the ids still leased to us, and those we have already finished.

    This is the fence of a batch: a new claim raises ``claim_no``. Rows are already finished if a
    commit's answer was lost. A row declared dead for its expired lease is lost, though its
    ``claim_no`` holds.
    """
    expected = {lease.id: lease.claim_no for lease in leases}
    columns = (q.c.id, q.c.claim_no, q.c.state, q.c.outcome)
    statement = select(*columns).where(q.c.id.in_(expected)).order_by(q.c.id)
    held, done = set(), set()
    with any_text(connection):
        rows = connection.execute(locked(statement)).all()
    for row in rows:
        if row.claim_no == expected[row.id]:
            if row.state == State.LEASED:
                held.add(row.id)
            elif row.state != State.PENDING and row.outcome != Outcome.KILLED_WORKER:
                done.add(row.id)
    return held, done


def give_back(connection: Connection, leases: Collection[Lease]) -> int:
    """Return leases to ``pending`` uncounted; return how many were still ours."""
    held, _ = lock_leases(connection, leases)
    if held:
        connection.execute(update(q).where(q.c.id.in_(held)).values(BACK))
    return len(held)


def give_back_strays(
    connection: Connection, worker: str, keep: Collection[int], *, most: int = 0
) -> int:
    """Return ``worker``'s leased rows, except ``keep``, to ``pending`` uncounted.

    ``most`` limits them, and skips rows that others have locked. Return how many.
    """
    statement = select(q.c.id).where(q.c.state == State.LEASED, q.c.leased_by == worker)
    rows = connection.execute(locked(statement, skip=most > 0))
    ids = [row.id for row in rows if row.id not in keep][: most or None]
    if ids:
        connection.execute(update(q).where(q.c.id.in_(ids)).values(BACK))
    return len(ids)


def write_verdicts(
    connection: Connection,
    judged: Sequence[tuple[Lease, Verdict]],
    *,
    fetched: bool,
    now: int,
    listed: bool = False,
) -> None:
    """Write verdicts to rows whose locks the caller holds.

    ``fetched``: a good fetch is counted and clears the lost leases. ``listed``: the row was on a
    page and not leased, so its fencing token rises now.
    """
    if not judged:
        return
    at_rest = moment(now)
    verdicts = [verdict for _, verdict in judged]
    columns: Columns = {
        "id": [lease.id for lease, _ in judged],
        **as_columns(verdicts),
        "settled_at": [at_rest if verdict.state in _RESTING else None for verdict in verdicts],
    }
    sent = {f"{_NEW}{name}": values for name, values in columns.items()}
    bulk.execute(connection, _update(dialect(connection), fetched, listed), sent)


@cache
def _update(dialect: Dialect, fetched: bool, listed: bool) -> Update:  # noqa: FBT001 - as in `write`
    values: dict[str, object] = {"leased_by": None}
    if fetched:
        fetches = attempts.one_more(q.c.fetches, most=attempts.COUNT_MOST)
        values |= {"fetches": fetches, "lost_leases": 0}
    if listed:
        values["claim_no"] = attempts.one_more(q.c.claim_no)
    return dialect.update(q, _WRITTEN, _NEW, values)


_NEW: Final = "new_"
_WRITTEN: Final = (
    "state", "due_at", "expires_at", "attempts", "outcome", "last_error", "settled_at",
)  # fmt: skip
_RESTING: Final = {State.SETTLED, State.DEAD}
