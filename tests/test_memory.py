"""Drain long queues and swallow large bodies in constant memory."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from etl.database.engine import open_engine
from etl.database.schema import attempt_queue as q
from etl.migrate.upgrade import upgrade
from etl.sandbox import Sandbox, World
from tests.support.harness import environment, fill, measured, states

AT_MOST_MB = 150
WITH_ITS_PEAK = """
import atexit, pathlib, re
from etl.cli import main

def say():
    status = pathlib.Path("/proc/self/status").read_text()
    print(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])

atexit.register(say)
main()
"""
"""The program, which prints in the end how large it has been, in KB."""


@pytest.mark.soak
def test_a_long_queue_is_drained_in_constant_memory(
    scale: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Draining 200,000 SIDs never takes more than 150 MB."""
    rows = int(200_000 * scale)
    figure = measured("memory.py", "--rows", str(rows), "--at-most", str(AT_MOST_MB))
    with capsys.disabled():
        sys.stdout.write(f"\n{figure}")


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
        done = subprocess.run(
            [sys.executable, "-c", WITH_ITS_PEAK, "run", "--strategy", "fetch"],
            env=environment(box, url), stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    with engine.connect() as connection:
        errors = set(connection.execute(select(q.c.last_error).where(q.c.attempts == 1)).scalars())
    assert states(engine)["retry"] == 32
    assert len(errors) == 32
    assert int(done.stdout.split()[-1]) < AT_MOST_MB * 1024
    engine.dispose()
