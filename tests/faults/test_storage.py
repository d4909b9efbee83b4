"""Let the disk fail under a run, or another program hold the file: said at once, nothing lost."""

import ctypes
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, make_url, select, update

from etl.database.engine import READ_ONLY, open_engine
from etl.database.schema import attempt_queue as q
from etl.database.schema import sync_runs
from etl.database.times import clock
from etl.database.transact import transact
from etl.errors import DatabaseBusy, Exit, StorageError
from etl.migrate.upgrade import upgrade
from etl.sandbox import Sandbox, World
from tests.support.databases import Server
from tests.support.harness import (
    PATIENCE_S,
    environment,
    fill,
    for_a_while,
    run_json,
    start,
    states,
    until,
    verify_etl,
)
from tests.support.in_process import assert_each_once, run_here
from tests.support.postgres_faults import private_server

RUN = ("run", "--strategy", "fetch")

_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE = 1


def test_a_lock_held_for_a_while_is_waited_for(servers: Callable[[str], Server]) -> None:
    """A SQLite file that another program locks for a while delays the run, no more."""
    world = World(size=40, static_at=time.time())
    with servers("sqlite").database(migrated=True) as url:
        engine = open_engine(url)
        fill(engine, world.sids())
        with Sandbox(world, limit=0, latency=0.05) as box:
            process = start(*RUN, env=environment(box, url, concurrency="2"))
            until(lambda: box.stats()["requests"] >= 8)
            with engine.begin() as other:
                # All that it has claimed is asked for: it can only wait for the file.
                until(lambda: box.stats()["requests"] == _claimed(url))
                for_a_while(lambda: process.poll() is None)
                other.execute(update(q).where(q.c.id == 1).values(source="mine"))
            _, errors = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, errors) == (0, "")
        assert_each_once(engine, world)
        engine.dispose()


def _claimed(url: str) -> int:
    engine = open_engine(url)
    with engine.execution_options(**READ_ONLY).connect() as connection:
        count = connection.execute(select(func.count()).where(q.c.claim_no > 0)).scalar_one()
    engine.dispose()
    return int(count)


def test_a_lock_that_is_never_released_is_said_so(servers: Callable[[str], Server]) -> None:
    """A SQLite file that stays locked for longer than we wait is said to be in one sentence, 75."""
    with servers("sqlite").database(migrated=True) as url:
        holder, engine = open_engine(url), open_engine(url)

        @event.listens_for(engine, "connect")
        def _hurry(connection: Any, _record: object) -> None:
            connection.execute("PRAGMA busy_timeout = 100")

        with holder.begin(), pytest.raises(DatabaseBusy) as caught:
            transact(engine, clock, doing="claiming SIDs from the queue", patience_s=1)
        holder.dispose()
        engine.dispose()
    assert caught.value.exit_code == Exit.TRY_LATER
    assert str(caught.value) == (
        "While claiming SIDs from the queue, the database is locked by another process."
        " Nothing is lost; run it again."
    )


def _obey_modes() -> None:
    # Root's right to write whatever the mode says; nobody else has it, and the call then fails.
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0)


def test_a_file_that_cannot_be_written_is_said_before_any_request(
    servers: Callable[[str], Server],
) -> None:
    """A database file without write permission ends with 74, and nothing is sent."""
    with servers("sqlite").database(migrated=True) as url, Sandbox(World(size=3), limit=0) as box:
        engine = open_engine(url)
        fill(engine, box.world.sids())
        engine.dispose()
        file = Path(make_url(url).database or "")
        file.chmod(0o444)
        process = start(*RUN, env=environment(box, url), preexec_fn=_obey_modes)
        output, errors = process.communicate(timeout=PATIENCE_S)
        assert box.stats()["requests"] == 0
        doctor = start("doctor", "--offline", env=environment(box, url), preexec_fn=_obey_modes)
        said, _ = doctor.communicate(timeout=PATIENCE_S)
    assert (doctor.returncode, "PROBLEM  writing" in said) == (Exit.IO, True)
    assert (process.returncode, output) == (Exit.IO, "")
    assert "readonly" in errors
    assert "permissions" in errors
    assert len(errors.splitlines()) == 1


def test_a_folder_that_is_removed_in_mid_run_ends_it_at_once(
    servers: Callable[[str], Server], tmp_path: Path
) -> None:
    """With the database's folder gone the run ends with 74 and a sentence, and asks no more."""
    world = World(size=400)
    folder = tmp_path / "away"
    folder.mkdir()
    url = f"sqlite:///{folder}/test.db"
    engine = open_engine(url)
    upgrade(engine)
    fill(engine, world.sids())
    engine.dispose()
    with Sandbox(world, limit=0, latency=0.05) as box:
        process = start(*RUN, env=environment(box, url, concurrency="2"))
        until(lambda: box.stats()["requests"] >= 10)
        shutil.rmtree(folder)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert box.stats()["requests"] < 200
    assert process.returncode == Exit.IO, errors
    assert "could not be written" in errors
    assert "Traceback" not in errors


