"""Say how much a drain may take, and how long it waits for what it cannot have."""

import sys
import time

from etl.job.counts import Counts


class Quota:
    """Count what a drain has taken against its ``limit`` and its plan.

    ``replan_after``: so many rows that are new since ``planned`` are worth a new plan.
    """

    def __init__(
        self,
        counts: Counts,
        *,
        limit: int | None = None,
        planned: int = 0,
        replan_after: int | None = None,
    ) -> None:
        self._counts = counts
        self._limit = sys.maxsize if limit is None else limit
        self._planned = planned
        self._replan_after = sys.maxsize if replan_after is None else replan_after
        self._before = counts.claimed - counts.given_back

    @property
    def left(self) -> int:
        """Say how many rows may still be claimed."""
        return self._limit - self._taken

    def replans(self, promoted: int) -> bool:
        """Say whether enough rows came due or were enqueued beyond those planned."""
        return promoted + max(self._taken - self._planned, 0) >= self._replan_after

    @property
    def _taken(self) -> int:
        return self._counts.claimed - self._counts.given_back - self._before


class Locked:
    """Wait for rows that cannot be claimed, longer each time, but not for ever."""

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
