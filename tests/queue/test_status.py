"""Read the queue's condition, its forecast and the history of runs, on every database."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, text, update

from etl.allowance.slots import Allowance
from etl.database.engine import open_engine
from etl.database.schema import attempt_queue, verification_queue
from etl.database.times import clock, moment
from etl.migrate.upgrade import upgrade
from etl.queue import status
from etl.sandbox import Sandbox, World
from tests.support.harness import assert_loaded, environment, verify_etl
from tests.support.queue_rows import queued
from tests.support.report_world import make, store

MINUTE, DAY = 60_000, 86_400_000
HUNDRED = Allowance("AC", 100, MINUTE)


def read(engine: Engine, allowance: Allowance = HUNDRED) -> status.Status:
    """Read the status of the accounts '' and AC."""
    with engine.connect() as connection:
        now = clock(connection)
        return status.read(
            connection, allowance=allowance, retention=30 * DAY, page_size=1_000, now=now
        )


def test_status_of_nothing(engine: Engine) -> None:
    """An empty queue has nothing to do, nothing to lose and no times."""
    found = read(engine)
    assert set(found.states.values()) == {0}
    assert (found.requests_left, found.minutes_left, found.lost_before_turn) == (0, 0, 0)
    assert found.oldest_pending is found.next_due is found.next_to_be_lost is None


def test_status_counts(engine: Engine) -> None:
    """Each state, each reason of death, the soonest due and the soonest lost are told."""
    later = moment(2_000_000_000_000).isoformat()
    queued(
        engine,
        {"expires_at": 2_000_000_000_000},
        {"account": "AC"},
        {"account": "of somebody else"},
        {"state": "leased", "expires_at": 1_999_999_999_000},
        {"state": "retry", "due_at": 1_900_000_000_000},
        {"state": "refresh", "due_at": 1_900_000_060_000, "expires_at": 1},
        {"state": "dead", "outcome": "expired"},
        {"state": "dead", "outcome": "expired"},
        {"state": "settled", "outcome": "final", "expires_at": 1_999_000_000_000},
    )
    with engine.begin() as connection:
        rows = [{"sid": f"VE{n}", "state": "missing" if n else "pending"} for n in range(3)]
        connection.execute(insert(verification_queue), rows)
    found = read(engine)
    assert found.verifications == {"pending": 1, "listed": 0, "missing": 2}
    assert found.states == {
        "pending": 3, "leased": 1, "retry": 1, "refresh": 1, "settled": 1, "dead": 2,
    }  # fmt: skip
    assert found.dead == {"expired": 2}
    # Two SIDs and a Verification that wait, and one SID that is being fetched.
    assert found.requests_left == 4
    assert found.next_due == "2030-03-17T17:46:40Z"
    assert found.next_to_be_lost == "2033-05-18T03:33:19Z"
    assert later.startswith("2033-05-18T03:33:20")
    assert found.oldest_pending is not None


def test_the_forecast_in_the_database(engine: Engine) -> None:
    """Of 30 SIDs forgotten in two minutes, 5 requests a minute lose half, and 10 none."""
    with engine.connect() as connection:
        soon = (clock(connection) // MINUTE + 3) * MINUTE
    rows: list[dict[str, Any]] = [{"expires_at": soon + n} for n in range(30)]
    queued(engine, *rows, {"expires_at": soon + 20 * DAY}, {"expires_at": 0})
    found = read(engine, Allowance("AC", 5, MINUTE))
    assert found.minutes_left == 6
    assert found.lost_before_turn == 15
    assert found.needed_allowance == 10
    eased = read(engine, Allowance("AC", 10, MINUTE))
    assert (eased.lost_before_turn, eased.needed_allowance) == (0, 10)
    assert read(engine, Allowance("AC", 0, MINUTE)).lost_before_turn == 0


def test_what_is_due_is_left_to_do(engine: Engine) -> None:
    """Retries and refreshes whose time has come count like pending rows, later ones do not."""
    with engine.connect() as connection:
        now = clock(connection)
    soon = (now // MINUTE + 3) * MINUTE
    due = [{"state": "retry", "due_at": now - 1, "expires_at": soon + n} for n in range(30)]
    later = [{"state": "refresh", "due_at": now + DAY, "expires_at": soon} for _ in range(7)]
    queued(engine, *due, *later)
    found = read(engine, Allowance("AC", 5, MINUTE))
    # One of them asks how much there is to list.
    assert (found.requests_left, found.lost_before_turn) == (1 + 30, 15)


@pytest.mark.parametrize(("count", "expected"), [(3, (3, False)), (300, (301, True))])
def test_the_forecast_says_when_it_is_the_worst_case(
    engine: Engine, count: int, expected: tuple[int, bool]
) -> None:
    """Where a run would ask a Summary first, the answer may make it fewer requests."""
    with engine.connect() as connection:
        end = clock(connection) + 29 * DAY
    queued(engine, *({"expires_at": end} for _ in range(count)))
    found = read(engine)
    assert (found.requests_left, found.at_most) == expected


@pytest.mark.kinds("postgresql")
@pytest.mark.parametrize("value", ["infinity", "-infinity", "20000-01-01", "0044-03-15 BC"])
def test_times_beyond_the_calendar_break_nothing(
    engine: Engine, database_url: str, value: str
) -> None:
    """A time of enqueuing that no datetime can hold ends neither `status`, `plan` nor `run`."""
    world = World(size=20, start=time.time() - 9 * 86_400, span=86_400, static_at=time.time())
    sids = list(world.sids())
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url)
        # Others' lags are read only once some rows are known, of which one is odd as well.
        for batch in (sids[:10], sids[10:]):
            with engine.begin() as connection:
                odd = text(f"INSERT INTO attempt_queue (sid, enqueued_at) VALUES (:s, '{value}')")
                connection.execute(odd, {"s": batch[0]})
                usual = [{"sid": s, "enqueued_at": world_time(world, s)} for s in batch[1:]]
                connection.execute(insert(attempt_queue), usual)
            for words in (["status"], ["plan"], ["run", "--strategy", "auto"]):
                done = verify_etl(*words, "--json", env=env)
                assert done.returncode == 0, done.stderr
    with engine.begin() as connection:
        connection.execute(update(attempt_queue).values(enqueued_at=func.now()))
    assert_loaded(engine, world, sids)


def world_time(world: World, sid: str) -> datetime:
    """Return when an attempt was created."""
    found = world.attempt(sid)["date_created"]
    return datetime.fromisoformat(found)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([], (0, 100)),
        ([(0, 100)], (0, 100)),
        ([(0, 101)], (1, 101)),
        ([(0, 150), (MINUTE, 100)], (50, 150)),
        ([(0, 150), (MINUTE, 250)], (200, 200)),
        ([(10 * MINUTE, 1_100)], (0, 100)),
        ([(10 * MINUTE, 1_101)], (1, 101)),
    ],
)
def test_the_forecast(ends: list[tuple[int, int]], expected: tuple[int, int]) -> None:
    """A window's allowance at once, then one a window; what is lost takes nobody's turn."""
    assert status.forecast(ends, HUNDRED, 0) == expected


def test_many_rows_are_counted_at_once(tmp_path: Path) -> None:
    """With 100,000 pending rows on SQLite the status takes a quarter of a second's work."""
    engine = open_engine(f"sqlite:///{tmp_path}/q.db")
    upgrade(engine)
    soon = int(time.time() * 1000)
    rows = [{"sid": f"VL{n:032x}", "expires_at": soon + n * 20_000} for n in range(100_000)]
    with engine.begin() as connection:
        connection.execute(insert(attempt_queue), rows)
    read(engine)
    best = min(_seconds(engine) for _ in range(5))
    engine.dispose()
    assert best < 0.25


def _seconds(engine: Engine) -> float:
    # Of this process: what others take from a shared core is not ours.
    started = time.process_time()
    read(engine)
    return time.process_time() - started


def test_unpriced_means_what_reports_say(engine: Engine) -> None:
    """The status counts as many attempts without a price as `freshness` does."""
    with engine.begin() as connection:
        store(connection, make(4, 60))
    freshness = text("SELECT number FROM v_freshness WHERE measure = 'unpriced'")
    with engine.connect() as connection:
        unpriced = int(connection.execute(freshness).scalar_one())
        half = text("SELECT COUNT(*) FROM attempts WHERE price_amount IS NOT NULL"
                    " AND price_currency IS NULL")  # fmt: skip
        assert int(connection.execute(half).scalar_one()) > 0
    assert read(engine).unpriced == unpriced
