"""Read the planner's input quickly, beside any number of settled rows."""

from typing import Any

import pytest
from sqlalchemy import Engine, insert

from etl.database.schema import attempt_queue as q
from etl.database.times import moment
from etl.decide.values import Bucket
from etl.queue.waiting import BUCKET_MS, URGENT_MS, read_lag, read_waiting

NOW = 1_700_000_000_000
RETENTION = 30 * 86_400_000
MINUTE = 60_000


def put(engine: Engine, *lags: int, **values: Any) -> None:
    """Insert settled rows that were enqueued so many ms after their creation."""
    rows = [
        {
            "sid": f"VL{n:032x}", "state": "settled", "fetches": 1,
            "expires_at": NOW + RETENTION, "enqueued_at": moment(NOW + lag), **values,
        }
        for n, lag in enumerate(lags)
    ]  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(q), rows)


def lag_of(engine: Engine) -> int | None:
    """Ask for the habit."""
    with engine.connect() as connection:
        return read_lag(connection, retention=RETENTION)


@pytest.mark.parametrize(
    ("lags", "expected"),
    [
        ((), None),
        ((MINUTE,) * 4, None),
        ((MINUTE, 2 * MINUTE, 3 * MINUTE, 4 * MINUTE, 5 * MINUTE), 3 * MINUTE),
        ((*[MINUTE] * 30, 90 * MINUTE), MINUTE),
        ((MINUTE, MINUTE, MINUTE, 20 * MINUTE, 40 * MINUTE), None),
        ((60 * MINUTE,) * 9, None),
    ],
)
def test_a_lag_is_a_habit_or_nothing(
    engine: Engine, lags: tuple[int, ...], expected: int | None
) -> None:
    """Of five rows or more that lie close together the median is learnt, unless it is a backfill."""
    if lags:
        put(engine, *lags)
    assert lag_of(engine) == expected


def test_what_discover_found_tells_no_lag(engine: Engine) -> None:
    """Rows that no application enqueued say nothing about when applications do."""
    put(engine, *[MINUTE] * 9, source="discover")
    assert lag_of(engine) is None


@pytest.mark.kinds("sqlite")
def test_settled_rows_make_learning_it_no_slower(engine: Engine) -> None:
    """Behind 300,000 settled rows the lag takes the steps that it takes behind 1,000."""
    took = []
    for first, last in ((1, 1_000), (1_001, 300_000)):
        with engine.begin() as connection:
            connection.exec_driver_sql(
                f"WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n"
                f" WHERE i < {last}) INSERT INTO attempt_queue"
                " (sid, state, expires_at, fetches, enqueued_at) SELECT printf('VL%032x', i),"
                f" 'settled', {NOW + RETENTION}, 1, '2023-11-14 22:14:20.000' FROM n"
            )
        with engine.connect() as connection:
            steps: list[int] = []
            driver: Any = connection.connection.driver_connection
            driver.set_progress_handler(lambda steps=steps: steps.append(0), 10)
            assert read_lag(connection, retention=RETENTION) == MINUTE
            driver.set_progress_handler(None, 0)
        took.append(len(steps))
    assert 0 < took[1] < 1.5 * took[0]


def waiting_of(engine: Engine, **asked: Any) -> tuple[tuple[Bucket, ...], int, int]:
    """Read what waits: of known age, of unknown age, expired."""
    with engine.connect() as connection:
        found = read_waiting(connection, accounts=("", "AC"), retention=RETENTION, now=NOW, **asked)
    return found.known, found.unknown, found.expired


def test_only_possible_times_tell_an_age(engine: Engine) -> None:
    """Others write `expires_at`, too: seconds, microseconds or next year's say nothing."""
    ends = [
        NOW + 1, NOW + RETENTION, NOW, 1, 0, -5, NOW // 1000, NOW * 1000, NOW + RETENTION + 1,
        2**63 - 1,
    ]  # fmt: skip
    with engine.begin() as connection:
        rows = [{"sid": f"VL{n:032x}", "expires_at": end} for n, end in enumerate(ends)]
        connection.execute(insert(q), rows)
    known, unknown, expired = waiting_of(engine)
    places = [(NOW + 1 - RETENTION) // BUCKET_MS, NOW // BUCKET_MS]
    assert known == tuple(Bucket(n * BUCKET_MS, (n + 1) * BUCKET_MS, 1) for n in places)
    assert (unknown, expired) == (5, 3)


def test_the_urgent_are_counted_alone(engine: Engine) -> None:
    """Those that the API forgets within hours are planned before all others."""
    with engine.begin() as connection:
        ends = (NOW + 1, NOW + URGENT_MS, NOW + URGENT_MS + 1, 0)
        rows = [{"sid": f"VL{n:032x}", "expires_at": end} for n, end in enumerate(ends)]
        connection.execute(insert(q), rows)
    known, unknown, expired = waiting_of(engine, urgent=True)
    assert ([bucket.count for bucket in known], unknown, expired) == ([1, 1], 0, 0)


@pytest.mark.kinds("sqlite")
def test_text_for_a_time_tells_nothing(engine: Engine) -> None:
    """SQLite keeps whatever others write into an integer."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO attempt_queue (sid, expires_at) VALUES ('VL1', 'tomorrow')"
        )
    assert waiting_of(engine) == ((), 1, 0)
