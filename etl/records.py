"""Hold the values that flow through a run, immutable and named by their place in it.

``Lease`` (claimed) -> ``Answer`` (fetched) -> ``Attempt`` | ``Rejection`` (transformed) ->
``Verdict`` (settled). Times that the machine compares are integers, epoch milliseconds UTC. Those
made for every attempt that is loaded are named tuples: a frozen dataclass takes four times as long.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

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


Answer: TypeAlias = Fetched | Failed


class Verdict(NamedTuple):
    """Say what becomes of a lease: its next state and the columns that go with it."""

    state: State
    due_at: int
    expires_at: int
    attempts: int
    outcome: Outcome | None
    error: str | None
