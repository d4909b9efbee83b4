"""Keep the account's allowance: so many requests in any window of time."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Limiter:
    """Admit `limit` requests in any `window` seconds. Refused ones are counted and cost nothing.

    With `fixed`, windows begin at multiples of their length instead of sliding, as the API's might.
    A limit of 0 admits everything, but peaks are still recorded.
    """

    def __init__(
        self,
        limit: int,
        window: float,
        *,
        fixed: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with an empty window. The clock is monotonic seconds."""
        self.limit = limit
        self.window = window
        self.fixed = fixed
        self._clock = clock
        self._lock = threading.Lock()
        self._accepted: deque[float] = deque()
        self._seen: deque[float] = deque()
        self.reset()

    def reset(self) -> None:
        """Forget the peaks and counts, but not the window's requests."""
        self.accepted = 0
        self.refused = 0
        self.peak = 0
        self.peak_seen = 0

    def admit(self) -> float:
        """Take one request; return 0.0 if it is admitted, else seconds until one would be.

        The peaks count the requests of one window's length before each request, refused ones too.
        """
        with self._lock:
            now = self._clock()
            self._seen.append(now)
            self.peak_seen = max(self.peak_seen, _within(self._seen, now - self.window))
            inside = _within(self._accepted, now - self.window)
            wait = self._wait(now, inside)
            if wait > 0:
                self.refused += 1
                return wait
            self._accepted.append(now)
            self.accepted += 1
            self.peak = max(self.peak, inside + 1)
            return 0.0

    def _wait(self, now: float, inside: int) -> float:
        if self.limit <= 0:
            return 0.0
        if self.fixed:
            begin = now // self.window * self.window
            taken = sum(1 for moment in self._accepted if moment >= begin)
            return 0.0 if taken < self.limit else begin + self.window - now
        if inside < self.limit:
            return 0.0
        # This one must leave first, and more than one if the limit was lowered.
        return max(self._accepted[inside - self.limit] + self.window - now, 0.001)


def _within(moments: deque[float], since: float) -> int:
    """Drop the moments up to `since` and count the others."""
    while moments and moments[0] <= since:
        moments.popleft()
    return len(moments)
