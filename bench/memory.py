"""Measure the most memory that draining a long queue takes, on SQLite.

The sandbox and the enqueuing are processes of their own; what counts is the peak resident size of
``verify-etl run`` by itself, as the kernel gives it. Exits with 1 above ``--at-most``::

    python bench/memory.py --rows 200000
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from etl.backfill.enqueue import load_file
from etl.database.engine import open_engine
from etl.database.schema import attempt_queue
from etl.migrate.upgrade import upgrade
from etl.records import State
from etl.sandbox import World

ROOT = Path(__file__).resolve().parent.parent
q = attempt_queue.c
AT_MOST_MB = 150.0


@dataclass(frozen=True, slots=True)
class Figure:
    """Hold what a drain took: rows, seconds, peak megabytes of the process, exit code, rows at rest."""

    rows: int
    seconds: float
    peak_mb: float
    exit_code: int
    settled: int


@contextmanager
def sandbox(size: int) -> Iterator[dict[str, str]]:
    """Run the sandbox as a process of its own, without an allowance; yield its environment."""
    command = [sys.executable, "-m", "etl", "sandbox", "--size", str(size), "--allowance", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_env({})) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        lines = [process.stdout.readline().strip() for _ in range(3)]
        try:
            yield dict(line.split("=", 1) for line in lines)
        finally:
            process.terminate()


def _env(more: Mapping[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TWILIO_", "VERIFY_ETL_"))}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def peak_of(command: list[str], env: Mapping[str, str]) -> tuple[int, float]:
    """Run a program to its end; return its exit code and its peak resident size in MB.

    Read from the kernel while it runs: what wait4 tells of a child begins with the size of its
    parent, which a test's may be large.
    """
    peak = 0
    with subprocess.Popen(command, env=dict(env), stdout=subprocess.DEVNULL) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            with suppress(OSError):
                found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
                peak = max(peak, int(found[1]) if found else 0)
            time.sleep(0.02)
        return process.returncode, peak / 1024


def drain(rows: int, folder: Path) -> Figure:
    """Enqueue so many SIDs and drain them, one request each."""
    url = f"sqlite:///{folder}/memory.db"
    engine = open_engine(url)
    upgrade(engine)
    file = folder / "sids.txt"
    with file.open("w") as lines:
        lines.writelines(f"{sid}\n" for sid in World(size=rows).sids())
    load_file(engine, str(file), account="", source="bench", retention_ms=30 * 86_400_000)
    with sandbox(rows) as environ:
        env = _env({**environ, "DATABASE_URL": url, "VERIFY_ETL_ALLOWANCE": "0"})
        command = [sys.executable, "-m", "etl", "run", "--strategy", "fetch"]
        started = time.perf_counter()
        code, peak = peak_of(command, env)
        seconds = time.perf_counter() - started
    with engine.connect() as connection:
        rest = select(func.count()).where(q.state.in_((State.SETTLED, State.REFRESH)))
        settled = connection.execute(rest).scalar_one()
    engine.dispose()
    return Figure(rows, seconds, peak, code, settled)


def main() -> int:
    """Measure once and print the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--at-most", type=float, default=AT_MOST_MB, help="megabytes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figure = drain(options.rows, Path(folder))
    print(
        f"{figure.rows:,} rows drained in {figure.seconds:.0f} s: peak {figure.peak_mb:.0f} MB"
        f" (at most {options.at_most:.0f}), {figure.settled:,} of them whole,"
        f" exit code {figure.exit_code}"
    )
    whole = figure.exit_code == 0 and figure.settled == figure.rows
    return int(not whole or figure.peak_mb > options.at_most)


if __name__ == "__main__":
    sys.exit(main())
