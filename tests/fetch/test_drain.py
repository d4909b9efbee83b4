"""Look at the loop that drains the queue where a run goes wrong: who pays, who waits, who is told."""

import signal
import threading
import time
from collections.abc import Collection
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, select, update

from etl.allowance.permits import Permits
from etl.allowance.slots import Allowance
from etl.database.schema import api_slots, attempts, sync_runs
from etl.database.schema import attempt_queue as q
from etl.database.times import clock
from etl.errors import DatabaseBusy, Exit, Unreachable
from etl.extract import Api, Reply
from etl.fetch import threads
from etl.job.stop import StopFlag
from etl.queue import runs
from etl.records import Attempt, Rejection
from etl.sandbox import Sandbox, World
from etl.transform.attempt import transform
from tests.support.harness import PATIENCE_S, assert_loaded, fill, states
from tests.support.in_process import HOUR, run_here

# The loop is the same for every database.
pytestmark = pytest.mark.kinds("sqlite")


def world_of(size: int) -> World:
    """Make a world that stands still."""
    return World(size=size, static_at=time.time())


def row_of(engine: Engine, sid: str) -> Any:
    """Read one row of the queue."""
    with engine.connect() as connection:
        return connection.execute(select(q).where(q.c.sid == sid)).one()


def last_run(engine: Engine) -> Any:
    """Read the only run's row."""
    with engine.connect() as connection:
        return connection.execute(select(sync_runs)).one()


def cut(monkeypatch: pytest.MonkeyPatch, sids: Collection[str]) -> None:
    """Let the connections for these SIDs be refused."""
    real = Api.attempt

    def attempt(api: Api, sid: str) -> Reply:
        if sid in sids:
            msg = "refused"
            raise Unreachable(msg)
        return real(api, sid)

    monkeypatch.setattr(Api, "attempt", attempt)


