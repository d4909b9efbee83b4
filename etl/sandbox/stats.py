"""Count what the server saw, cheaply enough for millions of requests."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any


class Stats:
    """Count requests by kind and status, and those in hand at the same time.

    One lock guards all, and is taken twice for each request. SIDs are counted only on request,
    since ten million counters would be most of the memory.
    """

    def __init__(self, *, track_sids: bool = False) -> None:
        """Start at zero. `track_sids` counts the fetches of each SID."""
        self.track_sids = track_sids
        self._lock = threading.Lock()
        self._in_hand: Counter[str] = Counter()
        self._concurrency = 0
        self.reset()

    def reset(self) -> None:
        """Forget the counts, but not the requests in hand."""
        with self._lock:
            self._counts: Counter[str] = Counter()
            self._max_concurrency = 0
            self._same_sid = 0
            self._by_status: Counter[int] = Counter()
            self._faults: Counter[str] = Counter()
            self._fetched: Counter[str] = Counter()

    def connected(self) -> None:
        """Count a connection."""
        with self._lock:
            self._counts["connections"] += 1

    def begin(self, sid: str | None) -> int:
        """Count a request as in hand; return how many are."""
        with self._lock:
            self._counts["requests"] += 1
            self._concurrency += 1
            self._max_concurrency = max(self._max_concurrency, self._concurrency)
            if sid is not None:
                self._in_hand[sid] += 1
                if self._in_hand[sid] == 2:  # noqa: PLR2004 - the moment it is fetched twice
                    self._same_sid += 1
            return self._concurrency

    def accept(self, kind: str, sid: str | None) -> None:
        """Count a request that authentication and allowance let pass."""
        with self._lock:
            self._counts[kind] += 1
            if sid is not None and self.track_sids:
                self._fetched[sid] += 1

    def refuse(self) -> None:
        """Count a request with wrong credentials."""
        with self._lock:
            self._counts["unauthorized"] += 1

    def fault(self, kind: str) -> None:
        """Count a fault that struck."""
        with self._lock:
            self._faults[kind] += 1

    def end(self, sid: str | None, status: int) -> None:
        """Count an answer by status. 0 is no whole answer."""
        with self._lock:
            self._concurrency -= 1
            self._by_status[status] += 1
            if sid is not None:
                self._in_hand[sid] -= 1
                if not self._in_hand[sid]:
                    del self._in_hand[sid]

    def report(self) -> dict[str, Any]:
        """Return the counts as of now. `fetches`, `lists` and `summaries` are accepted ones."""
        with self._lock:
            return {
                "requests": self._counts["requests"],
                "fetches": self._counts["fetch"],
                "lists": self._counts["list"],
                "summaries": self._counts["summary"],
                "unauthorized": self._counts["unauthorized"],
                "by_status": dict(self._by_status),
                "faults": dict(self._faults),
                "connections": self._counts["connections"],
                "max_concurrency": self._max_concurrency,
                "concurrent_same_sid": self._same_sid,
                "fetched": Counter(self._fetched),
            }
