"""List under bad conditions: endless pages, an API that is down, lost windows, slow clocks."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select, update

from etl.database.schema import attempts
from etl.database.schema import sweeps as s
from etl.database.schema import verification_queue as v
from etl.database.times import clock
from etl.errors import BadBody, Exit
from etl.extract import Api, Page
from etl.listing import windows
from etl.listing.requests import Requests
from etl.run.pipeline import RunReport
from etl.sandbox import Sandbox, World
from tests.support.harness import (
    PATIENCE_S,
    environment,
    fill,
    run_json,
    start,
    states,
    until,
    verify_etl,
)
from tests.support.in_process import DAY, HOUR, client, parts_of, run_here
from tests.support.listings import REFUSED, begin, enqueue, resume, stored

AUTO = ("--strategy", "auto")


@pytest.fixture
def world() -> World:
    """Give a world of ten days that stands still, newest two days ago."""
    now = time.time()
    return World(size=4_000, start=now - 12 * 86_400, span=10 * 86_400, static_at=now)


# ---- what a sweep has passed by


@pytest.mark.parametrize("killed", [True, False])
def test_a_verification_that_comes_after_its_page_is_listed(
    engine: Engine, database_url: str, world: World, *, killed: bool
) -> None:
    """Enqueued after its page went by, resumed or not, a Verification is not taken for listed."""
    wanted = {world.attempt(i)["verification_sid"] for i in range(0, world.size - 600, 40)}
    late = world.attempt(world.size - 1)["verification_sid"]
    enqueue(engine, *wanted)
    with Sandbox(world, limit=0, latency=0.2) as box:
        env = environment(box, database_url, page_size="500")
        process = start("run", *AUTO, env=env)
        until(lambda: box.stats()["lists"] >= 3)
        if killed:
            process.kill()
            process.communicate()
        enqueue(engine, late)
        if killed:
            with engine.begin() as connection:
                assert connection.execute(select(func.max(s.c.pages))).scalar_one() >= 1
                connection.execute(update(s).values(due_at=1))
            run_json(*AUTO, env=env)
        else:
            _, said = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, said
            # Pages are read by others, too, while this one ends: the rest is the next run's.
            run_json(*AUTO, env=env)
    sids = {world.sid(i) for ve in (*wanted, late) for i in world.members(ve)}
    assert stored(engine) == sids
    with engine.connect() as connection:
        rows = connection.execute(select(v.c.sid, v.c.state, v.c.found)).all()
    assert {(row.state, row.found > 0) for row in rows} == {("listed", True)}


def test_a_verification_that_the_list_does_not_show_is_asked_for_by_name(
    engine: Engine, database_url: str, world: World
) -> None:
    """After a sweep of everything each Verification without attempts gets a list of its own."""
    wanted = {world.attempt(i)["verification_sid"] for i in range(0, world.size, 40)}
    absent = [f"VE{n:032x}" for n in range(3)]
    enqueue(engine, *wanted, *absent)
    with Sandbox(world, limit=0) as box:
        report = run_json(*AUTO, env=environment(box, database_url))
    assert 4 + 3 <= report["requests"] <= 4 + 3 + 6
    with engine.connect() as connection:
        rows = {row.sid: row for row in connection.execute(select(v))}
    assert {rows[sid].state for sid in wanted} == {"listed"}
    assert {(rows[sid].state, rows[sid].tries) for sid in absent} == {("pending", 1)}


# ---- pages without end


@pytest.mark.parametrize("since", ["1d", "4d"])
def test_a_window_without_end_ends_the_run(
    engine: Engine, database_url: str, world: World, since: str
) -> None:
    """Pages that show nothing, or the same, and lead on are the API's fault: 76."""
    del engine
    with Sandbox(world, limit=0) as box:
        box.faults.add("endless_next:match=list:count=30")
        done = verify_etl("discover", "--since", since, env=environment(box, database_url))
        assert box.stats()["lists"] <= 2
    assert done.returncode == Exit.PROTOCOL, done.stderr
    assert "do not end" in done.stderr


@pytest.mark.parametrize("exists", [True, False])
def test_a_verification_without_end_ends_the_run(
    engine: Engine, world: World, *, exists: bool
) -> None:
    """The pages of a Verification are followed no further than they lead on."""
    enqueue(engine, world.attempt(5)["verification_sid"] if exists else "VE" + "0" * 32)
    with Sandbox(world, limit=0) as box:
        box.faults.add("endless_next:match=list:count=30")
        report = run_here(engine, box)
        assert box.stats()["lists"] <= 2
    assert report.exit_code == Exit.PROTOCOL


