"""Hold worlds of counts, the best plan anyone could make for them, and a run of the planner.

A world is a row of cells (stretches of creation time) with the attempts made in each and the SIDs
waiting in each, of known or of unknown age. ``best`` knows all of it; ``spent`` asks, lists and
fetches as the program does and counts every request. No HTTP, no database, nothing of the
planner's own arithmetic.
"""

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise, product
from typing import Final

from etl.decide.plan import plan
from etl.decide.progress import SweepProgress
from etl.decide.values import Bucket, Density, Sweep, Waiting, Window

HOUR: Final = 3_600_000
PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class World:
    """Hold what is true: per cell of ``cell`` milliseconds, oldest first."""

    cell: int
    attempts: tuple[int, ...]
    known: tuple[int, ...]
    unknown: tuple[int, ...]

    @property
    def singles(self) -> int:
        """Give the requests of fetching one by one."""
        return sum(self.known) + sum(self.unknown)


@dataclass(frozen=True, slots=True)
class Situation:
    """Name a world and what is known of it before the first request."""

    name: str
    group: str
    kind: tuple[str, ...]
    world: World
    density: Density
    order: str = "desc"


def spread(total: int, shape: list[float]) -> tuple[int, ...]:
    """Part ``total`` in whole numbers in proportion to ``shape``."""
    sums = [0.0, *accumulate(shape)]
    cuts = [math.floor(total * value / sums[-1] + 0.5) for value in sums]
    return tuple(after - before for before, after in pairwise(cuts))


def best(world: World, page_size: int = PAGE) -> float:
    """Return the requests of the best disjoint windows and single fetches, with all known.

    Unknown SIDs count where they may be expected, in proportion to the attempts. Least cost of
    the first j cells, over every start of a last window: for each number of pages only the
    longest such window can be the best, for the cost of fewer cells is never higher.
    """
    total = sum(world.attempts)
    share = sum(world.unknown) / total if total else 0.0
    sums = [0, *accumulate(world.attempts)]
    cost = [0.0]
    for j, (attempts, known) in enumerate(zip(world.attempts, world.known, strict=True), 1):
        least = cost[-1] + known + share * attempts
        i = j
        while i > 0:
            count = max(1, math.ceil((sums[j] - sums[i - 1]) / page_size))
            if count >= least:
                break
            i = bisect_left(sums, sums[j] - count * page_size)
            least = min(least, cost[i] + count)
        cost.append(least)
    return cost[-1]


