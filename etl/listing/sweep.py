"""Choose the cheapest way and go it: plan | ask or sweep | learn | plan again; the rest is drained.

SIDs that a sweep does not find are fetched singly afterwards. A list that is unordered, incomplete
or wrong costs requests, never rows.
"""

from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from typing import Final

from sqlalchemy import Connection

from etl.database.bounds import PATIENT
from etl.database.transact import transact
from etl.decide.learned import Learned
from etl.decide.plan import plan
from etl.decide.progress import SweepProgress
from etl.decide.values import Density, Strategy, Sweep, Waiting, Window
from etl.listing.pages import Pages
from etl.listing.requests import UNREADABLE
from etl.listing.windows import WindowLost
from etl.queue import windows
from etl.queue.waiting import read_density, read_waiting
from etl.queue.windows import Listing
from etl.records import Attempt, Done

PLANS: Final = 200
"""The most plans of one run. Each ends in a request: only a bug comes this far."""

PURPOSE: Final = "sweep"

Named = Callable[[], Collection[str]]
"""Reads the Verifications that are due. There may be a million; most runs need none of them."""


class Sweeper:
    """Sweep windows for one run, as long as that is cheaper than fetching.

    ``shown``: Verifications that were due before the first page and have since appeared on one.
    With ``urgent``, it sweeps only for SIDs that the API forgets soon.
    """

    def __init__(
        self, pages: Pages, *, strategy: Strategy, named: Named = tuple, urgent: bool = False
    ) -> None:
        self.shown: set[str] = set()
        self._named = cache(lambda: frozenset(named()))
        self._urgent = urgent
        self._pages = pages
        self._tools = pages.tools
        self._strategy = strategy
        self._learned = Learned()
        # The moment the plans of this run are made for: windows asked for must not drift.
        self._now = transact(self._tools.engine, self._tools.clock, doing="reading the clock")
        # Of what is still to be created a list would soon be wrong.
        self._latest = self._now // 1000 * 1000
        self._before = self._tools.counts.requests - self._tools.counts.fetched

    def run(self) -> None:
        """Sweep until the plan says that the rest is better fetched singly.

        Raises ``Interrupted`` when the run shall end, and what ends a run.
        """
        if not self._urgent:
            self._resume()
        for _ in range(PLANS):
            if not self._learned.works:
                return
            waiting, density, busy = self._look()
            waiting, density = self._learned.apply(waiting, density, behind=self._behind)
            made = plan(
                waiting, density, page_size=self._pages.size, now=self._now,
                strategy=self._strategy,
            )  # fmt: skip
            if made.ask:
                self._ask(made.ask)
            elif made.sweeps:
                self._sweep_all(made.sweeps)
            elif busy and not self._urgent:
                self._pages.lease.wait_for_others("")
                self._resume()
            else:
                return

    @property
    def swept_everything(self) -> bool:
        """Say whether this run has listed all that the API remembers."""
        return self._learned.covers(self._now - self._tools.policy.retention, self._latest)

    @property
    def _behind(self) -> int:
        """Count what this has cost so far, less the SIDs it got."""
        return self._tools.counts.requests - self._tools.counts.fetched - self._before

    def _look(self) -> tuple[Waiting, Density, bool]:
        """Read what waits, without what others list and what is better fetched."""
        tools, learned = self._tools, self._learned
        retention = tools.policy.retention

        def work(connection: Connection) -> tuple[Waiting, Density, bool]:
            now = tools.clock(connection)
            busy = windows.live(connection, account=tools.account, now=now, but=tools.worker)
            waiting = read_waiting(
                connection,
                accounts=tools.accounts,
                retention=retention,
                now=self._now,
                busy=busy,
                left_out=[(w.start, w.end) for w in (*learned.singly, *learned.swept)],
                urgent=self._urgent,
            )
            density = read_density(
                connection, waiting, account=tools.account, retention=retention, now=self._now
            )
            return waiting, density, bool(busy)

        engine = tools.engine.execution_options(**PATIENT)
        return transact(engine, work, doing="reading what waits")

    def _ask(self, chosen: Sequence[Window]) -> None:
        for window in chosen:
            try:
                summary = self._pages.requests.count(window.start, window.end)
            except UNREADABLE:
                # Without its answers nothing says that a list is cheaper.
                self._learned = self._learned.unreadable()
                return
            self._learned = self._learned.answered(window, summary.total)

    # ---- sweep

    def _resume(self) -> None:
        """Go on with windows of workers that are gone, if they have something left to find."""
        lease = self._pages.lease
        while self._learned.works and (listing := lease.resume(PURPOSE)) is not None:
            waiting, density, _ = self._look()
            expected = _expect(listing, waiting, density)
            if expected.finds:
                self._list(listing, expected, planned=listing.page_size)
            else:
                lease.end(listing, windows.ABANDONED)

    def _sweep_all(self, chosen: Sequence[Sweep]) -> None:
        """Sweep windows, the most rewarding first, as long as the plan proves right."""
        planned = self._pages.size
        for sweep in sorted(chosen, key=lambda s: s.finds / s.pages, reverse=True):
            end = min(sweep.end, self._latest)
            if end <= sweep.start:
                self._learned = self._learned.left(Window(sweep.start, sweep.end))
                continue
            size = self._pages.size
            listing = self._pages.lease.begin(PURPOSE, sweep.start, end, page_size=size)
            if listing is None or not self._list(listing, sweep, planned=planned):
                return

    def _list(self, listing: Listing, sweep: Sweep, *, planned: int) -> bool:
        """List a window; say whether it was as expected.

        If not, the rest of the plan does not hold either. ``planned``: the size of a page in it.
        """
        # They are read before the first page: it passes by what is enqueued later.
        self._named()
        window = Window(listing.start, listing.end)
        progress = SweepProgress(sweep, planned, behind=max(self._behind, 0))
        go_on = partial(self._goes_on, progress)
        before = self._learned
        try:
            reached = self._pages.window(listing, write=self._write, go_on=go_on)
        except WindowLost:
            # What the other worker does not finish of it is planned again.
            return False
        except UNREADABLE:
            # Lists do not work now; every SID can still be fetched.
            self._learned = before.unreadable()
            return False
        count = round((reached.pages + progress.pages_left) * reached.page_size)
        if reached.whole:
            self._learned = before.finished(
                window, seen=reached.seen, pages=reached.pages,
                planned=sweep.resized(planned, reached.page_size).pages,
                own=listing.next_page is None,
            )  # fmt: skip
        elif self._outgrown(reached, progress):
            self._learned = before.outgrew(window, count, self._pages.size)
            return False
        else:
            self._learned = before.gave_up(window, count, progress)
        return self._learned.failed == before.failed

    def _goes_on(self, progress: SweepProgress, listing: Listing, done: Done) -> bool:
        """Say after a page whether to go on."""
        sweep = progress.sweep
        # Refreshes met before their time are welcome, but the plan does not wait for them.
        shown = sum(done.states.values()) - done.unplanned
        # Where all ages are known or guessed from the time of enqueuing, none is unknown.
        guessed = sweep.finds == sweep.known and not self._urgent
        unknown = 0 if guessed else done.ageless
        progress.saw(
            known=max(shown - unknown, 0), unknown=unknown, seen=listing.pages,
            page_size=listing.page_size,
        )  # fmt: skip
        if self._outgrown(listing, progress):
            return False
        return self._strategy == "sweep" or progress.worth_going_on

    def _outgrown(self, listing: Listing, progress: SweepProgress) -> bool:
        """Say whether the rest costs fewer requests in pages that may be larger by now."""
        larger = self._pages.size
        # Once for each size: where larger pages always fail, the start would be read for ever.
        return (
            larger > listing.page_size
            and larger not in self._learned.grown
            and progress.outgrown(listing.pages, listing.page_size, larger)
        )

    def _write(self, connection: Connection, listed: list[Attempt], sent_at: int) -> Done:
        done = self._pages.store(connection, listed, sent_at, discover=False)
        self.shown |= self._named().intersection(a.verification_sid or "" for a in listed)
        return done


def _expect(listing: Listing, waiting: Waiting, density: Density) -> Sweep:
    """Estimate what the rest of another worker's window will show."""
    inside = range(listing.start, listing.end)
    known = sum(bucket.count for bucket in waiting.known if bucket.start in inside)
    held = sum(bucket.count for bucket in density.believed if bucket.start in inside)
    pages = max(listing.pages + 1, -(-held // listing.page_size))
    hidden = waiting.unknown
    return Sweep(
        listing.start, listing.end, pages, known + hidden, known, sure=False, unknown=hidden
    )
