"""Join all counts of an account's attempts into one estimate over a row of cells.

``Waiting`` and ``Density`` are cut at every edge that occurs in them. Exact counts win over the
database's, smaller windows over the larger ones around them. A cell that nothing covers is guessed
from the rest: half by its length, half by its waiting SIDs, for they are attempts too.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from etl.decide import rules
from etl.decide.values import Bucket


@dataclass(frozen=True, slots=True)
class Estimate:
    """Hold the cells: ``cuts`` (one more than cells), then one value for each cell.

    ``known``: SIDs of known creation time; ``attempts``: the best guess; ``group``: the index of
    the exact count that fixes the cell, -1 for none; ``shaped``: the database says how many;
    ``blank``: nothing at all is known, ``attempts`` is but the number of SIDs; ``doubt``: the
    factor by which the database's counts may be wrong either way.
    """

    cuts: tuple[int, ...]
    known: tuple[float, ...]
    attempts: tuple[float, ...]
    group: tuple[int, ...]
    shaped: tuple[bool, ...]
    blank: bool
    doubt: float

    def sums(self) -> list[float]:
        """Return the attempts before each cut."""
        return [0.0, *accumulate(self.attempts)]

    def cell(self, moment: int) -> int:
        """Return the index of the cut at ``moment``."""
        return bisect_left(self.cuts, moment)


def estimate(
    known: Sequence[Bucket],
    believed: Sequence[Bucket],
    counted: Sequence[Bucket],
    *,
    unknown: Bucket | None = None,
    edges: Sequence[int] = (),
) -> Estimate:
    """Return the estimate; ``unknown``: SIDs somewhere in a span; ``edges``: further cuts."""
    spans = (*known, *believed, *counted)
    points = {*edges} | {span.start for span in spans} | {span.end for span in spans}
    if unknown:
        points |= {unknown.start, unknown.end}
    cuts = tuple(sorted(points))
    sids, prior = _spread(known, cuts), _spread(believed, cuts)
    cells = _Cells(
        cuts=cuts,
        lengths=[after - before for before, after in pairwise(cuts)],
        sids=sids,
        prior=prior,
        shaped=_covered(believed, cuts),
        attempts=[max(a, k) for a, k in zip(prior, sids, strict=True)],
        group=[-1] * len(prior),
    )
    for number, span in sorted(enumerate(counted), key=lambda pair: pair[1].end - pair[1].start):
        _pin(cells, number, span)
    _extrapolate(cells)
    if unknown:
        _make_room(cells, unknown)
    return Estimate(
        cuts,
        tuple(sids),
        tuple(cells.attempts),
        tuple(cells.group),
        tuple(cells.shaped),
        blank=not counted and not any(cells.shaped),
        doubt=_doubt(cells, counted),
    )


@dataclass(slots=True)
class _Cells:
    cuts: Sequence[int]
    lengths: list[int]
    sids: list[float]
    prior: list[float]
    shaped: list[bool]
    attempts: list[float]
    group: list[int]


def _inside(span: Bucket, cuts: Sequence[int]) -> range:
    return range(bisect_left(cuts, span.start), bisect_left(cuts, span.end))


def _spread(spans: Sequence[Bucket], cuts: Sequence[int]) -> list[float]:
    """Spread counts evenly over the cells inside each span."""
    values = [0.0] * max(len(cuts) - 1, 0)
    for span in spans:
        for i in _inside(span, cuts):
            values[i] += span.count * (cuts[i + 1] - cuts[i]) / (span.end - span.start)
    return values


def _covered(spans: Sequence[Bucket], cuts: Sequence[int]) -> list[bool]:
    covered = [False] * max(len(cuts) - 1, 0)
    for span in spans:
        for i in _inside(span, cuts):
            covered[i] = True
    return covered


def _pin(cells: _Cells, number: int, span: Bucket) -> None:
    """Share an exact count out among the cells that no smaller count fixes."""
    inside = _inside(span, cells.cuts)
    free = [i for i in inside if cells.group[i] < 0]
    if not free:
        return
    left = span.count - sum(cells.attempts[i] for i in inside if cells.group[i] >= 0)
    sids = sum(cells.sids[i] for i in free)
    shape = _shape(cells, free, _gathered(cells, inside, span))
    scale = max(left, 0.0) / (sum(shape) or 1.0)
    rest = [max(value * scale - cells.sids[i], 0.0) for i, value in zip(free, shape, strict=True)]
    scale = max(left - sids, 0.0) / (sum(rest) or 1.0)
    for i, value in zip(free, rest, strict=True):
        cells.attempts[i] = cells.sids[i] + value * scale
        cells.group[i] = number


def _doubt(cells: _Cells, counted: Sequence[Bucket]) -> float:
    """Return how far off the database may be, judged by exact counts.

    One count that agrees is half a proof. Several that agree on one factor have corrected it.
    """
    ratios = []
    for span in counted:
        inside = _inside(span, cells.cuts)
        if span.count >= rules.ENOUGH and all(cells.shaped[i] for i in inside):
            ratios.append(span.count / max(sum(cells.prior[i] for i in inside), 1.0))
    if not ratios:
        return rules.DOUBT
    apart = max(ratios) / min(ratios) if len(ratios) > 1 else max(ratios[0], 1 / ratios[0])
    return min(rules.DOUBT, apart * rules.CONFIRMED)


def _gathered(cells: _Cells, inside: range, span: Bucket) -> float:
    """Return how far attempts lie where the waiting SIDs lie (1) or evenly in time (0).

    Smaller counts inside the span tell; without any, both are as likely. A count is taken where
    SIDs wait, and a sweep leaves none there. Such a place, no fuller than others, tells as well.
    """
    pinned = [i for i in inside if cells.group[i] >= 0]
    sids = sum(cells.sids[i] for i in inside)
    if not pinned or not sids or not span.count:
        return 0.5
    by_time = sum(cells.lengths[i] for i in pinned) / (span.end - span.start)
    by_sids = sum(cells.sids[i] for i in pinned) / sids
    seen = sum(cells.attempts[i] for i in pinned) / span.count
    if abs(by_sids - by_time) < rules.TOO_ALIKE:
        return 0.5 if seen > 2 * by_time else rules.LEAST_GATHERED
    gathered = (seen - by_time) / (by_sids - by_time)
    return min(max(gathered, rules.LEAST_GATHERED), 1 - rules.LEAST_GATHERED)


def _shape(cells: _Cells, free: Sequence[int], gathered: float) -> list[float]:
    length = sum(cells.lengths[i] for i in free)
    sids = sum(cells.sids[i] for i in free)
    believed = sum(cells.prior[i] for i in free)
    covered = sum(cells.lengths[i] for i in free if cells.shaped[i])
    if believed:
        rate = believed / covered
        return [cells.prior[i] if cells.shaped[i] else rate * cells.lengths[i] for i in free]
    if sids:
        return [
            (1 - gathered) * cells.lengths[i] / length + gathered * cells.sids[i] / sids
            for i in free
        ]
    return [float(cells.lengths[i]) for i in free]


def _extrapolate(cells: _Cells) -> None:
    """Correct the database by exact counts, then fill gaps from all the rest."""
    everywhere = range(len(cells.sids))
    checked = [i for i in everywhere if cells.group[i] >= 0 and cells.shaped[i]]
    exact = sum(cells.attempts[i] for i in checked)
    factor = (exact + 1) / (sum(cells.prior[i] for i in checked) + 1)
    for i in everywhere:
        if cells.group[i] < 0 and cells.shaped[i]:
            cells.attempts[i] = max(cells.prior[i] * factor, cells.sids[i])
    seen = [i for i in everywhere if cells.group[i] >= 0 or cells.shaped[i]]
    if not seen:
        return
    total = sum(cells.attempts[i] for i in seen)
    rate = total / sum(cells.lengths[i] for i in seen)
    sids = sum(cells.sids[i] for i in seen)
    for i in everywhere:
        if cells.group[i] < 0 and not cells.shaped[i]:
            guess = rate * cells.lengths[i]
            if sids:
                guess = (guess + cells.sids[i] * total / sids) / 2
            cells.attempts[i] = max(guess, cells.sids[i])


def _make_room(cells: _Cells, unknown: Bucket) -> None:
    """Raise cells without an exact count until the unknown SIDs fit in."""
    inside = _inside(unknown, cells.cuts)
    missing = unknown.count - sum(cells.attempts[i] - cells.sids[i] for i in inside)
    free = [i for i in inside if cells.group[i] < 0]
    if missing <= 0 or not free:
        return
    length = sum(cells.lengths[i] for i in free)
    for i in free:
        cells.attempts[i] += missing * cells.lengths[i] / length
