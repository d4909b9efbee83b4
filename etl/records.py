"""Hold the values that flow through a run, immutable and named by their place in it.

``Lease`` (claimed) -> ``Fetched`` | ``Failed`` -> ``Attempt`` | ``Rejection`` (transformed) ->
``Verdict`` (settled). Times that the machine compares are integers, epoch milliseconds UTC. Those
made for every attempt that is loaded are named tuples: a frozen dataclass takes four times as long.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

from etl.errors import (
    DatabaseBusy,
    EtlError,
    Stop,
    Throttled,
)

SID_PATTERN: Final = re.compile(r"VL[0-9a-fA-F]{32}", re.ASCII)
VERIFICATION_PATTERN: Final = re.compile(r"VE[0-9a-fA-F]{32}", re.ASCII)
"""The shape of a Verification Attempt SID; use ``fullmatch`` (source: Twilio's OpenAPI spec)."""

Payload: TypeAlias = Mapping[str, Any]
"""One attempt as the API sent it; fractions are ``Decimal``, NaN and Infinity their names."""


class State(StrEnum):
    """Where a row of ``attempt_queue`` stands; the transitions stand beside the column."""

    PENDING = "pending"
    LEASED = "leased"
    RETRY = "retry"
    REFRESH = "refresh"
    SETTLED = "settled"
    DEAD = "dead"


class Outcome(StrEnum):
    """Say why a row rests."""

    FINAL = "final"
    LAST_KNOWN = "last_known"
    NOT_FOUND = "not_found"
    EXPIRED = "expired"
    MALFORMED_SID = "malformed_sid"
    BAD_BODY = "bad_body"
    BODY_TOO_LARGE = "body_too_large"
    DB_REJECT = "db_reject"
    KILLED_WORKER = "killed_worker"
    EXHAUSTED = "exhausted"


class Lease(NamedTuple):
    """Own one queued SID until ``due_at``, as long as ``claim_no`` holds in the database."""

    id: int
    sid: str
    claim_no: int
    due_at: int
    expires_at: int
    enqueued_at: int
    attempts: int
    fetches: int
    lost_leases: int
    outcome: str | None = None
    unplanned: bool = False
    """A list page showed it while it was not pending, so that no plan counted on it."""


class Attempt(NamedTuple):
    """Hold one attempt as the tables store it: the API's fields, normalized.

    ``extra`` keeps what has no column: unknown keys of ``channel_data`` as sent, unknown
    top-level keys under ``_attempt``, and under ``_raw`` the text of values that could not be
    read. ``warnings`` names the fields that were not readable, never their values.
    """

    sid: str
    account_sid: str | None
    service_sid: str | None
    verification_sid: str | None
    channel: str | None
    conversion_status: str | None
    price_amount: Decimal | None
    price_currency: str | None
    date_created: datetime | None
    date_updated: datetime | None
    url: str | None
    destination: str | None
    destination_prefix: str | None
    country: str | None
    mcc: str | None
    mnc: str | None
    carrier: str | None
    locale: str | None
    status: str | None
    message_status: str | None
    call_status: str | None
    error_code: str | None
    code_length: int | None
    extra: Mapping[str, Any] | None
    warnings: tuple[str, ...] = ()

    @property
    def created_ms(self) -> int | None:
        """Give the creation time in epoch milliseconds, None when it is not known."""
        return None if self.date_created is None else round(self.date_created.timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Say why a payload is not the attempt asked for, without quoting it."""

    reason: str


class Failure(StrEnum):
    """Sort what can come back for one SID instead of its attempt."""

    TRANSIENT = "transient"
    NOT_FOUND = "not_found"
    BAD_BODY = "bad_body"
    BODY_TOO_LARGE = "body_too_large"
    MALFORMED_SID = "malformed_sid"
    DB_REJECT = "db_reject"


class Fetched(NamedTuple):
    """Carry an attempt, and when its request was sent (epoch milliseconds, database clock)."""

    attempt: Attempt
    sent_at: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Carry what went wrong for one SID, in words fit for ``last_error``."""

    failure: Failure
    error: str


class Verdict(NamedTuple):
    """Say what becomes of a lease: its next state and the columns that go with it."""

    state: State
    due_at: int
    expires_at: int
    attempts: int
    outcome: Outcome | None
    error: str | None


Judged: TypeAlias = list[tuple[Lease, Verdict]]


class Unreadable(dict[str, tuple[int, str]]):
    """Count what could not be stored as sent, by kind, each with the SID of an example."""

    def note(self, kind: str, sid: str, count: int = 1) -> None:
        """Add to a kind; its first example stays."""
        known, example = self.get(kind, (0, ""))
        self[kind] = (known + count, example or sid)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return it as ``sync_runs.did`` keeps it."""
        return {kind: {"count": n, "example": sid or None} for kind, (n, sid) in self.items()}


@dataclass(slots=True)
class Done:
    """Count what a finish did.

    ``now`` is the database's clock inside it, ``read_at`` the monotonic one just before.
    """

    now: int
    read_at: float
    states: dict[str, int] = field(default_factory=dict)
    fetched: int = 0
    given_back: int = 0
    discarded: int = 0
    changes: int = 0
    unreadable: Unreadable = field(default_factory=Unreadable)
    enqueued: int = 0
    ageless: int = 0
    """Rows that a page showed and a plan counted on without knowing their creation time."""
    unplanned: int = 0
    """Rows that a page showed while no plan counted on them."""
    refused: list[Lease] = field(default_factory=list)
    """Rows that the database refused, and which are dead for it."""

    def count(self, judged: Judged) -> None:
        """Count verdicts by the state they lead to."""
        for state, count in Counter(verdict.state for _, verdict in judged).items():
            self.states[state.value] = self.states.get(state.value, 0) + count


@dataclass(frozen=True, slots=True)
class Spent:
    """Say that a slot's request was answered at a monotonic time; None: it was never sent."""

    slot: int | None
    answered_at: float | None


@dataclass(frozen=True, slots=True)
class Task:
    """Carry a lease to a thread, with its slot and the monotonic time when it was claimed.

    A ``probe`` is sent though all else has failed, to learn whether the API is down.
    """

    lease: Lease
    slot: int | None
    claimed_at: float
    probe: bool = False


@dataclass(slots=True)
class Result:
    """Carry what came of a task back to the loop.

    One of: ``attempt`` with ``sent_at`` (ms, the database's clock), ``failed``, ``throttled`` (the API
    said so), ``stop`` (what ends the run), a ``bug``; none of them means that the row goes back
    uncounted.
    """

    lease: Lease
    claimed_at: float = 0.0
    spent: list[Spent] = field(default_factory=list)
    attempt: Attempt | None = None
    sent_at: int = 0
    failed: Failed | None = None
    throttled: Throttled | None = None
    stop: Stop | DatabaseBusy | None = None
    bug: BaseException | None = None
    last: EtlError | None = None
    """What the last try failed with."""

    @property
    def requests(self) -> int:
        """Count the requests that were sent."""
        return sum(done.answered_at is not None for done in self.spent)