def test_a_missing_folder_is_said_before_any_request(tmp_path: Path) -> None:
    """An address in a folder that is not there ends with 74 and nothing is sent."""
    with Sandbox(World(size=3), limit=0) as box:
        env = environment(box, f"sqlite:///{tmp_path}/nowhere/test.db")
        done = verify_etl(*RUN, env=env)
        assert box.stats()["requests"] == 0
    assert done.returncode == Exit.IO
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("room", [0, 150_000], ids=["at the start", "in mid-run"])
def test_a_file_that_may_not_grow_ends_the_run(servers: Callable[[str], Server], room: int) -> None:
    """When the kernel lets the database file grow no more the run ends with 74, rows whole."""
    world = World(size=600, static_at=time.time())
    with (
        servers("sqlite").database(migrated=True) as url,
        Sandbox(world, limit=0, latency=0.02) as box,
    ):
        engine = open_engine(url)
        fill(engine, world.sids())
        engine.dispose()
        most = Path(make_url(url).database or "").stat().st_size + room

        def small() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        process = start(*RUN, env=environment(box, url, concurrency="4"), preexec_fn=small)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == Exit.IO, errors
        assert "could not be written" in errors
        assert "disk's space" in errors
        assert "Traceback" not in errors
        # One row at the most shows that the file is full; the next batch, that it has become so.
        assert box.stats()["requests"] < (600 if room else 2)
        # Not even a file that may not grow keeps a row from going back.
        assert set(states(engine)) <= {"pending", "settled", "refresh"}
        run_json(*RUN[1:], env=environment(box, url))
        assert_each_once(engine, world)
        engine.dispose()


def test_a_full_disk_is_told_from_a_refused_row(servers: Callable[[str], Server]) -> None:
    """SQLite's own word for a full disk stops the run with 74 and leaves no row dead."""
    world = World(size=800, static_at=time.time())
    with servers("sqlite").database(migrated=True) as url, Sandbox(world, limit=0) as box:
        engine = open_engine(url)
        fill(engine, world.sids())
        with engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

        @event.listens_for(engine, "connect")
        def _limit(connection: Any, _record: object) -> None:
            connection.execute(f"PRAGMA max_page_count = {pages + 30}")

        engine.dispose()
        report = run_here(engine, box)
        assert isinstance(report.error, StorageError)
        assert "disk is full" in str(report.error)
        assert report.exit_code == Exit.IO
        assert "dead" not in states(engine)
        engine.dispose()


def test_a_full_disk_is_found_by_doctor(servers: Callable[[str], Server]) -> None:
    """A database file that cannot grow is told as such: 74, and nothing is left of the trial."""
    with servers("sqlite").database(migrated=True) as url, Sandbox(World(size=3), limit=0) as box:
        env, file = environment(box, url), Path(make_url(url).database or "")
        most = file.stat().st_size

        def small() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        process = start("doctor", "--offline", env=env, preexec_fn=small)
        said, _ = process.communicate(timeout=30)
        assert (process.returncode, "PROBLEM  writing" in said) == (Exit.IO, True), said
        assert "disk's space" in said
        done = verify_etl("doctor", "--offline", env=env)
        assert (done.returncode, "ok       writing" in done.stdout) == (0, True), done.stdout
        assert runs_of(url) == 0


def test_a_full_disk_of_postgresql_is_found_by_doctor() -> None:
    """What the server's file has no room for is told with the server's own words: 74."""
    with private_server() as server, Sandbox(World(size=3), limit=0) as box:
        url = server.url.render_as_string(hide_password=False)
        engine = open_engine(url)
        upgrade(engine)
        with engine.connect() as connection:
            large = "(SELECT reltoastrelid FROM pg_class WHERE relname = 'sync_runs')"
            path = f"current_setting('data_directory') || '/' || pg_relation_filepath({large})"
            file = Path(connection.exec_driver_sql(f"SELECT {path}").scalar_one())
        assert file.stat().st_size == 0
        file.unlink()
        # The kernel's own full disk.
        file.symlink_to("/dev/full")
        said = verify_etl("doctor", "--offline", env=environment(box, url))
        engine.dispose()
        assert (said.returncode, "PROBLEM  writing" in said.stdout) == (Exit.IO, True), said.stdout
        assert "No space left on device" in " ".join(said.stdout.split())


@pytest.mark.kinds("mariadb")
def test_a_full_table_of_mariadb_is_found_by_doctor(engine: Engine, database_url: str) -> None:
    """What the server says of a table that can grow no more is told: 74."""
    with engine.connect() as connection:
        # As the server itself says it; an engine whose tables have a size has no locks.
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON sync_runs FOR EACH ROW SIGNAL SQLSTATE 'HY000'"
            " SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'The table ''sync_runs'' is full'"
        )
    with Sandbox(World(size=3), limit=0) as box:
        said = verify_etl("doctor", "--offline", env=environment(box, database_url))
    assert (said.returncode, "PROBLEM  writing" in said.stdout) == (Exit.IO, True), said.stdout
    assert "is full" in " ".join(said.stdout.split())


def test_doctor_leaves_nothing_behind(engine: Engine, database_url: str) -> None:
    """It writes for a trial, and no history of runs shows it."""
    with Sandbox(World(size=3), limit=0) as box:
        done = verify_etl("doctor", "--offline", env=environment(box, database_url))
    assert (done.returncode, "ok       writing" in done.stdout) == (0, True), done.stdout
    assert runs_of(database_url) == 0


def runs_of(url: str) -> int:
    """Count the rows of the history of runs."""
    engine = open_engine(url)
    with engine.connect() as connection:
        count = connection.execute(select(func.count()).select_from(sync_runs)).scalar_one()
    engine.dispose()
    return int(count)
