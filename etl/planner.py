"""Choose the cheapest way to get every waiting attempt, purely, from counts and times.

``Waiting`` and ``Density`` (what waits | what is believed to have been created when) -> ``Plan``
(Summaries worth asking first | windows to sweep | SIDs to fetch singly). The executor loops: plan,
ask what ``Plan.ask`` names, plan again; with nothing to ask, sweep ``Plan.sweeps``, add what the
pages showed to ``Density.counted``, plan again; at last fetch what is left singly. Every request
costs the same: one SID, one page of up to ``page_size`` attempts, or one Summary.

Times are epoch milliseconds UTC; spans are half open, [start, end).
"""

import math
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from etl.planner_asks import View, question
from etl.planner_estimate import estimate
from etl.planner_windows import Cover, cover, pages

Strategy: TypeAlias = Literal["auto", "fetch", "sweep"]

PAGE_SIZES: Final = (1000, 500, 250, 100)
GOOD_PAGES_TO_GROW: Final = 20
# What weighs nothing is not listed; a cell that may hold unknown SIDs, though the database knows
# of no attempt there, is, where that costs no page.
_TRACE: Final = 1e-6
# Requests lost so far from which on a sweep must pay even if its count is wrong; one less once a
# sweep has been given up.
_MOST_BEHIND: Final = 2
# An unsure sweep that only breaks even is not worth its risk.
_LEAST_GAIN: Final = 1.05
# How far the pages of part of an exact count may be off, for the count says nothing of its inside.
_DOUBT_OF_SHAPE: Final = 2.0
# Fewer finds say nothing of how thinly SIDs are sown; that many expected ones of unknown age do.
_FEW_FINDS: Final = 3
_TELLING: Final = 20
# What the database believes of a window is wrong by no more, either way.
_WRONG_BY: Final = 3
# The share of the finds hoped for that may be spent on pages that show too few.
_IN_VAIN: Final = 0.1
# A page with as many finds pays for the next.
_PAYING: Final = 2


@dataclass(frozen=True, slots=True)
class Bucket:
    """Count attempts, or SIDs, created in [start, end)."""

    start: int
    end: int
    count: int


@dataclass(frozen=True, slots=True)
class Window:
    """Name a span of creation times."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Count what waits.

    ``known``: a histogram of the SIDs whose creation time is known, sorted, disjoint (quarter
    hours serve well). ``unknown`` SIDs lie somewhere in [``unknown_from``, ``unknown_to``):
    from now - retention to the latest ``enqueued_at``; so do ``verifications``, each of which
    costs one list request by itself, but nowhere in ``swept``: windows already listed to their
    end. ``expired`` SIDs, counted nowhere else, are fetched singly: no list shows them any more.
    """

    known: tuple[Bucket, ...] = ()
    unknown: int = 0
    unknown_from: int = 0
    unknown_to: int = 0
    expired: int = 0
    verifications: int = 0
    swept: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class Density:
    """Hold what is known of all attempts of the account, waiting or not.

    ``believed``: from the database, sorted, disjoint, perhaps with gaps (nothing known) and wrong
    by a factor of 3 either way. ``counted``: exact, from Summary and from finished sweeps, in any
    order, nested or not. ``asked``: the Summaries this plan has cost so far; ``behind``: all
    requests it has cost so far - the SIDs it got for them (below 0 when sweeps have paid);
    ``failed``: sweeps given up before their end, or more than a quarter longer than planned.
    """

    believed: tuple[Bucket, ...] = ()
    counted: tuple[Bucket, ...] = ()
    asked: int = 0
    behind: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Sweep:
    """List one window: ``pages`` requests, expected to find ``finds`` of the waiting SIDs.

    ``known`` of them are SIDs of known creation time. ``sure``: the number of pages follows from
    exact counts alone. ``unknown``: all SIDs of unknown age that wait, in this window or not.
    """

    start: int
    end: int
    pages: int
    finds: float
    known: int
    sure: bool
    unknown: float = math.inf

    def resized(self, planned: int, size: int) -> "Sweep":
        """Give it with pages of another size than those it was planned for."""
        return replace(self, pages=math.ceil(self.pages * planned / size))


@dataclass(frozen=True, slots=True)
class Plan:
    """Say what to do and what it costs, in requests.

    With ``ask`` not empty, ask and plan again: the rest of the plan is what would be done without
    the answers. ``requests`` = asks, those made included + pages + fetches. ``fetch_only`` and
    ``sweep_only`` are the costs of the two ways by themselves, asks left out. ``guessed``: nothing
    says how much the account holds, so pages are counted as if there were no more than what waits.
    """

    ask: tuple[Window, ...]
    sweeps: tuple[Sweep, ...]
    fetches: int
    requests: int
    fetch_only: int
    sweep_only: int
    guessed: bool = False


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
        sure = sum(max(0.0, s.finds - (1 if s.sure else _DOUBT_OF_SHAPE) * s.pages) for s in sweeps)
        cells = question(view, density.counted, chosen, asked=density.asked, saved=sure)
        asks = () if cells is None else (Window(*(view.estimate.cuts[i] for i in cells)),)
        # With nothing known at all, the sweeps are an invention.
        sweeps = () if view.estimate.blank else sweeps
    listed = sum(sweep.pages for sweep in sweeps)
    found = sum(sweep.finds for sweep in sweeps)
    fetches = waiting.expired + max(0, math.ceil(single - found - 1e-6))
    return Plan(
        ask=asks,
        sweeps=sweeps,
        fetches=fetches,
        requests=density.asked + len(asks) + listed + fetches,
        fetch_only=waiting.expired + single,
        sweep_only=waiting.expired + math.ceil(whole.cost),
        guessed=view.estimate.blank and single > 0,
    )


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
    homes[slice(*spans)] = [attempts + _TRACE for attempts in guess.attempts[slice(*spans)]]
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
    """Leave out sweeps that may not pay; where they were, sweep whole exact counts that do."""
    kept = [sweep for sweep in sweeps if _safe(view, density, sweep)]
    if len(kept) == len(sweeps):
        return sweeps
    cells = [(view.estimate.cell(c.start), view.estimate.cell(c.end)) for c in density.counted]
    wholes = [_sweep(view, density, i, j) for i, j in cells if i < j]
    for whole in sorted(wholes, key=lambda sweep: sweep.pages - sweep.finds):
        apart = all(whole.end <= s.start or s.end <= whole.start for s in kept)
        if apart and whole.sure and whole.finds >= _LEAST_GAIN * whole.pages:
            kept.append(whole)
    return tuple(sorted(kept, key=lambda sweep: sweep.start))


