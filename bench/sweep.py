"""Count the requests that ``run --strategy auto`` sends where sweeping pays.

The real command over real HTTP against the sandbox in a process of its own, without an allowance;
the server counts. Every row is compared with what a single fetch gives. Exits with 1 when a bound
is missed::

    python bench/sweep.py
    python bench/sweep.py --scale 0.1 --database postgresql
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, insert, select

from bench._box import Box, Shape, serve
from bench._databases import KINDS, fresh
from bench._rows import is_as_fetched
from etl.database.engine import open_engine
from etl.database.schema import attempt_channel_data, attempt_queue, attempts
from etl.sandbox import World

ROOT = Path(__file__).resolve().parent.parent
RETENTION_MS: Final = 30 * 86_400_000
HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
MONTH: Final = 29.9 * DAY


@dataclass(frozen=True, slots=True)
class Situation:
    """Say what waits in which account, and how many requests it may cost."""

    name: str
    shape: Shape
    indexes: Sequence[int]
    known: bool
    most: int

    def rows(self, world: World) -> list[dict[str, object]]:
        """Return the queue's rows as an application inserts them."""
        rows: list[dict[str, object]] = [{"sid": world.sid(n)} for n in self.indexes]
        if self.known:
            for n, row in zip(self.indexes, rows, strict=True):
                row["expires_at"] = int(world.created(n) * 1000) + RETENTION_MS
        return rows


@dataclass(frozen=True, slots=True)
class Figure:
    """Hold what a run cost, and how many rows were not as they must be."""

    requests: int
    by_kind: str
    seconds: float
    wrong: int


def situations(scale: float, *, now: int) -> list[Situation]:
    """Return the situations, all counts multiplied by ``scale``."""
    day = Shape(round(100_000 * scale), now - DAY, DAY - 300, now)
    month = Shape(round(1_000_000 * scale), now - MONTH, MONTH - 300, now)
    chance = random.Random(3)
    some = sorted(chance.sample(range(month.size), round(10_000 * scale)))
    world = month.world()
    low, high = world.range(now - 10.25 * DAY, now - 10 * DAY)
    close = sorted(low + n for n in chance.sample(range(high - low), round(5_000 * scale)))
    cheaper = min(math.ceil(month.size / 1000), len(some))
    return [
        Situation(
            "all of one day, ages unknown", day, range(day.size), known=False,
            # 110 for 100 pages; the plan's own requests do not become fewer with the pages.
            most=math.ceil(day.size / 1000) + round(10 * max(scale, 0.5)),
        ),
        Situation(
            "1 % of a month, ages unknown", month, some, known=False,
            most=max(math.floor(1.02 * cheaper), cheaper + 3),
        ),
        Situation(
            "6 hours of a month, ages known", month, close, known=True,
            most=math.ceil(25 * max(scale, 0.2)),
        ),
    ]  # fmt: skip


def measure(situation: Situation, url: str, box: Box) -> Figure:
    """Enqueue, run, count at the server, and compare every row."""
    engine, world = open_engine(url), situation.shape.world()
    with engine.begin() as connection:
        connection.execute(insert(attempt_queue), situation.rows(world))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TWILIO_", "VERIFY_ETL_"))}
    env = {**kept, **box.environ, "DATABASE_URL": url, "VERIFY_ETL_ALLOWANCE": "0"}
    before, started = box.stats(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "etl", "run", "--strategy", "auto", "--json"],
        env={**env, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds, after = time.perf_counter() - started, box.stats()
    if done.returncode:
        engine.dispose()
        sys.exit(done.stderr)
    sent = {kind: after[kind] - before[kind] for kind in ("lists", "summaries", "fetches")}
    requests = after["requests"] - before["requests"]
    # Both sides count, and neither may say less.
    requests = max(requests, json.loads(done.stdout)["requests"])
    wrong = differences(engine, world, situation.indexes)
    engine.dispose()
    return Figure(requests, " + ".join(f"{n} {kind}" for kind, n in sent.items()), seconds, wrong)


def differences(engine: Engine, world: World, indexes: Sequence[int]) -> int:
    """Count rows that are missing, not asked for, or not what a single fetch gives."""
    waiting = {world.sid(n) for n in indexes}
    wrong = 0
    statement = select(attempts, attempt_channel_data).join(attempt_channel_data)
    with engine.connect() as connection:
        for row in connection.execute(statement):
            wrong += row.sid not in waiting or not is_as_fetched(row, world)
            waiting.discard(row.sid)
    return wrong + len(waiting)


def main() -> int:
    """Measure every situation and print its line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every count")
    parser.add_argument("--database", choices=[*KINDS], default="sqlite")
    parser.add_argument("--url", help="a migrated, empty database in its place")
    parser.add_argument("--only", type=int, help="the number of one situation, from 0")
    options = parser.parse_args()
    missed = 0
    for number, situation in enumerate(situations(options.scale, now=int(time.time()))):
        if options.only not in {None, number}:
            continue
        database = nullcontext(options.url) if options.url else fresh(options.database)
        with serve(situation.shape) as box, database as url:
            figure = measure(situation, url, box)
        ok = figure.requests <= situation.most and not figure.wrong
        missed += not ok
        print(
            f"{situation.name}: {len(situation.indexes):,} of {situation.shape.size:,}:"
            f" {figure.requests:,} requests (at most {situation.most:,}; {figure.by_kind}),"
            f" {figure.seconds:.0f} s, {figure.wrong} rows wrong{'' if ok else '  <- missed'}",
            flush=True,
        )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
