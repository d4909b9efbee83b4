"""Time every report on many attempts over a year: for a day, a month and the whole year.

    python bench/reports.py sqlite:////tmp/bench.db --rows 10000000
    python bench/reports.py postgresql://postgres@127.0.0.1/bench --rows 10000000
    python bench/reports.py ... --limit 1001    # as the commands' tables ask

The database must exist (SQLite: the file is made); it is filled once, in SQL, and kept. Without an
address a small SQLite file is made and removed. Each report is asked twice, the second time counts
(warm).
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from etl import migrate, rollups
from etl.database import open_engine
from etl.reports import REPORTS, Report
from etl.reports.query import Question, ask

START: Final = datetime(2025, 1, 1, tzinfo=UTC)
YEAR_S: Final = 365 * 86_400
SPANS: Final = {"day": 1, "month": 30, "year": 365}

# Whole numbers only, so that both databases make the same rows; `i` counts from 1. What belongs to
# a verification (service, country, prefix, carrier, destination) comes from its number `v`. Few
# countries, prefixes and carriers have most of the traffic, and each has a long tail.
_HASHES: Final = """
    i, v, (i * 2654435761) % 4294967296 AS h, (v * 2246822519) % 4294967296 AS g
"""
_COLUMNS: Final = """
    i, v, g, (h / 97) % 100 AS c, (h / 7919) % 1000 AS r, (g / 11) % 10 AS s,
    ((g / 65537) % 1000) * ((g / 65537) % 1000) * ((g / 65537) % 1000) / 20000000 AS n,
    ((g / 257) % 1000) * ((g / 257) % 1000) * ((g / 257) % 1000) / 10000000 AS p