# ---- an API that is down


@pytest.mark.kinds("sqlite")
@pytest.mark.parametrize("down", ["refused", "page"])
@pytest.mark.parametrize("command", ["discover", "verifications"])
def test_an_api_that_is_down_ends_with_69(
    engine: Engine, database_url: str, world: World, down: str, command: str
) -> None:
    """A refused port and a proxy's page end `discover` and a run of Verifications alike."""
    enqueue(engine, world.attempt(5)["verification_sid"])
    words = ["discover"] if command == "discover" else ["run", *AUTO]
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url)
        if down == "refused":
            env["VERIFY_ETL_API_URL"] = REFUSED
        box.faults.add("html:200")
        done = verify_etl(*words, env=env)
        assert done.returncode == Exit.UNREACHABLE, done.stderr
        assert "could not be" in done.stderr
        box.faults.clear()
        again = verify_etl(*words, env=environment(box, database_url))
    assert again.returncode == 0, again.stderr
    with engine.connect() as connection:
        assert connection.execute(select(v.c.state)).scalar_one() == "listed"


def test_lists_that_are_down_keep_no_sid_from_being_fetched(engine: Engine, world: World) -> None:
    """SIDs are fetched first, then the Verifications that could not be listed end the run."""
    enqueue(engine, world.attempt(5)["verification_sid"])
    fill(engine, [world.sid(n) for n in range(3)])
    with Sandbox(world, limit=0) as box:
        box.faults.add("html:200:match=list")
        box.faults.add("html:200:match=summary")
        report = run_here(engine, box, strategy="auto")
    assert (report.exit_code, report.counts["fetched"]) == (Exit.UNREACHABLE, 3)


