"""Hold a run's order, and the tools of its stages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from etl.allowance.permits import Permits
from etl.allowance.slots import Allowance
from etl.database.times import Clock
from etl.extract import Api
from etl.final import Policy
from etl.job.breaker import Breaker
from etl.job.counts import Counts
from etl.job.stop import StopFlag

if TYPE_CHECKING:
    from etl.decide.values import Strategy


@dataclass(frozen=True, slots=True)
class Tools:
    """Hand a stage its database, its API, its allowance and its clock.

    ``account`` is Twilio's SID, and ``accounts`` are its names in the queue. ``struck`` are rows
    with which our code met a bug. Their leases run out and are counted.
    """

    engine: Engine
    api: Api
    permits: Permits
    breaker: Breaker
    clock: Clock
    counts: Counts
    stop: StopFlag
    watch: Callable[[Counts], None]
    accounts: Sequence[str]
    account: str
    worker: str
    policy: Policy
    struck: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Job:
    """Say what a run is asked to do: whose account, within which limits, by which policy.

    ``sum_share``: sum days for the reports for at most this share of the run's time.
    """

    account: str
    allowance: Allowance
    policy: Policy
    concurrency: int
    limit: int | None = None
    max_seconds: float | None = None
    strict: bool = False
    strategy: "Strategy" = "auto"
    page_size: int = 1000
    sum_share: float = 0.03

    def asked(self) -> dict[str, Any]:
        """Return the options to keep in the run's row."""
        return {
            "strategy": self.strategy,
            "concurrency": self.concurrency,
            "limit": self.limit,
            "max_seconds": self.max_seconds,
            "allowance": self.allowance.requests,
        }