class Listing:
    """Lay out what a window shows, cells in the order of the list, as running sums."""

    def __init__(self, run: "Run", cells: range) -> None:
        """Look at the cells as they are now."""
        self.run, self.cells = run, cells
        self.attempts = [0, *accumulate(run.world.attempts[i] for i in cells)]
        self.known = [0, *accumulate(run.known[i] for i in cells)]
        self.unknown = [0, *accumulate(run.unknown[i] for i in cells)]
        self.total = self.attempts[-1]

    def shown(self, pages: int) -> tuple[int, int]:
        """Return how many SIDs of known and of unknown age the first pages show."""
        return self._part(self.known, pages), self._part(self.unknown, pages)

    def _part(self, sums: list[int], pages: int) -> int:
        listed = pages * self.run.page_size
        if listed >= self.total:
            return sums[-1]
        if self.run.order == "shuffled":
            return sums[-1] * listed // self.total
        i = bisect_right(self.attempts, listed) - 1
        inside = (listed - self.attempts[i]) / (self.attempts[i + 1] - self.attempts[i])
        return sums[i] + math.floor(inside * (sums[i + 1] - sums[i]) + 1e-9)

    def take(self, pages: int) -> None:
        """Take out of the run's cells what the first pages show."""
        for sums, store in ((self.known, self.run.known), (self.unknown, self.run.unknown)):
            shown = self._part(sums, pages)
            gone = [min(value, shown) for value in sums]
            if self.run.order == "shuffled":
                gone = [value * shown // max(sums[-1], 1) for value in sums]
            for i, (before, after) in zip(self.cells, pairwise(gone), strict=True):
                store[i] -= after - before


class Run:
    """Execute plans against a world, counting requests."""

    def __init__(self, situation: Situation, page_size: int = PAGE) -> None:
        """Start with nothing spent."""
        self.world = situation.world
        self.order = situation.order
        self.density = situation.density
        self.known = list(self.world.known)
        self.unknown = list(self.world.unknown)
        self.swept: tuple[Window, ...] = ()
        self.listed = True
        self.singly = 0
        self.requests = 0
        self.page_size = page_size

    def waiting(self) -> Waiting:
        """Tell the planner what the queue would tell it."""
        cell = self.world.cell
        known = tuple(
            Bucket(i * cell, (i + 1) * cell, count) for i, count in enumerate(self.known) if count
        )
        end = len(self.known) * cell
        hidden = sum(self.unknown)
        if not self.listed:
            return Waiting(known, 0, 0, end, expired=hidden, swept=self.swept)
        return Waiting(known, hidden, 0, end, swept=self.swept)

    def spend(self) -> int:
        """Plan, ask, sweep and fetch until nothing waits; return the requests."""
        while True:
            done = self.world.singles - self.singly - sum(self.known) - sum(self.unknown)
            todo = plan(
                self.waiting(),
                replace(self.density, behind=self.requests - done),
                page_size=self.page_size,
                now=len(self.known) * self.world.cell,
            )  # fmt: skip
            if todo.ask:
                for window in todo.ask:
                    self._ask(window)
            elif todo.sweeps:
                self._sweep_all(todo.sweeps)
            else:
                return self.requests + self.singly + sum(self.known) + sum(self.unknown)

    def _ask(self, window: Window) -> None:
        self.requests += 1
        self._learn(window.start, window.end, self._total(window.start, window.end))
        self.density = replace(self.density, asked=self.density.asked + 1)

    def _sweep_all(self, sweeps: tuple[Sweep, ...]) -> None:
        for sweep in sorted(sweeps, key=lambda s: s.finds / s.pages, reverse=True):
            if not self._sweep(sweep):
                return

    def _sweep(self, sweep: Sweep) -> bool:
        """List a window; say whether it was as expected, so that the plan still holds."""
        cells = range(sweep.start // self.world.cell, sweep.end // self.world.cell)
        if self.order == "desc":
            cells = cells[::-1]
        listing = Listing(self, cells)
        count = max(1, math.ceil(listing.total / self.page_size))
        got = self.world.singles - self.singly - sum(self.known) - sum(self.unknown)
        progress = SweepProgress(sweep, self.page_size, behind=max(self.requests - got, 0))
        seen = 0
        while seen < count:
            seen += 1
            known, unknown = listing.shown(seen)
            progress.saw(
                known=known - progress.known, unknown=unknown - progress.unknown, seen=seen,
                page_size=self.page_size,
            )  # fmt: skip
            if not progress.worth_going_on:
                break
        self.requests += seen
        listing.take(seen)
        if seen < count:
            self.listed = self.listed and not progress.in_vain
            self.singly += sum(self.known[i] for i in cells)
            for i in cells:
                self.known[i] = 0
            self._learn(
                sweep.start, sweep.end, round((seen + progress.pages_left) * self.page_size)
            )
            self.density = replace(self.density, failed=self.density.failed + 1)
            return False
        self._learn(sweep.start, sweep.end, listing.total)
        self.swept += (Window(sweep.start, sweep.end),)
        if seen <= 1.25 * sweep.pages + 1:
            return True
        self.density = replace(self.density, failed=self.density.failed + 1)
        return False

    def _total(self, start: int, end: int) -> int:
        return sum(self.world.attempts[start // self.world.cell : end // self.world.cell])

    def _learn(self, start: int, end: int, count: int) -> None:
        counted = (*self.density.counted, Bucket(start, end, count))
        self.density = replace(self.density, counted=counted)


def spent(situation: Situation, page_size: int = PAGE) -> int:
    """Return the requests that the planner's decisions cost in a situation."""
    return Run(situation, page_size).spend()


# The grid.

_DAYS = 30
_CELLS = _DAYS * 24


def _even(_: random.Random) -> list[float]:
    return [1.0] * _CELLS


def _rhythm(_: random.Random) -> list[float]:
    return [
        (1.2 + math.sin((i % 24 - 8) / 24 * 2 * math.pi)) * (0.3 if i // 24 % 7 in {5, 6} else 1.0)
        for i in range(_CELLS)
    ]


def _campaign(chance: random.Random) -> list[float]:
    shape = _rhythm(chance)
    shape[chance.randrange(_CELLS)] = 2 * sum(shape)
    return shape


def _spikes(chance: random.Random) -> list[float]:
    shape = [1.0] * _CELLS
    for i in chance.sample(range(_CELLS), 10):
        shape[i] = 70.0
    return shape


def _growing(_: random.Random) -> list[float]:
    return [2.0 ** (i / 120) for i in range(_CELLS)]


SHAPES: Final[dict[str, Callable[[random.Random], list[float]]]] = {
    "even": _even,
    "rhythm": _rhythm,
    "campaign": _campaign,
    "spikes": _spikes,
    "growing": _growing,
}


def _place(where: str, attempts: list[float], chance: random.Random) -> list[float]:
    """Return where waiting SIDs lie, as a shape."""
    if where == "sample":
        return attempts
    if where == "even":
        return [1.0] * _CELLS
    if where == "yesterday":
        return [value if i // 24 == _DAYS - 2 else 0.0 for i, value in enumerate(attempts)]
    if where == "six hours":
        return [value if 400 <= i < 406 else 0.0 for i, value in enumerate(attempts)]
    hours = set(chance.sample(range(_CELLS), 8))
    return [1.0 if i in hours else 0.0 for i in range(_CELLS)]


PLACES: Final = ("sample", "even", "yesterday", "six hours", "hours")
AGES: Final = ("known", "unknown", "mixed")
KNOWLEDGE: Final = ("exact", "right", "none", "third", "triple", "uneven")
PENDING: Final = (1, 3, 10, 30, 100, 300, 1_000, 10_000, 100_000, 1_000_000)
DENSITIES: Final = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
MOST: Final = 30_000_000


def world(
    pending: int, density: float, shape: str, place: str, ages: str, chance: random.Random
) -> World:
    """Make a world of ``pending`` SIDs waiting among ``pending`` / ``density`` attempts."""
    curve = SHAPES[shape](chance)
    attempts = spread(round(pending / density), curve)
    known = {"known": pending, "unknown": 0, "mixed": pending // 2}[ages]
    sids = spread(known, _place(place, curve, chance)) if known else (0,) * _CELLS
    attempts = tuple(max(a, k) for a, k in zip(attempts, sids, strict=True))
    rest = pending - known
    room = [float(a - k) for a, k in zip(attempts, sids, strict=True)]
    if sum(room) < rest:
        attempts = tuple(a + 1 + rest // _CELLS for a in attempts)
        room = [float(a - k) for a, k in zip(attempts, sids, strict=True)]
    hidden = spread(rest, room) if rest else (0,) * _CELLS
    return World(HOUR, attempts, sids, hidden)


def knowledge(kind: str, made: World) -> Density:
    """Return what is known of a world beforehand."""
    cell = made.cell
    if kind == "none":
        return Density()
    factors = {"third": (1 / 3, 1 / 3), "triple": (3.0, 3.0), "uneven": (1 / 3, 3.0)}
    odd, even = factors.get(kind, (1.0, 1.0))
    buckets = tuple(
        Bucket(i * cell, (i + 1) * cell, round(count * (odd if i // 24 % 2 else even)))
        for i, count in enumerate(made.attempts)
    )
    return Density(counted=buckets) if kind == "exact" else Density(believed=buckets)


def grid(share: int = 1) -> Iterator[Situation]:
    """Yield every ``share``-th situation of the whole grid, the same ones each time."""
    axes = product(PENDING, DENSITIES, SHAPES, PLACES, AGES, KNOWLEDGE)
    possible = (
        axis for axis in axes
        if axis[0] / axis[1] <= MOST and (axis[4] != "unknown" or axis[3] == "sample")
    )  # fmt: skip
    for number, (pending, density, shape, place, ages, kind) in enumerate(possible, 1):
        if number % share:
            continue
        chance = random.Random(number // len(KNOWLEDGE))
        made = world(pending, density, shape, place, ages, chance)
        order = ("desc", "asc", "shuffled")[number // len(KNOWLEDGE) % 3]
        total = sum(made.attempts)
        name = f"{pending:,} of {total:,}, {shape} days, {place} {ages}, {kind}, {order}"
        yield Situation(name, kind, (shape, place, ages, order), made, knowledge(kind, made), order)


def bound(case: Situation, least: float) -> float:
    """Return the most requests that a situation may cost.

    With the database wrong by 3, twice the best; with nothing known but where the SIDs lie, a few
    questions cannot show every crowd that nobody waits for: two and a half times the best + 4.
    """
    ages = case.kind[2] if case.kind else "known"
    most = 1.15 * least + 2
    if case.group in {"third", "triple", "uneven"}:
        most = 2 * least + 2
    elif case.group == "none" and ages != "unknown":
        most = 2.5 * least + 4
    return min(most, case.world.singles + 2) + 1e-9
