"""Take one right on one table from the database's user: a run says so before it asks anything."""

import secrets
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, update

from etl.database.engine import open_engine
from etl.database.schema import VERSION_TABLE, attempts
from etl.database.schema import attempt_queue as q
from etl.errors import Exit, SchemaError
from etl.rollups.tables import metadata
from etl.sandbox import Sandbox, World
from tests.support.harness import assert_loaded, fill
from tests.support.in_process import run_here
from tests.support.queue_rows import execute

WRITTEN = (
    "attempt_queue", "verification_queue", "attempts", "attempt_channel_data", "attempt_changes",
    "api_slots", "sweeps", "sync_runs", "rollup_marks", "rollup_attempts", "rollup_verifications",
)  # fmt: skip
RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
COUNTED = ("attempt_queue", "attempt_changes", "sweeps", "sync_runs", "rollup_marks")


class User:
    """Be a user of the database with every right on its tables, until some are taken."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._name = f"u{secrets.token_hex(6)}"
        self._tables = [*metadata.tables, VERSION_TABLE]
        if engine.dialect.name == "postgresql":
            execute(engine, f"CREATE ROLE {self._name} LOGIN")
            execute(engine, f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {self._name}")
        else:
            execute(engine, f"CREATE USER {self._name}@'%'")
        for table in self._tables:
            self.grant(", ".join(RIGHTS), table)
        url = engine.url.set(username=self._name)
        self.engine = open_engine(url.render_as_string(hide_password=False))

    def grant(self, rights: str, what: str) -> None:
        """Give rights on a table."""
        self._say(f"GRANT {rights} ON {what} TO")

    def revoke(self, rights: str, what: str) -> None:
        """Take rights on a table."""
        self._say(f"REVOKE {rights} ON {what} FROM")

    def _say(self, statement: str) -> None:
        host = "" if self._engine.dialect.name == "postgresql" else "@'%'"
        execute(self._engine, f"{statement} {self._name}{host}")

    def drop(self) -> None:
        """Be no user any more."""
        self.engine.dispose()
        if self._engine.dialect.name == "postgresql":
            execute(self._engine, f"DROP OWNED BY {self._name}")
            execute(self._engine, f"DROP ROLE {self._name}")
        else:
            execute(self._engine, f"DROP USER {self._name}@'%'")


@pytest.fixture
def world() -> World:
    """Give a world that stands still."""
    return World(size=12, static_at=time.time())


@pytest.fixture
def user(engine: Engine, world: World) -> Iterator[User]:
    """Give a user, and a queue in which every row waits and has been fetched before."""
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        run_here(engine, box)
    user = User(engine)
    yield user
    user.drop()


def _wait_again(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(update(attempts).values(channel="?", fetched_at=1, is_final=False))
        connection.execute(update(q).values(state="pending", due_at=0))


def _loses(engine: Engine, user: User, world: World, what: str) -> bool:
    """Run as the user; say whether it stopped before any request. Else all must be loaded."""
    _wait_again(engine)
    missing, report = None, None
    with Sandbox(world, limit=0) as box:
        try:
            report = run_here(user.engine, box, allowance=(1_000, 60_000))
        except SchemaError as error:
            missing = error
        requests = box.stats()["requests"]
    if missing is None:
        assert report is not None
        assert report.exit_code == 0, report.error
        assert_loaded(engine, world, world.sids())
        return False
    assert (requests, missing.exit_code) == (0, Exit.CONFIG)
    assert what in str(missing)
    assert "Grant this user SELECT" in str(missing)
    return True


@pytest.mark.kinds("postgresql", "second-postgresql", "mariadb")
@pytest.mark.parametrize("table", WRITTEN)
def test_a_right_that_is_missing_is_said_before_any_request(
    engine: Engine, world: World, user: User, table: str
) -> None:
    """Whichever right a run lacks on a table that it writes, it ends with 78, or does without."""
    lost = {}
    for right in RIGHTS:
        user.revoke(right, table)
        lost[right] = _loses(engine, user, world, table)
        user.grant(right, table)
    removes = table.startswith("rollup")
    assert lost == {"SELECT": True, "INSERT": True, "UPDATE": True, "DELETE": removes}


@pytest.mark.kinds("postgresql", "second-postgresql")
@pytest.mark.parametrize("table", COUNTED)
def test_a_sequence_without_its_right_is_said_before_any_request(
    engine: Engine, world: World, user: User, table: str
) -> None:
    """A sequence that may not be drawn from is named, before the first row needs an id."""
    user.revoke("USAGE", f"SEQUENCE {table}_id_seq")
    assert _loses(engine, user, world, f"{table}_id_seq")


@pytest.mark.kinds("postgresql")
def test_a_user_with_every_right_is_refused_nothing(
    engine: Engine, world: World, user: User
) -> None:
    """A run needs no rights but those in the hint."""
    assert not _loses(engine, user, world, "")
