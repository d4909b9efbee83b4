"""Let others write what they like into our tables, and clocks run fast: no run ends by it."""

import time
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, text, update

from etl.allowance.slots import Allowance
from etl.database.schema import api_slots, sweeps, verification_queue
from etl.database.schema import attempt_queue as q
from etl.database.times import moment
from etl.errors import Exit
from etl.job.counts import Counts
from etl.job.stop import StopFlag
from etl.job.tools import Job
from etl.listing.discover import DiscoverOptions
from etl.queue import attempts as attempts_
from etl.queue import windows
from etl.run import pipeline
from etl.sandbox import Sandbox, World
from tests.support.harness import PATIENCE_S, assert_loaded, fill, states
from tests.support.in_process import DAY, HOUR, POLICY, client, run_here
from tests.support.listings import stored

ACCOUNT = World(size=1).account_sid
NOTHING = Allowance(ACCOUNT, 0, 60_000)
HUGE, COUNT = 2**63 - 1, 2**31 - 1
DAYS = (0, 1, 4, 5)
"""Days on which a row is looked at. It is final by the third, despite earlier counts."""

ODD: list[dict[str, Any]] = [
    {"claim_no": HUGE}, {"claim_no": -5}, {"fetches": COUNT}, {"fetches": -COUNT},
    {"attempts": COUNT}, {"attempts": -1}, {"attempts": -COUNT}, {"lost_leases": -COUNT},
    {"expires_at": HUGE}, {"expires_at": -HUGE}, {"outcome": "?"},
    {"state": "leased", "due_at": 1, "lost_leases": COUNT}, {"state": "leased", "due_at": HUGE},
    {"state": "retry", "due_at": HUGE}, {"state": "refresh", "due_at": HUGE},
]  # fmt: skip

ODD_TEXT = [
    "claim_no = 'x'", "claim_no = x'ff'", "claim_no = 1.5", "lost_leases = 'x'", "fetches = ''",
    "attempts = 'x'", "expires_at = 'soon'", "state = 'leased', due_at = 'x'",
    "state = 'leased', due_at = 1, lost_leases = x'00'", "enqueued_at = CAST(x'ff' AS TEXT)",
    "outcome = CAST(x'ff' AS TEXT)", "state = 'retry', due_at = 'later'",
    "state = 'settled', fetches = 1, expires_at = 'x'",
]  # fmt: skip


@pytest.fixture
def world() -> World:
    """Give a world that stands still."""
    return World(size=12, static_at=time.time())


def run_for_days(engine: Engine, box: Sandbox, **asked: Any) -> None:
    """Run on several days."""
    now = int(time.time() * 1000)
    for day in DAYS:
        at = now + day * DAY
        report = run_here(engine, box, clock=lambda _, at=at: at, **asked)  # type: ignore[misc]
        assert report.exit_code == 0, report.error


@pytest.mark.parametrize("strategy", ["fetch", "sweep"])
@pytest.mark.parametrize("odd", ODD, ids=str)
def test_an_odd_row_comes_to_rest_and_harms_no_other(
    engine: Engine, world: World, odd: dict[str, Any], strategy: str
) -> None:
    """Whatever a row says, its neighbours are loaded, and it is at rest in the end."""
    fill(engine, world.sids())
    with engine.begin() as connection:
        connection.execute(update(q).where(q.c.sid == world.sid(5)).values(odd))
    with Sandbox(world, limit=0) as box:
        run_for_days(engine, box, strategy=strategy)
    assert set(states(engine)) <= {"settled", "dead"}
    assert set(world.sids()) - stored(engine) <= {world.sid(5)}
    killed = odd.get("lost_leases") == COUNT
    assert states(engine).get("dead", 0) == (killed and strategy == "fetch")


@pytest.mark.parametrize("strategy", ["fetch", "auto"])
@pytest.mark.parametrize("odd", ODD_TEXT)
def test_what_no_column_should_hold_harms_no_row(
    sqlite: Engine, world: World, odd: str, strategy: str
) -> None:
    """SQLite keeps text, bytes and fractions in any column; every other row is loaded."""
    fill(sqlite, world.sids())
    with sqlite.begin() as connection:
        connection.execute(
            text(f"UPDATE attempt_queue SET {odd} WHERE sid = :sid"), {"sid": world.sid(5)}
        )
    with Sandbox(world, limit=0) as box:
        run_for_days(sqlite, box, strategy=strategy)
    assert set(world.sids()) - stored(sqlite) <= {world.sid(5)}


