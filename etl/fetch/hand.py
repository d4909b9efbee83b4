"""Hold leased rows: sent, in doubt, or answered and not written yet."""

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from etl.fetch.threads import UNSENT_BELOW_S
from etl.job.breaker import Breaker
from etl.queue.attempts import ALONE_AFTER, LEASE_MS
from etl.records import Lease, Result

FLUSH_S: Final = 0.5
"""What has arrived waits at most this long for its transaction."""

BATCH: Final = 500

DOUBT_S: Final = LEASE_MS / 1000 - UNSENT_BELOW_S
"""A failure waits so long after its claim. Then its lease is about to run out."""


class Hand:
    """Hold leases by id, and the results of those that are answered.

    ``in_doubt``: failures, the oldest first, for which the rows or the API may be to blame.
    """

    def __init__(self, breaker: Breaker) -> None:
        self.leases: dict[int, Lease] = {}
        self.in_doubt: deque[Result] = deque()
        self.answered: list[Result] = []
        self._breaker = breaker
        self._since = 0.0

    @property
    def outstanding(self) -> int:
        """Count the rows that have no answer yet."""
        return len(self.leases) - len(self.answered) - len(self.in_doubt)

    @property
    def has_suspect(self) -> bool:
        """Say whether a row without an answer may have killed its process before."""
        known = {result.lease.id for result in self.in_doubt}
        return any(
            lease.lost_leases >= ALONE_AFTER and lease.id not in known
            for lease in self.leases.values()
        )

    @property
    def flush_at(self) -> float:
        """Say when what is answered must be written (monotonic)."""
        return self._since + FLUSH_S if self.answered else math.inf

    def answer(self, result: Result) -> None:
        """Take in a result that can be written."""
        if not self.answered:
            self._since = time.monotonic()
        self.answered.append(result)

    def clear_doubts(self, *, over: bool) -> None:
        """Let failures be written once it is known who is to blame.

        Rows that are not to blame have no failure any more. ``over``: nothing is left that could
        tell.
        """
        if over and self.in_doubt:
            self._breaker.nothing_left()
        while self.in_doubt:
            result = self.in_doubt[0]
            if self._breaker.reason:
                result.failed = None
            elif self._breaker.streak and not over:
                if time.monotonic() - result.claimed_at < DOUBT_S:
                    break
                result.failed = None
            self.answer(self.in_doubt.popleft())

    def batch(self) -> list[Result]:
        """Return what is to be written now; nothing while more may join it."""
        full = len(self.answered) >= BATCH or len(self.answered) == len(self.leases)
        due = self._breaker.tripped or time.monotonic() >= self.flush_at
        return self.answered[:BATCH] if full or due else []

    def drop(self, batch: Sequence[Result]) -> None:
        """Let go of a batch that is written."""
        for result in batch:
            del self.leases[result.lease.id]
        del self.answered[: len(batch)]
        self._since = time.monotonic()
