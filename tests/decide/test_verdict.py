import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from etl import final
from etl.decide.verdict import (
    EXHAUSTED_TRIES,
    LAST_CHANCE_MS,
    NOT_FOUND_TRIES,
    after_failure,
    after_fetch,
)
from etl.final import Policy
from etl.queue.leases import write_verdicts
from etl.records import Failed, Failure, Lease, Outcome, State, Verdict
from tests.support.queue_rows import DAY, HOUR, NOW, claim, put, read, sid

MINUTE = 60_000
POLICY = Policy(settle_after=DAY, price_grace=3 * DAY, refresh_round=HOUR, retention=30 * DAY)
LEASE = Lease(1, sid(1), 1, NOW + 1, 0, NOW - HOUR, 0, 0, 0)


def fetched(age: int, *, has_price: bool, expires_at: int = 0) -> Verdict:
    """Judge a fetch at ``NOW`` of an attempt of this age."""
    return after_fetch(
        POLICY, sent_at=NOW, known_from=NOW - age, expires_at=expires_at, has_price=has_price
    )


def failed(
    failure: Failure, lease: Lease = LEASE, *, now: int = NOW, jitter: float = 0.5, error: str = "x"
) -> Verdict:
    """Judge a failure."""
    return after_failure(POLICY, lease, Failed(failure, error), now=now, jitter=lambda: jitter)


def again(lease: Lease, verdict: Verdict) -> Lease:
    """Claim the row of a verdict once more."""
    return lease._replace(attempts=verdict.attempts, outcome=verdict.outcome)


@pytest.mark.parametrize(
    ("age", "has_price", "state"),
    [
        (0, True, State.REFRESH),
        (DAY - 1, True, State.REFRESH),
        (DAY, True, State.SETTLED),
        (DAY, False, State.REFRESH),
        (3 * DAY - 1, False, State.REFRESH),
        (3 * DAY, False, State.SETTLED),
        (-DAY, True, State.REFRESH),
        (-DAY, False, State.REFRESH),
        (2000 * DAY, False, State.SETTLED),
    ],
)
def test_a_fetch_is_final_at_the_age_that_its_price_allows(
    age: int, state: State, *, has_price: bool
) -> None:
    """With a price from ``settle_after`` on, without one from ``price_grace`` on, to the ms."""
    verdict = fetched(age, has_price=has_price)
    rests = state is State.SETTLED
    assert (verdict.state, verdict.outcome) == (state, Outcome.FINAL if rests else None)
    assert (verdict.attempts, verdict.error) == (0, None)
    assert final.is_final(POLICY, sent_at=NOW, known_from=NOW - age, has_price=has_price) == rests


@pytest.mark.parametrize(
    ("age", "due_in"),
    [(0, DAY), (HOUR, DAY - HOUR), (DAY - 1, 1), (DAY, DAY), (2 * DAY + 5, DAY), (-5 * DAY, DAY)],
)
def test_a_refresh_is_due_when_it_can_have_become_final(age: int, due_in: int) -> None:
    """First at creation + ``settle_after``, then a day later, each rounded up to the full hour."""
    due_at = fetched(age, has_price=False).due_at
    assert due_at % HOUR == 0
    assert NOW + due_in <= due_at < NOW + due_in + HOUR


@pytest.mark.parametrize(("when", "expected"), [(0, 0), (1, 60), (60, 60), (61, 120), (-1, 0)])
def test_rounding_up(when: int, expected: int) -> None:
    """A time that is a multiple stays, any other moves to the next one."""
    assert final.round_up(when, 60) == expected


@pytest.mark.parametrize(
    ("created_at", "expires_at", "expected"),
    [(5, 31 * DAY, 5), (None, 31 * DAY, DAY), (None, 0, 7), (0, 31 * DAY, 0)],
)
def test_an_age_counts_from_the_best_that_is_known(
    created_at: int | None, expires_at: int, expected: int
) -> None:
    """Creation, else what the inserter knew, else the time of enqueueing."""
    found = final.known_from(POLICY, created_at=created_at, expires_at=expires_at, enqueued_at=7)
    assert found == expected


