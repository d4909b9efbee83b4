"""Measure how many attempts a second ``discover`` and ``run --strategy sweep`` load.

The allowance is off and the server's pages are rendered beforehand; its own speed stands beside.
The rate of 100,000 attempts is held to the target, the best of three times; that of a million is
only told: SIDs are random keys in four indexes, and each page of a larger table touches more of
their leaves. A run under the allowance brings 100,000 a minute.

The job runs in a process of its own, whose peak resident size is read when a tenth of a million is
loaded and at the end: memory must not grow with what is loaded. At last old days are loaded: how
much longer it takes for what is marked and summed for the reports is told apart within each run.
Exits with 1 when a target is missed::

    python bench/load.py
    python bench/load.py --rows 100000 --database sqlite    # the rates alone
    python bench/load.py --old                  # the sums alone
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, Final, TypeVar
from unittest.mock import patch

from sqlalchemy import insert

from bench._box import SPAWN, Shape, own_speed, serve
from bench._databases import KINDS, fresh
from etl.cli import look_for_garbage_seldom
from etl.database.engine import open_engine
from etl.database.schema import attempt_queue
from etl.job.counts import Counts
from etl.job.stop import StopFlag
from etl.listing.discover import DiscoverOptions
from etl.rollups import marks
from etl.run import pipeline
from etl.run.opening import opened
from etl.settings import load

T = TypeVar("T")

DAY: Final = 86_400
ROWS: Final = 1_000_000
FIRST: Final = 100_000
"""The rate of so many is held to the target."""

AT_LEAST: Final = {"sqlite": 8_000, "postgresql": 5_000}
SLOWER: Final = 1.15
"""Summing what has settled may make loading so many times as slow."""

OLD_DAYS: Final = 20
OLD_ROWS: Final = 100_000
ROUNDS: Final = 3
"""How often each is measured; of rates the best counts, of ratios the median."""

GROWTH: Final = 1.1
"""The peak at the end may be so many times that at a tenth."""

CHUNK: Final = 50_000
WAYS: Final = ("discover", "sweep")


@dataclass(frozen=True, slots=True)
class Figure:
    """Hold what loading took: wall and processor seconds, and the peaks in MB."""

    rows: int
    seconds: float
    cpu_s: float
    early_mb: float
    peak_mb: float
    summing_s: float
    """Of the seconds those for marks and sums."""


def _peak_mb() -> float:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (1024 * 1024 if sys.platform == "darwin" else 1024)


def _load(environ: Mapping[str, str], shape: Shape, way: str, pipe: Connection) -> None:
    """Load a world in this process; send a ``Figure``."""
    summing: list[float] = []
    for module, name in ((pipeline, "_roll_up"), (marks, "mark")):
        patch.object(module, name, _timed(getattr(module, name), summing)).start()
    # As the command itself does.
    look_for_garbage_seldom()
    settings = load(environ=environ)
    early: list[float] = []

    def watch(counts: Counts) -> None:
        if not early and counts.listed >= shape.size / 10:
            early.append(_peak_mb())

    with opened(settings, strategy="sweep" if way == "sweep" else "auto") as tools:
        started, cpu = time.perf_counter(), time.process_time()
        if way != "sweep":
            asked = DiscoverOptions(int(shape.start) * 1000, int(shape.at) * 1000)
            report = pipeline.discover(*tools, asked, stop=StopFlag(), watch=watch)
        else:
            report = pipeline.run(*tools, stop=StopFlag(), watch=watch)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    rows = report.counts["fetched"]
    pipe.send(Figure(rows, seconds, cpu, early[0], _peak_mb(), sum(summing)))


def _timed(call: Callable[..., T], took: list[float]) -> Callable[..., T]:
    def timed(*args: Any) -> T:  # noqa: ANN401 - as the call it stands for
        started = time.perf_counter()
        try:
            return call(*args)
        finally:
            took.append(time.perf_counter() - started)

    return timed


def measure(environ: dict[str, str], shape: Shape, way: str, kind: str) -> Figure:
    """Load a world into a fresh database."""
    with fresh(kind) as url:
        if way == "sweep":
            _enqueue(url, shape)
        here, there = SPAWN.Pipe()
        environ = {**environ, "DATABASE_URL": url, "VERIFY_ETL_ALLOWANCE": "0"}
        process = SPAWN.Process(target=_load, args=(environ, shape, way, there))
        process.start()
        there.close()
        figure: Figure = here.recv()
        process.join()
    return figure


def _enqueue(url: str, shape: Shape) -> None:
    engine, world = open_engine(url), shape.world()
    for start in range(0, shape.size, CHUNK):
        with engine.begin() as connection:
            rows = [{"sid": sid} for sid in world.sids(start, start + CHUNK)]
            connection.execute(insert(attempt_queue), rows)
    engine.dispose()


def main() -> int:
    """Measure each way into each database, then the sums, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, help=f"{ROWS:,}; {OLD_ROWS:,} old ones")
    parser.add_argument("--database", choices=[*KINDS], help="only this one")
    parser.add_argument("--way", choices=WAYS, help="only this one, and not the sums")
    parser.add_argument("--old", action="store_true", help="only the sums")
    options = parser.parse_args()
    if options.old and options.way:
        parser.error("--old compares its own two ways")
    missed = 0 if options.old else _today(options)
    missed += 0 if options.way else _old(options)
    return int(missed > 0)


