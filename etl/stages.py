"""Put the stages of a run in their order; ``pipeline`` imports this when something waits."""

from functools import partial
from typing import Final

from sqlalchemy import Connection

from etl import queue
from etl.database import transact
from etl.discover import Asked, Discover
from etl.drain import Drain
from etl.errors import DatabaseBusy, Stop
from etl.listing import Lister
from etl.parts import Job, Parts
from etl.reconcile import Asked as Compared
from etl.reconcile import Line, Reconcile
from etl.sweeping import Sweeper
from etl.verifying import Verifier
from etl.waiting import count_urgent

REPLAN_AFTER: Final = 20
"""So many rows that come due or are enqueued while others are fetched are worth a new plan."""


def drain(parts: Parts, job: Job) -> None:
    """Go the cheapest way and drain the rest; again when more came due meanwhile.

    Raises ``Interrupted`` when the run shall end, and what ends a run.
    """
    singly = partial(Drain, parts, concurrency=job.concurrency)
    if job.strategy == "fetch" or job.limit is not None:
        rest = singly(limit=job.limit)
        rest.run()
        _judge(Verifier(Lister(parts, largest_page=job.page_size)).run(), rest)
        return
    while True:
        lister = Lister(parts, largest_page=job.page_size)
        if _count_urgent(parts):
            Sweeper(lister, strategy=job.strategy, urgent=True).run()
        if urgent := _count_urgent(parts):
            singly(limit=urgent, patient=False).run()
        verifier = Verifier(lister)
        sweeper = Sweeper(lister, strategy=job.strategy, named=verifier.due)
        sweeper.run()
        if sweeper.swept_everything:
            verifier.covered(sweeper.shown)
        deaf = verifier.run()
        rest = singly(planned=_count_pending(parts), replan_after=REPLAN_AFTER)
        if not rest.run():
            _judge(deaf, rest)
            return
        _promote_all(parts)


def _judge(deaf: Stop | None, rest: Drain) -> None:
    """Raise what kept a run from all that it was to do, when it has done the rest."""
    if deaf is not None:
        raise deaf
    if rest.left_locked:
        msg = "SIDs that wait are locked by another program's transaction, which does not end."
        raise DatabaseBusy(msg, hint="Nothing is lost; end that transaction and run it again.")


def discover(parts: Parts, job: Job, asked: Asked) -> None:
    """Load every attempt of a window."""
    Discover(Lister(parts, largest_page=job.page_size)).run(asked)


def reconcile(parts: Parts, job: Job, asked: Compared, found: list[Line]) -> None:
    """Hold a window's rows to Twilio's Summary."""
    Reconcile(Lister(parts, largest_page=job.page_size), found).run(asked)


def _promote_all(parts: Parts) -> None:
    def work(connection: Connection) -> queue.Promoted:
        return queue.promote(connection, parts.clock(connection))

    while True:
        promoted = transact(parts.engine, work, doing="bringing due rows in")
        parts.tally.dead += promoted.dead
        if promoted.changed < queue.PROMOTE_LIMIT:
            return


def _count_pending(parts: Parts) -> int:
    def work(connection: Connection) -> int:
        return queue.pending(connection, parts.accounts)

    return transact(parts.engine, work, doing="counting what waits")


def _count_urgent(parts: Parts) -> int:
    def work(connection: Connection) -> int:
        return count_urgent(connection, accounts=parts.accounts, now=parts.clock(connection))

    return transact(parts.engine, work, doing="counting what is about to be lost")
