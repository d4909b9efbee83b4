"""Find our schema among those of a search path, and keep to it."""

import secrets
from collections.abc import Iterator

import pytest
from sqlalchemy import URL, Engine

from etl.database.engine import open_engine
from etl.errors import Exit, SchemaError
from etl.migrate.upgrade import upgrade
from etl.rollups.tables import metadata
from etl.sandbox import Sandbox, World
from tests.support.harness import NOW, assert_loaded, fill
from tests.support.in_process import run_here
from tests.support.queue_rows import execute

pytestmark = pytest.mark.kinds("postgresql", "second-postgresql")


@pytest.fixture
def role(empty_engine: Engine) -> Iterator[str]:
    """Make a role that may create tables in the public schema."""
    name = f"Odd%{secrets.token_hex(4)}"
    execute(empty_engine, f'CREATE ROLE "{name}" LOGIN')
    execute(empty_engine, f'GRANT ALL ON SCHEMA public TO "{name}"')
    yield name
    for statement in ("DROP OWNED BY", "DROP ROLE"):
        execute(empty_engine, f'{statement} "{name}"')


def _as(engine: Engine, role: str) -> URL:
    return engine.url.set(username=role)


def _open(url: URL) -> Engine:
    return open_engine(url.render_as_string(hide_password=False))


def _schemas(engine: Engine) -> dict[str, int]:
    """Count our tables and views by schema."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT table_schema, COUNT(*) FROM information_schema.tables"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
            " GROUP BY table_schema ORDER BY table_schema"
        )
        return {name: count for name, count in rows}  # noqa: C416 - rows are no pairs to mypy


def test_foreign_tables_of_our_names_in_another_schema_are_nothing_to_us(
    empty_engine: Engine,
) -> None:
    """All goes to the first schema of the path; the other one's tables stay as they are."""
    execute(empty_engine, "CREATE SCHEMA etl")
    for table in ("attempts", "attempt_queue", "report_views", "v_attempts"):
        execute(empty_engine, f"CREATE TABLE public.{table} (theirs integer)")
    engine = _open(empty_engine.url.update_query_dict({"options": "-csearch_path=etl,public"}))
    upgrade(engine)
    assert upgrade(engine) == []
    found = _schemas(empty_engine)
    assert (found["public"], found["etl"] > len(metadata.tables)) == (4, True)
    world = World(size=20, static_at=NOW)
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        assert run_here(engine, box).exit_code == 0
    assert_loaded(engine, world, world.sids())
    engine.dispose()


def test_a_schema_that_appears_later_takes_nothing_over(empty_engine: Engine, role: str) -> None:
    """Our tables stay where they are, though a schema named like the role now comes first."""
    engine = _open(_as(empty_engine, role))
    upgrade(engine)
    engine.dispose()
    before = _schemas(empty_engine)
    execute(empty_engine, f'CREATE SCHEMA "{role}" AUTHORIZATION "{role}"')
    engine = _open(_as(empty_engine, role))
    assert upgrade(engine) == []
    assert (_schemas(empty_engine), list(before)) == (before, ["public"])
    engine.dispose()


def test_a_schema_named_like_the_role_is_taken_first(empty_engine: Engine, role: str) -> None:
    """Where it is there from the start, and may be created in, the tables go there."""
    execute(empty_engine, f'CREATE SCHEMA "{role}" AUTHORIZATION "{role}"')
    engine = _open(_as(empty_engine, role))
    upgrade(engine)
    assert list(_schemas(empty_engine)) == [role]
    engine.dispose()


def test_a_user_who_may_create_nowhere_is_told_so(empty_engine: Engine, role: str) -> None:
    """The message is about schemas, and says what to grant."""
    execute(empty_engine, f'REVOKE ALL ON SCHEMA public FROM PUBLIC, "{role}"')
    engine = _open(_as(empty_engine, role))
    with pytest.raises(SchemaError, match=r"no schema of its search path.*GRANT CREATE") as caught:
        upgrade(engine)
    assert caught.value.exit_code == Exit.CONFIG
    engine.dispose()