def _today(options: argparse.Namespace) -> int:
    """Load what may still change; return how many targets were missed."""
    rows = options.rows or ROWS
    ways = [
        (way, kind)
        for kind in ([options.database] if options.database else KINDS)
        for way in ([options.way] if options.way else WAYS)
    ]
    return _rates(ways, min(rows, FIRST)) + (_memory(ways, rows) if rows > FIRST else 0)


def _shape(rows: int) -> Shape:
    # Of today: every row may still change, so discovering enqueues each for its refresh.
    now = int(time.time())
    return Shape(rows, now - DAY + 600, DAY - 1200, now, ready=True)


def _rates(ways: Sequence[tuple[str, str]], rows: int) -> int:
    shape, missed = _shape(rows), 0
    with serve(shape) as box:
        print(f"the server by itself: {own_speed(box):,.0f} attempts/s", flush=True)
        for way, kind in ways:
            figures = [measure(box.environ, shape, way, kind) for _ in range(ROUNDS)]
            best = min(figures, key=lambda figure: figure.seconds)
            rate = rows / best.seconds
            ok = rate >= AT_LEAST[kind] and {figure.rows for figure in figures} == {rows}
            missed += not ok
            print(
                f"{way} into {kind}: {rows:,} at {rate:,.0f}/s, the best of {ROUNDS} (at least"
                f" {AT_LEAST[kind]:,}; {rows / best.cpu_s:,.0f} for each second of its processor"
                f" time){'' if ok else '  <- missed'}",
                flush=True,
            )
    return missed


def _memory(ways: Sequence[tuple[str, str]], rows: int) -> int:
    shape, missed = _shape(rows), 0
    with serve(shape) as box:
        for way, kind in ways:
            figure = measure(box.environ, shape, way, kind)
            ok = figure.peak_mb <= GROWTH * figure.early_mb and figure.rows == rows
            missed += not ok
            print(
                f"{way} into {kind}: peak {figure.early_mb:.0f} MB at a tenth,"
                f" {figure.peak_mb:.0f} MB after {rows:,}, at {rows / figure.seconds:,.0f}/s"
                f"{'' if ok else '  <- missed'}",
                flush=True,
            )
    return missed


def _old(options: argparse.Namespace) -> int:
    """Load days that have settled; return for how many databases the sums took too long."""
    now, missed = int(time.time()), 0
    shape = Shape(
        options.rows or OLD_ROWS, now - (OLD_DAYS + 3) * DAY, OLD_DAYS * DAY, now, ready=True
    )
    with serve(shape) as box:
        for kind in [options.database] if options.database else KINDS:
            figures = [measure(box.environ, shape, "discover", kind) for _ in range(ROUNDS)]
            times = median(f.seconds / (f.seconds - f.summing_s) for f in figures)
            missed += times > SLOWER
            print(
                f"discover {shape.size:,} of {OLD_DAYS} old days into {kind}: {times:.2f} times as"
                f" long for the sums (at most {SLOWER}){'' if times <= SLOWER else '  <- missed'}",
                flush=True,
            )
    return missed


if __name__ == "__main__":
    sys.exit(main())
