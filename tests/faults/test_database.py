"""Let the database fail under a run: nothing is lost, nothing is written twice, one sentence."""

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, delete, make_url, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError

from etl.database.engine import open_engine
from etl.database.schema import attempt_queue as q
from etl.database.schema import attempts, sync_runs
from etl.errors import Exit
from etl.migrate.upgrade import upgrade
from etl.sandbox import Sandbox, World
from tests.support.databases import Server
from tests.support.harness import (
    PATIENCE_S,
    assert_loaded,
    environment,
    fill,
    run_json,
    start,
    until,
    verify_etl,
)
from tests.support.in_process import assert_each_once, run_here
from tests.support.postgres_faults import PrivateServer, Wire, private_server

RUN = ("run", "--strategy", "fetch")


@pytest.fixture
def postgres_url(servers: Callable[[str], Server]) -> Iterator[str]:
    """Give the address of a migrated PostgreSQL database that no other test sees."""
    with servers("postgresql").database(migrated=True) as url:
        yield url


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Engine]:
    """Open the program's own engine on it."""
    engine = open_engine(postgres_url)
    yield engine
    engine.dispose()


@pytest.fixture
def private() -> Iterator[tuple[PrivateServer, Engine, str]]:
    """Give a PostgreSQL server of the test's own, an engine and an address of a migrated database."""
    with private_server() as server:
        url = server.url.render_as_string(hide_password=False)
        engine = open_engine(url)
        upgrade(engine)
        yield server, engine, url
        engine.dispose()


@contextmanager
def meddling(meddle: Callable[[], None], *, every: float) -> Iterator[None]:
    """Do something again and again in another thread, until the block ends."""
    over = threading.Event()
    trouble: list[BaseException] = []

    def work() -> None:
        try:
            while not over.wait(every):
                meddle()
        except BaseException as error:  # noqa: BLE001 - the test raises it
            trouble.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not trouble, trouble


def test_a_server_that_restarts_in_mid_run_costs_nothing(
    private: tuple[PrivateServer, Engine, str],
) -> None:
    """Two crashes of the server in mid-run and the run still ends with 0, every row once."""
    server, engine, url = private
    world = World(size=800, static_at=time.time())
    fill(engine, world.sids())
    with Sandbox(world, limit=0, latency=0.01) as box:
        process = start(*RUN, "--json", env=environment(box, url, concurrency="4"))
        for seen in (100, 400):
            until(lambda seen=seen: box.stats()["requests"] >= seen)  # type: ignore[misc]
            server.stop()
            server.start()
        output, errors = process.communicate(timeout=PATIENCE_S)
        assert box.stats()["requests"] < 2 * 800
    assert process.returncode == 0, errors
    assert errors == ""
    engine.dispose()
    assert_each_once(engine, world)
    with engine.connect() as connection:
        row = connection.execute(select(sync_runs)).one()
    assert (row.exit_code, row.did["fetched"]) == (0, json.loads(output)["fetched"])


def test_a_server_that_stays_away_ends_the_run_with_75(
    private: tuple[PrivateServer, Engine, str],
) -> None:
    """A server that does not come back within the patience is said in one sentence."""
    server, engine, url = private
    world = World(size=800, static_at=time.time())
    fill(engine, world.sids())
    with Sandbox(world, limit=0, latency=0.01) as box:
        process = start(*RUN, env=environment(box, url, concurrency="4"))
        until(lambda: box.stats()["requests"] >= 100)
        engine.dispose()
        server.stop()
        output, errors = process.communicate(timeout=80)
        assert process.returncode == Exit.TRY_LATER, errors
        assert (output, len(errors.splitlines())) == ("", 1)
        assert "the database could not be reached" in errors
        assert "Nothing is lost" in errors
        server.start()
        with engine.begin() as connection:
            connection.execute(update(q).where(q.c.state == "leased").values(due_at=1))
        run_json(*RUN[1:], env=environment(box, url))
    assert_each_once(engine, world)


def test_connections_killed_again_and_again_cost_nothing(
    postgres: Engine, postgres_url: str
) -> None:
    """All the run's connections are terminated again and again, in claims and in finishes."""
    world = World(size=1_500, static_at=time.time())
    fill(postgres, world.sids())
    killed = seen = 0

    def kill() -> None:
        nonlocal killed, seen
        if (requests := box.stats()["requests"]) < seen + 80:
            return
        seen = requests
        with postgres.connect() as connection:
            killed += len(
                connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                ).all()
            )

    with Sandbox(world, limit=0, latency=0.02) as box, meddling(kill, every=0.01):
        process = start(*RUN, env=environment(box, postgres_url, concurrency="4"))
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, "")
    assert killed >= 10
    assert_each_once(postgres, world)


