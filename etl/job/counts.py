"""Count what a run does. ``run --json`` prints the counts and ``sync_runs.did`` keeps them."""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etl.records import Unreadable

if TYPE_CHECKING:
    from etl.records import Done, Lease

RATE_OVER_S = 5.0


@dataclass(slots=True)
class Counts:
    """Count rows and requests of one run."""

    claimed: int = 0
    requests: int = 0
    fetched: int = 0
    settled: int = 0
    refresh: int = 0
    retry: int = 0
    dead: int = 0
    given_back: int = 0
    discarded: int = 0
    throttled: int = 0
    changes: int = 0
    listed: int = 0
    enqueued: int = 0
    already_final: int = 0
    unreadable: Unreadable = field(default_factory=Unreadable)
    differences: int = 0
    compared: int = 0
    waiting_for: str = ""
    refused: list["Lease"] = field(default_factory=list)
    """Rows that the database refused since it last took one."""
    started: float = field(default_factory=time.monotonic)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, done: "Done") -> None:
        """Add what one finishing transaction did."""
        self.fetched += done.fetched
        self.given_back += done.given_back
        self.discarded += done.discarded
        self.changes += done.changes
        for kind, (count, sid) in done.unreadable.items():
            self.unreadable.note(kind, sid, count)
        self.enqueued += done.enqueued
        self.refused = [] if done.fetched else self.refused + done.refused
        for state, count in done.states.items():
            setattr(self, state, getattr(self, state) + count)

    @property
    def finished(self) -> int:
        """Count the rows that have reached a next state."""
        return self.settled + self.already_final + self.refresh + self.retry + self.dead

    @property
    def progress(self) -> int:
        """Count all that the run has done, of any kind."""
        return self.finished + self.listed + self.enqueued + self.compared

    def rate(self) -> float:
        """Return requests a second over the last few seconds."""
        now = time.monotonic()
        if not self._recent or now - self._recent[-1][0] >= RATE_OVER_S / 20:
            self._recent.append((now, self.requests))
        while len(self._recent) > 1 and now - self._recent[0][0] > RATE_OVER_S:
            self._recent.popleft()
        since, before = self._recent[0]
        return (self.requests - before) / max(now - since, 0.1)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts under their documented names."""
        warnings = sum(count for count, _ in self.unreadable.values())
        names = (
            "claimed", "requests", "fetched", "settled", "refresh", "retry", "dead", "given_back",
            "discarded", "throttled", "changes", "listed", "enqueued", "already_final",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names} | {
            "warnings": warnings,
            "unreadable": self.unreadable.as_dict(),
            "seconds": round(time.monotonic() - self.started, 3),
        }
