"""Read the pages of a window or of a Verification: read | transform | write.

Each page is one transaction. A window's upper end is frozen: pages do not shift while attempts are
created. A page that fails is asked for again at a smaller size, from the start of its window. A
wrong list costs requests, never rows.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from sqlalchemy import Connection

from etl.database.times import moment
from etl.decide.progress import next_page_size
from etl.errors import ApiContractBroken, BadBody, NotFound, TransientFailure
from etl.extract import Page
from etl.job.tools import Tools
from etl.listing.endless import Bound
from etl.listing.requests import TRIES, Requests
from etl.listing.windows import WindowLease
from etl.load.finish import finish_page
from etl.queue import windows
from etl.queue.windows import Listing
from etl.records import Attempt, Done, Rejection
from etl.transform.attempt import transform

SMALLEST_PAGE: Final = 100
RESTARTS: Final = 10

Write = Callable[[Connection, list[Attempt], int], Done]
"""Writes the attempts of a page that was asked for at a time (ms, the database's clock)."""

GoOn = Callable[[Listing, Done], bool]
"""Says after a page whether those left are worth their requests."""


class Pages:
    """Read the pages of one run, of at most ``largest`` attempts each."""

    def __init__(self, tools: Tools, *, largest: int) -> None:
        self.tools = tools
        self.lease = WindowLease(tools)
        self.requests = Requests(tools, keep=self.lease.keep)
        self.size = largest
        self._largest = largest
        self._good = 0
        # The page that another run had reached, by an address that may be out of date.
        self._resumed: str | None = None

    # ---- one page

    def take(
        self, page: Page, write: Write, *, only: Callable[[Attempt], bool] = lambda _: True
    ) -> tuple[Done, int]:
        """Write a page in one transaction; also return how many attempts were wanted."""
        counts = self.tools.counts
        read = [transform(payload, sid=None) for payload in page.payloads]
        found = [attempt for attempt in read if isinstance(attempt, Attempt)]
        wanted = [attempt for attempt in found if only(attempt)]

        def work(connection: Connection) -> Done:
            # In this order: a clock that is slow to read makes the page look older, never newer.
            now = self.tools.clock(connection)
            since = int((time.monotonic() - page.sent_at) * 1000)
            return write(connection, wanted, now - since)

        done = self.requests.commit(work, doing="writing listed attempts")
        counts.listed += len(page.payloads)
        for each in read:
            if isinstance(each, Rejection):
                counts.unreadable.note(f"an item of a list: {each.reason}", "")
        counts.add(done)
        return done, len(wanted)

    def store(
        self, connection: Connection, listed: list[Attempt], sent_at: int, *, discover: bool
    ) -> Done:
        """Write the attempts of a page that somebody waits for; with ``discover`` all."""
        tools = self.tools
        return finish_page(
            connection, listed, sent_at=sent_at, policy=tools.policy, accounts=tools.accounts,
            discover=discover, clock=tools.clock, refusals=len(tools.counts.refused),
        )  # fmt: skip

    # ---- a window

    def window(self, listing: Listing, *, write: Write, go_on: GoOn, expected: int = 0) -> Listing:
        """List a window until its end, or until ``go_on`` says no; return how far it came.

        ``expected``: how many attempts the Summary counts in it at most, if that is known. Raises
        ``WindowLost`` when another worker has it, and ``TransientFailure`` when even the smallest
        page fails. Raises ``Interrupted`` when the run shall end, after the lease is given up.
        """
        total = partial(self.requests.total, listing.start, listing.end, listing.scope)
        bound = Bound(total, expected=expected)
        self.lease.hold(listing)
        self._resumed = listing.next_page
        whole = False
        try:
            while not whole:
                page, listing = self._read(listing)
                bound.leads_on(page, anew=listing.next_page is None)
                listing, done = self._advance(listing, page, write)
                self.tools.watch(self.tools.counts)
                whole = page.next_url is None
                if not whole:
                    bound.may_go_on(pages=listing.pages, seen=listing.seen)
                    if not go_on(listing, done):
                        break
        except BaseException as error:
            if isinstance(error, ApiContractBroken):
                # What its pages led to is not worth coming back to.
                listing = listing.restarted(listing.page_size)
            # If that fails, too, the lease runs out by itself.
            with suppress(Exception):
                let_go = partial(self.lease.let_go, listing=listing)
                self.requests.commit(let_go, doing="leaving a window", patience_s=5)
            raise
        finally:
            self.lease.hold(None)
        self.lease.end(listing, windows.DONE if whole else windows.ABANDONED)
        return replace(listing, whole=whole)

    def _read(self, listing: Listing) -> tuple[Page, Listing]:
        """Read the next page; after a failure, the first one in a smaller size."""
        for _ in range(RESTARTS):
            tries = 1 if listing.page_size > SMALLEST_PAGE else TRIES
            try:
                page = self.requests.ask(self._call(listing), tries=tries)
            except TransientFailure:
                size = next_page_size(
                    listing.page_size, failed=True, good_in_a_row=0, largest=self._largest
                )
                if size >= listing.page_size:
                    raise
                listing = listing.restarted(size)
                self.size, self._good = size, 0
            except (BadBody, NotFound, ApiContractBroken) as error:
                # An address of a next page may not live for ever; the first page always does. One
                # that was refused leads elsewhere: where the API was when it was stored, or not.
                resumed, self._resumed = self._resumed, None
                old = listing.next_page is not None and listing.next_page == resumed
                if listing.next_page is None or (isinstance(error, ApiContractBroken) and not old):
                    raise
                listing = listing.restarted(self.size)
            else:
                self._grow(listing.page_size)
                return page, listing
        msg = "The list of attempts cannot be read to its end."
        raise TransientFailure(msg)

    def _grow(self, size: int) -> None:
        """Count a good page; after some of one size later windows get larger ones."""
        if size != self.size:
            return
        self._good += 1
        self.size = next_page_size(
            size, failed=False, good_in_a_row=self._good, largest=self._largest
        )
        if self.size != size:
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

    def _advance(self, listing: Listing, page: Page, write: Write) -> tuple[Listing, Done]:
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
            self.lease.advance(connection, further, now=done.now)
            return done

        done, _ = self.take(page, fenced)
        self.lease.hold(further)
        return further, done
