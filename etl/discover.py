"""Load every attempt of a window, queued or not: split | list | upsert + enqueue what can change.

All that a team without a queue needs in cron: each run goes on where what was listed whole first
ends, with an hour's overlap for attempts that the list shows late.
"""

import logging
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Final

from sqlalchemy import Connection

from etl import sweeps
from etl.database import moment, transact
from etl.errors import ApiUnreachable, BadBody, BodyTooLarge, NotFound, TransientFailure
from etl.listing import Lister, WindowLost
from etl.sweeps import Listing

PURPOSE: Final = "discover"
OVERLAP_MS: Final = 3_600_000
SPLIT_FROM_MS: Final = 24 * 3_600_000
"""A longer window is split, so that a page that fails does not restart a month."""

PART: Final = 50_000
"""Attempts in a part of a window."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """Say which creation times (ms, half open) to load, of which service ('' = all)."""

    start: int | None
    end: int | None
    service: str = ""


class Discover:
    """Load windows for one run."""

    def __init__(self, lister: Lister) -> None:
        self._lister = lister
        self._parts = lister.parts

    def run(self, asked: Asked) -> tuple[int, int]:
        """Load a window whole; return its bounds (ms).

        Without a start it begins at the first gap in what was listed whole, less the overlap: of
        several windows asked for, any may have stopped early. Windows whose worker is gone are
        finished first. Raises ``ApiUnreachable`` when the list cannot be read, and ``Interrupted``
        when the run shall end; the next one then goes on at the page this one had reached.
        """
        self._lister.wait_for_others(asked.service)
        while (listing := self._lister.resume(PURPOSE, asked.service)) is not None:
            self._list(listing)
        start, end = self._bounds(asked)
        for begin, until in self._parts_of(start, end, asked.service):
            listing = self._lister.begin(PURPOSE, begin, until, asked.service)
            if listing is None:
                # Another worker was quicker; what it lists without a gap is not listed again.
                self.run(asked if asked.start is None else replace(asked, start=begin))
                break
            self._list(listing)
        return start, end

    def _bounds(self, asked: Asked) -> tuple[int, int]:
        parts = self._parts

        def work(connection: Connection) -> tuple[int, int]:
            now = parts.clock(connection)
            oldest = now - parts.policy.retention
            end = min(now, asked.end or now)
            start = asked.start
            if start is None:
                reached = sweeps.reached(
                    connection,
                    account=parts.account,
                    scope=asked.service,
                    purpose=PURPOSE,
                    since=oldest,
                )
                start = oldest if reached is None else reached - OVERLAP_MS
            # Older ones are forgotten: asking for them costs pages and shows nothing.
            start = max(start, oldest)
            return min(start, end), end

        return transact(parts.engine, work, doing="choosing the window")

    def _parts_of(self, start: int, end: int, service: str) -> list[tuple[int, int]]:
        if start >= end:
            return []
        count = 1
        if end - start > SPLIT_FROM_MS:
            count = max(1, -(-self._total(start, end, service) // PART))
        step = -(-(end - start) // count)
        cuts = [*range(start, end, step), end]
        return list(pairwise(cuts))

    def _total(self, start: int, end: int, service: str) -> int:
        try:
            summary = self._lister.count(start, end, service_sid=service or None)
        except (TransientFailure, BadBody, BodyTooLarge, NotFound):
            return 0
        return summary.total

    def _list(self, listing: Listing) -> None:
        write = partial(self._lister.store, discover=True)
        span = (
            f"from {moment(listing.start):%Y-%m-%d %H:%M} to {moment(listing.end):%Y-%m-%d %H:%M}"
        )
        try:
            self._lister.window(listing, write=write, go_on=lambda _listing: True)
        except WindowLost:
            _log.warning("Another worker lists what was created %s UTC; this one goes on.", span)
        except (TransientFailure, BadBody, BodyTooLarge, NotFound) as error:
            msg = f"The list of what was created {span} UTC could not be read."
            hint = "What was loaded stands; check the network and status, then run it again."
            raise ApiUnreachable(msg, hint=hint) from error
