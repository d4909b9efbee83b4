"""Decide what becomes of a lease, purely. All times are epoch milliseconds UTC."""

import random
from collections.abc import Callable
from typing import Final

from etl.final import DAY_MS, Policy, believed, is_final, next_look
from etl.records import Failed, Failure, Lease, Outcome, State, Verdict

EXHAUSTED_TRIES: Final = 12
# 90 s doubled eleven times is 51 hours: twelve tries never take less than two days.
FIRST_BACKOFF_MS: Final = 90_000
# Two waits of at least half an hour: three answers of 404 span at least an hour.
NOT_FOUND_TRIES: Final = 3
NOT_FOUND_BACKOFF_MS: Final = 30 * 60_000
# Doubled so often they are a day apart, and stay so.
NOT_FOUND_DAILY_AFTER: Final = 6
# The last try before the API forgets a row keeps this distance from that moment.
LAST_CHANCE_MS: Final = 10 * 60_000
ERROR_LENGTH: Final = 500

_FINAL_OUTCOME: Final = {
    Failure.TRANSIENT: Outcome.EXHAUSTED,
    Failure.BAD_BODY: Outcome.BAD_BODY,
    Failure.BODY_TOO_LARGE: Outcome.BODY_TOO_LARGE,
}
_AT_ONCE: Final = {
    Failure.MALFORMED_SID: Outcome.MALFORMED_SID,
    Failure.DB_REJECT: Outcome.DB_REJECT,
}


def after_fetch(
    policy: Policy, *, sent_at: int, known_from: int, expires_at: int, has_price: bool
) -> Verdict:
    """Settle a fetched row: it is final, or due again.

    It existed: a creation time in the future is somebody's wrong clock.
    """
    known_from = min(known_from, sent_at)
    if is_final(policy, sent_at=sent_at, known_from=known_from, has_price=has_price):
        return Verdict(State.SETTLED, 0, expires_at, 0, Outcome.FINAL, None)
    due_at = next_look(policy, known_from=known_from, now=sent_at)
    return Verdict(State.REFRESH, due_at, expires_at, 0, None, None)


def after_failure(
    policy: Policy,
    lease: Lease,
    failed: Failed,
    *,
    now: int,
    jitter: Callable[[], float] = random.random,
) -> Verdict:
    """Settle a row that could not be fetched: it is tried later, or rests.

    ``jitter`` returns 0..1. It lengthens waits by up to a quarter and never shortens them: the
    promised spans hold.
    """
    error = failed.error[:ERROR_LENGTH]
    if failed.failure in _AT_ONCE:
        return _rest(lease, State.DEAD, _AT_ONCE[failed.failure], error, lease.attempts + 1)
    if failed.failure is Failure.NOT_FOUND:
        return _after_not_found(policy, lease, error, now=now, jitter=jitter)
    # Answers of 404 are counted apart (a fetched row may have dozens, and is none the worse).
    tries = 1 if lease.outcome == Outcome.NOT_FOUND else lease.attempts + 1
    if tries >= EXHAUSTED_TRIES:
        return _rest(lease, State.DEAD, _FINAL_OUTCOME[failed.failure], error, tries)
    wait = FIRST_BACKOFF_MS * 2 ** (tries - 1)
    due_at = _no_later(lease, now, now + _stretch(wait, jitter))
    return Verdict(State.RETRY, due_at, lease.expires_at, tries, None, error)


def _after_not_found(
    policy: Policy, lease: Lease, error: str, *, now: int, jitter: Callable[[], float]
) -> Verdict:
    # `outcome` marks a row whose last answer was 404 too: only a row of 404s counts as missing,
    # for real resources answer 404 now and then.
    tries = lease.attempts + 1 if lease.outcome == Outcome.NOT_FOUND else 1
    expires_at = believed(policy, lease.expires_at, now)
    forgotten_at = expires_at or lease.enqueued_at + policy.retention
    # It was there when it was fetched: whatever the columns say, so many days of 404 are the end.
    forgotten = now >= forgotten_at or tries > NOT_FOUND_DAILY_AFTER + policy.retention // DAY_MS
    if lease.fetches and forgotten:
        return _rest(lease, State.SETTLED, Outcome.LAST_KNOWN, error, tries)
    if not lease.fetches and forgotten and expires_at:
        return _rest(lease, State.DEAD, Outcome.EXPIRED, error, tries)
    if not lease.fetches and tries >= NOT_FOUND_TRIES:
        outcome = Outcome.EXPIRED if forgotten else Outcome.NOT_FOUND
        return _rest(lease, State.DEAD, outcome, error, tries)
    wait = min(NOT_FOUND_BACKOFF_MS * 2 ** min(tries - 1, NOT_FOUND_DAILY_AFTER), DAY_MS)
    due_at = now + _stretch(wait, jitter)
    if lease.fetches:
        due_at = min(due_at, max(forgotten_at, now + 1))
    else:
        due_at = _no_later(lease, now, due_at)
    return Verdict(State.RETRY, due_at, lease.expires_at, tries, Outcome.NOT_FOUND, error)


def _rest(lease: Lease, state: State, outcome: Outcome, error: str, tries: int) -> Verdict:
    return Verdict(state, 0, lease.expires_at, tries, outcome, error)


def _stretch(wait: int, jitter: Callable[[], float]) -> int:
    return wait + int(wait * jitter() / 4)


def _no_later(lease: Lease, now: int, due_at: int) -> int:
    # A backoff must not carry a row past the moment after which the API may have forgotten it;
    # one that is past it already has nothing left to be early for.
    last_chance = lease.expires_at - LAST_CHANCE_MS
    if now < last_chance < due_at:
        return last_chance
    return min(due_at, lease.expires_at) if now < lease.expires_at else due_at
