"""Count this process's own requests, by its monotonic clock."""

from collections import deque

from etl.allowance.slots import Allowance


class Pace:
    """Count the requests of one window.

    The slots trust the database's clock. If it jumps forward, each process still keeps its own
    count. Times are seconds of ``time.monotonic``.
    """

    def __init__(self, allowance: Allowance) -> None:
        self._requests = allowance.requests
        self._window_s = allowance.window_ms / 1000
        self._answered: deque[float] = deque()
        self._in_hand = 0

    def room(self, now: float) -> int:
        """Return how many requests may be sent now."""
        while self._answered and self._answered[0] <= now - self._window_s:
            self._answered.popleft()
        return self._requests - self._in_hand - len(self._answered)

    def wait_until(self) -> float | None:
        """Return when a request leaves the window, None if only answers can make room."""
        return self._answered[0] + self._window_s if self._answered else None

    def take(self, count: int) -> None:
        """Count requests that are about to be sent."""
        self._in_hand += count

    def release(self, answered_at: float | None) -> None:
        """Count an answer or, with None, a request that was never sent."""
        self._in_hand -= 1
        if answered_at is not None:
            self._answered.append(answered_at)
