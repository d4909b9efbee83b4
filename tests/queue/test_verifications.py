"""Load all attempts of Verifications that a file names."""

import time

import pytest
from sqlalchemy import Engine, delete, func, select, update

from etl.database.schema import attempt_queue as q
from etl.database.schema import attempts
from etl.database.schema import verification_queue as v
from etl.errors import Exit
from etl.sandbox import Sandbox, World
from tests.support.harness import environment, run_json, start, until, verify_etl

AUTO = ("--strategy", "auto")


@pytest.fixture
def world() -> World:
    """Give a world of ten days that stands still."""
    now = time.time()
    return World(size=4_000, start=now - 12 * 86_400, span=10 * 86_400, static_at=now)


def _of(world: World, count: int) -> dict[str, set[str]]:
    """Return some Verifications of a world, and their attempts' SIDs."""
    found: dict[str, set[str]] = {}
    for index in range(0, world.size, world.size // count):
        ve = world.attempt(index)["verification_sid"]
        found[ve] = {world.sid(i) for i in world.members(ve)}
    return found


def _stored(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.execute(select(attempts.c.sid)).scalars())


def test_a_verification_brings_all_its_attempts(
    engine: Engine, database_url: str, world: World
) -> None:
    """A few Verifications cost one request each, and every attempt of theirs is stored."""
    wanted = _of(world, 5)
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url)
        done = verify_etl("backfill", "--verifications", "-", env=env, stdin="\n".join(wanted))
        assert done.returncode == 0, done.stderr
        report = run_json(*AUTO, env=env)
        assert report["requests"] <= len(wanted) + 2
    assert _stored(engine) == set().union(*wanted.values())
    with engine.connect() as connection:
        rows = {row.sid: row for row in connection.execute(select(v))}
    assert {sid: row.found for sid, row in rows.items()} == {
        sid: len(found) for sid, found in wanted.items()
    }
    assert {row.state for row in rows.values()} == {"listed"}


def test_many_verifications_are_swept(engine: Engine, database_url: str, world: World) -> None:
    """When they outnumber the pages of the list, the list is read instead."""
    wanted = _of(world, 400)
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url)
        verify_etl("backfill", "--verifications", "-", env=env, stdin="\n".join(wanted))
        report = run_json(*AUTO, env=env)
        assert report["requests"] <= 10
    assert _stored(engine) == set().union(*wanted.values())
    with engine.connect() as connection:
        assert set(connection.execute(select(v.c.state)).scalars()) == {"listed"}


def test_what_can_still_change_is_listed_again_in_one_request(
    engine: Engine, database_url: str
) -> None:
    """A young Verification waits, and one more list makes all its attempts final."""
    born = time.time() - 3_600
    world = World(size=30, start=born, span=60, static_at=time.time())
    ve = world.attempt(0)["verification_sid"]
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url)
        verify_etl("backfill", "--verifications", "-", env=env, stdin=ve)
        run_json(*AUTO, env=env)
        with engine.begin() as connection:
            row = connection.execute(select(v)).one()
            connection.execute(update(v).values(due_at=0))
            connection.execute(update(q).values(due_at=2**50))
        assert (row.state, row.due_at % 3_600_000) == ("pending", 0)
        later = environment(box, database_url, settle_after="30m", price_grace="45m")
        assert run_json(*AUTO, env=later)["requests"] == 1
    with engine.connect() as connection:
        assert connection.execute(select(v.c.state)).scalar_one() == "listed"
        assert set(connection.execute(select(attempts.c.is_final)).scalars()) == {True}
        assert set(connection.execute(select(q.c.state)).scalars()) == {"settled"}


def test_a_verification_without_attempts_is_missing_after_three_lists(
    engine: Engine, database_url: str, world: World
) -> None:
    """Nothing is given up at the first empty list."""
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url)
        verify_etl("backfill", "--verifications", "-", env=env, stdin="VE" + "0" * 32)
        for expected in ("pending", "pending", "missing"):
            run_json(*AUTO, env=env)
            with engine.begin() as connection:
                row = connection.execute(select(v)).one()
                assert row.state == expected
                assert row.due_at > time.time() * 1000
                connection.execute(update(v).values(due_at=0))
        assert run_json(*AUTO, env=env)["requests"] == 0


def test_a_verification_taken_out_while_it_is_listed_costs_nothing(
    engine: Engine, database_url: str, world: World
) -> None:
    """A row that somebody deletes in the middle of its list ends no run."""
    with Sandbox(world, limit=0, latency=1.0) as box:
        env = environment(box, database_url)
        verify_etl("backfill", "--verifications", "-", env=env, stdin="VE" + "0" * 32)
        process = start("run", env=env)
        until(lambda: box.stats()["lists"] >= 1)
        with engine.begin() as connection:
            connection.execute(delete(v))
        _, said = process.communicate()
    assert process.returncode == 0, said
    assert "was taken out of its queue" in said


def test_interrupted_it_goes_on_where_it_was(
    engine: Engine, database_url: str, world: World
) -> None:
    """Killed between two lists it asks for none of the Verifications again that are stored."""
    wanted = _of(world, 12)
    with Sandbox(world, limit=0, latency=0.15) as box:
        env = environment(box, database_url)
        verify_etl("backfill", "--verifications", "-", env=env, stdin="\n".join(wanted))
        process = start("run", "--strategy", "fetch", env=env)
        until(lambda: box.stats()["lists"] >= 5)
        process.kill()
        process.communicate()
        with engine.begin() as connection:
            left = connection.execute(
                select(func.count()).where(v.c.state == "pending")
            ).scalar_one()
            # The leases run out.
            connection.execute(update(v).where(v.c.state == "pending").values(due_at=1))
        assert 0 < left < 12
        box.reset_stats()
        run_json(env=env)
        assert box.stats()["lists"] == left
    assert _stored(engine) == set().union(*wanted.values())


def test_attempt_sids_are_refused_as_verifications(engine: Engine, database_url: str) -> None:
    """A file of attempts given as Verifications is refused with the reason, and changes nothing."""
    with Sandbox(World(size=1)) as box:
        env = environment(box, database_url)
        done = verify_etl("backfill", "--verifications", "-", env=env, stdin="VL" + "0" * 32)
    assert done.returncode == Exit.DATA
    assert "not a Verification's" in done.stderr
    assert done.stderr.endswith("SIDs of attempts go without --verifications.\n")
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(v)).scalar_one() == 0
