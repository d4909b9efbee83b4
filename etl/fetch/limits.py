"""Limit what a drain takes, and how long it waits for locked rows."""

import sys
import time
from dataclasses import dataclass

from etl.job.counts import Counts


@dataclass(slots=True)
class Quota:
    """Count what a drain takes against its ``limit`` and its plan.

    ``replan_after``: so many rows beyond those ``planned`` are worth a new plan. ``promoted``: rows
    that came due meanwhile.
    """

    counts: Counts
    limit: int | None = None
    planned: int = 0
    replan_after: int = sys.maxsize
    promoted: int = 0
    before: int = 0

    def __post_init__(self) -> None:
        self.before = self.taken

    @property
    def taken(self) -> int:
        """Count the rows claimed and not given back."""
        return self.counts.claimed - self.counts.given_back - self.before

    @property
    def left(self) -> int:
        """Say how many rows may still be claimed."""
        return sys.maxsize if self.limit is None else self.limit - self.taken

    @property
    def replans(self) -> bool:
        """Say whether enough rows came due or were enqueued meanwhile."""
        return self.promoted + max(self.taken - self.planned, 0) >= self.replan_after


class Locked:
    """Wait for locked rows, longer each time, but not for ever."""

    def __init__(self, patience_s: float) -> None:
        self.given_up = False
        self._patience_s = patience_s
        # Since when nothing could be claimed though rows wait; 0: not so.
        self._since = 0.0

    def __bool__(self) -> bool:
        return self._since > 0

    def look(self, *, more: bool, alone: bool) -> float:
        """Return the seconds to the next look; ``alone``: there is nothing else to do."""
        now = time.monotonic()
        self._since = (self._since or now) if more else 0.0
        waited = now - self._since if more else 0.0
        self.given_up = alone and waited >= self._patience_s
        return max(waited, 0.1)

    def free(self) -> None:
        """Note that something was claimed or written."""
        self._since = 0.0
