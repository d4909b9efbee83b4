"""Enqueue again what is loaded and final: it costs no request."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text

from etl.backfill.enqueue import Loaded, load_file
from etl.database.schema import attempt_queue as q
from etl.records import State
from etl.sandbox import Sandbox, World
from tests.support.harness import fill, states
from tests.support.in_process import run_here

DAY_MS = 86_400_000


@pytest.fixture
def world() -> World:
    """Give some attempts."""
    return World(size=200)


def _settled(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return [*connection.execute(select(q.c.sid).where(q.c.state == State.SETTLED)).scalars()]


def _prune(engine: Engine) -> list[str]:
    """Load all attempts, make one half final, and take every row out of the queue."""
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM attempt_queue"))
        sids = connection.execute(text("SELECT sid FROM attempts ORDER BY sid")).scalars().all()
        connection.execute(text("UPDATE attempts SET is_final = FALSE"))
        for sid in sids[::2]:
            connection.execute(
                text("UPDATE attempts SET is_final = TRUE WHERE sid = :sid"), {"sid": sid}
            )
    return [*sids]


def test_a_run_asks_for_none_that_is_final(engine: Engine, world: World) -> None:
    """A run settles them without a request, counts them, and fetches the others."""
    with Sandbox(world, limit=0) as box:
        fill(engine, world.sids())
        run_here(engine, box)
        sids = _prune(engine)
        fill(engine, sids[::2])
        report = run_here(engine, box)
        assert (report.counts["already_final"], report.counts["requests"]) == (100, 0)
        assert states(engine) == {"settled": 100}
        fill(engine, sids[1::2])
        assert run_here(engine, box).counts["already_final"] == 0


def test_backfill_settles_what_is_final(engine: Engine, world: World, tmp_path: Path) -> None:
    """Backfill settles them at once and says how many; the rest waits."""
    with Sandbox(world, limit=0) as box:
        fill(engine, world.sids())
        run_here(engine, box)
    sids = _prune(engine)
    file = tmp_path / "sids"
    file.write_text("\n".join(sids))
    done = load_file(engine, str(file), account="", source="x", retention_ms=30 * DAY_MS)
    assert done == Loaded(200, 200, 0, 0, (), 200, 0, 100)
    assert sorted(_settled(engine)) == sids[::2]
    assert states(engine) == {"settled": 100, "pending": 100}