@pytest.mark.parametrize(
    "cut",
    [{"cut_answers": 3}, {"cut_requests": 3}, {"cut_answers": 7, "cut_requests": 4}],
    ids=["answers", "requests", "both"],
)
@pytest.mark.parametrize(("allowance", "size"), [("0", 300), ("1000", 90)])
def test_a_connection_lost_during_commit_is_looked_up(
    postgres: Engine, postgres_url: str, cut: dict[str, Any], allowance: str, size: int
) -> None:
    """A COMMIT whose answer or whose request is lost: done is done, and nothing is done twice."""
    world = World(size=size, static_at=time.time())
    fill(postgres, world.sids())
    with (
        Sandbox(world, limit=0, latency=0.05) as box,
        Wire(make_url(postgres_url), **cut) as wire,
    ):
        env = environment(box, wire.url, concurrency="4", allowance=allowance)
        process = start(*RUN, "--json", env=env)
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, "")
    assert wire.cut >= 3
    assert_each_once(postgres, world)
    printed = json.loads(output)
    assert (printed["discarded"], printed["pending"]) == (0, 0)
    assert printed["fetched"] == printed["settled"] + printed["refresh"] == size
    with postgres.connect() as connection:
        runs = connection.execute(select(sync_runs)).all()
    assert [run.exit_code for run in runs] == [0]


def test_deadlocks_with_another_program_are_tried_again(
    postgres: Engine, postgres_url: str
) -> None:
    """Another program locks queue rows in the opposite order; whoever loses tries again."""
    world = World(size=600, static_at=time.time())
    fill(postgres, world.sids())
    with postgres.connect() as connection:
        name = connection.execute(text("SELECT current_database()")).scalar_one()
    with postgres.begin() as connection:
        connection.execute(text(f"ALTER DATABASE \"{name}\" SET deadlock_timeout = '5ms'"))
    postgres.dispose()

    def backwards() -> None:
        try:
            with postgres.begin() as connection:
                ids = connection.execute(
                    select(q.c.id).where(q.c.state == "leased").order_by(q.c.id.desc()).limit(40)
                ).scalars()
                for key in ids.all():
                    connection.execute(update(q).where(q.c.id == key).values(source="mine"))
        except OperationalError:
            # This time it was the other one that won.
            return

    with Sandbox(world, limit=0, latency=0.02) as box, meddling(backwards, every=0.01):
        process = start(*RUN, env=environment(box, postgres_url, concurrency="32"))
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, "")
    assert_each_once(postgres, world)


def test_rows_that_another_program_has_locked_are_skipped(
    postgres: Engine, postgres_url: str
) -> None:
    """A transaction held open on some rows delays those rows and no others."""
    world = World(size=60, static_at=time.time())
    fill(postgres, world.sids())
    with Sandbox(world, limit=0, track_sids=True) as box:
        with postgres.connect() as other:
            # It is patient, whatever the bounds of our own sessions.
            other.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            other.exec_driver_sql("SELECT set_config(name, '0', true) FROM pg_settings"
                                  " WHERE name = 'transaction_timeout'")  # fmt: skip
            held = set(
                other.execute(
                    select(q.c.sid).order_by(q.c.id).limit(20).with_for_update()
                ).scalars()
            )
            process = start(*RUN, env=environment(box, postgres_url))
            until(lambda: len(box.stats()["fetched"]) == 40)
            assert not held & set(box.stats()["fetched"])
            assert process.poll() is None
            other.rollback()
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, "")
    assert_each_once(postgres, world)


