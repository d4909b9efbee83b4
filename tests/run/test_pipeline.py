"""Run the whole job, as its users do: queue in, rows out."""

import json
import time
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select, update

from etl.database.schema import attempt_queue as q
from etl.database.schema import attempts, sync_runs, verification_queue
from etl.database.times import clock
from etl.errors import Exit
from etl.extract import Api
from etl.job.counts import Counts
from etl.job.stop import StopFlag
from etl.job.tools import Job
from etl.listing.discover import DiscoverOptions
from etl.listing.reconcile import ReconcileOptions as Compared
from etl.run import pipeline
from etl.run.pipeline import RunReport
from etl.sandbox import Fault, Sandbox, World
from tests.support.harness import (
    assert_loaded,
    environment,
    fill,
    run_json,
    states,
    verify_etl,
)
from tests.support.in_process import DAY, HOUR, run_here


@pytest.fixture
def world() -> World:
    """Make a frozen world, so that two looks see the same."""
    return World(size=200, static_at=time.time())


def test_a_queue_becomes_rows(engine: Engine, database_url: str, world: World) -> None:
    """Every SID, inserted by any program, becomes a row equal to the API's attempt."""
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        report = run_json(env=environment(box, database_url))
    assert_loaded(engine, world, world.sids())
    assert report["fetched"] == report["requests"] == 200
    assert report["settled"] + report["refresh"] == 200
    assert (report["pending"], report["exit_code"], report["error"]) == (0, 0, None)


def test_a_second_run_finds_nothing_to_do(engine: Engine, database_url: str, world: World) -> None:
    """A run on a drained queue sends nothing and says so with 0."""
    fill(engine, list(world.sids())[:3])
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url)
        run_json(env=env)
        assert run_json(env=env)["requests"] == 0


def test_the_run_row_agrees_with_what_was_printed(
    engine: Engine, database_url: str, world: World
) -> None:
    """The exit code, the last line and the row in sync_runs tell one story."""
    fill(engine, [*list(world.sids())[:5], "nonsense"])
    with Sandbox(world, limit=0) as box:
        done = verify_etl("run", "--json", "--strict", env=environment(box, database_url))
    printed = json.loads(done.stdout)
    with engine.connect() as connection:
        row = connection.execute(select(sync_runs)).one()
    assert done.returncode == printed["exit_code"] == row.exit_code == Exit.DATA
    assert {name: printed[name] for name in row.did} == row.did
    assert (printed["fetched"], printed["dead"]) == (5, 1)
    assert row.ended_at is not None


def test_limit_takes_so_many_and_no_more(engine: Engine, database_url: str, world: World) -> None:
    """A limit of 7 fetches 7 and leaves the rest pending."""
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        report = run_json("--limit", "7", env=environment(box, database_url))
    assert (report["fetched"], report["pending"]) == (7, 193)


def test_a_time_limit_with_progress_ends_with_0(engine: Engine, world: World) -> None:
    """At its time limit a run stores its answers, leaves the rest and ends well."""
    fill(engine, world.sids())
    stop = StopFlag()

    def watch(counts: Counts) -> None:
        if counts.fetched:
            stop.deadline = 0.0

    with Sandbox(world, limit=0, latency=0.2) as box:
        report = run_here(engine, box, concurrency=4, stop=stop, watch=watch)
        assert box.stats()["requests"] == report.counts["fetched"]
    assert report.exit_code == 0
    assert 0 < report.counts["fetched"] < 200
    assert set(states(engine)) <= {"pending", "settled", "refresh"}


def test_a_time_limit_without_progress_ends_with_75(
    engine: Engine, database_url: str, world: World
) -> None:
    """A run whose time is up before it has begun says so, and asks for nothing."""
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        done = verify_etl("run", "--max-seconds", "0", env=environment(box, database_url))
        assert box.stats()["requests"] == 0
    assert done.returncode == Exit.TRY_LATER
    assert "The time limit passed with nothing done" in done.stderr
    assert states(engine) == {"pending": 200}


def test_rows_that_can_still_change_are_fetched_again_when_due(
    engine: Engine, database_url: str
) -> None:
    """A young attempt waits for its refresh, and is final once that was fetched late enough."""
    born = time.time() - 3_600
    world = World(size=5, start=born, span=60, static_at=time.time())
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url)
        assert run_json(env=env)["refresh"] == 5
        with engine.connect() as connection:
            due = connection.execute(select(func.min(q.c.due_at))).scalar_one()
        assert due % 3_600_000 == 0
        assert due >= (born + 86_400) * 1000
        assert run_json(env=env)["requests"] == 0
        later = environment(box, database_url, settle_after="30m", price_grace="45m")
        with engine.begin() as connection:
            connection.execute(update(q).values(due_at=1))
        assert run_json(env=later)["settled"] == 5
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).where(attempts.c.is_final)).scalar() == 5


