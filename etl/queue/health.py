"""Read what a monitor asks: who is dead, who waits too long, who will be lost, who ran last."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from etl.allowance.slots import Allowance
from etl.database.dialects import dialect
from etl.database.schema import attempt_queue as q
from etl.database.schema import sync_runs
from etl.database.times import moment_ms
from etl.errors import Exit
from etl.queue.status import Outlook, count_dead, look_ahead
from etl.records import State

DRAINS = ("run", "discover")
"""The commands that bring the queue on."""


@dataclass(frozen=True, slots=True)
class Health:
    """Hold what ``check`` judges. Times are epoch milliseconds, None where there is none.

    ``waiting_since``: when the SID that has waited longest was enqueued or came due. SIDs that a run
    has begun with are in its care. ``ran_at``: when a run last ended well.
    """

    dead: dict[str, int]
    waiting_since: int | None
    ahead: Outlook
    ran_at: int | None
    last_error: str | None


def read(  # noqa: PLR0913 - what the forecast depends on
    connection: Connection,
    *,
    allowance: Allowance,
    retention: int,
    page_size: int,
    dead_since: int | None,
    now: int,
) -> Health:
    """Read all of it in one transaction, without writing."""
    ran = select(sync_runs.c.exit_code, sync_runs.c.ended_at, sync_runs.c.error)
    ran = ran.where(sync_runs.c.command.in_(DRAINS), sync_runs.c.ended_at.is_not(None))
    ran = ran.order_by(sync_runs.c.id.desc()).limit(1)
    last = connection.execute(ran).first()
    # Dead rows have their own line: a run that only found some did its work.
    good = connection.execute(ran.where(sync_runs.c.exit_code.in_((Exit.OK, Exit.DATA)))).first()
    return Health(
        dead=count_dead(connection, since=dead_since),
        waiting_since=_waiting_since(connection, now),
        ahead=look_ahead(
            connection, allowance=allowance, retention=retention, page_size=page_size, now=now
        ),
        ran_at=None if good is None else moment_ms(good.ended_at),
        last_error=None if last is None or last.exit_code in {Exit.OK, Exit.DATA} else last.error,
    )


def _waiting_since(connection: Connection, now: int) -> int | None:
    """Return since when the first row waits that no run has taken up."""
    # Ids are given in the order of enqueueing.
    new = (q.c.state == State.PENDING, q.c.fetches == 0, q.c.attempts == 0)
    first = select(func.min(q.c.id)).where(*new).scalar_subquery()
    enqueued_at = dialect(connection).as_written(q.c.enqueued_at)
    since = [moment_ms(connection.execute(select(enqueued_at).where(q.c.id == first)).scalar())]
    for state in (State.RETRY, State.REFRESH):
        due = select(func.min(q.c.due_at)).where(q.c.state == state, q.c.due_at <= now)
        since.append(connection.execute(due).scalar())
    return min((at for at in since if at is not None), default=None)