@pytest.mark.parametrize("attempts", [-1, -(2**31)])
@pytest.mark.parametrize(("fault", "outcome"), [("error:503", None), ("not_found", "not_found")])
def test_a_failing_row_is_tried_later_whatever_it_counted(
    engine: Engine, world: World, attempts: int, fault: str, outcome: str | None
) -> None:
    """Failures below nothing are none: the next try is a backoff away, not at once."""
    fill(engine, [world.sid(0)])
    with engine.begin() as connection:
        connection.execute(update(q).values(attempts=attempts, outcome=outcome))
    with Sandbox(world, limit=0) as box:
        box.faults.add(fault)
        run_here(engine, box)
    with engine.connect() as connection:
        row = connection.execute(select(q)).one()
    assert (row.state, row.attempts) == ("retry", 1)
    assert row.due_at > time.time() * 1000 + 60_000


def test_what_is_due_at_no_time_of_ours_is_due_now(engine: Engine) -> None:
    """A fast clock's leases and delays are taken back. The rest stays as it is."""
    now = int(time.time() * 1000)
    lease = attempts_.LEASE_MS
    due = {
        "a": ("leased", now + lease), "b": ("leased", now + HOUR), "c": ("retry", now + 3 * DAY),
        "d": ("retry", now + 400 * DAY), "e": ("refresh", 2**62), "f": ("pending", 2**62),
    }  # fmt: skip
    rows = [{"sid": sid, "state": state, "due_at": at} for sid, (state, at) in due.items()]
    with engine.begin() as connection:
        connection.execute(insert(q), rows)
        attempts_.set_down(connection, now, latest=now + POLICY.latest)
        found = {row.sid: row.due_at for row in connection.execute(select(q.c.sid, q.c.due_at))}
    expected = {sid: at for sid, (_, at) in due.items()} | dict.fromkeys("bde", now)
    assert found == expected


@pytest.mark.kinds("postgresql", "mariadb")
def test_a_row_that_somebody_holds_delays_no_start(engine: Engine, world: World) -> None:
    """An open transaction of the application keeps one row from being claimed, and no other."""
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box, engine.begin() as connection:
        first = connection.execute(select(q.c.id).order_by(q.c.id).limit(1)).scalar_one()
        connection.execute(update(q).where(q.c.id == first).values(source="mine"))
        stop = StopFlag()

        def watch(counts: Counts) -> None:
            # It waits for the row's holder until its time is up.
            if counts.fetched == world.size - 1:
                stop.deadline = 0.0

        report = run_here(engine, box, stop=stop, watch=watch)
        assert report.counts["fetched"] == world.size - 1


# ---- windows


def discover(engine: Engine, box: Sandbox, now: int, since: int | None = None) -> int:
    """Discover at a moment (ms); return the exit code."""
    job = Job(account=box.account_sid, allowance=NOTHING, policy=POLICY, concurrency=1)
    report = pipeline.discover(
        engine, client(box), job, DiscoverOptions(since, None), stop=StopFlag(), clock=lambda _: now
    )
    return report.exit_code


@pytest.mark.parametrize("fast", [HOUR, 5 * HOUR, 24 * HOUR, 400 * DAY])
def test_a_clock_that_ran_fast_once_loses_no_attempt(engine: Engine, fast: int) -> None:
    """A window that ended ahead, before there was anything in it, is listed again."""
    start = int(time.time()) - 2 * 86_400
    world = World(size=40, start=start, span=30 * 3_600)
    with Sandbox(world, limit=0) as box:
        for hour in range(32):
            now = (start + hour * 3_600) * 1000
            world.static_at = now / 1000
            assert discover(engine, box, now + (fast if hour == 2 else 0)) == 0
    assert stored(engine) == set(world.sids())


@pytest.mark.parametrize("strategy", ["sweep", "auto"])
def test_a_window_leased_too_far_ahead_is_waited_for_by_nobody(
    engine: Engine, world: World, strategy: str
) -> None:
    """The leases of a killed worker with a fast clock are free."""
    now = int(time.time() * 1000)
    _write_window(engine, due_at=now + 3 * HOUR, window_from=now - 20 * DAY, window_to=now - DAY)
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        run_here(engine, box, strategy=strategy, max_seconds=PATIENCE_S)
    assert_loaded(engine, world, world.sids())