NONSENSE = {
    "", "   ", "VL\n", "\U0001f600", "../Services", "?x=", "%2e%2e", "'; DROP TABLE attempts; --",
    "VE" + "0" * 32, "SM" + "0" * 32, "VL" + "0" * 31, "VL" + "g" * 32,
}  # fmt: skip


def test_nonsense_is_parked_and_never_sent(engine: Engine, database_url: str) -> None:
    """A value that is no attempt's SID is dead as malformed without a request."""
    fill(engine, NONSENSE)
    with Sandbox(World(size=1), limit=0) as box:
        report = run_json(env=environment(box, database_url))
        assert box.stats()["requests"] == 0
    assert report["dead"] == len(NONSENSE)
    with engine.connect() as connection:
        rows = connection.execute(select(q)).all()
    assert {(row.sid, row.state, row.outcome) for row in rows} == {
        (sid, "dead", "malformed_sid") for sid in NONSENSE
    }


def test_upper_and_lower_case_twins_are_two_rows(engine: Engine, database_url: str) -> None:
    """SIDs are compared exactly: twins that differ in case live two lives."""
    world = World(size=1)
    sid = world.sid(0)
    twin = "VL" + sid[2:].upper()
    fill(engine, [sid, twin])
    with Sandbox(world, limit=0) as box:
        run_json(env=environment(box, database_url))
    with engine.connect() as connection:
        found = {row.sid: row.state for row in connection.execute(select(q))}
    assert found == {sid: "settled", twin: "retry"} or found[twin] in {"settled", "refresh"}


def test_wrong_credentials_stop_the_run_after_one_request(
    engine: Engine, database_url: str, world: World
) -> None:
    """A 401 ends the run with 77, names the credential, and costs no row an attempt."""
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        env = {**environment(box, database_url), "TWILIO_AUTH_TOKEN": "wrong-token"}
        done = verify_etl("run", env=env)
        assert box.stats()["requests"] == 1
    assert done.returncode == Exit.CREDENTIALS
    assert "TWILIO_AUTH_TOKEN" in done.stderr
    assert "wrong-token" not in done.stderr + done.stdout
    assert states(engine) == {"pending": 200}
    with engine.connect() as connection:
        assert connection.execute(select(func.max(q.c.attempts))).scalar_one() == 0


def test_an_api_that_is_down_costs_no_row_an_attempt(
    engine: Engine, database_url: str, world: World
) -> None:
    """A refused connection ends the run with 69, all rows pending and uncounted."""
    fill(engine, world.sids())
    box = Sandbox(world)
    with box:
        env = environment(box, database_url)
    done = verify_etl("run", env=env)
    assert done.returncode == Exit.UNREACHABLE
    assert states(engine) == {"pending": 200}
    with engine.connect() as connection:
        assert connection.execute(select(func.max(q.c.attempts))).scalar_one() == 0


@pytest.mark.parametrize("fault", ["error:503", "html:200", "reset", "short"])
def test_a_storm_opens_the_circuit(
    engine: Engine, database_url: str, world: World, fault: str
) -> None:
    """When nothing but failures comes back the run ends with 69, and no row pays for it."""
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        box.faults.add(Fault.parse(fault))
        done = verify_etl("run", env=environment(box, database_url))
        assert box.stats()["requests"] <= 1.2 * 200
    assert done.returncode == Exit.UNREACHABLE
    assert states(engine) == {"pending": 200}
    with engine.connect() as connection:
        assert connection.execute(select(func.max(q.c.attempts))).scalar_one() == 0


def test_half_a_storm_costs_a_fifth_more_requests_at_most(
    engine: Engine, database_url: str, world: World
) -> None:
    """With a third of the answers failing, retries keep to the run's budget and the rest waits."""
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        box.faults.add(Fault.parse("error:500:share=0.33"))
        report = run_json(env=environment(box, database_url))
        assert box.stats()["requests"] <= 1.2 * 200
    assert report["fetched"] + report["retry"] == 200
    assert report["retry"] > 0