def _safe(view: View, density: Density, sweep: Sweep) -> bool:
    """Say whether a sweep pays though its count be wrong, the more the more went wrong before."""
    if sweep.sure:
        return True
    if density.behind < (_MOST_BEHIND - 1 if density.failed else _MOST_BEHIND):
        return sweep.finds >= _LEAST_GAIN * sweep.pages
    guess = view.estimate
    inside = slice(guess.cell(sweep.start), guess.cell(sweep.end))
    fixed = -1 not in guess.group[inside] and not any(guess.shaped[inside])
    doubt = _DOUBT_OF_SHAPE if fixed else guess.doubt
    wasted = max(1, 1 + density.behind - density.asked, density.failed)
    return sweep.finds >= doubt * wasted * sweep.pages


@dataclass(slots=True)
class Progress:
    """Follow a sweep page by page, and say whether the rest is worth its requests.

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

        ``seen`` pages are read again, and lost if the larger ones fail: as many must be gained.
        """
        whole = math.ceil((seen + self.pages_left) * size / larger)
        # What is read again shows nothing new, which must not look as if SIDs were on no page.
        again = math.ceil(seen * size / larger)
        patient = not self.hidden or again + 1 <= _MOST_BEHIND + _IN_VAIN * self.hidden
        return patient and self.pages_left - whole >= seen

    @property
    def worth_going_on(self) -> bool:
        """Say whether the rest costs less than fetching singly what it would find."""
        return self.pages_left < self.sids_left and not self.in_vain

    @property
    def in_vain(self) -> bool:
        """Say whether SIDs of unknown age are on far fewer pages than they should be.

        They may not exist at all. A tenth of what was hoped for is spent before that is believed.
        """
        hoped = self.sweep.finds - self.sweep.known
        due = hoped * self.seen / max(self.sweep.pages, self.seen)
        spent = self.behind + self.seen - self.known - self.unknown
        few = due >= _FEW_FINDS and _WRONG_BY * self.unknown < due
        return few and spent + 1 > _MOST_BEHIND + _IN_VAIN * hoped


def pages_left(sweep: Sweep, *, seen: int, known: int, unknown: int, last: int) -> float:
    """Estimate the pages that a sweep has left after ``seen`` pages, whatever their order.

    The pages showed ``known`` and ``unknown`` of its SIDs of known and of unknown age, ``last``
    of them on the last page. Where the count is not sure, the SIDs of unknown age tell first how
    long the list is, for they lie as the attempts do; those of known age only when more of them
    came than pages were expected; and a page that paid promises another one.
    """
    if sweep.sure:
        return float(max(sweep.pages - seen, 1))
    hidden = sweep.finds - sweep.known
    missing = max(sweep.finds - known - unknown, 0.0)
    left = float(sweep.pages - seen)
    if hidden * seen / sweep.pages >= _TELLING:
        # Of SIDs that lie otherwise than the attempts, the first pages may show none at all.
        left = min(_sown(seen, hidden, unknown), max(_WRONG_BY * sweep.pages - seen, 1.0))
    elif left <= 0 or known + unknown >= _FEW_FINDS:
        sown = _sown(seen, sweep.finds, known + unknown)
        left = sown if left <= 0 else min(sown, left)
    return max(1.0, min(left, missing / last)) if last >= _PAYING else left


def _sown(seen: int, sids: float, found: int) -> float:
    return max(1.0, seen * (sids - found) / max(found, 0.5))


def seconds(requests: int, allowance: int, window_ms: int) -> float:
    """Return how long ``requests`` take at the allowance; the first ``allowance`` go at once.

    An allowance of 0 is none at all: nothing waits.
    """
    if allowance <= 0 or requests <= allowance:
        return 0.0
    return (math.ceil(requests / allowance) - 1) * window_ms / 1000


def next_page_size(current: int, *, failed: bool, good_in_a_row: int, largest: int = 1000) -> int:
    """Return the size of the next page: smaller after a 5xx or a time-out, slowly larger again.

    ``good_in_a_row``: pages of this size since the last change; the caller starts it again at 0
    whenever the size changes. ``largest``: the configured size, never exceeded.
    """
    if failed:
        return max((size for size in PAGE_SIZES if size < current), default=current)
    if good_in_a_row < GOOD_PAGES_TO_GROW:
        return min(current, largest)
    return min(
        (size for size in (*PAGE_SIZES, largest) if current < size <= largest), default=largest
    )
