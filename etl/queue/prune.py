"""Take settled rows out of the queue, a batch at a time."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, func, select

from etl.database.schema import attempt_queue as q
from etl.database.times import moment
from etl.records import State

PRUNE_STEP: Final = 5_000
"""Rows of the queue that one transaction looks at."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """Say what one step did. ``last`` is the key to go on from, None at the end."""

    rows: int
    last: int | None


def prune(
    connection: Connection, *, before: int, after: int, write: bool, step: int = PRUNE_STEP
) -> Pruned:
    """Delete rows that settled before ``before`` (ms), among those next after id ``after``.

    It goes by ranges of the key. An index on ``settled_at`` would cost more than it saves.
    """
    taken = select(q.c.id).where(q.c.id > after).order_by(q.c.id).limit(step).subquery()
    last = connection.execute(select(func.max(taken.c.id))).scalar()
    if last is None:
        return Pruned(0, None)
    which = (
        q.c.id > after,
        q.c.id <= last,
        q.c.state == State.SETTLED,
        q.c.settled_at < moment(before),
    )
    if write:
        return Pruned(connection.execute(delete(q).where(*which)).rowcount, last)
    found = connection.execute(select(func.count()).select_from(q).where(*which)).scalar_one()
    return Pruned(int(found), last)
