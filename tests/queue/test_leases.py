"""Let a run fail by itself. Its leases go back uncounted, whatever ends it."""

import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, Row, event, insert, select, text, update

from etl.database.schema import REVISION, sync_runs
from etl.database.schema import attempt_queue as q
from etl.database.schema import sweeps as s
from etl.errors import Exit
from etl.fetch import drain
from etl.job.counts import Counts
from etl.load import upsert
from etl.queue import runs, windows
from etl.sandbox import Sandbox, World
from tests.support.harness import assert_loaded, fill, states
from tests.support.in_process import run_here
from tests.support.queue_rows import NOW, promote, put, read, sid, watch


def world_of(size: int) -> World:
    """Make a world that stands still and is old enough to be final."""
    now = time.time()
    return World(size=size, start=now - 12 * 86_400, span=10 * 86_400, static_at=now)


def lapse(engine: Engine) -> None:
    """Let all leases run out, and take them back as the next run does."""
    with engine.begin() as connection:
        connection.execute(update(q).where(q.c.state == "leased").values(due_at=1))
    promote(engine, NOW)


def lost(engine: Engine) -> set[int]:
    """Return how many leases rows have lost."""
    return {row.lost_leases for row in read(engine).values()}


def assert_all_back(engine: Engine) -> None:
    """Assert that nothing is leased any more, and nothing counted."""
    assert set(states(engine)) <= {"pending", "settled", "refresh"}
    assert {(row.attempts, row.lost_leases) for row in read(engine).values()} == {(0, 0)}


def last_run(engine: Engine) -> Row[Any]:
    """Read the row of the last run."""
    with engine.connect() as connection:
        return connection.execute(select(sync_runs).order_by(sync_runs.c.id.desc())).first()  # type: ignore[return-value]


def once_under_way(box: Sandbox, act: Callable[[], object]) -> Callable[[Counts], None]:
    """Return what watches a run and does something once thirty requests were sent."""
    done: list[object] = []

    def look(_counts: Counts) -> None:
        if not done and box.stats()["requests"] >= 30:
            done.append(0)
            act()

    return look


def execute(engine: Engine, statement: str) -> None:
    """Run one statement as another program does."""
    with engine.begin() as connection:
        connection.execute(text(statement))


# ---- what the database refuses


@pytest.mark.parametrize("what", ["revision", "attempts", "attempt_channel_data", "api_slots"])
def test_a_schema_that_changes_in_mid_run_costs_no_row(engine: Engine, what: str) -> None:
    """Another revision or a table that vanished ends the run with 78 and every lease back."""
    world = world_of(300)
    fill(engine, world.sids())
    if what == "revision":
        there, back = (
            f"UPDATE verify_etl_version SET version_num = '{number}'"
            for number in ("9999", REVISION)
        )
    else:
        there, back = (
            f"ALTER TABLE {one} RENAME TO {other}"
            for one, other in ((what, "elsewhere"), ("elsewhere", what))
        )
    with Sandbox(world, limit=0, latency=0.01) as box:
        allowance = (1_000, 60_000) if what == "api_slots" else (0, 60_000)
        change = once_under_way(box, lambda: execute(engine, there))
        report = run_here(engine, box, allowance=allowance, watch=change)
        assert report.exit_code == Exit.CONFIG
        execute(engine, back)
        assert_all_back(engine)
        report = run_here(engine, box, allowance=allowance)
    assert (report.exit_code, report.pending) == (0, 0)
    assert_loaded(engine, world, world.sids())


def test_runs_on_a_full_disk_park_no_row(sqlite: Engine) -> None:
    """Six runs that find the disk full give all back; with room again everything is stored."""
    world = world_of(400)
    fill(sqlite, world.sids())
    with sqlite.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

    def limit(connection: Any, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages + 6}")

    with Sandbox(world, limit=0) as box:
        event.listen(sqlite, "connect", limit)
        sqlite.dispose()
        for _ in range(6):
            report = run_here(sqlite, box)
            assert report.exit_code == Exit.IO
            assert_all_back(sqlite)
            promote(sqlite, NOW * 2)
        event.remove(sqlite, "connect", limit)
        sqlite.dispose()
        assert run_here(sqlite, box).exit_code == 0
    assert_loaded(sqlite, world, world.sids())


