"""Decide which Summary is worth its request, if any.

A question pays if the answer may change the plan by more than its cost. There are two such cases.
The database's counts may be wrong: sweeps turn into fetches, or fetches into sweeps. Or an exact
count covers so much that its attempts may lie far from the waiting SIDs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from etl.decide import rules
from etl.decide.cover import Cover, cover, pages, price
from etl.decide.estimate import Estimate
from etl.decide.values import Bucket


@dataclass(frozen=True, slots=True)
class View:
    """Hold the estimate, the SIDs in each cell, and the attempts before each cut."""

    estimate: Estimate
    weights: tuple[float, ...]
    sums: list[float]
    page_size: int


def question(
    view: View, counted: Sequence[Bucket], chosen: Cover, *, asked: int, saved: float
) -> tuple[int, int] | None:
    """Return the cells of a Summary that could save more than it costs.

    Two are free to ask. More are asked in proportion to the plan's cost and to ``saved``, its
    gain against single fetches.
    """
    if sum(view.weights) < rules.WORTH_ASKING:
        return None
    if view.estimate.blank:
        return _hull(view)
    if asked + 1 > rules.FREE_ASKS + min(rules.SEARCH_SHARE * chosen.cost, rules.ASK_SAVED * saved):
        return None
    usual = asked + 1 <= rules.FREE_ASKS + min(
        rules.ASK_SHARE * chosen.cost, rules.ASK_SAVED * saved
    )
    doubted = _doubted(view, chosen, asked) if usual else None
    return doubted or _uneven(view, counted, chosen, searching=not usual)


def _hull(view: View) -> tuple[int, int]:
    """Return the cells from the first to the last that may hold SIDs."""
    waiting = [i for i, weight in enumerate(view.weights) if weight]
    return waiting[0], waiting[-1] + 1


def _doubted(view: View, chosen: Cover, asked: int) -> tuple[int, int] | None:
    """Choose the window whose unsure count matters most to the plan."""
    few, many = hypothesis(view, few=True), hypothesis(view, few=False)
    hopeful = cover(view.weights, few, view.page_size)
    if not hopeful.windows:
        return None
    stakes = {window: _stake(view, few, many, window) for window in hopeful.windows}
    missed = max(
        price(chosen.windows, view.weights, sums, view.page_size)
        - cover(view.weights, sums, view.page_size).cost
        for sums in (few, many)
    )
    total = max(sum(stakes.values()), missed)
    if total <= 1 + 2 * asked + rules.TOLERANCE * chosen.cost:
        return None
    best = max(hopeful.windows, key=lambda window: stakes[window])
    if 2 * stakes[best] >= total:
        return best
    return hopeful.windows[0][0], hopeful.windows[-1][1]


def _uneven(
    view: View, counted: Sequence[Bucket], chosen: Cover, *, searching: bool
) -> tuple[int, int] | None:
    """Choose part of a count whose attempts may lie far from its waiting SIDs.

    A count says nothing of its inside. ``searching``: go on, towards the crowd, only if the last
    halves were a surprise.
    """
    guess = view.estimate
    members: dict[int, list[int]] = {}
    for i, group in enumerate(guess.group):
        members.setdefault(group, []).append(i)
    most, best = max(rules.WORTH_ASKING, rules.LEAST_STAKE * chosen.cost), None
    for group, cells in members.items():
        if group < 0 or len(cells) == 1 or any(guess.shaped[i] for i in cells):
            continue
        sids = sum(view.weights[i] for i in cells)
        attempts = sum(guess.attempts[i] for i in cells)
        stake = min(sids, attempts / view.page_size) - sids / view.page_size
        if stake > most and not (searching and _smooth(view, counted, counted[group])):
            most, best = stake, cells
    return None if best is None else _part(view, best)


def _part(view: View, cells: Sequence[int]) -> tuple[int, int]:
    """Return a group's largest crowd of known age, else the half of its SIDs."""
    guess = view.estimate
    known = [i for i in cells if guess.known[i]]
    if known:
        first, last = max(_runs(known), key=lambda run: sum(guess.known[slice(*run)]))
        many = sum(guess.known[first:last])
        least = max(rules.WORTH_ASKING, rules.CROWD * sum(guess.known[i] for i in known))
        long = guess.cuts[cells[-1] + 1] - guess.cuts[cells[0]]
        if many >= least and (guess.cuts[last] - guess.cuts[first]) * 2 <= long:
            return first, last
    left = sum(view.weights[i] for i in cells) / 2
    for i in cells[:-1]:
        left -= view.weights[i]
        if left <= 0:
            return cells[0], i + 1
    return cells[0], cells[-1]


def _runs(cells: Sequence[int]) -> list[tuple[int, int]]:
    """Join neighbouring cells."""
    breaks = [i for i, (before, after) in enumerate(pairwise(cells), 1) if after != before + 1]
    edges = pairwise([0, *breaks, len(cells)])
    return [(cells[first], cells[last - 1] + 1) for first, last in edges]


def _smooth(view: View, counted: Sequence[Bucket], own: Bucket) -> bool:
    """Say whether the smallest pair of nested counts around this one was as thought."""
    guess = view.estimate
    around = [c for c in counted if c.start <= own.start and own.end <= c.end and c != own]
    within = [c for c in counted if own.start <= c.start and c.end <= own.end and c != own]
    pairs = [(outer, own) for outer in around] + [(own, inner) for inner in within]
    if not pairs:
        return False
    outer, inner = min(pairs, key=lambda pair: pair[0].end - pair[0].start)
    by_time = (inner.end - inner.start) / (outer.end - outer.start)
    sids = sum(view.weights[guess.cell(outer.start) : guess.cell(outer.end)])
    inside = sum(view.weights[guess.cell(inner.start) : guess.cell(inner.end)])
    by_sids = inside / sids if sids else by_time
    seen = inner.count / max(outer.count, 1)
    low, high = min(by_time, by_sids), max(by_time, by_sids)
    return (
        low - rules.SMOOTH * min(low, 1 - low) <= seen <= high + rules.SMOOTH * min(high, 1 - high)
    )


def _stake(view: View, few: list[float], many: list[float], window: tuple[int, int]) -> float:
    i, j = window
    sids = sum(view.weights[i:j])
    least = pages(few[j] - few[i], view.page_size)
    most = pages(many[j] - many[i], view.page_size)
    return max(0.0, min(sids - least, most - sids))


def hypothesis(view: View, *, few: bool) -> list[float]:
    """Return the sums with everything unsure as far off as it may be."""
    guess = view.estimate
    values = []
    for attempts, known, group, shaped in zip(
        guess.attempts, guess.known, guess.group, guess.shaped, strict=True
    ):
        off = 1.0 if group >= 0 else guess.doubt if shaped else rules.DOUBT_OF_GAPS
        values.append(max(attempts / off if few else attempts * off, known))
    return [0.0, *accumulate(values)]