class UntilThrottled(StopFlag):
    """Say that the time is up once the API has answered 429 three times."""

    def __init__(self, box: Sandbox) -> None:
        super().__init__()
        self._box = box

    def late(self) -> bool:
        """Say whether it has."""
        return bool(self._box.stats()["by_status"].get(429, 0) >= 3)


def run_throttled(engine: Engine, box: Sandbox, **asked: Any) -> RunReport:
    """Run against an API that says nothing but 429, until its time is up."""
    box.faults.add(Fault("throttle"))
    report = run_here(
        engine, box, allowance=(100, 500), stop=UntilThrottled(box),
        **{"strategy": "auto", **asked},
    )  # fmt: skip
    assert box.stats()["by_status"] == {429: 3}
    return report


def test_throttled_for_the_whole_time_ends_with_75(engine: Engine, world: World) -> None:
    """When somebody else uses the whole allowance the run says so, and rows stay pending."""
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        report = run_throttled(engine, box, strategy="fetch")
    assert report.exit_code == Exit.TRY_LATER
    assert states(engine) == {"pending": 200}


@pytest.mark.kinds("sqlite")
@pytest.mark.parametrize("command", ["discover", "reconcile", "verifications"])
def test_throttled_for_the_whole_time_with_an_empty_queue_ends_with_75(
    engine: Engine, world: World, command: str
) -> None:
    """Nothing but 429s is no success either for what lists and compares."""
    with engine.connect() as connection:
        now = clock(connection)

    def discover(engine: Engine, api: Api, job: Job, **how: Any) -> RunReport:
        return pipeline.discover(engine, api, job, DiscoverOptions(now - HOUR, None), **how)

    def reconcile(engine: Engine, api: Api, job: Job, **how: Any) -> RunReport:
        return pipeline.reconcile(engine, api, job, Compared(now - 2 * DAY, now), [], **how)

    if command == "verifications":
        with engine.begin() as connection:
            sid = world.attempt(0)["verification_sid"]
            connection.execute(insert(verification_queue).values(sid=sid))
    with Sandbox(world, limit=0) as box:
        go = {"discover": discover, "reconcile": reconcile}.get(command, pipeline.run)
        report = run_throttled(engine, box, go=go)
    assert report.exit_code == Exit.TRY_LATER
    assert "429 for the whole time limit" in str(report.error)


def test_one_refused_row_does_not_take_its_batch_along(
    engine: Engine, database_url: str, world: World
) -> None:
    """A row that the database refuses is dead as db_reject; the others are stored."""
    sids = list(world.sids())[:20]
    fill(engine, sids)
    refused = sids[7]
    if engine.dialect.name == "sqlite":
        rule = (
            f"CREATE TRIGGER mine BEFORE INSERT ON attempts WHEN NEW.sid = '{refused}' "
            "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )
    else:
        rule = f"ALTER TABLE attempts ADD CONSTRAINT mine CHECK (sid <> '{refused}')"
    with engine.begin() as connection:
        connection.exec_driver_sql(rule)
    with Sandbox(world, limit=0) as box:
        report = run_json(env=environment(box, database_url))
    assert (report["fetched"], report["dead"]) == (19, 1)
    with engine.connect() as connection:
        dead = connection.execute(select(q).where(q.c.state == "dead")).one()
    assert (dead.sid, dead.outcome) == (refused, "db_reject")


def test_a_missing_schema_is_said_with_the_mending_command(
    empty_database_url: str, world: World
) -> None:
    """Without tables the run ends with 78 before any request, and says what to run."""
    with Sandbox(world, limit=0) as box:
        done = verify_etl("run", env=environment(box, empty_database_url))
        assert box.stats()["requests"] == 0
    assert done.returncode == Exit.CONFIG
    assert "verify-etl db upgrade" in done.stderr
    assert "Traceback" not in done.stderr


def test_migrate_brings_the_schema_first(empty_database_url: str, world: World) -> None:
    """`run --migrate` on an empty database creates the tables and drains an empty queue."""
    with Sandbox(world, limit=0) as box:
        report = run_json("--migrate", env=environment(box, empty_database_url))
    assert report["pending"] == 0


def test_an_old_worker_stops_when_the_schema_moves_on(
    engine: Engine, database_url: str, world: World
) -> None:
    """A schema of another revision ends the run with 78 before any request."""
    fill(engine, world.sids())
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE verify_etl_version SET version_num = '9999'")
    with Sandbox(world, limit=0) as box:
        done = verify_etl("run", env=environment(box, database_url))
        assert box.stats()["requests"] == 0
    assert done.returncode == Exit.CONFIG
    assert states(engine) == {"pending": 200}
