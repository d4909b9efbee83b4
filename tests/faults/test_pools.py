"""Share the sessions of a server with other programs, through PgBouncer in transaction mode."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, Engine, make_url

from etl.database.engine import open_engine
from etl.database.times import clock
from etl.database.transact import transact
from etl.errors import ConfigError, Exit
from etl.sandbox import Sandbox, World
from tests.support.harness import (
    NOW,
    PATIENCE_S,
    assert_loaded,
    environment,
    fill,
    run_json,
    start,
    verify_etl,
)
from tests.support.in_process import run_here
from tests.support.pooler import SESSIONS, pooler
from tests.support.queue_rows import execute
from tests.support.whole_job import whole_job

pytestmark = pytest.mark.kinds("second-postgresql")

# What PgBouncer itself sets for each client.
_TRACKED = {
    "application_name", "client_encoding", "DateStyle", "IntervalStyle", "TimeZone",
    "standard_conforming_strings",
}  # fmt: skip
_LEFT_BY_OTHERS = """
SET search_path = theirs;
SET array_nulls = off;
SET transform_null_equals = on;
SET default_transaction_isolation = 'serializable';
SET IntervalStyle = 'sql_standard';
SET lock_timeout = '1ms';
CREATE TEMPORARY TABLE attempts (sid text);
CREATE TEMPORARY TABLE attempt_queue (sid text);
SET default_transaction_read_only = on
"""


def _sessions(address: URL, stack: ExitStack) -> list["psycopg.Connection[Any]"]:
    """Hold every session of the pool at once, each in a transaction."""
    plain = address.set(drivername="postgresql").render_as_string(hide_password=False)
    held = []
    for _ in range(SESSIONS):
        connection = stack.enter_context(psycopg.connect(plain, prepare_threshold=None))
        connection.execute("SELECT 1")
        held.append(connection)
    return held


def _left_behind(address: URL) -> list[str]:
    """Name the settings, prepared statements and temporary tables of the pool's sessions."""
    found: list[str] = []
    with ExitStack() as stack:
        for held in _sessions(address, stack):
            for question in (
                "SELECT name FROM pg_settings WHERE source = 'session' AND setting <> reset_val",
                "SELECT statement FROM pg_prepared_statements",
                "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
                "SELECT mode FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
            ):
                found += [row[0] for row in held.execute(question)]
    return [name for name in found if name not in _TRACKED]


@pytest.fixture
def pooled(engine: Engine) -> Iterator[URL]:
    """Put PgBouncer before a migrated database."""
    with pooler(engine.url) as address:
        yield address


def test_the_whole_job_goes_through_a_pool(empty_engine: Engine, tmp_path: Path) -> None:
    """It passes in sessions that other programs left as they like, and leaves nothing there."""
    execute(empty_engine, "CREATE SCHEMA theirs")
    execute(empty_engine, "CREATE TABLE theirs.attempts (theirs integer)")
    with pooler(empty_engine.url) as address:
        through = address.render_as_string(hide_password=False)
        with ExitStack() as stack:
            for held in _sessions(address, stack):
                held.execute(_LEFT_BY_OTHERS)
                held.commit()
        before = _left_behind(address)
        empty_engine.dispose()
        whole_job(through, empty_engine, tmp_path)
        assert sorted(_left_behind(address)) == sorted(before)
    assert "search_path" in before


def test_four_workers_go_through_a_pool(engine: Engine, pooled: URL) -> None:
    """Each row is fetched once, though four workers share two sessions; nothing stays behind."""
    world = World(size=400, static_at=NOW)
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        env = environment(box, pooled.render_as_string(hide_password=False), allowance="1000")
        workers = [start("run", "--json", env=env) for _ in range(4)]
        ended = [worker.communicate(timeout=PATIENCE_S) for worker in workers]
        requests = box.stats()["requests"]
        assert [worker.returncode for worker in workers] == [0] * 4, ended
        verify_etl("doctor", env=env)
    counted = sum(json.loads(printed)["fetched"] for printed, _ in ended)
    assert (counted, requests) == (400, 400)
    assert_loaded(engine, world, world.sids())
    assert _left_behind(pooled) == []


@pytest.mark.parametrize("direct", [True, False])
def test_tables_may_be_altered_beneath_a_run(engine: Engine, pooled: URL, *, direct: bool) -> None:
    """Somebody adds a column and widens another: no statement was kept that could not go on."""
    world = World(size=300, static_at=NOW)
    altered: list[str] = []
    address = engine.url if direct else pooled

    def alter(counts: Any) -> None:
        if counts.fetched > 100 * len(altered) and len(altered) < 2:
            altered.append(f"theirs_{len(altered)}")
            for table in ("attempts", "attempt_queue", "sync_runs", "api_slots"):
                execute(engine, f"ALTER TABLE {table} ADD COLUMN {altered[-1]} integer")
            execute(engine, "ALTER TABLE verify_etl_version ALTER version_num TYPE text")

    fill(engine, world.sids())
    through = open_engine(make_url(address).render_as_string(hide_password=False))
    with Sandbox(world, limit=0) as box:
        report = run_here(
            through, box, allowance=(1_000, 60_000), watch=alter, concurrency=4, strategy="fetch"
        )
        run_json(env=environment(box, through.url.render_as_string(hide_password=False)))
    through.dispose()
    assert (report.exit_code, len(altered)) == (0, 2), report.error
    assert_loaded(engine, world, world.sids())


@pytest.mark.parametrize(
    "changed",
    [{"username": "stranger"}, {"database": "absent"}, {"query": {"options": "-cjit=off"}}],
    ids=["user", "database", "options"],
)
def test_what_a_pool_refuses_is_a_mistake_in_the_address(
    pooled: URL, changed: dict[str, Any]
) -> None:
    """Nobody waits for it to pass, and the pool's own words are shown."""
    through = open_engine(pooled.set(**changed).render_as_string(hide_password=False))
    with pytest.raises(
        ConfigError, match=r"(?s)(refused the login.*Check|no such database.*correct) DATABASE_URL"
    ) as caught:
        transact(through, clock, doing="connecting", sleep=lambda _s: pytest.fail("it waited"))
    assert caught.value.exit_code == Exit.CONFIG
    through.dispose()
