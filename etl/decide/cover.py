"""Choose the disjoint windows on a row of cells with the fewest pages + single fetches, exactly.

A cell is a stretch of creation times. ``weights``: the SIDs waiting in each cell. ``sums``: the
attempts created before each cut (one more than cells). A window of cells i..j costs
ceil((sums[j] - sums[i]) / page_size) pages, at least one. A cell outside costs its weight.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from etl.decide import rules


@dataclass(frozen=True, slots=True)
class Cover:
    """Hold the chosen windows as pairs of cuts, and the requests of it all."""

    windows: tuple[tuple[int, int], ...]
    cost: float


def pages(attempts: float, page_size: int) -> int:
    """Return the pages of a window; an empty one costs a request, too."""
    return max(1, math.ceil(attempts / page_size - rules.SLACK))


def cover(
    weights: Sequence[float], sums: Sequence[float], page_size: int, *, everything: bool = False
) -> Cover:
    """Return the cheapest cover; ``everything`` leaves no weight to single fetches.

    f(j) is the least cost of the first j cells. The best window that ends at j starts at the i
    with the least f(i) + ceil((sums[j] - sums[i]) / page_size). Among the i of one fraction of f
    that is the i with the least f(i) * page_size - sums[i], whatever j is. So a running minimum
    for each fraction makes the search linear, and exact.
    """
    parts = _quarters(weights)
    keys = [math.inf] * rules.COST_PARTS
    starts = [0] * rules.COST_PARTS
    keys[0] = -sums[0]
    best = 0
    chosen = [-1] * len(parts)
    for j, weight in enumerate(parts):
        single = best if everything and not weight else best + weight
        cost = math.inf if everything and weight else single
        for part, key in enumerate(keys):
            if key < math.inf:
                count = math.ceil((sums[j + 1] + key) / page_size - rules.SLACK)
                if part + rules.COST_PARTS * count < cost:
                    cost = part + rules.COST_PARTS * count
                    chosen[j] = starts[part]
        best = int(cost)
        part, whole = best % rules.COST_PARTS, best // rules.COST_PARTS
        key = whole * page_size - sums[j + 1]
        if key < keys[part]:
            keys[part], starts[part] = key, j + 1
    return Cover(_fit(_trace(chosen), weights, sums, page_size), best / rules.COST_PARTS)


def price(
    windows: Sequence[tuple[int, int]],
    weights: Sequence[float],
    sums: Sequence[float],
    page_size: int,
) -> float:
    """Return the cost of these windows, and of the rest singly, under other counts."""
    inside = sum(sum(weights[i:j]) for i, j in windows)
    return sum(weights) - inside + sum(pages(sums[j] - sums[i], page_size) for i, j in windows)


def _quarters(weights: Sequence[float]) -> list[int]:
    # Rounding the running sum, not each cell, keeps the total right.
    total = [0, *(round(rules.COST_PARTS * value) for value in accumulate(weights))]
    return [after - before for before, after in pairwise(total)]


def _trace(chosen: Sequence[int]) -> list[tuple[int, int]]:
    """Follow the choices back, joining windows that touch."""
    windows: list[tuple[int, int]] = []
    j = len(chosen)
    while j > 0:
        i = chosen[j - 1]
        if i < 0:
            j -= 1
            continue
        windows.append((i, windows.pop()[1] if windows and windows[-1][0] == j else j))
        j = i
    return windows[::-1]


def _fit(
    windows: Sequence[tuple[int, int]],
    weights: Sequence[float],
    sums: Sequence[float],
    page_size: int,
) -> tuple[tuple[int, int], ...]:
    """Fill each window's last page with free neighbours; leave empty ends out."""
    fitted: list[tuple[int, int]] = []
    for number, (start, end) in enumerate(windows):
        i, j = start, end
        room = sums[i] + pages(sums[j] - sums[i], page_size) * page_size
        last = windows[number + 1][0] if number + 1 < len(windows) else len(weights)
        while j < last and sums[j + 1] <= room:
            j += 1
        room = sums[j] - pages(sums[j] - sums[i], page_size) * page_size
        first = fitted[-1][1] if fitted else 0
        while i > first and sums[i - 1] >= room:
            i -= 1
        while j > i and not weights[j - 1]:
            j -= 1
        while i < j and not weights[i]:
            i += 1
        if i < j:
            fitted.append((i, j))
    return tuple(fitted)
