"""List page after page, of a window of creation times or of a Verification: page | transform | write.

Each page is one transaction. A window's upper end is frozen, so that pages do not shift while
attempts are created. A page that fails is asked for again at a smaller size, which restarts its
window: correctness never depends on a list, only the number of requests does.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from etl.database.times import moment
from etl.database.transact import transact
from etl.decide.progress import next_page_size
from etl.errors import (
    ApiContractBroken,
    BadBody,
    BodyTooLarge,
    EtlError,
    NotFound,
    Throttled,
    TransientFailure,
)
from etl.extract import Page, Summary, patiently
from etl.job.stop import Interrupted
from etl.job.tools import Tools
from etl.listing.endless import Bound
from etl.listing.requests import RENEW_S, TRIES
from etl.listing.windows import WAIT_S, WindowLost
from etl.load.finish import finish_page
from etl.queue import windows
from etl.queue.windows import Listing
from etl.records import Attempt, Done, Spent
from etl.transform.attempt import transform

T = TypeVar("T")

SMALLEST_PAGE: Final = 100
RESTARTS: Final = 10

Write = Callable[[Connection, list[Attempt], int], Done]
"""Writes what a page showed, given when it was asked for (ms, the database's clock)."""

Read = Callable[[], tuple[Page, bool]]
"""Reads the next page, and says whether it is a first one."""

GoOn = Callable[[Listing], bool]
"""Says whether the pages left are worth their requests."""


class Lister:
    """List windows for one run, in pages of at most ``largest_page`` attempts."""

    def __init__(self, tools: Tools, *, largest_page: int) -> None:
        self.tools = tools
        self.page_size = largest_page
        self._largest_page = largest_page
        self._good = 0
        self._spent: list[Spent] = []
        # The window being listed, as last written, and when that was (monotonic).
        self._leased: Listing | None = None
        self._leased_at = 0.0
        # The page that another run had reached, by an address that may be out of date.
        self._resumed: str | None = None

    # ---- one request, whatever it asks for

    def ask(self, call: Callable[[], T], *, tries: int = TRIES) -> T:
        """Send one request under the allowance, again after failures that pass.

        A 429 pauses every worker and is asked again. Raises ``Interrupted`` when the run shall
        end, ``WindowLost``, and what the API answers.
        """
        while True:
            try:
                return patiently(
                    lambda: self._once(call), permit=lambda: None, sleep=self.tools.stop.sleep,
                    may_retry=lambda: not self.tools.stop.is_set(), tries=tries,
                )  # fmt: skip
            except Throttled as error:
                self.tools.counts.throttled += 1
                self._pause(error)

    def _once(self, call: Callable[[], T]) -> T:
        slot = self._slot()
        self.tools.counts.requests += 1
        try:
            answer = call()
        except (TransientFailure, BadBody) as error:
            self.tools.breaker.failed(str(error))
            raise
        except EtlError:
            self.tools.breaker.answered()
            raise
        else:
            self.tools.breaker.answered()
            return answer
        finally:
            self._spent.append(Spent(slot, time.monotonic()))

    def _slot(self) -> int | None:
        while True:
            if self.tools.stop.is_set():
                raise Interrupted
            self._keep()
            try:
                slot = self.tools.permits.acquire(timeout_s=1.0)
            except Throttled:
                self.tools.counts.waiting_for = "the allowance"
                self.tools.watch(self.tools.counts)
            else:
                self.tools.counts.waiting_for = ""
                return slot

    def _keep(self) -> None:
        """Renew the lease of the window being listed, for a pause may last far longer."""
        listing = self._leased
        if listing is None or time.monotonic() - self._leased_at < RENEW_S:
            return

        def work(connection: Connection) -> bool:
            return windows.advance(connection, listing, now=self.tools.clock(connection))

        if not transact(self.tools.engine, work, doing="keeping a window"):
            raise WindowLost
        self._leased_at = time.monotonic()

    def _pause(self, error: Throttled) -> None:
        def work(connection: Connection) -> None:
            self.settle(connection)
            self.tools.permits.pause(connection, error.retry_after_ms, self.tools.clock(connection))

        transact(self.tools.engine, work, doing="pausing after a 429")
        self.settled()
        if self.tools.permits.limited:
            return
        until = (
            time.monotonic() + self.tools.permits.allowance.pause_ms(error.retry_after_ms) / 1000
        )
        while (left := until - time.monotonic()) > 0 and not self.tools.stop.is_set():
            self.tools.stop.sleep(min(left, RENEW_S))
            self._keep()

    def count(self, start: int, end: int, **only: str | None) -> Summary:
        """Ask the Summary of a window (ms, half open), ``only`` of a part; raise as ``ask`` does."""
        call = partial(self.tools.api.summary, after=moment(start), before=moment(end), **only)
        try:
            return self.ask(call)
        finally:
            # Its slot comes free a window after this, and not after the longest it might have taken.
            transact(self.tools.engine, self.settle, doing="giving a slot back")
            self.settled()
            self.tools.watch(self.tools.counts)

    def total(self, start: int, end: int, service: str) -> int | None:
        """Ask how many attempts a window holds; None when the Summary cannot be read."""
        with suppress(TransientFailure, BadBody, BodyTooLarge, NotFound):
            return self.count(start, end, service_sid=service or None).total
        return None

    def settle(self, connection: Connection) -> None:
        """Write when the slots of answered requests come free, in the caller's transaction."""
        read_at = time.monotonic()
        self.tools.permits.give_back(
            connection, self._spent, now=self.tools.clock(connection), read_at=read_at
        )

    def settled(self) -> None:
        """Forget them, once that is committed."""
        self.tools.permits.given_back(self._spent)
        self._spent = []

    def follow(self, read: Read, take: Callable[[Page], bool], bound: Bound) -> bool:
        """Read and take pages to the last one, or until ``take`` says no; say whether it was that."""
        while True:
            page, anew = read()
            bound.leads_on(page, anew=anew)
            more = take(page)
            self.tools.watch(self.tools.counts)
            if page.next_url is None or not more:
                return page.next_url is None

    def take(
        self, page: Page, write: Write, *, only: Callable[[Attempt], bool] = lambda _: True
    ) -> int:
        """Write a page in one transaction; return how many attempts of it were wanted."""
        read = [transform(payload, sid=None) for payload in page.payloads]
        found = [attempt for attempt in read if isinstance(attempt, Attempt)]
        wanted = [attempt for attempt in found if only(attempt)]

        def work(connection: Connection) -> Done:
            # In this order: a clock that is slow to read makes the page look older, never newer.
            now = self.tools.clock(connection)
            since = int((time.monotonic() - page.sent_at) * 1000)
            done = write(connection, wanted, now - since)
            self.settle(connection)
            return done

        done = transact(self.tools.engine, work, doing="writing listed attempts")
        self.settled()
        self.tools.counts.listed += len(page.payloads)
        self.tools.counts.warnings += len(read) - len(found)
        self.tools.counts.add(done)
        return len(wanted)

    def store(
        self, connection: Connection, listed: list[Attempt], sent_at: int, *, discover: bool
    ) -> Done:
        """Write what a page showed and somebody waits for; with ``discover`` all of it."""
        tools = self.tools
        return finish_page(
            connection, listed, sent_at=sent_at, policy=tools.policy, accounts=tools.accounts,
            discover=discover, clock=tools.clock, refusals=len(tools.counts.refused),
        )  # fmt: skip

    # ---- a window

    def _mine(self, connection: Connection) -> dict[str, Any]:
        tools = self.tools
        return {"account": tools.account, "worker": tools.worker, "now": tools.clock(connection)}

    def resume(self, purpose: str, scope: str | None = None) -> Listing | None:
        """Take over a window whose worker is gone, if there is one."""

        def work(connection: Connection) -> Listing | None:
            mine = self._mine(connection)
            return windows.resume(connection, purpose=purpose, scope=scope, **mine)

        return transact(self.tools.engine, work, doing="resuming a window")

    def begin(self, purpose: str, start: int, end: int, scope: str = "") -> Listing | None:
        """Lease a new window of creation times (ms, half open); None: another worker lists of it."""
        window: dict[str, Any] = {"purpose": purpose, "start": start, "end": end, "scope": scope}

        def work(connection: Connection) -> Listing | None:
            mine = self._mine(connection)
            return windows.begin(connection, page_size=self.page_size, **window, **mine)

        return transact(self.tools.engine, work, doing="starting a window")

    def wait_for_others(self, scope: str) -> None:
        """Wait until no other worker is listing this scope: what it shows need not be asked twice.

        Raises ``Interrupted`` when the run shall end.
        """

        def busy(connection: Connection) -> bool:
            now = self.tools.clock(connection)
            return bool(windows.live(connection, account=self.tools.account, now=now, scope=scope))

        while transact(self.tools.engine, busy, doing="looking for other workers"):
            self.tools.counts.waiting_for = "another worker's sweep"
            self.tools.watch(self.tools.counts)
            self.tools.stop.sleep(WAIT_S)
            if self.tools.stop.is_set():
                raise Interrupted
        self.tools.counts.waiting_for = ""

    def window(self, listing: Listing, *, write: Write, go_on: GoOn, expected: int = 0) -> Listing:
        """List a window until its end, or until ``go_on`` says no; return how far it came.

        ``expected``: how many attempts the Summary counts in it at most, if that is known.
        Raises ``Interrupted`` after the lease is given up, when the run shall end, ``WindowLost``
        when another worker has it, and ``TransientFailure`` when even the smallest page fails.
        """

        def read() -> tuple[Page, bool]:
            nonlocal listing
            page, reached = self._page(listing)
            anew, listing = reached is not listing, reached
            return page, anew

        def written(page: Page) -> bool:
            nonlocal listing
            listing = self._advance(listing, page, write)
            if page.next_url is not None:
                bound.may_go_on(pages=listing.pages, seen=listing.seen)
            return page.next_url is None or go_on(listing)

        total = partial(self.total, listing.start, listing.end, listing.scope)
        bound = Bound(total, expected=expected)
        self._leased, self._leased_at, self._resumed = listing, time.monotonic(), listing.next_page
        try:
            whole = self.follow(read, written, bound)
        except BaseException as error:
            if isinstance(error, ApiContractBroken):
                # What its pages led to is not worth coming back to.
                listing = listing.restarted(listing.page_size)
            # If that fails, too, the lease runs out by itself.
            with suppress(Exception):
                self._let_go(listing)
            raise
        finally:
            self._leased = None
        self.end(listing, windows.DONE if whole else windows.ABANDONED)
        return replace(listing, whole=whole)

    def _page(self, listing: Listing) -> tuple[Page, Listing]:
        """Read the next page; after a failure, the first one again at a smaller size."""
        for _ in range(RESTARTS):
            tries = 1 if listing.page_size > SMALLEST_PAGE else TRIES
            try:
                page = self.ask(self._call(listing), tries=tries)
            except TransientFailure:
                size = next_page_size(
                    listing.page_size, failed=True, good_in_a_row=0, largest=self._largest_page
                )
                if size >= listing.page_size:
                    raise
                listing = listing.restarted(size)
                self.page_size, self._good = size, 0
            except (BadBody, NotFound, ApiContractBroken) as error:
                # An address of a next page may not live for ever; the first page always does. One
                # that was refused leads elsewhere: where the API was when it was stored, or not.
                resumed, self._resumed = self._resumed, None
                old = listing.next_page is not None and listing.next_page == resumed
                if listing.next_page is None or (isinstance(error, ApiContractBroken) and not old):
                    raise
                listing = listing.restarted(self.page_size)
            else:
                self._grow(listing.page_size)
                return page, listing
        msg = "The list of attempts cannot be read to its end."
        raise TransientFailure(msg)

    def _grow(self, size: int) -> None:
        """Count a good page, and let those of later windows grow after some of today's size."""
        if size != self.page_size:
            return
        self._good += 1
        self.page_size = next_page_size(
            size, failed=False, good_in_a_row=self._good, largest=self._largest_page
        )
        if self.page_size != size:
            self._good = 0

    def _call(self, listing: Listing) -> Callable[[], Page]:
        if listing.next_page is not None:
            return partial(self.tools.api.next_page, listing.next_page)
        return partial(
            self.tools.api.page,
            page_size=listing.page_size,
            after=moment(listing.start),
            before=moment(listing.end),
            service_sid=listing.scope or None,
        )

    def _advance(self, listing: Listing, page: Page, write: Write) -> Listing:
        """Write a page and, fenced, how far the window has come with it."""
        further = listing

        def fenced(connection: Connection, found: list[Attempt], sent_at: int) -> Done:
            nonlocal further
            done = write(connection, found, sent_at)
            further = replace(
                listing,
                next_page=page.next_url,
                pages=listing.pages + 1,
                seen=listing.seen + len(page.payloads),
                matched=listing.matched + sum(done.states.values()),
            )
            if not windows.advance(connection, further, now=done.now):
                raise WindowLost
            return done

        self.take(page, fenced)
        self._leased, self._leased_at = further, time.monotonic()
        return further

    def end(self, listing: Listing, state: str) -> None:
        """Close a window as done or abandoned."""

        def work(connection: Connection) -> None:
            windows.end(connection, listing, state, now=self.tools.clock(connection))

        transact(self.tools.engine, work, doing="closing a window")

    def _let_go(self, listing: Listing) -> None:
        def work(connection: Connection) -> None:
            windows.let_go(connection, listing, now=self.tools.clock(connection))
            self.settle(connection)

        transact(self.tools.engine, work, doing="leaving a window", patience_s=5)
        self.settled()
