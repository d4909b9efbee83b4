"""Freeze a worker, or its connection, in mid-transaction: the server ends it and others go on."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, make_url, select, update

from etl.database import bounds
from etl.database.bounds import PATIENT
from etl.database.dialects.mysql_driver import session_bounds
from etl.database.engine import open_engine
from etl.database.schema import attempt_queue as q
from etl.database.times import clock
from etl.database.transact import transact
from etl.errors import DatabaseBusy, Exit
from etl.sandbox import Sandbox, World
from tests.support.harness import ROOT, environment, fill, run_json, states, until
from tests.support.in_process import assert_each_once, run_here
from tests.support.postgres_faults import Wire

RUN = ("run", "--strategy", "fetch")
SERVERS = pytest.mark.kinds("postgresql", "second-postgresql", "mariadb")
IN_A_CLAIM = "UPDATE attempt_queue SET state="
"""The gate is locked by then."""
IN_A_FINISH = "SAVEPOINT sa_savepoint_1"
"""The rows are locked by then."""

STOPS_ITSELF = """
import os, signal, sys
from sqlalchemy import Engine, event
from etl.cli import main

frozen, before = [], sys.argv.pop(1)

@event.listens_for(Engine, "before_cursor_execute")
def freeze(connection, cursor, statement, *rest):
    if statement.startswith(before) and not frozen:
        frozen.append(True)
        os.kill(os.getpid(), signal.SIGSTOP)

main()
"""


@contextmanager
def stopped(before: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a worker that is stopped by a signal right before a statement, in its transaction."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOPS_ITSELF, before, *RUN, "--json"],
        env=env, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        stat = Path(f"/proc/{process.pid}/stat")
        until(lambda: stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T")
        yield process
    finally:
        process.kill()
        process.communicate()


def _lapse(engine: Engine) -> None:
    """Let every lease run out, as two minutes do; whose row is locked is waited for."""
    with engine.begin() as connection:
        connection.execute(update(q).where(q.c.state == "leased").values(due_at=1))


@SERVERS
def test_a_worker_stopped_in_mid_claim_holds_up_nobody_for_long(
    engine: Engine, database_url: str
) -> None:
    """The next worker soon gets the gate and stores all; the stopped one then ends well."""
    world = World(size=60, static_at=time.time())
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url, allowance="1000")
        with stopped(IN_A_CLAIM, env) as frozen:
            run_json(*RUN[1:], env=env)
            assert set(states(engine)) <= {"settled", "refresh"}
            frozen.send_signal(signal.SIGCONT)
            _, errors = frozen.communicate(timeout=60)
        assert (frozen.returncode, errors) == (0, "")
    assert_each_once(engine, world)


@SERVERS
def test_a_worker_stopped_in_mid_finish_gives_its_rows_free(
    engine: Engine, database_url: str
) -> None:
    """Once its leases have run out another run stores its rows, and its own late finish is none."""
    world = World(size=60, static_at=time.time())
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url, allowance="1000")
        with stopped(IN_A_FINISH, env) as frozen:
            run_json(*RUN[1:], env=env)
            transact(engine, lambda _c: _lapse(engine), doing="testing")
            run_json(*RUN[1:], env=env)
            assert set(states(engine)) <= {"settled", "refresh"}
            frozen.send_signal(signal.SIGCONT)
            output, errors = frozen.communicate(timeout=60)
        assert frozen.returncode == 0, errors
        assert '"discarded": 0' not in output
    assert_each_once(engine, world)


@pytest.mark.kinds("sqlite")
def test_a_worker_stopped_in_an_sqlite_file_is_said_to_lock_it(
    engine: Engine, database_url: str
) -> None:
    """Nobody can end it: the next is told that another process locks the file, 75."""
    world = World(size=20, static_at=time.time())
    fill(engine, world.sids())

    @event.listens_for(engine, "connect")
    def _hurry(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout = 100")

    engine.dispose()
    with Sandbox(world, limit=0) as box:
        with stopped(IN_A_CLAIM, environment(box, database_url, allowance="99")) as frozen:
            with pytest.raises(DatabaseBusy) as caught:
                transact(engine, clock, doing="claiming SIDs from the queue", patience_s=1)
            frozen.send_signal(signal.SIGCONT)
            _, errors = frozen.communicate(timeout=60)
        assert (frozen.returncode, errors) == (0, "")
    assert caught.value.exit_code == Exit.TRY_LATER
    assert str(caught.value) == (
        "While claiming SIDs from the queue, the database is locked by another process."
        " Nothing is lost; run it again."
    )
    assert_each_once(engine, world)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server end our session after two seconds, while we wait without end."""
    monkeypatch.setattr(bounds, "IDLE_S", 2)
    monkeypatch.setattr(bounds, "STATEMENT_S", 3)
    monkeypatch.setattr(bounds, "TRANSACTION_S", 4)
    monkeypatch.setattr(bounds, "ANSWER_S", 300.0)


@pytest.mark.parametrize(
    ("where", "carried"),
    [(IN_A_CLAIM, 0), (IN_A_FINISH, 0), (IN_A_FINISH, 0.95)],
    ids=["claim", "finish", "within a finish"],
)
@SERVERS
def test_a_connection_frozen_in_mid_transaction_is_ended_by_the_server(
    engine: Engine, database_url: str, where: str, carried: float, soon: None
) -> None:
    """The next worker stores everything, and whose connection thaws again tries again and goes on."""
    assert_ended_by_the_server(engine, database_url, where, carried)