def test_nobody_knows_of_a_time_beyond_the_retention() -> None:
    """An attempt created now is forgotten a retention from now, and none is created later."""
    latest = NOW + POLICY.retention
    asked = (0, 1, NOW, latest, latest + 1, 2**62)
    assert [final.believed(POLICY, each, NOW) for each in asked] == [0, 1, NOW, latest, 0, 0]


@pytest.mark.parametrize(
    ("failure", "attempts", "state", "outcome"),
    [
        (Failure.TRANSIENT, 0, State.RETRY, None),
        (Failure.TRANSIENT, EXHAUSTED_TRIES - 2, State.RETRY, None),
        (Failure.TRANSIENT, EXHAUSTED_TRIES - 1, State.DEAD, Outcome.EXHAUSTED),
        (Failure.BAD_BODY, 0, State.RETRY, None),
        (Failure.BAD_BODY, EXHAUSTED_TRIES - 1, State.DEAD, Outcome.BAD_BODY),
        (Failure.BODY_TOO_LARGE, 0, State.RETRY, None),
        (Failure.BODY_TOO_LARGE, EXHAUSTED_TRIES - 1, State.DEAD, Outcome.BODY_TOO_LARGE),
        (Failure.MALFORMED_SID, 0, State.DEAD, Outcome.MALFORMED_SID),
        (Failure.DB_REJECT, 0, State.DEAD, Outcome.DB_REJECT),
        (Failure.NOT_FOUND, 5, State.RETRY, Outcome.NOT_FOUND),
    ],
)
def test_failures_are_tried_again_or_rest(
    failure: Failure, attempts: int, state: State, outcome: Outcome | None
) -> None:
    """Each failure leads where "Life of a SID" says, with one more attempt counted."""
    verdict = failed(failure, LEASE._replace(attempts=attempts))
    assert (verdict.state, verdict.outcome) == (state, outcome)
    assert verdict.attempts == (1 if failure is Failure.NOT_FOUND else attempts + 1)
    assert (verdict.due_at > NOW) == (state is State.RETRY)


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_twelve_failures_span_two_days(jitter: float) -> None:
    """A row is exhausted after twelve tries, two to four days after the first."""
    lease, now, tries = LEASE, NOW, 1
    while (verdict := failed(Failure.TRANSIENT, lease, now=now, jitter=jitter)).state is not (
        State.DEAD
    ):
        lease, now, tries = again(lease, verdict), verdict.due_at, tries + 1
    assert tries == EXHAUSTED_TRIES
    assert 2 * DAY <= now - NOW <= 4 * DAY


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_three_answers_of_404_span_an_hour(jitter: float) -> None:
    """A SID never fetched is missing after three tries over at least an hour."""
    first = failed(Failure.NOT_FOUND, jitter=jitter)
    second = failed(Failure.NOT_FOUND, again(LEASE, first), now=first.due_at, jitter=jitter)
    third = failed(Failure.NOT_FOUND, again(LEASE, second), now=second.due_at)
    assert [v.state for v in (first, second, third)] == [State.RETRY, State.RETRY, State.DEAD]
    assert (third.outcome, third.attempts) == (Outcome.NOT_FOUND, NOT_FOUND_TRIES)
    assert HOUR <= second.due_at - NOW <= 3 * HOUR


@pytest.mark.parametrize(("left", "due"), [(25, 15), (11, 1), (10, 10), (9, 9)])
def test_a_404_is_asked_for_again_before_it_is_forgotten(left: int, due: int) -> None:
    """A SID never fetched has a last try, as after any failure, while the API may remember it."""
    lease = LEASE._replace(fetches=0, expires_at=NOW + left * MINUTE)
    verdict = failed(Failure.NOT_FOUND, lease)
    assert (verdict.state, verdict.due_at) == (State.RETRY, NOW + due * MINUTE)


