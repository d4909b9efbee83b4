"""Decide when an attempt is final. All others ask here.

The queue settles rows by ``is_final``. Reports of a past moment use its SQL twin, ``final_sql``.
The roll-ups sum the days before ``quiet_before``. All times are epoch milliseconds UTC.
"""

from dataclasses import dataclass
from typing import Final

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
REFRESH_EVERY_MS: Final = DAY_MS
"""How often a row past ``settle_after`` that is not final is looked at again."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Hold the ages, in milliseconds, at which things settle.

    Prices are final a day after sending, Twilio says. An attempt that has none after
    ``price_grace`` will not get one. The API forgets attempts after ``retention``.
    """

    settle_after: int = DAY_MS
    price_grace: int = 3 * DAY_MS
    refresh_round: int = HOUR_MS
    retention: int = 30 * DAY_MS

    @property
    def latest(self) -> int:
        """Return a generous bound on the age at which anything is looked at again."""
        return self.retention + self.settle_after + self.refresh_round + REFRESH_EVERY_MS


def is_final(policy: Policy, *, sent_at: int, known_from: int, has_price: bool) -> bool:
    """Say whether a fetch sent at ``sent_at`` saw values that cannot change any more.

    ``known_from`` is the creation time, or its lower bound ``enqueued_at`` if that is unknown.
    """
    age = sent_at - known_from
    return age >= (policy.settle_after if has_price else policy.price_grace)


def final_sql(policy: Policy, *, age: str, price: str) -> str:
    """Write ``is_final`` as SQL, from expressions for the age (ms) and the price."""
    wanted = f"CASE WHEN ({price}) IS NULL THEN {policy.price_grace} ELSE {policy.settle_after} END"
    return f"{age} >= {wanted}"


def known_from(policy: Policy, *, created_at: int | None, expires_at: int, enqueued_at: int) -> int:
    """Return the start of a row's age: its creation, else what the inserter knew of it.

    ``expires_at`` is as ``believed``.
    """
    if created_at is not None:
        return created_at
    return expires_at - policy.retention if expires_at else enqueued_at


def believed(policy: Policy, expires_at: int, now: int) -> int:
    """Return when the API forgets a row, 0 if unknown, at most a retention from now.

    Others write the column, too. A later time would keep a row from ever coming to rest.
    """
    return expires_at if expires_at <= now + policy.retention else 0


def next_look(policy: Policy, *, known_from: int, now: int) -> int:
    """Return when to look again: at ``settle_after``, or a day from now if that is past.

    It is rounded up to ``refresh_round``, so that many rows meet in one window.
    """
    due_at = known_from + policy.settle_after
    if due_at <= now:
        due_at = now + REFRESH_EVERY_MS
    return round_up(due_at, policy.refresh_round)


def round_up(when: int, step: int) -> int:
    """Round a time up to a multiple of ``step``."""
    return -(-when // step) * step


def quiet_before(policy: Policy, now: int) -> int:
    """Return a time before which hardly any attempt still changes.

    Attempts are looked at again at ``settle_after``, rounded up. The run may start an hour later.
    """
    return now - policy.settle_after - policy.refresh_round - HOUR_MS
