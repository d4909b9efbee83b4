"""Load every attempt of a window, queued or not: split | list | upsert + enqueue what can change.

A team without a queue needs no more than this in cron. Each run goes on at the first gap in what
was listed whole. It overlaps by an hour, for some attempts appear on the list late.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Final

from sqlalchemy import Connection

from etl.database.times import moment
from etl.database.transact import transact
from etl.errors import ApiUnreachable
from etl.listing.pages import Pages
from etl.listing.requests import UNREADABLE
from etl.listing.windows import WindowLost
from etl.queue import windows
from etl.queue.windows import Listing
from etl.records import Done

PURPOSE: Final = "discover"
OVERLAP_MS: Final = 3_600_000
SPLIT_FROM_MS: Final = 24 * 3_600_000
"""A longer window is split: then a page that fails does not restart a month."""

_MINUTE_MS: Final = 60_000

PART: Final = 50_000
"""Attempts in a part of a window."""

SURELY: Final = 0.9
HARDLY: Final = 0.5
"""Below HARDLY x the Summary: fail. Below SURELY x: warn."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DiscoverOptions:
    """Name the creation times (ms, half open) and the service ('' = all) to load."""

    start: int | None
    end: int | None
    service: str = ""


class Discover:
    """Load windows for one run."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._lease = pages.lease
        self._tools = pages.tools

    def run(self, asked: DiscoverOptions) -> tuple[int, int]:
        """Load a window whole; return its bounds (ms).

        Without a start it begins at the first gap in what was listed, less the overlap.
        Windows whose worker is gone are finished first. Raises ``ApiUnreachable`` when the list
        cannot be read, and ``Interrupted`` when the run shall end. The next run then goes on at
        the page this one had reached.
        """
        self._lease.wait_for_others(asked.service)
        done: list[Listing] = []
        while (listing := self._lease.resume(PURPOSE, asked.service)) is not None:
            done += self._list(listing)
        if asked.start is None:
            self._say_unlisted(asked.service)
        start, end = self._bounds(asked)
        # What has just been finished is not listed again, but for what its first pages, read
        # before the break, showed too early.
        for first, last in _without((start, end), done):
            stopped = self._load(first, last, asked.service)
            if stopped is not None:
                # Another worker was quicker; what it lists without a gap is not listed again.
                self.run(asked if asked.start is None else replace(asked, start=stopped))
                break
        return start, end

    def _say_unlisted(self, service: str) -> None:
        """Name what lies before the earliest window, for no run will list it by itself."""
        tools = self._tools

        def work(connection: Connection) -> tuple[int | None, int]:
            first = windows.earliest(
                connection, account=tools.account, scope=service, purpose=PURPOSE
            )
            return first, tools.clock(connection) - tools.policy.retention

        first, oldest = transact(tools.engine, work, doing="looking for what was not listed")
        if first is None or first <= oldest + OVERLAP_MS:
            return
        of = f" --service {service}" if service else ""
        # Rounded up: the window then ends after the first one begins.
        until = moment(first + _MINUTE_MS - 1)
        _log.warning(
            "Attempts created %s were never listed. This loads them: "
            "verify-etl discover --since %s --until %s%s",
            _span(oldest, first), f"{moment(oldest):%Y-%m-%dT%H:%MZ}", f"{until:%Y-%m-%dT%H:%MZ}", of,
        )  # fmt: skip

    def _load(self, start: int, end: int, service: str) -> int | None:
        """List a window in parts; return the start of the first that another worker has."""
        total = 0
        if end - start > SPLIT_FROM_MS:
            total = self._pages.requests.total(start, end, service) or 0
        step = -(-(end - start) // max(1, -(-total // PART)))
        parts: list[tuple[int, int]] = list(pairwise([*range(start, end, step), end]))
        done: list[Listing] = []
        for first, last in parts:
            size = self._pages.size
            listing = self._lease.begin(PURPOSE, first, last, service, page_size=size)
            if listing is None:
                return first
            done += self._list(listing, expected=total)
        if len(done) == len(parts):
            self._compare(start, end, done, total)
        return None

    def _compare(self, start: int, end: int, done: list[Listing], total: int) -> None:
        """Compare the list with the Summary.

        The two need not agree to the last attempt. But a list may have been cut short: then the
        next run lists its windows again.
        """
        seen, span = sum(listing.seen for listing in done), _span(start, end)
        if seen >= SURELY * total:
            return
        said = f"The list showed {seen:,} of {total:,} attempts that the Summary counts {span}"
        if seen >= HARDLY * total:
            _log.warning("%s; verify-etl reconcile says of which days.", said)
            return

        def doubt(connection: Connection) -> None:
            for listing in done:
                windows.doubt(connection, listing)

        transact(self._tools.engine, doubt, doing="reopening windows")
        msg = f"{said}."
        raise ApiUnreachable(msg, hint="What was loaded stands; run it again later.")

    def _bounds(self, asked: DiscoverOptions) -> tuple[int, int]:
        tools = self._tools

        def work(connection: Connection) -> tuple[int, int]:
            now = tools.clock(connection)
            oldest = now - tools.policy.retention
            end = now if asked.end is None else min(now, asked.end)
            start = asked.start
            if start is None:
                reached = windows.reached(
                    connection, account=tools.account, scope=asked.service, purpose=PURPOSE,
                    since=oldest,
                )  # fmt: skip
                start = oldest if reached is None else reached - OVERLAP_MS
            # Older ones are forgotten: asking for them costs pages and shows nothing.
            start = max(start, oldest)
            return min(start, end), end

        return transact(tools.engine, work, doing="choosing the window")

    def _list(self, listing: Listing, *, expected: int = 0) -> list[Listing]:
        """List a window to its end; return nothing if another worker has it."""
        write = partial(self._pages.store, discover=True)
        span = _span(listing.start, listing.end)
        try:
            return [self._pages.window(listing, write=write, go_on=_always, expected=expected)]
        except WindowLost:
            _log.warning("Another worker lists what was created %s; this one goes on.", span)
            return []
        except UNREADABLE as error:
            msg = f"The list of what was created {span} could not be read."
            hint = "What was loaded stands; check the network and status, then run it again."
            raise ApiUnreachable(msg, hint=hint) from error


def _always(_listing: Listing, _done: Done) -> bool:
    return True


def _span(start: int, end: int) -> str:
    return f"from {moment(start):%Y-%m-%d %H:%M} to {moment(end):%Y-%m-%d %H:%M} UTC"


def _without(window: tuple[int, int], done: Iterable[Listing]) -> list[tuple[int, int]]:
    """Return what is left of a window, oldest first; the last part overlaps."""
    left, (start, end) = [], window
    for listing in sorted(done, key=lambda listing: listing.start):
        if start < listing.start:
            left.append((start, min(listing.start, end)))
        start = max(start, listing.end)
    if start < end:
        left.append((max(start - OVERLAP_MS, window[0]) if done else start, end))
    return [(first, last) for first, last in left if first < last]
