"""Name what the planner takes and gives: windows, counts, plans."""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Strategy: TypeAlias = Literal["auto", "fetch", "sweep"]


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
    costs one list request by itself. None lies in ``swept``, the windows already listed to their
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

    ``believed``: from the database, sorted, disjoint. It may have gaps (nothing known) and be wrong
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
    """Hold what to do, and its cost in requests.

    With ``ask`` not empty, ask and plan again: the rest is the plan without the answers.
    ``requests`` = asks, those made included + pages + fetches. The answers may bring it to anything
    from ``least`` to ``most``. ``fetch_only`` and ``sweep_only`` are the costs of each way by itself,
    asks left out. ``guessed``: nothing says how much the account holds, so pages are counted for the
    SIDs that wait alone.
    """

    ask: tuple[Window, ...]
    sweeps: tuple[Sweep, ...]
    fetches: int
    requests: int
    least: int
    most: int
    fetch_only: int
    sweep_only: int
    guessed: bool = False
