"""Let a restore leave the sequences behind: the run is to blame, no row, and one command mends it."""

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from etl.database.schema import KEYED
from etl.errors import Exit, StorageError
from etl.migrate.upgrade import upgrade
from etl.run.rights import check_sequences
from etl.sandbox import Sandbox, World
from tests.support.harness import assert_loaded, environment, fill, states, verify_etl
from tests.support.in_process import run_here
from tests.support.queue_rows import execute, sid

pytestmark = pytest.mark.kinds("postgresql", "second-postgresql")
ROWS = 500
FILLED = {
    "attempt_queue": "(sid, state) SELECT 'x' || i, 'settled'",
    "verification_queue": "(sid, state) SELECT 'x' || i, 'listed'",
    "attempt_changes": "(attempt_sid, field, seen_at) SELECT 'VLx', 'status', i",
    "sweeps": (
        "(account, window_from, window_to, purpose, state, page_size, created_at)"
        " SELECT 'AC', i, i, 'sweep', 'done', 1, now()"
    ),
    "sync_runs": "(command, version, worker, asked, started_at) SELECT 'run', '1', i, '{}', now()",
    "rollup_marks": "(start) SELECT -1",
}
"""What each table with a sequence is filled with."""


@pytest.fixture
def world() -> World:
    """Give a world that stands still."""
    return World(size=6, static_at=time.time())


@pytest.fixture
def box(world: World) -> Iterator[Sandbox]:
    """Serve it."""
    with Sandbox(world, limit=0) as box:
        yield box


def restore(engine: Engine, *tables: str) -> None:
    """Fill tables, and let their sequences begin again, as a restore does."""
    execute(
        engine,
        "INSERT INTO attempts (sid, first_fetched_at, fetched_at, is_final) VALUES ('VLx', 1, 1, true)",
    )
    for table in tables:
        execute(engine, f"INSERT INTO {table} {FILLED[table]} FROM generate_series(1, {ROWS}) i")
        execute(engine, f"SELECT setval('{table}_id_seq', 1, false)")


def tidy(engine: Engine) -> None:
    """Remove what ``restore`` put in, so that the rest can be compared with the world."""
    execute(engine, "DELETE FROM attempt_changes")
    execute(engine, "DELETE FROM attempts WHERE sid = 'VLx'")
    execute(engine, "DELETE FROM attempt_queue WHERE sid LIKE 'x%'")


def test_there_is_a_case_for_each_table() -> None:
    """No table with a sequence is forgotten."""
    assert sorted(FILLED) == sorted(KEYED)


@pytest.mark.parametrize("table", FILLED)
def test_a_run_finds_it_before_its_first_request(
    engine: Engine, world: World, box: Sandbox, table: str
) -> None:
    """The run ends with 74 and names table and command; after `db upgrade` all rows are stored."""
    fill(engine, world.sids())
    restore(engine, table)
    with pytest.raises(StorageError, match=f"{table}.id") as caught:
        run_here(engine, box)
    assert caught.value.exit_code == Exit.IO
    assert "verify-etl db upgrade" in caught.value.hint
    assert f"setval(pg_get_serial_sequence('{table}', 'id')" in caught.value.hint
    assert (states(engine)["pending"], box.stats()["requests"]) == (6, 0)
    assert upgrade(engine) == [f"sequences: {table}"]
    assert upgrade(engine) == []
    assert run_here(engine, box).exit_code == 0
    tidy(engine)
    assert_loaded(engine, world, world.sids())


def test_the_named_statement_mends_it(engine: Engine) -> None:
    """The statement in the hint does what `db upgrade` does."""
    restore(engine, "sweeps")
    with engine.begin() as connection, pytest.raises(StorageError) as caught:
        check_sequences(connection)
    statement = caught.value.hint.split("owner: ")[1].split("). Nothing")[0]
    execute(engine, statement)
    with engine.begin() as connection:
        check_sequences(connection)


@pytest.mark.parametrize("broken", ["behind", "used up"])
@pytest.mark.parametrize("table", ["attempt_changes", "rollup_marks"])
def test_a_sequence_that_falls_behind_under_way_parks_no_row(
    engine: Engine, world: World, box: Sandbox, table: str, broken: str
) -> None:
    """It ends the run with 74, and all rows wait uncounted."""
    fill(engine, world.sids())
    restore(engine, table)
    upgrade(engine)
    if table == "attempt_changes":
        for held in world.sids():
            execute(
                engine,
                "INSERT INTO attempts (sid, channel, first_fetched_at, fetched_at, is_final) "
                f"VALUES ('{held}', 'old', 1, 1, false)",
            )
    at = "1, false" if broken == "behind" else str(2**63 - 1)
    # A trigger that acts as the first row is settled: the start has looked at the sequences.
    execute(
        engine,
        "CREATE FUNCTION back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"PERFORM setval('{table}_id_seq', {at}); RETURN NEW; END $$",
    )
    execute(
        engine,
        "CREATE TRIGGER back BEFORE INSERT ON attempts FOR EACH ROW EXECUTE FUNCTION back()",
    )
    report = run_here(engine, box)
    assert isinstance(report.error, StorageError), report.error
    assert f"{table}.id" in str(report.error)
    assert (report.exit_code, report.counts["dead"]) == (Exit.IO, 0)
    assert states(engine)["pending"] == 6


@pytest.mark.parametrize("table", ["attempt_queue", "verification_queue"])
def test_enqueueing_says_it_too(engine: Engine, box: Sandbox, table: str) -> None:
    """`backfill` ends with 74 and the sentence, and enqueues nothing."""
    restore(engine, table)
    url = engine.url.render_as_string(hide_password=False)
    words = ["--verifications"] if table == "verification_queue" else []
    lines = sid(1) if not words else f"VE{1:032x}"
    done = verify_etl("backfill", *words, "-", env=environment(box, url), stdin=f"{lines}\n")
    assert done.returncode == Exit.IO, done.stderr
    assert f"the sequence of {table}.id was found behind" in done.stderr


def test_a_users_own_table_may_refuse_a_row(engine: Engine, world: World, box: Sandbox) -> None:
    """A taken key of another table, in a trigger, is that trigger's refusal."""
    fill(engine, world.sids())
    execute(engine, "CREATE TABLE mine (id integer PRIMARY KEY)")
    execute(
        engine,
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO mine VALUES (1); RETURN NEW; END $$",
    )
    execute(
        engine,
        "CREATE TRIGGER note BEFORE INSERT ON attempts FOR EACH ROW EXECUTE FUNCTION note()",
    )
    report = run_here(engine, box, concurrency=1)
    assert report.exit_code in {0, Exit.CONFIG}
    assert "sequence" not in str(report.error)


def test_doctor_finds_it(engine: Engine, box: Sandbox) -> None:
    """`doctor` ends with 74 and says what mends it."""
    restore(engine, "attempt_changes")
    url = engine.url.render_as_string(hide_password=False)
    done = verify_etl("doctor", "--offline", env=environment(box, url))
    assert done.returncode == Exit.IO
    assert "attempt_changes.id" in " ".join(done.stdout.split())
