"""Measure how many rows a second SQLite itself takes, a page of a thousand to a transaction.

Nothing is fetched, parsed, looked up or marked: the same three tables, keys and durability as in
``load.py``, rows made beforehand, ``executemany`` and COMMIT. What a loader can do at most::

    python bench/sqlite_floor.py --rows 1000000
"""

import argparse
import random
import sqlite3
import sys
import time
from typing import Final

from bench._databases import fresh
from etl.database.engine import open_engine
from etl.database.schema import attempt_channel_data, attempt_queue, attempts

PAGE: Final = 1_000
TOLD: Final = 100_000
WHEN: Final = "2026-01-02 03:04:05.000"
_QUEUED: Final = ("sid", "state", "due_at", "expires_at", "fetches", "source")


def _page(chance: random.Random) -> list[list[tuple[object, ...]]]:
    """Make the rows of a page for each table; SIDs are random, as Twilio's are."""
    sids = [f"VL{chance.getrandbits(128):032x}" for _ in range(PAGE)]
    url = "https://verify.twilio.com/v2/Attempts/"
    return [
        [
            (s, "AC" + "0" * 32, "VA" + "0" * 32, "VE" + s[:1:-1], "sms", "converted", 0.0075,
             "USD", WHEN, WHEN, url + s, 1, 2, 0)
            for s in sids
        ],
        [
            (s, "+15005550100", "+150055", "US", "302", "720", "Rogers", "en", "confirmed",
             "delivered", None, None, 4, None)
            for s in sids
        ],
        [(s, "refresh", 1_790_000_000_000, 1_790_000_000_000, 1, "discover") for s in sids],
    ]  # fmt: skip


def main() -> int:
    """Fill a fresh file and print the rate of each hundred thousand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    rows = parser.parse_args().rows
    tables = (
        ("attempts", attempts.c.keys()),
        ("attempt_channel_data", attempt_channel_data.c.keys()),
        (attempt_queue.name, _QUEUED),
    )
    inserts = [
        f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({', '.join('?' for _ in columns)})"
        for name, columns in tables
    ]
    chance, told = random.Random(1), 0.0
    with fresh("sqlite") as url:
        engine = open_engine(url)
        with engine.connect() as opened:
            driver = opened.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - for the type checker
            for done in range(PAGE, rows + 1, PAGE):
                made = _page(chance)
                begun = time.perf_counter()
                driver.execute("BEGIN IMMEDIATE")
                for statement, page in zip(inserts, made, strict=True):
                    driver.executemany(statement, page)
                driver.execute("COMMIT")
                told += time.perf_counter() - begun
                if done % TOLD == 0:
                    print(f"up to {done:,}: {TOLD / told:,.0f} rows a second", flush=True)
                    told = 0.0
        engine.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