def test_a_disk_with_room_for_single_rows_takes_them_back_singly(
    sqlite: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When all leases at once are more than the disk takes, they go back one by one."""
    world = world_of(200)
    fill(sqlite, world.sids())
    # The database refuses as a full disk does, whenever two rows or more go back.
    refused: list[int] = []

    def refuse(_c: Any, _cursor: Any, statement: str, values: Any, *_rest: Any) -> None:
        if statement.startswith("UPDATE attempt_queue SET state=") and "pending" in values:
            count = len(values) - 3
            if count > 1:
                refused.append(count)
                full = sqlite3.OperationalError("database or disk is full")
                full.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise full

    def stop() -> None:
        event.listen(sqlite, "before_cursor_execute", refuse)
        execute(sqlite, "UPDATE verify_etl_version SET version_num = '9999'")

    with Sandbox(world, limit=0, latency=0.05) as box:
        report = run_here(sqlite, box, watch=once_under_way(box, stop))
    assert report.exit_code == Exit.CONFIG
    assert refused
    assert_all_back(sqlite)


def test_a_row_that_others_lock_keeps_no_other_lease(server: Engine) -> None:
    """What is locked while its run ends waits for its lease, and is not counted for it either."""
    world = world_of(60)
    fill(server, world.sids())
    with Sandbox(world, limit=0, latency=0.05) as box, server.connect() as other:
        held: list[str] = []

        def stop() -> None:
            mine = select(q.c.sid).where(q.c.state == "leased").order_by(q.c.id.desc()).limit(1)
            held.extend(other.execute(mine.with_for_update()).scalars())
            execute(server, "UPDATE verify_etl_version SET version_num = '9999'")

        report = run_here(server, box, watch=once_under_way(box, stop))
        assert report.exit_code in {Exit.CONFIG, Exit.TRY_LATER}
        rows = read(server)
        assert [row.sid for row in rows.values() if row.state == "leased"] == held
        other.rollback()
        execute(server, f"UPDATE verify_etl_version SET version_num = '{REVISION}'")
        lapse(server)
        assert_all_back(server)
        assert run_here(server, box).exit_code == 0
    assert_loaded(server, world, world.sids())


@pytest.mark.parametrize(
    ("code", "counted"),
    [(74, 0), (78, 0), (143, 0), (Exit.BUG, 1), (None, 1)],
)
def test_only_leases_of_those_who_died_count_as_lost(
    engine: Engine, code: int | None, counted: int
) -> None:
    """A run ended by itself just could not give back. After a bug or a kill it is suspect."""
    put(
        engine,
        {"sid": sid(1), "state": "leased", "due_at": 5, "lost_leases": 4, "leased_by": "me"},
        {"sid": sid(2), "state": "leased", "due_at": 5, "leased_by": "another"},
        {"sid": sid(3), "state": "leased", "due_at": 5},
    )
    facts: dict[str, Any] = {"command": "run", "account": "", "version": "1", "asked": {}}
    with engine.begin() as connection:
        run_id = runs.begin(connection, worker="me", now=1, **facts)
        runs.begin(connection, worker="another", now=1, **facts)
        if code is not None:
            runs.end(connection, run_id, did={}, exit_code=code, error=None, now=2)
    promote(engine, NOW)
    rows = read(engine)
    state = "dead" if counted else "pending"
    assert (rows[sid(1)].state, rows[sid(1)].lost_leases) == (state, 4 + counted)
    assert [(rows[sid(n)].state, rows[sid(n)].lost_leases) for n in (2, 3)] == [("pending", 1)] * 2


# ---- bugs


def test_a_bug_that_one_row_causes_is_counted_for_it_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When writing one row fails in our code the others of its batch are stored or go back."""
    world = world_of(120)
    struck = world.sid(40)
    fill(engine, world.sids())
    real = upsert.merge

    def stumble(fetched: Any, known: Any) -> Any:
        if fetched.attempt.sid == struck:
            raise KeyError(struck)
        return real(fetched, known)

    monkeypatch.setattr(upsert, "merge", stumble)
    with Sandbox(world, limit=0, latency=0.005) as box:
        for round_ in range(1, 6):
            with pytest.raises(KeyError):
                run_here(engine, box)
            run = last_run(engine)
            assert (run.exit_code, run.error) == (Exit.BUG, "ended by KeyError")
            rows = read(engine)
            assert [row.sid for row in rows.values() if row.state == "leased"] == [struck]
            lapse(engine)
            rows = read(engine)
            assert rows[struck].lost_leases == round_
            assert {row.lost_leases for row in rows.values() if row.sid != struck} == {0}
        row = read(engine)[struck]
        assert (row.state, row.outcome) == ("dead", "killed_worker")
        assert run_here(engine, box).exit_code == 0
    with engine.begin() as connection:
        connection.execute(q.delete().where(q.c.sid == struck))
    assert_loaded(engine, world, [one for one in world.sids() if one != struck])


def test_a_bug_that_all_rows_meet_with_is_no_rows(
    sqlite: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no row of a batch can be written it is the program's fault, and all go back."""
    world = world_of(200)
    fill(sqlite, world.sids())
    broken: list[bool] = []
    real = upsert.merge

    def stumble(fetched: Any, known: Any) -> Any:
        if broken:
            raise RuntimeError
        return real(fetched, known)

    monkeypatch.setattr(upsert, "merge", stumble)
    with Sandbox(world, limit=0, latency=0.02) as box, pytest.raises(RuntimeError):
        run_here(sqlite, box, watch=once_under_way(box, lambda: broken.append(True)))
    assert_all_back(sqlite)


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt, Exit.SIGINT), (RuntimeError, Exit.BUG), (BrokenPipeError, Exit.IO)],
)
def test_whatever_ends_the_loop_gives_back_what_it_holds(
    engine: Engine, error: type[BaseException], code: int
) -> None:
    """An interrupt, a bug and a broken pipe leave no lease behind, and end the run's row."""
    world = world_of(200)
    fill(engine, world.sids())

    def fail() -> None:
        raise error

    with Sandbox(world, limit=0, latency=0.02) as box:
        with pytest.raises(error):
            run_here(engine, box, watch=once_under_way(box, fail))
        sent = box.stats()["requests"]
        run = last_run(engine)
        assert (run.exit_code, run.error) == (code, f"ended by {error.__name__}")
        assert run.ended_at is not None
        assert_all_back(engine)
        # What was in hand when it ended, and no more.
        assert sent < 100
        assert run_here(engine, box).exit_code == 0
    assert_loaded(engine, world, world.sids())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_window_is_given_back_whatever_ends_its_run(
    engine: Engine, error: type[BaseException]
) -> None:
    """After an interrupt or a bug the next run goes on with the window at once."""
    world = world_of(3_000)
    with engine.begin() as connection:
        rows = [
            {"sid": world.sid(n), "expires_at": int(world.created(n) + 30 * 86_400) * 1000}
            for n in range(world.size)
        ]
        connection.execute(insert(q), rows)

    def fail(counts: Counts) -> None:
        if counts.listed:
            raise error

    with Sandbox(world, limit=0) as box:
        with pytest.raises(error):
            run_here(engine, box, strategy="auto", watch=fail)
        with engine.connect() as connection:
            (window,) = connection.execute(select(s)).all()
        assert window.state == windows.LISTING
        assert window.due_at <= time.time() * 1000 + 1_000
        report = run_here(engine, box, strategy="auto")
        assert (report.exit_code, report.pending) == (0, 0)
        assert box.stats()["lists"] <= 4