def test_another_failure_ends_a_row_of_404s() -> None:
    """Answers of 404 and other failures are counted apart, each from one."""
    twice = LEASE._replace(attempts=2, outcome="not_found")
    other = failed(Failure.TRANSIENT, twice)
    assert (other.state, other.attempts, other.outcome) == (State.RETRY, 1, None)
    after = failed(Failure.NOT_FOUND, again(twice, other))
    assert (after.state, after.attempts) == (State.RETRY, 1)


def test_many_404s_do_not_exhaust_a_fetched_row() -> None:
    """One 5xx after dozens of 404s is a first failure, not the twelfth."""
    lease = LEASE._replace(fetches=1, attempts=40, outcome="not_found")
    assert failed(Failure.TRANSIENT, lease).state is State.RETRY


@pytest.mark.parametrize(
    ("fetches", "expires_in", "enqueued_ago", "attempts", "state", "outcome"),
    [
        (0, 0, 0, 0, State.DEAD, Outcome.EXPIRED),
        (0, -DAY, 0, 0, State.DEAD, Outcome.EXPIRED),
        (0, 1, 0, 0, State.RETRY, Outcome.NOT_FOUND),
        (0, None, 31 * DAY, 1, State.RETRY, Outcome.NOT_FOUND),
        (0, None, 31 * DAY, 2, State.DEAD, Outcome.EXPIRED),
        (0, None, 29 * DAY, 2, State.DEAD, Outcome.NOT_FOUND),
        (1, DAY, 0, 30, State.RETRY, Outcome.NOT_FOUND),
        (1, 0, 0, 0, State.SETTLED, Outcome.LAST_KNOWN),
        (1, None, 30 * DAY, 0, State.SETTLED, Outcome.LAST_KNOWN),
        (1, None, 30 * DAY - 1, 9, State.RETRY, Outcome.NOT_FOUND),
        # Nothing is forgotten so late: somebody wrote it, and the other times count.
        (1, 30 * DAY, 31 * DAY, 0, State.RETRY, Outcome.NOT_FOUND),
        (1, 30 * DAY + 1, 31 * DAY, 0, State.SETTLED, Outcome.LAST_KNOWN),
        (0, 30 * DAY + 1, 31 * DAY, 0, State.RETRY, Outcome.NOT_FOUND),
        # Nor is anything enqueued in years to come: 404 a day, for thirty days, is the end.
        (1, None, -9_999 * DAY, 35, State.RETRY, Outcome.NOT_FOUND),
        (1, None, -9_999 * DAY, 36, State.SETTLED, Outcome.LAST_KNOWN),
    ],
)
def test_a_404_depends_on_age_and_on_what_is_known(
    fetches: int,
    expires_in: int | None,
    enqueued_ago: int,
    attempts: int,
    state: State,
    outcome: Outcome,
) -> None:
    """Never fetched: missing or expired; fetched before: tried to its deadline, then last known."""
    expires_at = 0 if expires_in is None else NOW + expires_in
    lease = LEASE._replace(
        fetches=fetches, expires_at=expires_at, enqueued_at=NOW - enqueued_ago,
        attempts=attempts, outcome="not_found",
    )  # fmt: skip
    verdict = failed(Failure.NOT_FOUND, lease)
    assert (verdict.state, verdict.outcome) == (state, outcome)
    if fetches and state is State.RETRY:
        assert NOW < verdict.due_at <= (expires_at or lease.enqueued_at + POLICY.retention)


@pytest.mark.parametrize(
    ("left", "due_in"),
    [
        (DAY, DAY - LAST_CHANCE_MS),
        (LAST_CHANCE_MS + 1, 1),
        (LAST_CHANCE_MS, LAST_CHANCE_MS),
        (1, 1),
    ],
)
def test_no_backoff_leads_past_the_deadline(left: int, due_in: int) -> None:
    """The last try comes ten minutes before the API forgets, or at that moment."""
    lease = LEASE._replace(attempts=10, expires_at=NOW + left)
    assert failed(Failure.TRANSIENT, lease).due_at == NOW + due_in


