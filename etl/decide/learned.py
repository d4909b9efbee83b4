"""Keep what one run has learned; each finding makes a new value."""

from dataclasses import dataclass, replace

from etl.decide import rules
from etl.decide.progress import SweepProgress
from etl.decide.values import Bucket, Density, Waiting, Window


@dataclass(frozen=True, slots=True)
class Learned:
    """Hold the counts of windows, and what became of their sweeps."""

    counted: tuple[Bucket, ...] = ()
    swept: tuple[Window, ...] = ()
    """Windows listed to their end."""
    own: tuple[Window, ...] = ()
    """Those of them whose every page this run has read."""
    singly: tuple[Window, ...] = ()
    """Windows given up: what waits there is fetched singly."""
    grown: frozenset[int] = frozenset()
    """Sizes of larger pages for which a window was given up."""
    asked: int = 0
    failed: int = 0
    listed: bool = True
    """SIDs of unknown age, and Verifications, are on pages at all."""
    works: bool = True
    """Lists and Summaries can be read."""

    def apply(self, waiting: Waiting, density: Density, *, behind: int) -> tuple[Waiting, Density]:
        """Return what the planner is given; ``behind`` as in ``Density``."""
        if not self.listed:
            singly = waiting.expired + waiting.unknown + waiting.verifications
            waiting = replace(waiting, unknown=0, verifications=0, expired=singly)
        counted = (*density.counted, *self.counted)
        return replace(waiting, swept=self.swept), replace(
            density, counted=counted, asked=self.asked, failed=self.failed, behind=behind
        )

    def answered(self, window: Window, count: int) -> "Learned":
        """Note the Summary of a window."""
        return replace(self._counting(window, count), asked=self.asked + 1)

    def unreadable(self) -> "Learned":
        """Note that nothing can be asked or listed now."""
        return replace(self, works=False)

    def left(self, window: Window) -> "Learned":
        """Note a window that is not worth listing."""
        return replace(self, singly=(*self.singly, window))

    def finished(
        self, window: Window, *, seen: int, pages: int, planned: int, own: bool
    ) -> "Learned":
        """Note a window listed whole; one far longer than ``planned`` has failed."""
        return replace(
            self._counting(window, seen),
            swept=(*self.swept, window),
            own=(*self.own, window) if own else self.own,
            failed=self.failed + (pages > rules.LONGER * planned + 1),
        )

    def outgrew(self, window: Window, count: int, page_size: int) -> "Learned":
        """Note a window whose rest is planned anew, in larger pages."""
        return replace(self._counting(window, count), grown=self.grown | {page_size})

    def gave_up(self, window: Window, count: int, progress: SweepProgress) -> "Learned":
        """Note a window given up; it has not failed if it has shown its SIDs."""
        again = window in self.singly
        learned = self._counting(window, count).left(window)
        if progress.sids_left <= 1 and not again:
            return learned
        # Given up twice, it would be a third time.
        listed = self.listed and not progress.in_vain and not again
        return replace(learned, listed=listed, failed=self.failed + 1)

    def covers(self, start: int, end: int) -> bool:
        """Say whether this run's own sweeps have listed a whole span."""
        for window in sorted(self.own, key=lambda window: window.start):
            if window.start <= start:
                start = max(start, window.end)
        return start >= end

    def _counting(self, window: Window, count: int) -> "Learned":
        return replace(self, counted=(*self.counted, Bucket(window.start, window.end, count)))
