"""Choose the cheapest way and go it: plan | ask or sweep | learn | plan again; the rest is drained.

What a sweep does not find is fetched singly afterwards, so a list that is unordered, incomplete
or wrong costs requests and never rows.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection

from etl.database.bounds import PATIENT
from etl.database.transact import transact
from etl.decide.plan import plan
from etl.decide.progress import SweepProgress
from etl.decide.values import Bucket, Density, Plan, Strategy, Sweep, Waiting, Window
from etl.errors import BadBody, BodyTooLarge, NotFound, TransientFailure
from etl.listing.pages import Lister
from etl.listing.windows import WindowLost
from etl.queue import windows as windows_
from etl.queue.waiting import read_density, read_waiting
from etl.queue.windows import Listing
from etl.records import Attempt, Done

PLANS: Final = 200
"""The most plans of one run; each ends in a request, so this is a bound for bugs alone."""

PURPOSE: Final = "sweep"

Named = Callable[[], Collection[str]]
"""Reads the Verifications that are due; there may be a million, which most runs need not know."""


class Sweeper:
    """Sweep windows for one run, as long as that is cheaper than fetching.

    ``shown`` are those of the Verifications ``named`` before the first page that a page has shown.
    With ``urgent``, it is worth it for those alone that the API forgets soon.
    """

    def __init__(
        self, lister: Lister, *, strategy: Strategy, named: Named = tuple, urgent: bool = False
    ) -> None:
        self.shown: set[str] = set()
        self._read_named = named
        self._named: frozenset[str] | None = None
        self._urgent = urgent
        self._lister = lister
        self._tools = lister.tools
        self._strategy = strategy
        # The moment the plans of this run are made for: windows asked for must not drift.
        self._now = transact(self._tools.engine, self._tools.clock, doing="reading the clock")
        self._counted: tuple[Bucket, ...] = ()
        self._swept: tuple[Window, ...] = ()
        # Of these the windows whose every page this run has read.
        self._own: tuple[Window, ...] = ()
        self._singly: tuple[Window, ...] = ()
        # Sizes of pages for which a window was given up.
        self._grown: set[int] = set()
        self._asked = 0
        self._failed = 0
        # Of the last page: SIDs of unknown age that it showed, and those that no plan counted on.
        self._ageless = 0
        self._unplanned = 0
        # Of what is still to be created a list would soon be wrong.
        self._latest = self._now // 1000 * 1000
        self._before = self._tools.counts.requests - self._tools.counts.fetched
        self._works = True
        # Whether SIDs of unknown age, and Verifications, are on pages at all.
        self._listed = True

    def run(self) -> None:
        """Sweep until the plan says that the rest is better fetched singly.

        Raises ``Interrupted`` when the run shall end, and what ends a run.
        """
        if not self._urgent:
            self._resume()
        for _ in range(PLANS):
            waiting, density, busy = self._look()
            made = self._plan(waiting, density)
            if not self._works:
                return
            if made.ask:
                self._ask(made.ask)
            elif made.sweeps:
                self._sweep_all(made.sweeps)
            elif busy and not self._urgent:
                self._lister.wait_for_others("")
                self._resume()
            else:
                return

    @property
    def swept_everything(self) -> bool:
        """Say whether this run has listed all that the API remembers, in one window or several."""
        reached = self._now - self._tools.policy.retention
        for window in sorted(self._own, key=lambda w: w.start):
            if window.start <= reached:
                reached = max(reached, window.end)
        return reached >= self._latest

    @property
    def _behind(self) -> int:
        """Count what this has cost so far, less the SIDs it got."""
        return self._tools.counts.requests - self._tools.counts.fetched - self._before

    def _plan(self, waiting: Waiting, density: Density) -> Plan:
        if not self._listed:
            singly = waiting.expired + waiting.unknown + waiting.verifications
            waiting = replace(waiting, unknown=0, verifications=0, expired=singly)
        return plan(
            replace(waiting, swept=self._swept),
            replace(
                density,
                counted=(*density.counted, *self._counted),
                asked=self._asked,
                failed=self._failed,
                behind=self._behind,
            ),
            page_size=self._lister.page_size,
            now=self._now,
            strategy=self._strategy,
        )

    def _look(self) -> tuple[Waiting, Density, bool]:
        """Read what waits, but for what other workers are listing or is better fetched."""

        def work(connection: Connection) -> tuple[Waiting, Density, bool]:
            now = self._tools.clock(connection)
            retention = self._tools.policy.retention
            busy = windows_.live(
                connection, account=self._tools.account, now=now, but=self._tools.worker
            )
            waiting = read_waiting(
                connection,
                accounts=self._tools.accounts,
                retention=retention,
                now=self._now,
                busy=busy,
                left_out=[(w.start, w.end) for w in (*self._singly, *self._swept)],
                urgent=self._urgent,
            )
            density = read_density(
                connection,
                waiting,
                account=self._tools.account,
                retention=retention,
                now=self._now,
            )
            return waiting, density, bool(busy)

        engine = self._tools.engine.execution_options(**PATIENT)
        return transact(engine, work, doing="reading what waits")

    # ---- ask

    def _ask(self, windows: Sequence[Window]) -> None:
        for window in windows:
            self._asked += 1
            try:
                summary = self._lister.count(window.start, window.end)
            except (TransientFailure, BadBody, BodyTooLarge, NotFound):
                # Without its answers nothing says that a list is cheaper.
                self._works = False
                return
            self._learn(window, summary.total)

    def _learn(self, window: Window, count: int) -> None:
        self._counted += (Bucket(window.start, window.end, count),)

    # ---- sweep

    def _resume(self) -> None:
        """Go on with windows whose workers are gone, if what they would find still waits."""
        while self._works and (listing := self._lister.resume(PURPOSE)) is not None:
            waiting, density, _ = self._look()
            expected = _expect(listing, waiting, density)
            if expected.finds:
                self._list(listing, expected, planned=listing.page_size)
            else:
                self._lister.end(listing, windows_.ABANDONED)

    def _sweep_all(self, chosen: Sequence[Sweep]) -> None:
        """Sweep windows, the most rewarding first, for as long as the plan proves right."""
        planned = self._lister.page_size
        for sweep in sorted(chosen, key=lambda s: s.finds / s.pages, reverse=True):
            end = min(sweep.end, self._latest)
            if end <= sweep.start:
                self._singly += (Window(sweep.start, sweep.end),)
                continue
            listing = self._lister.begin(PURPOSE, sweep.start, end)
            if listing is None or not self._list(listing, sweep, planned=planned):
                return

    def _list(self, listing: Listing, sweep: Sweep, *, planned: int) -> bool:
        """List a window planned for pages of a size; say whether it was as expected.

        If not, what else was planned does not hold either.
        """
        if self._named is None:
            self._named = frozenset(self._read_named())
        window = Window(listing.start, listing.end)
        progress = SweepProgress(sweep, planned, behind=max(self._behind, 0))
        whole = listing.next_page is None
        try:
            reached = self._lister.window(
                listing, write=self._write, go_on=self._going_on(progress, listing.matched)
            )
        except WindowLost:
            # What the other worker does not finish of it is planned again.
            return False
        except (TransientFailure, BadBody, BodyTooLarge, NotFound):
            # Lists do not work now; every SID can still be fetched.
            self._works = False
            return False
        if reached.whole:
            self._learn(window, reached.seen)
            self._swept += (window,)
            self._own += (window,) if whole else ()
            pages = sweep.resized(planned, reached.page_size).pages
            as_expected = reached.pages <= 1.25 * pages + 1
            self._failed += not as_expected
            return as_expected
        self._learn(window, round((reached.pages + progress.pages_left) * reached.page_size))
        if self._outgrown(reached, progress):
            # What is still to be found of it is planned anew, in larger pages.
            self._grown.add(self._lister.page_size)
            return False
        again = window in self._singly
        self._singly += (window,)
        if progress.sids_left <= 1 and not again:
            # It has shown what it was listed for.
            return True
        # Given up twice, it would be a third time.
        self._listed = self._listed and not progress.in_vain and not again
        self._failed += 1
        return False

    def _going_on(self, progress: SweepProgress, before: int) -> Callable[[Listing], bool]:
        """Say after each page whether to go on; ``before``: what the window had shown before."""
        sweep, found = progress.sweep, before

        def go_on(listing: Listing) -> bool:
            nonlocal found
            # Refreshes met before their time are welcome, but the plan does not wait for them.
            shown, found = listing.matched - found - self._unplanned, listing.matched
            # Where all ages are known or guessed from the time of enqueuing, none is unknown.
            guessed = sweep.finds == sweep.known and not self._urgent
            unknown = 0 if guessed else self._ageless
            progress.saw(
                known=max(shown - unknown, 0), unknown=unknown, seen=listing.pages,
                page_size=listing.page_size,
            )  # fmt: skip
            if self._outgrown(listing, progress):
                return False
            return self._strategy == "sweep" or progress.worth_going_on

        return go_on

    def _outgrown(self, listing: Listing, progress: SweepProgress) -> bool:
        """Say whether pages may be larger again by now, and the rest then costs fewer requests."""
        larger = self._lister.page_size
        # Once for each size: where larger pages always fail, the start would be read for ever.
        return (
            larger > listing.page_size
            and larger not in self._grown
            and progress.outgrown(listing.pages, listing.page_size, larger)
        )

    def _write(self, connection: Connection, listed: list[Attempt], sent_at: int) -> Done:
        done = self._lister.store(connection, listed, sent_at, discover=False)
        named = self._named or frozenset()
        self.shown |= named.intersection(a.verification_sid or "" for a in listed)
        self._ageless, self._unplanned = done.ageless, done.unplanned
        return done


def _expect(listing: Listing, waiting: Waiting, density: Density) -> Sweep:
    """Say what the rest of a window that somebody else began is expected to show."""
    inside = range(listing.start, listing.end)
    known = sum(bucket.count for bucket in waiting.known if bucket.start in inside)
    held = sum(bucket.count for bucket in density.believed if bucket.start in inside)
    pages = max(listing.pages + 1, -(-held // listing.page_size))
    hidden = waiting.unknown
    return Sweep(
        listing.start, listing.end, pages, known + hidden, known, sure=False, unknown=hidden
    )
