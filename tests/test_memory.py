"""Drain long queues and swallow large bodies in constant memory."""

import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from bench.memory import AT_MOST_MB, drain, peak_of
from etl.database.engine import open_engine
from etl.database.schema import attempt_queue as q
from etl.migrate.upgrade import upgrade
from etl.sandbox import Sandbox, World
from tests.support.harness import environment, fill, states


@pytest.mark.soak
def test_a_long_queue_is_drained_in_constant_memory(
    tmp_path: Path, scale: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Draining 200,000 SIDs never takes more than 150 MB."""
    rows = int(200_000 * scale)
    figure = drain(rows, tmp_path)
    with capsys.disabled():
        sys.stdout.write(f"\n{rows:,} rows: peak {figure.peak_mb:.0f} MB, {figure.seconds:.0f} s\n")
    assert figure.exit_code == 0
    engine = open_engine(f"sqlite:///{tmp_path}/memory.db")
    assert sum(states(engine).values()) == rows
    assert set(states(engine)) <= {"settled", "refresh"}
    engine.dispose()
    assert figure.peak_mb < AT_MOST_MB


@pytest.mark.parametrize("fault", ["gzip_bomb", "huge", "endless_chunks", "big_header"])
def test_bodies_without_end_are_never_held(tmp_path: Path, fault: str) -> None:
    """Sixteen bombs and gigabytes at a time are cut off at their first megabyte."""
    url = f"sqlite:///{tmp_path}/test.db"
    engine = open_engine(url)
    upgrade(engine)
    world = World(size=40)
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        for sid in list(world.sids())[4:36]:
            box.faults.add(f"{fault}:sid={sid}")
        command = [sys.executable, "-m", "etl", "run", "--strategy", "fetch"]
        code, peak = peak_of(command, environment(box, url))
    with engine.connect() as connection:
        errors = set(connection.execute(select(q.c.last_error).where(q.c.attempts == 1)).scalars())
    assert code == 0
    assert states(engine)["retry"] == 32
    assert len(errors) == 32
    assert peak < AT_MOST_MB
    engine.dispose()
