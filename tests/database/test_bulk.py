"""Hand a page's rows over at once, on every database, and find them by their SIDs."""

import pytest
from sqlalchemy import BigInteger, Engine, Text, literal, select
from sqlalchemy.exc import DBAPIError

from etl.database.bulk import among
from etl.database.dialects.driver import Fault
from etl.database.dialects.postgresql import Array
from etl.database.errors import classify
from etl.database.schema import attempt_queue as q
from etl.queue import attempts
from etl.queue.leases import write_verdicts
from etl.records import Lease, Outcome, State, Verdict
from tests.support.queue_rows import NOW, explain, put, read, sid, watch

PAGE = 1_000


def _lock(engine: Engine, first: int, *, accounts: tuple[str, ...] = ("",)) -> list[Lease]:
    named = [sid(n) for n in range(first, first + PAGE)]
    with engine.begin() as connection:
        return attempts.lock_listed(connection, named, accounts=accounts, now=NOW)


def test_listed_rows_are_found_by_their_sids_without_statistics(engine: Engine) -> None:
    """In a table just filled, a page's rows are not looked for among all that wait."""
    put(engine, *({"sid": sid(n)} for n in range(5_000)))
    with watch(engine) as noted:
        leases = _lock(engine, 2_000)
    selects = [each for each in noted if each[0].startswith("SELECT")]
    plans = [explain(engine, *each) for each in selects]
    assert [lease.sid for lease in leases] == sorted(sid(n) for n in range(2_000, 3_000))
    assert len(plans) == 1
    assert "ix_attempt_queue" not in plans[0], plans[0]


def test_rows_of_strangers_and_at_rest_are_not_listed(engine: Engine) -> None:
    """A page finishes waiting and dead rows, of its own accounts alone."""
    put(
        engine,
        {"sid": sid(1)},
        {"sid": sid(2), "state": State.REFRESH},
        {"sid": sid(3), "state": State.DEAD, "outcome": Outcome.EXPIRED},
        {"sid": sid(4), "state": State.DEAD, "outcome": Outcome.BAD_BODY},
        {"sid": sid(5), "state": State.SETTLED, "outcome": Outcome.FINAL},
        {"sid": sid(6), "account": "AC2"},
        {"sid": sid(7), "account": "AC1"},
    )
    found = [lease.sid for lease in _lock(engine, 0, accounts=("", "AC1"))]
    assert found == [sid(n) for n in (1, 2, 3, 4, 7)]


def test_every_verdict_reaches_its_own_row(engine: Engine) -> None:
    """A thousand verdicts written at once leave each row what was decided of it, NULLs too."""
    put(engine, *({"sid": sid(n)} for n in range(PAGE + 10)))
    leases = _lock(engine, 0)
    resting = Verdict(State.SETTLED, 0, NOW + 1, 0, Outcome.FINAL, None)
    waiting = Verdict(State.RETRY, NOW + 5, NOW + 2, 3, None, "it's 'late'")
    judged = [(lease, (resting, waiting)[lease.id % 2]) for lease in leases]
    with engine.begin() as connection:
        write_verdicts(connection, judged, fetched=True, listed=True, now=NOW)
    expected = {
        lease.sid: (v.state, v.due_at, v.expires_at, v.attempts, v.outcome, v.error, 1, 1)
        for lease, v in judged
    }
    actual = {
        found: (
            row.state, row.due_at, row.expires_at, row.attempts, row.outcome, row.last_error,
            row.claim_no, row.fetches,
        )
        for found, row in read(engine).items()
    }  # fmt: skip
    untouched = (State.PENDING, 0, 0, 0, None, None, 0, 0)
    assert actual == expected | {sid(n): untouched for n in range(PAGE, PAGE + 10)}


def test_text_arrives_as_it_was_sent(engine: Engine) -> None:
    """No quote, backslash, brace, comma, blank or line end of a text means anything on the way."""
    texts = [
        "", " ", "NULL", "null", '"', '""', "\\", '\\"', "{}", "{a,b}", "a\nb\t", "'", "%s",
        "\u20ac\U0001f600",
    ]  # fmt: skip
    put(engine, *({"sid": sid(n)} for n in range(len(texts) + 1)))
    leases = _lock(engine, 0)
    judged = [
        (lease, Verdict(State.RETRY, 1, 2, 3, None, text))
        for lease, text in zip(leases, [*texts, None], strict=True)
    ]
    error = q.c.last_error
    with engine.begin() as connection:
        write_verdicts(connection, judged, fetched=False, now=NOW)
        stored = connection.execute(select(error).order_by(q.c.sid)).scalars()
        assert [*stored] == [*texts, None]
        named = select(error).where(among(connection, error, texts)).order_by(q.c.sid)
        assert [*connection.execute(named).scalars()] == texts


@pytest.mark.kinds("postgresql")
def test_a_row_is_to_blame_for_text_that_cannot_be_stored(engine: Engine) -> None:
    """NUL is refused as the driver's own arrays refuse it, and the database goes on."""
    put(engine, {"sid": sid(1)})
    (lease,) = _lock(engine, 0)
    judged = [(lease, Verdict(State.RETRY, 1, 2, 3, None, "a\0b"))]
    with engine.begin() as connection:
        with pytest.raises(DBAPIError) as caught, connection.begin_nested():
            write_verdicts(connection, judged, fetched=False, now=NOW)
        assert classify(caught.value) is Fault.REFUSED
        assert connection.execute(select(q.c.last_error)).scalars().all() == [None]


@pytest.mark.kinds("postgresql")
def test_arrays_of_two_types_are_two_statements(engine: Engine) -> None:
    """A statement kept for one type of array is not taken for another's."""
    with engine.connect() as connection:
        for values, kind in ((["a"], Text()), ([1], BigInteger())):
            found = connection.execute(select(literal(values, Array(kind)))).scalar_one()
            assert found == values


def test_none_is_among_nothing(engine: Engine) -> None:
    """Without values no row is meant."""
    put(engine, {"sid": sid(1)})
    with engine.connect() as connection:
        assert connection.execute(select(q).where(among(connection, q.c.sid, []))).all() == []
