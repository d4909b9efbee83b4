"""Tell whether the API is down or rows fail, and bound the run's retries.

Threads report every request here. After ``DOUBT`` failures in a row, single rows from elsewhere in
the queue are tried as probes. If one succeeds, the rows are to blame. After ``LIMIT`` failures only
probes are sent. If these fail as well, the breaker opens and the run is over. The rows go back
uncounted, for the API failed and not they.
"""

import threading
from typing import Final

DOUBT: Final = 3
"""After this many failures in a row, as many as one row makes: is it the row, or the API?"""

LIMIT: Final = 10
"""Failures in a row, over all threads, that mean the API is down unless a probe succeeds."""

BURST: Final = 2
SHARE: Final = 0.2
"""Second and third tries are at most this share of the first ones (or ``BURST``)."""


class Breaker:
    """Count requests, failures in a row and retries. Threads may share it."""

    def __init__(self) -> None:
        # Why it is open; empty while it is closed.
        self.reason = ""
        # Failures since the API last answered as itself, and the probes among them.
        self.streak = 0
        self.probes = 0
        self._lock = threading.Lock()
        self._firsts = 0
        self._retries = 0
        self._last = ""
        self._reached = False
        self._unreachable = ""

    @property
    def doubtful(self) -> bool:
        """Say whether a probe must tell which fails, the API or the rows."""
        return self.streak >= DOUBT

    @property
    def tripped(self) -> bool:
        """Say whether the API counts as down unless a probe succeeds."""
        return self.streak >= LIMIT

    def first_try(self) -> None:
        """Note that a row's first request is about to be sent."""
        with self._lock:
            self._firsts += 1

    def answered(self) -> None:
        """Note an answer of the API's own, even a refusal."""
        with self._lock:
            self.streak = self.probes = 0
            self._reached = True

    def failed(self, error: str, *, reached: bool | None = None, probe: bool = False) -> None:
        """Note a failed request, or an answer that was not the API's own.

        ``reached`` says whether it could be sent at all, None if unknown.
        """
        with self._lock:
            self.streak += 1
            self.probes += probe
            self._last = error
            self._reached = self._reached or bool(reached)
            if reached is False:
                self._unreachable = error

    def open(self) -> None:
        """Note that the API is down, unless it has answered meanwhile."""
        with self._lock:
            if self.streak >= LIMIT and not self.reason:
                self.reason = self._last

    def nothing_left(self) -> None:
        """Note that no row is left to try. If none reached the API, it is down.

        So a queue shorter than ``LIMIT`` does not pay for a network that is out.
        """
        self.open()
        with self._lock:
            if not self._reached and not self.reason:
                self.reason = self._unreachable

    def may_retry(self) -> bool:
        """Spend one retry of the run's budget, if one is left and it may help."""
        with self._lock:
            vain = self.reason or self.streak >= LIMIT
            if vain or self._retries >= max(BURST, int(self._firsts * SHARE)):
                return False
            self._retries += 1
            return True
