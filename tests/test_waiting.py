"""Read what the planner decides on: quickly, whatever has been settled meanwhile."""

from typing import Any

import pytest
from sqlalchemy import Engine, insert

from etl.database import moment
from etl.schema import attempt_queue as q
from etl.waiting import read_lag

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
                f" 'settled', {NOW + RETENTION}, 1, '2023-11-14 22:14:20.000000' FROM n"
            )
        with engine.connect() as connection:
            steps: list[int] = []
            driver: Any = connection.connection.driver_connection
            driver.set_progress_handler(lambda steps=steps: steps.append(0), 10)
            assert read_lag(connection, retention=RETENTION) == MINUTE
            driver.set_progress_handler(None, 0)
        took.append(len(steps))
    assert 0 < took[1] < 1.5 * took[0]