def test_rows_deleted_edited_and_inserted_again_while_they_are_fetched(
    engine: Engine, database_url: str
) -> None:
    """What another program did to a row in mid-fetch stands, and no second row appears."""
    world = World(size=8, static_at=time.time())
    sids = list(world.sids())
    fill(engine, sids)
    with Sandbox(world, limit=0) as box:
        box.faults.add(f"slow:2:sid={sids[1]}")
        box.faults.add(f"slow:2:sid={sids[2]}")
        process = start(*RUN, "--json", env=environment(box, database_url))
        until(lambda: box.stats()["faults"].get("slow") == 2)
        with engine.begin() as connection:
            connection.execute(delete(q).where(q.c.sid == sids[1]))
            parked = {"state": "dead", "outcome": "exhausted", "claim_no": 9}
            connection.execute(update(q).where(q.c.sid == sids[2]).values(parked))
        with pytest.raises(IntegrityError):
            fill(engine, [sids[3]])
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert json.loads(output)["discarded"] == 2
    with engine.connect() as connection:
        found = {row.sid: row for row in connection.execute(select(q))}
        stored = set(connection.execute(select(attempts.c.sid)).scalars())
    assert sorted(found) == sorted(set(sids) - {sids[1]})
    assert (found[sids[2]].state, found[sids[2]].claim_no) == ("dead", 9)
    assert stored == set(sids) - {sids[1], sids[2]}


def test_rows_inserted_and_deleted_all_the_time_do_not_disturb(
    engine: Engine, database_url: str
) -> None:
    """While another program deletes what rests and inserts it anew, every row left is stored."""
    world = World(size=300, static_at=time.time())
    sids = list(world.sids())
    fill(engine, sids)
    turn = iter(sids * 100)

    def replace_one() -> None:
        sid = next(turn)
        with engine.begin() as connection:
            connection.execute(delete(q).where(q.c.sid == sid))
        fill(engine, [sid])

    with Sandbox(world, limit=0, latency=0.02) as box:
        env = environment(box, database_url, concurrency="4")
        with meddling(replace_one, every=0.02):
            process = start(*RUN, env=env)
            # More than there are: it has met with rows that were inserted anew.
            until(lambda: box.stats()["requests"] > world.size + 50)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
        # An answer for a row that was deleted meanwhile may be discarded, and is then spoken of.
        assert [line for line in errors.splitlines() if "were discarded" not in line] == []
        run_json(*RUN[1:], env=env)
    assert_loaded(engine, world, sids)


def test_a_connection_that_hangs_is_given_up(postgres: Engine, postgres_url: str) -> None:
    """Connections that stay open and carry nothing are replaced, and nothing is lost or doubled."""
    world = World(size=120, static_at=time.time())
    fill(postgres, world.sids())
    with Sandbox(world, limit=0, latency=0.05) as box, Wire(make_url(postgres_url)) as wire:
        engine = open_engine(wire.url).execution_options(verify_etl_answer_s=1.0)

        def hang() -> None:
            until(lambda: box.stats()["requests"] >= 40)
            before = wire.connections
            wire.freeze()
            try:
                until(lambda: wire.connections > before)
            finally:
                wire.thaw()

        thread = threading.Thread(target=hang)
        thread.start()
        report = run_here(engine, box, concurrency=4)
        thread.join()
        engine.dispose()
    assert (report.exit_code, report.counts["fetched"]) == (0, 120)
    assert_each_once(postgres, world)


@pytest.mark.parametrize(
    "table",
    ["attempt_queue", "attempts", "attempt_channel_data", "attempt_changes", "api_slots",
     "sync_runs", "verify_etl_version"],
)  # fmt: skip
def test_a_missing_permission_is_said_before_any_request(
    postgres: Engine, postgres_url: str, table: str
) -> None:
    """A role that may not write one of the tables gets 78, its name, and what to grant."""
    role = f"r{secrets.token_hex(6)}"
    fill(postgres, World(size=3).sids())
    try:
        with postgres.begin() as connection:
            connection.execute(text(f"CREATE ROLE {role} LOGIN"))
            every = f"ON ALL TABLES IN SCHEMA public TO {role}"
            connection.execute(text(f"GRANT SELECT, INSERT, UPDATE, DELETE {every}"))
            sequences = f"ON ALL SEQUENCES IN SCHEMA public TO {role}"
            connection.execute(text(f"GRANT USAGE {sequences}"))
            connection.execute(text(f"REVOKE ALL ON {table} FROM {role}"))
        url = make_url(postgres_url).set(username=role).render_as_string(hide_password=False)
        with Sandbox(World(size=3), limit=0) as box:
            done = verify_etl(*RUN, env=environment(box, url, allowance="10"))
            assert box.stats()["requests"] == 0
        assert done.returncode == Exit.CONFIG
        assert f"permission denied for table {table}" in done.stderr
        assert "Grant this user SELECT, INSERT, UPDATE" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    finally:
        with postgres.begin() as connection:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))
