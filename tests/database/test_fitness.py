"""Refuse databases that would spoil our rows or hide them, and say how to mend them."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from etl.database.engine import open_engine
from etl.database.schema import VERSION_TABLE
from etl.errors import ConfigError, Exit, SchemaError
from etl.migrate.upgrade import current, upgrade, upgrade_sql
from etl.rollups.tables import metadata
from etl.sandbox import Sandbox, World
from tests.support.harness import NOW, command, environment, fill
from tests.support.in_process import run_here
from tests.support.queue_rows import execute

POSTGRESQL = pytest.mark.kinds("postgresql", "second-postgresql")
MARIADB = pytest.mark.kinds("mariadb")


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def narrow(empty_engine: Engine, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the address of a database that cannot hold UTF-8."""
    name = f"narrow_{secrets.token_hex(4)}"
    with empty_engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        run = driver.execute
        run(
            f"CREATE DATABASE {name} ENCODING '{request.param}' TEMPLATE template0"
            " LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        yield empty_engine.url.set(database=name).render_as_string(hide_password=False)
        run(f"DROP DATABASE {name} WITH (FORCE)")


@POSTGRESQL
def test_a_database_that_cannot_hold_utf8_is_refused(narrow: str) -> None:
    """The upgrade creates nothing there, and the doctor says the same."""
    engine = open_engine(narrow)
    with pytest.raises(ConfigError, match=r"its encoding is .*ENCODING 'UTF8'") as caught:
        upgrade(engine)
    assert (caught.value.exit_code, current(engine)) == (Exit.CONFIG, None)
    engine.dispose()
    with Sandbox(World(size=1, static_at=NOW)) as box:
        done = command("doctor", env=environment(box, narrow))
    assert done.returncode == Exit.CONFIG
    assert "PROBLEM  encoding: the database cannot hold every text" in done.stdout


@pytest.fixture
def guarded(engine: Engine) -> Iterator[Engine]:
    """Log in as a role that has every right, in a database where row-level security is on."""
    role = f"guarded{secrets.token_hex(4)}"
    execute(engine, f"CREATE ROLE {role} LOGIN")
    execute(engine, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    execute(engine, f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
    for table in ("attempt_queue", "attempts"):
        execute(engine, f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    url = engine.url.set(username=role)
    theirs = open_engine(url.render_as_string(hide_password=False))
    yield theirs
    theirs.dispose()
    execute(engine, f"DROP OWNED BY {role}")
    execute(engine, f"DROP ROLE {role}")


@POSTGRESQL
def test_hidden_rows_are_said_before_any_request(engine: Engine, guarded: Engine) -> None:
    """A queue that looks empty to this user is not said to be; open policies hide nothing."""
    world = World(size=5, static_at=NOW)
    fill(engine, world.sids())
    said = "row-level security hides rows from this user: "
    with Sandbox(world, limit=0) as box:
        with pytest.raises(SchemaError, match=f"{said}attempt_queue, attempts") as caught:
            run_here(guarded, box)
        assert caught.value.exit_code == Exit.CONFIG
        env = environment(box, guarded.url.render_as_string(hide_password=False))
        done = command("doctor", env=env)
        assert (done.returncode, said in " ".join(done.stdout.split())) == (Exit.CONFIG, True)

        execute(engine, "CREATE POLICY half ON attempts USING (sid < 'VL5')")
        execute(engine, "CREATE POLICY every ON attempt_queue USING (true)")
        with pytest.raises(SchemaError, match=f"{said}attempts"):
            run_here(guarded, box)

        # An open policy beside a narrower one hides nothing, unless that one restricts.
        execute(engine, "CREATE POLICY every ON attempts USING (true) WITH CHECK (true)")
        execute(engine, "CREATE POLICY less ON attempts AS RESTRICTIVE USING (sid < 'VL5')")
        with pytest.raises(SchemaError, match=f"{said}attempts"):
            run_here(guarded, box)
        execute(engine, "DROP POLICY less ON attempts")
        report = run_here(guarded, box)
    assert (report.exit_code, report.pending, report.counts["fetched"]) == (0, 0, 5)


@MARIADB
def test_tables_without_locks_are_refused_until_they_are_mended(engine: Engine) -> None:
    """A run names them, and the upgrade gives every table of ours the right engine."""
    world = World(size=5, static_at=NOW)
    fill(engine, world.sids())
    for table in (VERSION_TABLE, "api_slots"):
        execute(engine, f"ALTER TABLE {table} ENGINE = MyISAM")
    with Sandbox(world, limit=0) as box:
        with pytest.raises(SchemaError, match=f"InnoDB.*api_slots, {VERSION_TABLE}.*db upgrade"):
            run_here(engine, box)
        assert upgrade(engine) == [f"engine InnoDB: api_slots, {VERSION_TABLE}"]
        assert run_here(engine, box).exit_code == 0
    assert upgrade(engine) == []


@MARIADB
def test_every_table_names_its_engine(empty_database_url: str) -> None:
    """A session that prefers MyISAM gets InnoDB for all of them, and so does written SQL."""
    odd = f"{empty_database_url}?init_command=SET%20default_storage_engine%3DMyISAM"
    engine = open_engine(odd)
    upgrade(engine)
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT DISTINCT engine FROM information_schema.tables"
            " WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'"
        )
        assert found.scalars().all() == ["InnoDB"]
    engine.dispose()
    for kind in ("mariadb", "mysql"):
        written = upgrade_sql(f"{kind}://u@h/d")
        tables = written.count("CREATE TABLE")
        assert (written.count("ENGINE=InnoDB"), tables) == (tables, len(metadata.tables) + 1)
