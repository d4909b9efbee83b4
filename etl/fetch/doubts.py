"""Hold failures until it is known whether the rows or the API are to blame."""

import time
from collections import deque
from typing import Final

from etl.fetch.threads import UNSENT_BELOW_S
from etl.job.breaker import Breaker
from etl.queue.attempts import LEASE_MS
from etl.records import Result

DOUBT_S: Final = LEASE_MS / 1000 - UNSENT_BELOW_S
"""A failure waits so long after its claim. Then its lease is about to run out."""


class Doubts:
    """Hold results that failed, the oldest first."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._held: deque[Result] = deque()

    def __len__(self) -> int:
        return len(self._held)

    def ids(self) -> set[int]:
        """Return the ids of the rows in doubt."""
        return {result.lease.id for result in self._held}

    def add(self, result: Result) -> None:
        """Take a failure in."""
        self._held.append(result)

    def certain(self, *, over: bool) -> list[Result]:
        """Return what is known by now; rows that are not to blame have no failure any more.

        ``over``: nothing is left that could tell.
        """
        if over and self._held:
            self._breaker.nothing_left()
        known = []
        while self._held:
            result = self._held[0]
            if self._breaker.reason:
                result.failed = None
            elif self._breaker.streak and not over:
                if time.monotonic() - result.claimed_at < DOUBT_S:
                    break
                result.failed = None
            known.append(self._held.popleft())
        return known
