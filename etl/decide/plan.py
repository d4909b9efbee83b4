"""Choose the cheapest way to get every waiting attempt, from counts and times alone.

``Waiting`` and ``Density`` (the SIDs that wait | how many attempts were created when) -> ``Plan``
(Summaries worth asking first | windows to sweep | SIDs to fetch singly). The executor loops. It
plans, asks the Summaries in ``Plan.ask``, and plans again. With nothing to ask it sweeps
``Plan.sweeps``, adds the counts of the pages to ``Density.counted``, and plans again. At last it
fetches the rest singly. Every request costs the same: one SID, one page, or one Summary.

Times are epoch milliseconds UTC; spans are half open, [start, end).
"""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from etl.decide import rules
from etl.decide.cover import Cover, cover, pages
from etl.decide.estimate import estimate
from etl.decide.questions import View, hypothesis, question
from etl.decide.values import Bucket, Density, Plan, Strategy, Sweep, Waiting, Window


def plan(
    waiting: Waiting,
    density: Density,
    *,
    page_size: int,
    now: int,
    strategy: Strategy = "auto",
) -> Plan:
    """Return the cheapest plan that misses nothing.

    ``page_size``: attempts on a page as it is now. ``strategy``: ``fetch`` and ``sweep`` force one
    way; ``auto`` chooses, and never risks more than a few requests above single fetches.
    """
    view = _view(waiting, density, page_size, now)
    whole = cover(view.weights, view.sums, page_size, everything=True)
    single = sum(bucket.count for bucket in waiting.known)
    single += waiting.unknown + waiting.verifications
    chosen = whole if strategy == "sweep" else cover(view.weights, view.sums, page_size)
    if strategy == "fetch":
        chosen = Cover((), single)
    sweeps = tuple(_sweep(view, density, i, j) for i, j in chosen.windows)
    asks: tuple[Window, ...] = ()
    if strategy == "auto":
        sweeps = _prudent(view, density, sweeps)
        sure = sum(
            max(0.0, s.finds - (1 if s.sure else rules.DOUBT_OF_SHAPE) * s.pages) for s in sweeps
        )
        cells = question(view, density.counted, chosen, asked=density.asked, saved=sure)
        asks = () if cells is None else (Window(*(view.estimate.cuts[i] for i in cells)),)
        # With nothing known at all, the sweeps are an invention.
        sweeps = () if view.estimate.blank else sweeps
    listed = sum(sweep.pages for sweep in sweeps)
    found = sum(sweep.finds for sweep in sweeps)
    fetches = waiting.expired + max(0, math.ceil(single - found - 1e-6))
    asked = density.asked + len(asks)
    requests = asked + listed + fetches
    return Plan(
        ask=asks,
        sweeps=sweeps,
        fetches=fetches,
        requests=requests,
        least=min(requests, asked + waiting.expired + _fewest(view)) if asks else requests,
        most=max(requests, asked + waiting.expired + single) if asks else requests,
        fetch_only=waiting.expired + single,
        sweep_only=waiting.expired + math.ceil(whole.cost),
        guessed=view.estimate.blank and single > 0,
    )


def _fewest(view: View) -> int:
    """Return what it costs if the account holds as few attempts as it may."""
    few = pairwise(hypothesis(view, few=True))
    attempts = [
        max(end - start, sids) for (start, end), sids in zip(few, view.weights, strict=True)
    ]
    sums = [0.0, *accumulate(attempts)]
    return math.ceil(cover(view.weights, sums, view.page_size).cost - 1e-6)


def _view(waiting: Waiting, density: Density, page_size: int, now: int) -> View:
    unknown = waiting.unknown + waiting.verifications
    start, end = waiting.unknown_from, min(waiting.unknown_to, max(now, waiting.unknown_from + 1))
    if end <= start:
        end = start + 1
    guess = estimate(
        waiting.known,
        density.believed,
        density.counted,
        unknown=Bucket(start, end, unknown) if unknown else None,
        edges=[edge for window in waiting.swept for edge in (window.start, window.end)],
    )
    spans = (guess.cell(start), guess.cell(end)) if unknown else (0, 0)
    homes = [0.0] * len(guess.attempts)
    homes[slice(*spans)] = [attempts + rules.TRACE for attempts in guess.attempts[slice(*spans)]]
    for window in waiting.swept:
        first, last = guess.cell(window.start), guess.cell(window.end)
        homes[first:last] = [0.0] * (last - first)
    share = unknown / (sum(homes) or 1.0)
    weights = tuple(known + share * home for known, home in zip(guess.known, homes, strict=True))
    return View(guess, weights, guess.sums(), page_size)


def _sweep(view: View, density: Density, i: int, j: int) -> Sweep:
    # Sure is what is put together from whole counts, not from part of one.
    guess = view.estimate
    start, end = guess.cuts[i], guess.cuts[j]
    groups = set(guess.group[i:j])
    sure = -1 not in groups and all(
        start <= density.counted[g].start and density.counted[g].end <= end for g in groups
    )
    known = round(sum(guess.known[i:j]))
    return Sweep(
        start, end, pages(view.sums[j] - view.sums[i], view.page_size),
        sum(view.weights[i:j]), known, sure, sum(view.weights) - sum(guess.known),
    )  # fmt: skip


def _prudent(view: View, density: Density, sweeps: tuple[Sweep, ...]) -> tuple[Sweep, ...]:
    """Leave out sweeps that may not pay; sweep whole exact counts instead, if they pay."""
    kept = [sweep for sweep in sweeps if _safe(view, density, sweep)]
    if len(kept) == len(sweeps):
        return sweeps
    cells = [(view.estimate.cell(c.start), view.estimate.cell(c.end)) for c in density.counted]
    wholes = [_sweep(view, density, i, j) for i, j in cells if i < j]
    for whole in sorted(wholes, key=lambda sweep: sweep.pages - sweep.finds):
        apart = all(whole.end <= s.start or s.end <= whole.start for s in kept)
        if apart and whole.sure and whole.finds >= rules.LEAST_GAIN * whole.pages:
            kept.append(whole)
    return tuple(sorted(kept, key=lambda sweep: sweep.start))


def _safe(view: View, density: Density, sweep: Sweep) -> bool:
    """Say whether a sweep pays even with a wrong count; earlier losses raise the bar."""
    if sweep.sure:
        return True
    if density.behind < (rules.MOST_BEHIND - 1 if density.failed else rules.MOST_BEHIND):
        return sweep.finds >= rules.LEAST_GAIN * sweep.pages
    guess = view.estimate
    inside = slice(guess.cell(sweep.start), guess.cell(sweep.end))
    fixed = -1 not in guess.group[inside] and not any(guess.shaped[inside])
    doubt = rules.DOUBT_OF_SHAPE if fixed else guess.doubt
    wasted = max(1, 1 + density.behind - density.asked, density.failed)
    return sweep.finds >= doubt * wasted * sweep.pages


def seconds(requests: int, allowance: int, window_ms: int, taken: Sequence[int] = ()) -> float:
    """Return how long ``requests`` take at the allowance.

    ``taken``: for how long (ms) each slot is still taken that is not free; a slot is free again one
    window after its use. An allowance of 0 is none at all: nothing waits.
    """
    if allowance <= 0 or requests <= 0:
        return 0.0
    windows, place = divmod(requests - 1, allowance)
    waits = [0] * (allowance - len(taken)) + sorted(taken)
    return (windows * window_ms + waits[place]) / 1000