"""
_CHANNEL: Final = (
    "CASE WHEN c < 80 THEN 'sms' WHEN c < 88 THEN 'whatsapp' WHEN c < 95 THEN 'call' "
    "ELSE 'email' END"
)
_CARRIER: Final = "CASE WHEN p < 3 THEN 0 WHEN p < 20 THEN 1 WHEN p < 60 THEN 2 ELSE 3 END"


def _sql(dialect: str, rows: int) -> Iterator[str]:
    """Write the statements that fill the tables."""
    step = f"(i * {YEAR_S} / {rows})"
    if dialect == "postgresql":
        series = f"SELECT i::bigint AS i FROM generate_series(1, {rows}) i"
        sid = "lpad(to_hex((i * 2654435761) % 4294967296), 8, '0') || lpad(to_hex(i), 24, '0')"
        other = "lpad(to_hex(v), 32, '0')"
        at = f"TIMESTAMPTZ '2025-01-01 00\\:00\\:00+00' + {step} * INTERVAL '1 second'"
        country = "chr((65 + n / 5)::int) || chr((65 + n % 5)::int)"
    else:
        series = (
            f"SELECT * FROM (WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s "
            f"WHERE i < {rows}) SELECT i FROM s)"
        )
        sid = "printf('%08x%024x', (i * 2654435761) % 4294967296, i)"
        other = "printf('%032x', v)"
        at = f"datetime(1735689600 + {step}, 'unixepoch') || '.000000'"
        country = "char(65 + n / 5) || char(65 + n % 5)"
    numbered = f"SELECT i, (i * 2) / 3 AS v FROM ({series}) x"
    source = f"FROM (SELECT {_COLUMNS} FROM (SELECT {_HASHES} FROM ({numbered}) w) y) z"
    final = f"i < {rows} * 98 / 100"
    yield f"""INSERT INTO attempts (sid, account_sid, service_sid, verification_sid, channel,
        conversion_status, price_amount, price_currency, date_created, date_updated,
        first_fetched_at, fetched_at, is_final)
    SELECT 'VL' || {sid}, 'AC00000000000000000000000000000000',
        'VA0000000000000000000000000000000' || CASE WHEN s < 6 THEN 0 WHEN s < 8 THEN 1 ELSE s END,
        'VE' || {other}, {_CHANNEL},
        CASE WHEN r < 620 THEN 'converted' ELSE 'unconverted' END,
        CASE WHEN r % 50 > 0 THEN (5000 + n * 1500) / 1000000.0 END,
        CASE WHEN r % 50 > 0 THEN 'USD' END, {at}, {at}, 0, 1, {final} {source}"""
    yield f"""INSERT INTO attempt_channel_data (attempt_sid, destination, destination_prefix,
        country, mcc, mnc, carrier, status, message_status, error_code, code_length)
    SELECT 'VL' || {sid}, CASE WHEN c < 95 THEN '+' || (10000 + n * 100 + p) || (100000 + g % 90000)
            ELSE 'u' || g % 9000000 || '@example.com' END,
        CASE WHEN c < 95 THEN '+' || (10000 + n * 100 + p) || '1' END,
        CASE WHEN c < 95 THEN {country} END, CASE WHEN c < 95 THEN '' || (200 + n) END,
        CASE WHEN c < 95 THEN '0' || {_CARRIER} END,
        CASE WHEN c < 95 THEN 'Carrier ' || n || '-' || {_CARRIER} END, 'confirmed',
        CASE WHEN r % 20 = 0 THEN 'undelivered' ELSE 'delivered' END,
        CASE WHEN r % 20 = 0 THEN '3000' || (3 + (r / 20) % 6) END, 6 {source}"""


def fill(engine: Engine, rows: int) -> None:
    """Make the tables, the views and the rows, unless they are there."""
    migrate.upgrade(engine)
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        if engine.dialect.name == "sqlite" and raw is not None:
            # Before BEGIN. A power cut would cost a benchmark.
            raw.execute("PRAGMA synchronous = OFF")
            raw.execute("PRAGMA cache_size = -4000000")
        if connection.execute(text("SELECT 1 FROM attempts LIMIT 1")).first() is None:
            begun = time.perf_counter()
            for statement in _sql(engine.dialect.name, rows):
                connection.execute(text(statement))
            print(f"{rows:,} attempts made in {time.perf_counter() - begun:.0f} s", flush=True)
            rollups.mark_everything(connection)
        connection.commit()
        connection.exec_driver_sql("ANALYZE")
        connection.commit()
    begun = time.perf_counter()
    days = rollups.refresh(engine, everything=True)
    print(f"{days} days rolled up in {time.perf_counter() - begun:.0f} s", flush=True)
    with engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()


def seconds(
    connection: Connection, report: Report, days: int, limit: int | None
) -> tuple[float, int]:
    """Ask twice, and give the time and the rows of the second."""
    until = START + timedelta(days=350 if days < 365 else 366)  # noqa: PLR2004 - said in the name beside it
    question = Question(
        since=(until - timedelta(days=days + (days > 30))).timestamp(),  # noqa: PLR2004 - said in the name beside it
        until=until.timestamp(),
        by=report.default_by if report.by else None,
        limit=limit,
    )
    if not report.filters:
        question = Question(limit=limit)
    took, count = 0.0, 0
    for _ in range(2):
        begun = time.perf_counter()
        with ask(connection, report, question) as answer:
            count = sum(1 for _ in answer.rows)
        took = time.perf_counter() - begun
        if took > 20:  # noqa: PLR2004 - said in the name beside it
            break
    return took, count


def main() -> None:
    """Fill the database and print a table of seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("url", nargs="?")
    parser.add_argument("--rows", type=int, help="10,000,000; 200,000 without an address")
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=int, help="at most so many rows of each answer")
    parser.add_argument("--patience", type=int, default=120, help="seconds for one report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _measure(options.url or f"sqlite:///{folder}/bench.db", options)


def _measure(url: str, options: argparse.Namespace) -> None:
    engine = open_engine(url)
    fill(engine, options.rows or (10_000_000 if options.url else 200_000))
    print(f"{'report':<28}" + "".join(f"{span:>10}{'rows':>12}" for span in SPANS), flush=True)
    for report in REPORTS:
        if options.only and options.only not in report.name:
            continue
        print(f"{report.name:<28}", end="", flush=True)
        for span, days in SPANS.items():
            if span == "year" and report.name in {"attempts", "verification-outcome"}:
                continue
            _timed(engine, report, days, options)
        print()
    engine.dispose()


def _timed(engine: Engine, report: Report, days: int, options: argparse.Namespace) -> None:
    patience = options.patience
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SET statement_timeout = '{patience}s'"))
            connection.execute(text("SET work_mem = '256MB'"))
        else:
            deadline = time.monotonic() + patience
            raw = connection.connection.driver_connection
            assert raw is not None  # noqa: S101 - for the type checker
            raw.set_progress_handler(lambda: int(time.monotonic() > deadline), 1_000_000)
            connection.exec_driver_sql("PRAGMA cache_size = -4000000")
        try:
            took, count = seconds(connection, report, days, options.limit)
            print(f"{took:>10.2f}{count:>12,}", end="", flush=True)
        except DBAPIError:
            print(f"{'> ' + str(patience):>10}{'':>12}", end="", flush=True)
        connection.rollback()
        connection.invalidate()


if __name__ == "__main__":
    main()
