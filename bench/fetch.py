"""Compare the job's throughput with a bare thread pool that calls ``session.get``.

Same server, same latency, same number of threads, in one run and in turns, for the machine is
noisy: the bare pool fetches and throws away; the job claims, fetches, transforms, upserts and
settles. Exits with 1 below ``--at-least``.

    python bench/fetch.py --rows 10000 --threads 32 --latency 50ms
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import requests

from etl.backfill.enqueue import load_file
from etl.database.engine import open_engine
from etl.job.stop import StopFlag
from etl.migrate.upgrade import upgrade
from etl.run import pipeline
from etl.run.opening import opened
from etl.sandbox import World
from etl.settings import Settings, load


@contextmanager
def sandbox(size: int, latency: str) -> Iterator[dict[str, str]]:
    """Run the sandbox as a process of its own, without an allowance; yield its environment."""
    command = [
        sys.executable, "-m", "etl", "sandbox", "--size", str(size), "--allowance", "0",
        "--latency", latency,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        lines = [process.stdout.readline().strip() for _ in range(3)]
        try:
            yield dict(line.split("=", 1) for line in lines)
        finally:
            process.terminate()


def bare(settings: Settings, sids: Sequence[str], threads: int) -> float:
    """Fetch with a thread pool and one session for each thread; return rows a second."""
    user, password, _ = settings.credentials()
    local = threading.local()

    def get(sid: str) -> None:
        session = getattr(local, "session", None)
        if session is None:
            session = local.session = requests.Session()
            session.auth = (user, password)
        session.get(f"{settings.api_url}/v2/Attempts/{sid}", timeout=20).raise_for_status()

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(get, sids):
            pass
    return len(sids) / (time.perf_counter() - started)


def job(environ: dict[str, str], sids: Path, count: int) -> float:
    """Drain a fresh queue; return rows a second of the run itself."""
    settings = load(environ=environ)
    engine = open_engine(settings.database_url.get_secret_value())
    upgrade(engine)
    load_file(engine, str(sids), account="", source="bench", retention_ms=settings.retention)
    engine.dispose()
    with opened(settings, strict=True, strategy="fetch") as tools:
        started = time.perf_counter()
        report = pipeline.run(*tools, stop=StopFlag())
        took = time.perf_counter() - started
    assert report.counts["fetched"] == count, report  # noqa: S101 - else there is no figure
    return count / took


def main() -> int:
    """Measure in turns and print the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--latency", default="50ms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-least", type=float, default=0.9)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {"bare": [], "job": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        sandbox(options.rows, options.latency) as environ,
    ):
        sids = list(World(size=options.rows).sids())
        file = Path(folder, "sids.txt")
        file.write_text("\n".join(sids), encoding="utf-8")
        for n in range(options.rounds):
            environ |= {
                "DATABASE_URL": f"sqlite:///{folder}/{n}.db",
                "VERIFY_ETL_ALLOWANCE": "0",
                "VERIFY_ETL_CONCURRENCY": str(options.threads),
            }
            rates["bare"].append(bare(load(environ=environ), sids, options.threads))
            rates["job"].append(job(environ, file, options.rows))
    for name, found in rates.items():
        print(f"{name:>5}: {statistics.median(found):8,.0f} rows/s  {[round(r) for r in found]}")
    ratio = statistics.median(rates["job"]) / statistics.median(rates["bare"])
    print(f"ratio: {ratio:.3f} (at least {options.at_least})")
    return int(ratio < options.at_least)


if __name__ == "__main__":
    sys.exit(main())