def test_a_verification_that_is_refused_keeps_no_other_waiting(
    engine: Engine, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The list of one Verification may be refused for ever: the others are listed, and it is said."""
    wanted = [world.attempt(n)["verification_sid"] for n in (5, 500, 900)]
    enqueue(engine, *wanted)
    with Sandbox(world, limit=0) as box:
        box.faults.add("html:404:match=list:count=1")
        report = run_here(engine, box)
        assert box.stats()["requests"] == 3
    assert report.exit_code == 0
    assert "could not be listed" in caplog.text
    with engine.connect() as connection:
        found = {row.sid: row.state for row in connection.execute(select(v))}
    assert found == dict(zip(wanted, ("pending", "listed", "listed"), strict=True))


def test_pages_of_a_proxy_open_the_circuit(engine: Engine, world: World) -> None:
    """An answer that is not the API's own counts as a failure, whatever was asked for."""
    with Sandbox(world, limit=0) as box:
        box.faults.add("html:200")
        api = client(box)
        parts = parts_of(engine, api)
        requests = Requests(parts)
        for streak in (1, 2):
            with pytest.raises(BadBody):
                requests.ask(lambda: api.summary(after=None, before=None))
            assert parts.breaker.streak == streak
        api.close()


# ---- a window that is lost, or nearly


@contextmanager
def running(engine: Engine, box: Sandbox, **asked: Any) -> Iterator[list[RunReport]]:
    """Run in a thread while the block does something else; it is over after the block."""
    reports: list[RunReport] = []
    thread = threading.Thread(target=lambda: reports.append(run_here(engine, box, **asked)))
    thread.start()
    yield reports
    thread.join(PATIENCE_S)
    assert reports, "the run did not end"


@pytest.mark.parametrize("allowance", [(0, 60_000), (50, 60_000)])
def test_a_pause_does_not_cost_a_window(
    engine: Engine, world: World, monkeypatch: pytest.MonkeyPatch, allowance: tuple[int, int]
) -> None:
    """While a 429 pauses, the lease is renewed again and again: the window stays this worker's."""
    monkeypatch.setattr(windows, "RENEW_S", 0.2)
    fill(engine, world.sids())
    with Sandbox(world, limit=0, latency=0.3) as box:
        asked = {"strategy": "auto", "page_size": 500, "allowance": allowance}
        with running(engine, box, **asked) as reports:
            until(lambda: box.stats()["lists"] >= 2)
            box.faults.add("throttle:4:match=list:count=1")
            until(lambda: box.stats()["faults"].get("throttle") == 1)
            renewed: set[int] = set()

            def twice() -> bool:
                with engine.connect() as connection:
                    renewed.update(connection.execute(select(s.c.due_at)).scalars())
                # How it stood before the pause, and two renewals.
                return len(renewed) > 2

            until(twice)
            with engine.begin() as connection:
                assert resume(connection) is None
    assert (reports[0].exit_code, reports[0].pending) == (0, 0)
    with engine.connect() as connection:
        rows = connection.execute(select(s.c.state, s.c.claim_no)).all()
    assert {(row.state, row.claim_no) for row in rows} == {("done", 1)}


def test_a_lost_window_is_not_the_end_of_the_run(engine: Engine, world: World) -> None:
    """Whose window another worker has taken over plans again, and leaves nothing pending."""
    fill(engine, world.sids())
    with Sandbox(world, limit=0, latency=0.2) as box:
        with running(engine, box, strategy="auto", page_size=500) as reports:
            until(lambda: box.stats()["lists"] >= 3)
            with engine.begin() as connection:
                # That worker dies at once; its lease runs out by itself.
                due = {"claim_no": 9, "leased_by": "other", "due_at": clock(connection) + 2_000}
                connection.execute(update(s).values(due))
        assert box.stats()["requests"] <= 30
    assert (reports[0].exit_code, reports[0].pending) == (0, 0)
    assert set(states(engine)) <= {"settled", "refresh"}
    assert stored(engine) == set(world.sids())


def test_a_lost_window_does_not_stop_discover(
    engine: Engine, database_url: str, world: World
) -> None:
    """`discover` leaves a lost window to whoever has it, and brings due rows up to date."""
    fill(engine, [world.sid(0)])
    with Sandbox(world, limit=0, latency=0.3) as box:
        env = environment(box, database_url, page_size="500")
        process = start("discover", env=env)
        until(lambda: box.stats()["lists"] >= 2)
        with engine.begin() as connection:
            due = {"claim_no": 9, "leased_by": "other", "due_at": clock(connection) + 1_000}
            connection.execute(update(s).values(due))
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert "Another worker lists" in said
    assert "pending" not in states(engine)
    assert world.sid(0) in stored(engine)


@pytest.mark.parametrize("fault", ["html:200", "error:500"])
def test_a_window_that_cannot_be_resumed_is_left(engine: Engine, world: World, fault: str) -> None:
    """Where lists fail, a window that somebody left behind is not taken up for ever."""
    fill(engine, [world.sid(n) for n in range(20)])
    with Sandbox(world, limit=0) as box:
        with engine.begin() as connection:
            begin(connection, 0, box.account_sid, purpose="sweep", end=clock(connection))
            connection.execute(update(s).values(due_at=1))
        box.faults.add(f"{fault}:match=list")
        report = run_here(engine, box, strategy="auto")
        assert box.stats()["lists"] <= 12
    assert report.counts["fetched"] == 20


# ---- gaps


def test_discover_fills_the_gap_that_was_left(
    engine: Engine, database_url: str, world: World
) -> None:
    """A part of a window that was never listed is loaded by the next `discover`."""
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url)
        for words in (["--since", "20d", "--until", "9d"], ["--since", "1h"], []):
            done = verify_etl("discover", *words, env=env)
            assert done.returncode == 0, done.stderr
    assert stored(engine) == set(world.sids())
    with engine.connect() as connection:
        now = clock(connection)
        last = connection.execute(select(s).order_by(s.c.id.desc()).limit(1)).one()
    assert abs(now - 9 * DAY - HOUR - last.window_from) < 120_000
    assert abs(now - last.window_to) < 120_000


# ---- when a page was asked for


@pytest.mark.parametrize("strategy", ["auto", "verification"])
def test_a_slow_clock_makes_no_page_newer(
    engine: Engine, world: World, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """However long the clock takes, an attempt was fetched when its page was asked for."""
    answered: list[int] = []
    for name in ("page", "next_page"):
        monkeypatch.setattr(Api, name, _noting(getattr(Api, name), answered))

    def slow(connection: Connection) -> int:
        # Until the clock has left behind the moment of the last answer.
        until(lambda: not answered or clock(connection) > answered[-1] + 50)
        return clock(connection)

    if strategy == "auto":
        fill(engine, list(world.sids())[:1500])
    else:
        enqueue(engine, world.attempt(5)["verification_sid"])
    with Sandbox(world, limit=0) as box:
        report = run_here(engine, box, clock=slow, strategy="auto")
    assert report.counts["fetched"] > 0
    with engine.connect() as connection:
        fetched = connection.execute(select(func.max(attempts.c.fetched_at))).scalar_one()
    assert 0 < fetched <= max(answered)


def _noting(call: Any, answered: list[int]) -> Any:
    def noting(*args: Any, **kwargs: Any) -> Page:
        page: Page = call(*args, **kwargs)
        answered.append(time.time_ns() // 1_000_000)
        return page

    return noting
