"""Follow a sweep: go on, change the size of its pages, or stop."""

import math
from dataclasses import dataclass

from etl.decide import rules
from etl.decide.values import Sweep


@dataclass(slots=True)
class SweepProgress:
    """Follow a sweep; say whether the rest is worth its requests.

    ``page_size``: of the pages that it was planned for; ``behind``: what all had cost before, less
    the SIDs it got. ``known`` and ``unknown``: the SIDs of known and of unknown age that it has
    shown; ``pages_left`` and ``sids_left``: what it is thought to have left, ``hidden`` of them SIDs
    of unknown age.
    """

    sweep: Sweep
    page_size: int
    behind: int = 0
    seen: int = 0
    known: int = 0
    unknown: int = 0
    pages_left: float = 0.0
    sids_left: float = 0.0
    hidden: float = 0.0

    def saw(self, *, known: int, unknown: int, seen: int, page_size: int) -> None:
        """Count what the last page showed; ``seen`` pages have been read, of this size now."""
        sweep = self.sweep.resized(self.page_size, page_size)
        self.known += known
        self.unknown += unknown
        self.seen += 1
        self.pages_left = pages_left(
            sweep, seen=seen, known=self.known, unknown=self.unknown, last=known + unknown
        )
        share = self.pages_left / max(sweep.pages, seen + self.pages_left)
        # What has been found is not left on other pages.
        hoped = (sweep.finds - sweep.known) * share
        self.hidden = min(hoped, max(sweep.unknown - self.unknown, 0.0))
        self.sids_left = max(sweep.known - self.known, 0) + self.hidden

    def outgrown(self, seen: int, size: int, larger: int) -> bool:
        """Say whether the window is better listed from its start in larger pages.

        ``seen`` pages are read again: as many must be gained.
        """
        whole = math.ceil((seen + self.pages_left) * size / larger)
        # What is read again shows nothing new, which must not look as if SIDs were on no page.
        again = math.ceil(seen * size / larger)
        patient = not self.hidden or again + 1 <= rules.MOST_BEHIND + rules.IN_VAIN * self.hidden
        return patient and self.pages_left - whole >= seen

    @property
    def worth_going_on(self) -> bool:
        """Say whether the rest costs less than fetching singly what it would find."""
        return self.pages_left < self.sids_left and not self.in_vain

    @property
    def in_vain(self) -> bool:
        """Say whether far too few SIDs of unknown age have appeared.

        They may not exist at all. First a tenth of the finds hoped for is spent.
        """
        hoped = self.sweep.finds - self.sweep.known
        due = hoped * self.seen / max(self.sweep.pages, self.seen)
        spent = self.behind + self.seen - self.known - self.unknown
        few = due >= rules.FEW_FINDS and rules.WRONG_BY * self.unknown < due
        return few and spent + 1 > rules.MOST_BEHIND + rules.IN_VAIN * hoped


def pages_left(sweep: Sweep, *, seen: int, known: int, unknown: int, last: int) -> float:
    """Estimate the pages that a sweep has left after ``seen`` of them.

    ``known`` and ``unknown``: the SIDs shown of known and of unknown age; ``last``: those on the
    last page. If the count is not sure, SIDs of unknown age tell first how long the list is: they
    lie as the attempts do. Those of known age tell when they outnumber the pages expected. A page
    that paid promises another one. Pages may come in any order.
    """
    if sweep.sure:
        return float(max(sweep.pages - seen, 1))
    hidden = sweep.finds - sweep.known
    missing = max(sweep.finds - known - unknown, 0.0)
    left = float(sweep.pages - seen)
    if hidden * seen / sweep.pages >= rules.TELLING:
        # Of SIDs that lie otherwise than the attempts, the first pages may show none at all.
        left = min(_sown(seen, hidden, unknown), max(rules.WRONG_BY * sweep.pages - seen, 1.0))
    elif left <= 0 or known + unknown >= rules.FEW_FINDS:
        sown = _sown(seen, sweep.finds, known + unknown)
        left = sown if left <= 0 else min(sown, left)
    return max(1.0, min(left, missing / last)) if last >= rules.PAYING else left


def _sown(seen: int, sids: float, found: int) -> float:
    return max(1.0, seen * (sids - found) / max(found, 0.5))


def next_page_size(current: int, *, failed: bool, good_in_a_row: int, largest: int = 1000) -> int:
    """Return the size of the next page: smaller after a failure, slowly larger again.

    ``good_in_a_row``: pages of this size since the last change. The caller sets it to 0 when the
    size changes. ``largest``: the configured size, never exceeded.
    """
    if failed:
        return max((size for size in rules.PAGE_SIZES if size < current), default=current)
    if good_in_a_row < rules.GOOD_PAGES_TO_GROW:
        return min(current, largest)
    return min(
        (size for size in (*rules.PAGE_SIZES, largest) if current < size <= largest),
        default=largest,
    )
