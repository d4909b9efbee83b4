"""Put the stages of a run in order. ``pipeline`` imports this when there is work."""

from functools import partial
from typing import Final

from sqlalchemy import Connection

from etl.database.transact import transact
from etl.errors import DatabaseBusy, Stop
from etl.fetch.drain import Drain
from etl.fetch.limits import Quota
from etl.job.tools import Job, Tools
from etl.listing.discover import Discover, DiscoverOptions
from etl.listing.due import DueVerifications
from etl.listing.pages import Pages
from etl.listing.reconcile import DayLine, Reconcile
from etl.listing.reconcile import ReconcileOptions as Compared
from etl.listing.sweep import Sweeper
from etl.listing.verifications import Verifications
from etl.queue import attempts
from etl.queue.waiting import count_urgent

REPLAN_AFTER: Final = 20
"""This many rows that come due or are enqueued meanwhile are worth a new plan."""


def drain(tools: Tools, job: Job) -> bool:
    """Go the cheapest way and drain the rest; say whether more came due, worth a new plan.

    Raises ``Interrupted`` when the run must end, and any error that ends it.
    """
    singly = partial(Drain, tools, concurrency=job.concurrency)
    pages, due = Pages(tools, largest=job.page_size), DueVerifications(tools)
    if job.strategy == "fetch" or job.limit is not None:
        rest = singly(Quota(tools.counts, limit=job.limit))
        rest.run()
        _judge(Verifications(pages, due).run(), rest)
        return False
    if _count_urgent(tools):
        Sweeper(pages, strategy=job.strategy, urgent=True).run()
    if urgent := _count_urgent(tools):
        singly(Quota(tools.counts, limit=urgent), patient=False).run()
    sweeper = Sweeper(pages, strategy=job.strategy, named=due.sids)
    sweeper.run()
    if sweeper.swept_everything:
        due.covered(sweeper.shown)
    unreachable = Verifications(pages, due).run()
    rest = singly(Quota(tools.counts, planned=_count_pending(tools), replan_after=REPLAN_AFTER))
    if rest.run():
        return True
    _judge(unreachable, rest)
    return False


def _judge(unreachable: Stop | None, rest: Drain) -> None:
    """Raise what kept a finished run from part of its work."""
    if unreachable is not None:
        raise unreachable
    if rest.locked.given_up:
        msg = "SIDs that wait are locked by another program's transaction, which does not end."
        raise DatabaseBusy(msg, hint="Nothing is lost; end that transaction and run it again.")


def discover(tools: Tools, job: Job, asked: DiscoverOptions) -> None:
    """Load every attempt of a window."""
    Discover(Pages(tools, largest=job.page_size)).run(asked)


def reconcile(tools: Tools, asked: Compared, found: list[DayLine]) -> None:
    """Hold a window's rows to Twilio's Summary."""
    Reconcile(tools, found).run(asked)


def _count_pending(tools: Tools) -> int:
    work = partial(attempts.pending, accounts=tools.accounts)
    return transact(tools.engine, work, doing="counting what waits")


def _count_urgent(tools: Tools) -> int:
    def work(connection: Connection) -> int:
        return count_urgent(connection, accounts=tools.accounts, now=tools.clock(connection))

    return transact(tools.engine, work, doing="counting what is about to be lost")