# ---- rows that others lock


@pytest.mark.parametrize("strategy", ["fetch", "auto"])
def test_a_row_that_stays_locked_does_not_keep_a_run_for_ever(
    server: Engine, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """When nothing else is left it waits a bounded time, without a busy loop, and says so: 75."""
    monkeypatch.setattr(drain, "LOCKED_S", 3.0)
    world = world_of(30)
    fill(server, world.sids())
    with Sandbox(world, limit=0) as box, server.connect() as other:
        mine = select(q.c.sid).order_by(q.c.id).limit(1).with_for_update()
        held = other.execute(mine).scalar_one()
        with watch(server) as noted:
            report = run_here(server, box, strategy=strategy)
        claims = [one for one, _ in noted if one.startswith("SELECT version_num")]
        assert report.exit_code == Exit.TRY_LATER
        assert "locked by another program" in str(report.error)
        assert report.counts["fetched"] == 29
        # Looked at ever more seldom: 0.1, 0.2, 0.4 .. and not ten times a second.
        assert len(claims) < 25
        assert read(server)[held].state == "pending"
        other.rollback()
        again = run_here(server, box, strategy=strategy)
    assert (again.exit_code, again.error) == (0, None)
    assert_loaded(server, world, world.sids())
    assert lost(server) == {0}


def test_bad_rows_beside_a_locked_one_back_off(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doubtful rows do not wait for locked ones."""
    monkeypatch.setattr(drain, "LOCKED_S", 1.0)
    world = world_of(6)
    sids = list(world.sids())
    fill(server, sids)
    with Sandbox(world, limit=0) as box, server.connect() as other:
        other.execute(select(q.c.sid).where(q.c.sid == sids[0]).with_for_update()).all()
        for bad in sids[1:3]:
            box.faults.add(f"error:500:sid={bad}")
        report = run_here(server, box)
        assert report.exit_code == Exit.TRY_LATER
        assert (report.counts["fetched"], report.counts["retry"]) == (3, 2)
        assert report.counts["seconds"] < 60


def test_an_urgent_row_that_is_locked_keeps_nobody_waiting(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The urgent come first, but a locked one among them is waited for at the end alone."""
    monkeypatch.setattr(drain, "LOCKED_S", 1.0)
    world = world_of(20)
    sids = list(world.sids())
    fill(server, sids)
    with server.begin() as connection:
        soon = int(time.time() * 1000) + 3_600_000
        connection.execute(update(q).where(q.c.sid == sids[0]).values(expires_at=soon))
    fetched: list[int] = []
    with Sandbox(world, limit=0) as box, server.connect() as other:
        other.execute(select(q.c.sid).where(q.c.sid == sids[0]).with_for_update()).all()
        report = run_here(server, box, strategy="auto", watch=lambda t: fetched.append(t.fetched))
    assert (report.exit_code, report.counts["fetched"]) == (Exit.TRY_LATER, 19)