def test_a_retry_without_a_slot_pauses_nobody(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 503 whose next try finds the allowance used up stays a 503: no 429 was sent."""
    monkeypatch.setattr(threads, "SLOT_WAIT_S", 0.3)
    world = world_of(3)
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        box.faults.add(f"error:503:sid={world.sid(2)}")
        report = run_here(engine, box, allowance=(3, 60_000))
    assert (report.exit_code, report.counts["throttled"], report.counts["retry"]) == (0, 0, 1)
    row = row_of(engine, world.sid(2))
    assert (row.state, row.attempts) == ("retry", 1)
    assert "answered 503" in row.last_error
    with engine.connect() as connection:
        gate = select(api_slots.c.free_at).where(api_slots.c.slot == -1)
        assert connection.execute(gate).scalar_one() == 0


def test_a_suspect_is_in_hand_alone(engine: Engine) -> None:
    """While a row that lost two leases is in flight nothing else is claimed."""
    world = world_of(6)
    suspect = world.sid(2)
    fill(engine, world.sids())
    with engine.begin() as connection:
        connection.execute(update(q).where(q.c.sid == suspect).values(lost_leases=2))
    leased: set[int] = set()
    with Sandbox(world, limit=0) as box:
        box.faults.add(f"slow:1:sid={suspect}")

        def look(_counts: object) -> None:
            if box.stats()["faults"].get("slow") and row_of(engine, suspect).state == "leased":
                leased.add(states(engine)["leased"])

        report = run_here(engine, box, watch=look)
    assert (report.exit_code, leased) == (0, {1})
    assert_loaded(engine, world, world.sids())


def test_a_suspect_in_doubt_holds_nobody_up(engine: Engine) -> None:
    """Once a suspect's try has failed, the others go on while it waits to learn why."""
    world = world_of(6)
    suspect = world.sid(2)
    fill(engine, world.sids())
    with engine.begin() as connection:
        connection.execute(update(q).where(q.c.sid == suspect).values(lost_leases=2))
    meanwhile: list[str] = []

    def answer(payload: dict[str, Any], _at: float) -> dict[str, Any]:
        meanwhile.append(row_of(engine, suspect).state)
        return payload

    with Sandbox(world, limit=0) as box:
        box.faults.add(f"error:500:sid={suspect}")
        world.overrides.update(dict.fromkeys(list(world.sids())[3:], answer))
        report = run_here(engine, box)
    # The first of them is asked for while the suspect waits; its answer clears the API.
    assert (meanwhile[0], len(meanwhile)) == ("leased", 3)
    assert (report.counts["fetched"], report.counts["retry"]) == (5, 1)


def test_rows_that_cannot_be_reached_are_not_the_whole_api(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the retries spent one failed connection is one failure, and no open circuit."""
    world = world_of(20)
    cut_off = {world.sid(n) for n in (5, 8, 11, 14)}
    cut(monkeypatch, cut_off)
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        report = run_here(engine, box, concurrency=1)
    assert (report.exit_code, report.counts["fetched"], report.counts["retry"]) == (0, 16, 4)
    assert {row_of(engine, sid).attempts for sid in cut_off} == {1}


@pytest.mark.parametrize("size", [1, 3, 30])
def test_a_network_that_is_out_costs_no_row_an_attempt(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """However short the queue: when nobody answers at all it ends with 69 and nothing counted."""
    world = world_of(size)
    fill(engine, world.sids())
    cut(monkeypatch, list(world.sids()))
    with Sandbox(world, limit=0) as box:
        report = run_here(engine, box)
    assert report.exit_code == Exit.UNREACHABLE
    assert report.counts["requests"] <= 10
    assert states(engine) == {"pending": size}
    with engine.connect() as connection:
        assert set(connection.execute(select(q.c.attempts)).scalars()) == {0}


class Noting(StopFlag):
    """Tell when somebody waits for longer than any backoff or look at the queue."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()

    def sleep(self, seconds: float) -> None:
        """Sleep, and tell of a long one."""
        if seconds > 1:
            self.waits.set()
        super().sleep(seconds)


def test_after_a_signal_nobody_waits_for_a_slot(engine: Engine) -> None:
    """A retry that waits for a slot leaves at once, and does not ask the database in a loop."""
    world = world_of(2)
    fill(engine, world.sids())
    stop = Noting()
    begun: list[bool] = []
    event.listen(engine, "begin", lambda _connection: begun.append(stop.is_set()))
    with Sandbox(world, limit=0) as box:
        box.faults.add(f"error:503:sid={world.sid(1)}")

        def stop_now() -> None:
            assert stop.waits.wait(PATIENCE_S)
            stop.stop(signal.SIGTERM)

        thread = threading.Thread(target=stop_now)
        thread.start()
        report = run_here(engine, box, allowance=(2, 60_000), stop=stop)
        thread.join()
    assert report.exit_code == Exit.SIGTERM
    assert begun.count(True) < 10


@pytest.mark.parametrize("how", ["time limit", "signal"])
def test_a_run_that_ends_waits_for_its_answers_quietly(engine: Engine, how: str) -> None:
    """Between the end that was asked for and the last answer the loop sleeps."""
    world = world_of(20)
    fill(engine, world.sids())
    stop = StopFlag()
    looks: list[bool] = []
    with Sandbox(world, limit=0) as box:
        for number in range(1, 5):
            box.faults.add(f"slow:2:sid={world.sid(number)}")

        def watch(_counts: object) -> None:
            looks.append(stop.is_set())
            if looks[-1] or box.stats()["faults"].get("slow") != 4:
                return
            if how == "signal":
                stop.stop(signal.SIGTERM)
            else:
                stop.deadline = 0.0

        run_here(engine, box, concurrency=4, stop=stop, watch=watch)
    assert any(looks)
    assert set(states(engine)) <= {"pending", "settled", "refresh"}
    assert len(looks) < 100


def test_a_busy_database_in_a_thread_wastes_no_answer(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a retry's slot cannot be had, what arrived is stored and the rest goes back: 75."""
    world = world_of(40)
    fill(engine, world.sids())

    def acquire(_permits: Permits, **_limits: object) -> int:
        msg = "While taking a request slot, the database is locked by another process."
        raise DatabaseBusy(msg)

    monkeypatch.setattr(Permits, "acquire", acquire)
    with Sandbox(world, limit=0, latency=0.02) as box:
        box.faults.add(f"error:503:sid={world.sid(20)}")
        report = run_here(engine, box, allowance=(100, 60_000))
        good = box.stats()["requests"] - 1
    assert (report.exit_code, report.counts["fetched"]) == (Exit.TRY_LATER, good)
    assert "locked by another process" in str(report.error)
    counts = states(engine)
    assert set(counts) <= {"pending", "settled", "refresh"}
    assert counts["pending"] == 40 - good
    with engine.connect() as connection:
        assert set(connection.execute(select(q.c.lost_leases)).scalars()) == {0}


def test_a_bug_in_a_thread_wastes_no_answer(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrived is stored, the rest goes back, and only the row it struck keeps its lease."""
    world = world_of(40)
    fill(engine, world.sids())
    struck = world.sid(20)
    real = transform

    def stumble(payload: object, *, sid: str | None) -> Attempt | Rejection:
        if sid == struck:
            raise KeyError(sid)
        return real(payload, sid=sid)

    monkeypatch.setattr(threads, "transform", stumble)
    with Sandbox(world, limit=0, latency=0.02) as box:
        with pytest.raises(KeyError):
            run_here(engine, box)
        good = box.stats()["requests"] - 1
    assert row_of(engine, struck).state == "leased"
    with engine.connect() as connection:
        assert len(connection.execute(select(attempts.c.sid)).all()) == good
    assert states(engine).get("leased") == 1
    run = last_run(engine)
    assert (run.exit_code, run.error, run.did["fetched"]) == (1, "ended by KeyError", good)
    assert run.ended_at is not None


def test_a_refusal_that_nobody_foresaw_ends_the_runs_row(engine: Engine) -> None:
    """A rule of somebody else's on the queue ends the run with 78; its row names the table."""
    world = world_of(3)
    fill(engine, world.sids())
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER mine BEFORE UPDATE ON attempt_queue WHEN NEW.fetches > 0 "
            "BEGIN SELECT RAISE(ABORT, 'not now'); END"
        )
    with Sandbox(world, limit=0) as box:
        report = run_here(engine, box)
    run = last_run(engine)
    assert (run.exit_code, report.exit_code, states(engine)) == (78, 78, {"pending": 3})
    assert "table attempt_queue" in run.error
    assert "not now" not in run.error
    assert run.ended_at is not None


def test_a_row_declared_dead_by_a_run_counts_as_dead(engine: Engine) -> None:
    """A fifth lost lease is found by a run: with --strict it ends with 65."""
    world = world_of(2)
    fill(engine, world.sids())
    with engine.begin() as connection:
        hurt = {"state": "leased", "due_at": 1, "lost_leases": 4, "expires_at": HOUR}
        connection.execute(update(q).where(q.c.sid == world.sid(0)).values(hurt))
    with Sandbox(world, limit=0) as box:
        report = run_here(engine, box, strict=True)
    assert row_of(engine, world.sid(0)).outcome == "killed_worker"
    assert (report.exit_code, report.counts["dead"], report.counts["fetched"]) == (65, 1, 1)


def test_a_process_that_is_out_of_connections_says_try_later(engine: Engine) -> None:
    """A slot that no connection is free for is no bug."""
    tight = create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    permits = Permits(tight, Allowance("AC1", 5, 60_000), clock=clock, sleep=StopFlag().sleep)
    with tight.connect(), pytest.raises(DatabaseBusy, match="no database connection came free"):
        permits.acquire(timeout_s=1)
    tight.dispose()


def test_a_run_that_begins_twice_has_one_row(engine: Engine) -> None:
    """After a commit whose answer was lost the run finds its row."""
    facts: dict[str, Any] = {"command": "run", "account": "AC1", "version": "1", "asked": {}}
    with engine.begin() as connection:
        keys = [
            runs.begin(connection, worker=worker, now=HOUR, **facts)
            for worker in ("a", "a", "b", "a")
        ]
    assert keys[0] == keys[1] == keys[3] != keys[2]