@pytest.mark.parametrize(
    "odd",
    [{"window_from": -(2**62)}, {"window_to": 2**62}, {"page_size": 0}, {"page_size": 10**9},
     {"claim_no": HUGE}, {"seen": HUGE}, {"matched": HUGE}, {"pages": -1}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("purpose", ["sweep", "discover"])
def test_a_window_that_cannot_be_is_given_up(
    engine: Engine, world: World, odd: dict[str, int], purpose: str
) -> None:
    """Neither a run nor a discovery goes on with what nobody can list; all is loaded anew."""
    _write_window(engine, purpose=purpose, **odd)
    now = int(time.time() * 1000)
    with Sandbox(world, limit=0) as box:
        if purpose == "sweep":
            fill(engine, world.sids())
            assert run_here(engine, box, strategy="sweep").exit_code == 0
        else:
            assert discover(engine, box, now, now - 30 * DAY) == 0
    assert stored(engine) == set(world.sids())
    with engine.connect() as connection:
        first = connection.execute(select(sweeps.c.state).order_by(sweeps.c.id).limit(1))
        assert first.scalar_one() == windows.ABANDONED


def _write_window(engine: Engine, **odd: Any) -> None:
    now = int(time.time() * 1000)
    row = {
        "account": ACCOUNT, "window_from": now - 9 * DAY, "window_to": now - 8 * DAY,
        "purpose": "sweep", "state": "listing", "page_size": 1_000, "due_at": 1,
        "leased_by": "gone", "created_at": moment(now),
    }  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(sweeps).values(row | odd))


# ---- Verifications, the allowance


def test_a_verification_put_off_for_ever_is_listed(engine: Engine, world: World) -> None:
    """What is due at no time of ours is due now."""
    with engine.begin() as connection:
        sid = world.attempt(0)["verification_sid"]
        connection.execute(insert(verification_queue).values(sid=sid, due_at=2**62))
    with Sandbox(world, limit=0) as box:
        assert run_here(engine, box).exit_code == 0
    assert world.sid(0) in stored(engine)


def test_slots_that_somebody_deleted_end_the_run(engine: Engine, world: World) -> None:
    """A run whose allowance was deleted under it says so instead of waiting for ever."""
    fill(engine, world.sids())
    with Sandbox(world, limit=0, latency=0.2) as box:

        def watch(_: object) -> None:
            with engine.begin() as connection:
                connection.execute(api_slots.delete().where(api_slots.c.slot >= 0))

        report = run_here(engine, box, allowance=(4, 60_000), concurrency=2, watch=watch)
        assert report.exit_code == Exit.CONFIG
        assert "api_slots" in str(report.error)
        report = run_here(engine, box, allowance=(20, 1_000))
    assert report.exit_code == 0
    assert_loaded(engine, world, world.sids())


def test_null_is_the_default(engine: Engine) -> None:
    """A row that has NULL wherever there is a default is read as one that names no column."""
    world = World(size=4)
    sids = [*world.sids()]
    spared = {"id", "sid"}
    names = [column.name for column in q.c if column.name not in spared]
    with engine.begin() as connection:
        for number, sid in enumerate(sids):
            # All of them, then each of the keys alone.
            null = names if not number else [("account", "state", "expires_at")[number - 1]]
            connection.execute(insert(q), [{"sid": sid} | dict.fromkeys(null)])
        connection.execute(
            insert(verification_queue).values(
                sid=f"VE{1:032x}", account=None, state=None, due_at=None, tries=None, found=None,
                source=None, enqueued_at=None,
            )
        )  # fmt: skip
    with Sandbox(world, limit=0) as box:
        report = run_here(engine, box)
    assert (report.exit_code, report.pending) == (0, 0)
    assert_loaded(engine, world, sids)
    with engine.connect() as connection:
        assert (
            connection.execute(select(q.c.enqueued_at).where(q.c.enqueued_at.is_(None))).all() == []
        )
        assert connection.execute(select(verification_queue.c.tries)).scalar_one() == 1