# PostgreSQL before 17 bounds no statement of which it has a part.
@pytest.mark.kinds("postgresql", "mariadb")
def test_a_connection_frozen_within_a_claim_is_ended_by_the_server(
    engine: Engine, database_url: str, soon: None
) -> None:
    """A statement of which the server has a part is ended as well."""
    assert_ended_by_the_server(engine, database_url, IN_A_CLAIM, 0.95)


def assert_ended_by_the_server(
    engine: Engine, database_url: str, where: str, carried: float
) -> None:
    """Freeze a worker's connection; assert that the next one stores everything, and both end well."""
    world = World(size=60, static_at=time.time())
    fill(engine, world.sids())
    trouble: list[BaseException] = []
    wire = Wire(make_url(database_url), freeze_before=where.encode(), carried=carried)
    with Sandbox(world, limit=0) as box, wire:

        def others() -> None:
            try:
                assert wire.frozen.wait(60)
                env = environment(box, database_url, allowance="1000")
                run_json(*RUN[1:], env=env)
                transact(engine, lambda _c: _lapse(engine), doing="testing")
                run_json(*RUN[1:], env=env)
                assert set(states(engine)) <= {"settled", "refresh"}
            except BaseException as error:  # noqa: BLE001 - the test raises it
                trouble.append(error)
            finally:
                wire.thaw()

        thread = threading.Thread(target=others)
        thread.start()
        through = open_engine(wire.url)
        report = run_here(through, box, concurrency=4, allowance=(1000, 60_000))
        thread.join()
        through.dispose()
    assert not trouble, trouble
    assert report.exit_code == 0, report.error
    assert_each_once(engine, world)


@SERVERS
def test_who_stood_still_for_longer_than_our_patience_tries_once_more(
    engine: Engine, soon: None
) -> None:
    """The time of the standing is no time of trying, and the second try counts once."""
    fill(engine, ["VL" + "0" * 32])
    is_postgresql = engine.dialect.name == "postgresql"
    me = "pg_backend_pid()" if is_postgresql else "CONNECTION_ID()"
    listed = (
        ("pid", "pg_stat_activity") if is_postgresql else ("id", "information_schema.processlist")
    )
    tries: list[int] = []

    def there(number: int) -> int:
        counted = f"SELECT COUNT(*) FROM {listed[1]} WHERE {listed[0]} = {number}"
        with engine.connect() as other:
            return int(other.exec_driver_sql(counted).scalar_one())

    def work(connection: Connection) -> None:
        connection.execute(update(q).values(attempts=q.c.attempts + 1))
        tries.append(connection.exec_driver_sql(f"SELECT {me}").scalar_one())
        if len(tries) == 1:
            until(lambda: not there(tries[0]))
        connection.exec_driver_sql("SELECT 1")

    engine.dispose()
    transact(engine, work, doing="testing", patience_s=0.1)
    with engine.connect() as connection:
        assert connection.execute(select(q.c.attempts)).scalar_one() == 1
    assert len(tries) == 2


@pytest.mark.parametrize("patient", [False, True])
@SERVERS
def test_every_session_of_ours_is_bounded(engine: Engine, *, patient: bool) -> None:
    """Pauses are, in all of them; statements, but for those that take as long as they take."""
    names = {
        "idle_in_transaction_session_timeout": (15_000, 60_000),
        "statement_timeout": (20_000, 0),
        "transaction_timeout": (25_000, 0),
        "idle_transaction_timeout": (15, 60),
        "max_statement_time": (20, 0),
        "net_write_timeout": (15, 60),
    }
    known = "SHOW VARIABLES"
    if engine.dialect.name == "postgresql":
        known = "SELECT name, setting FROM pg_settings"

    def look(connection: Connection) -> dict[str, float]:
        rows = connection.exec_driver_sql(known).all()
        return {name: float(value) for name, value in rows if name in names}

    # The patient one last and first: a session that was lent once is bounded anew for the other.
    lent = engine.execution_options(**PATIENT)
    for each in (engine, lent, engine) if patient else (lent, engine, lent):
        transact(each, look, doing="testing")
    found = transact(lent if patient else engine, look, doing="testing")
    assert len(found) >= 2
    assert found == {name: names[name][patient] for name in found}


@SERVERS
def test_what_the_servers_owner_has_set_lower_stays(engine: Engine, database_url: str) -> None:
    """A bound is never loosened. For a patient transaction it is the owner's again."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            name = make_url(database_url).database
            connection.exec_driver_sql(f"ALTER DATABASE \"{name}\" SET statement_timeout = '5s'")
        engine.dispose()
        show = "SHOW statement_timeout"
        for options in ({}, PATIENT):
            lent = engine.execution_options(**options)
            found = transact(lent, lambda c: c.exec_driver_sql(show).scalar(), doing="testing")
            assert found == "5s"
        return
    theirs = {"max_statement_time": 5.0, "idle_transaction_timeout": 0.0, "wait_timeout": 28_800.0}
    for patient in (False, True):
        assert "max_statement_time = 5," in session_bounds(
            {}, [(name, str(value)) for name, value in theirs.items()], patient=patient
        )


def test_a_server_without_a_bound_for_transactions_ends_whole_sessions() -> None:
    """MySQL has none: its sessions are ended when they rest, and the pool lends none that old."""
    rows = [("wait_timeout", "28800"), ("max_execution_time", "0"), ("net_read_timeout", "30")]
    assert session_bounds({}, rows, patient=False) == (
        "SET SESSION net_read_timeout = 15, max_execution_time = 20000, wait_timeout = 15,"
        " innodb_lock_wait_timeout = 10"
    )
    assert session_bounds({}, [], patient=False) == "SET SESSION innodb_lock_wait_timeout = 10"
    pool: Any = open_engine("mysql://u@h/d").pool
    assert pool._recycle < 15