LEASES: st.SearchStrategy[Lease] = st.builds(
    Lease,
    id=st.just(1),
    sid=st.just(sid(1)),
    claim_no=st.just(1),
    due_at=st.just(NOW),
    expires_at=st.just(0) | st.integers(NOW - 40 * DAY, NOW + 40 * DAY) | st.integers(1, 2**62),
    enqueued_at=st.integers(NOW - 40 * DAY, NOW + DAY),
    attempts=st.integers(0, 60),
    fetches=st.integers(0, 3),
    lost_leases=st.integers(0, 4),
    outcome=st.sampled_from([None, "not_found"]),
)


@given(
    LEASES,
    st.sampled_from(Failure),
    st.sampled_from(["", "x", "\N{PILE OF POO}" * 501]),
    st.floats(0, 1),
)
def test_any_failure_has_a_legal_verdict(
    lease: Lease, failure: Failure, error: str, jitter: float
) -> None:
    """A retry lies ahead, what rests says why, and the error is cut to its column."""
    verdict = failed(failure, lease, jitter=jitter, error=error)
    assert verdict.state in {State.RETRY, State.DEAD, State.SETTLED}
    assert verdict.error == error[:500]
    assert (verdict.expires_at, verdict.attempts >= 1) == (lease.expires_at, True)
    if verdict.state is State.RETRY:
        assert verdict.due_at > NOW
        assert verdict.outcome in {None, Outcome.NOT_FOUND}
        if lease.expires_at > NOW:
            assert verdict.due_at <= lease.expires_at
    else:
        assert (verdict.due_at, verdict.outcome is not None) == (0, True)
    if verdict.state is State.SETTLED:
        assert (lease.fetches > 0, verdict.outcome) == (True, Outcome.LAST_KNOWN)


@given(st.integers(0, 2**60), st.integers(-(2**60), 2**60), st.booleans())
def test_any_fetch_has_a_legal_verdict(sent_at: int, known_from: int, has_price: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    """A fetch settles a row, or asks again within ``settle_after`` or a day, and an hour."""
    verdict = after_fetch(
        POLICY, sent_at=sent_at, known_from=known_from, expires_at=3, has_price=has_price
    )
    assert (verdict.attempts, verdict.expires_at, verdict.error) == (0, 3, None)
    if verdict.state is State.REFRESH:
        assert sent_at < verdict.due_at <= sent_at + DAY + HOUR
        assert verdict.outcome is None
    else:
        assert (verdict.state, verdict.outcome) == (State.SETTLED, Outcome.FINAL)


def _write(engine: Engine, verdict: Verdict, **how: bool) -> None:
    put(engine, {"sid": sid(1), "lost_leases": 1, "fetches": 1, "attempts": 4})
    (lease,) = claim(engine)
    with engine.begin() as connection:
        write_verdicts(connection, [], fetched=True, now=NOW)
        write_verdicts(
            connection, [(lease, verdict)], fetched=how["fetched"], listed=how["listed"], now=NOW
        )


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(
    ("verdict", "was_fetched"),
    [
        (Verdict(State.SETTLED, 0, NOW + DAY, 0, Outcome.FINAL, None), True),
        (Verdict(State.REFRESH, NOW + HOUR, NOW + DAY, 0, None, None), True),
        (Verdict(State.RETRY, NOW + HOUR, 0, 5, Outcome.NOT_FOUND, "404"), False),
        (Verdict(State.DEAD, 0, 0, 12, Outcome.EXHAUSTED, "\N{PILE OF POO}" * 500), False),
    ],
)
def test_a_verdict_is_written_whole(
    engine: Engine, verdict: Verdict, *, was_fetched: bool, listed: bool
) -> None:
    """Every column follows the verdict; a good fetch counts, a row seen on a list is fenced."""
    _write(engine, verdict, fetched=was_fetched, listed=listed)
    row = read(engine)[sid(1)]
    written = Verdict(
        row.state, row.due_at, row.expires_at, row.attempts, row.outcome, row.last_error
    )
    assert written == verdict
    assert (row.fetches, row.lost_leases) == ((2, 0) if was_fetched else (1, 1))
    assert (row.claim_no, row.leased_by) == (1 + listed, None)
    assert row.rested == (verdict.state in {State.SETTLED, State.DEAD})
