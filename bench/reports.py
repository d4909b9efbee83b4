"""Time every report on many attempts over a year: for a day, a month and the whole year.

    python bench/reports.py sqlite:////tmp/bench.db --rows 10000000
    python bench/reports.py postgresql://postgres@127.0.0.1/bench --rows 10000000
    python bench/reports.py ... --limit 1001    # as the commands' tables ask

The database must exist (SQLite: the file is made); it is filled once, in SQL, every day of it is
summed, and it is kept. Without an address a small SQLite file is made and removed.

Each report is asked as its command asks, with the settings as shipped, twice; the second time
counts (warm). Exits with 1 when a bound is missed, which ``!`` marks: 1 second for a day or a month
and 5 for the year; what reads raw rows is held for a day only. Figures in brackets are held to
none: docs/reports.md says that these take longer, and that ``fraud-prefix-hourly`` without a limit
takes as long as its hundreds of thousands of lines do.
"""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from bench import _year
from etl.cli.context import snapshots
from etl.database.engine import open_engine
from etl.final import Policy
from etl.migrate.upgrade import upgrade
from etl.reports import REPORTS, Report
from etl.reports.query import Question, ask
from etl.reports.questions.conversion import CONVERSION_DAILY
from etl.reports.questions.cost import COST_DAILY
from etl.reports.questions.delivery import CARRIER_PERFORMANCE
from etl.reports.questions.fraud import FRAUD_PREFIX_HOURLY
from etl.rollups import refresh

START: Final = datetime(2025, 1, 1, tzinfo=UTC)
DAY_S: Final = 86_400
SPANS: Final = {"day": (349, 350), "month": (320, 350), "year": (0, 365)}
"""The first day of each, and its end, counted from ``START``."""

AT_MOST_S: Final = {"day": 1.0, "month": 1.0, "year": 5.0}
RAW: Final = {
    "attempts", "verification-outcome", "repeat-destinations", "changes", "changes-daily",
}  # fmt: skip
"""Reports that read no roll-up."""

ROW_BY_ROW: Final = {"attempts", "verification-outcome", "changes"}
"""Reports of which a year is all that there is, line by line: they are not asked for it."""

SERVICE: Final = f"VA{0:032}"
"""The busiest of them."""

SLOW_S: Final = 20.0
"""What takes so long is not asked a second time."""


@dataclass(frozen=True, slots=True)
class Case:
    """Hold a question, and within how many seconds it must be answered, if that is promised."""

    report: Report
    question: Question
    at_most_s: float | None


def asked_of(report: Report, span: str, limit: int | None) -> Question:
    """Ask as the command does without further options; ``span`` is one of ``SPANS``."""
    if not report.filters:
        return Question(limit=limit)
    since, until = (START.timestamp() + days * DAY_S for days in SPANS[span])
    by = report.default_by if report.by else None
    return Question(since=since, until=until, by=by, limit=limit)


def case(report: Report, span: str, limit: int | None) -> Case | None:
    """Hold a report to the bound of a span; None where it is not asked."""
    if report.name in ROW_BY_ROW and span == "year":
        return None
    if not report.filters and span != "year":
        # Without a window it answers for the whole of it.
        return None
    held = span == "day" or report.name not in RAW
    if report is FRAUD_PREFIX_HOURLY:
        held = limit is not None
    return Case(report, asked_of(report, span, limit), AT_MOST_S[span] if held else None)


def further(limit: int | None) -> Iterator[tuple[str, Case]]:
    """Narrow reports in two ways that the roll-ups know, and in two that they do not."""
    for report, span, known, words, narrowed in (
        (
            CONVERSION_DAILY, "year", True, "--by day --timezone Europe/Berlin",
            {"by": ("day",), "zone": ZoneInfo("Europe/Berlin")},
        ),
        (COST_DAILY, "year", True, "--service VA...", {"services": (SERVICE,)}),
        (
            CARRIER_PERFORMANCE, "month", False, "--by day --timezone Asia/Kathmandu",
            {"by": ("day",), "zone": ZoneInfo("Asia/Kathmandu")},
        ),
        (FRAUD_PREFIX_HOURLY, "day", False, "--channel sms", {"channels": ("sms",)}),
    ):  # fmt: skip
        question = replace(asked_of(report, span, limit), **narrowed)
        at_most_s = AT_MOST_S[span] if known else None
        yield f"{report.name} {words}, a {span}", Case(report, question, at_most_s)


def fill(url: str, rows: int) -> None:
    """Make the tables, the views, the rows and the roll-ups, unless they are there."""
    engine = open_engine(url)
    upgrade(engine)
    with engine.connect() as connection:
        sqlite = engine.dialect.name == "sqlite"
        raw = connection.connection.driver_connection
        if sqlite and raw is not None:
            # Before BEGIN. A power cut would cost a benchmark.
            raw.execute("PRAGMA synchronous = OFF")
            raw.execute("PRAGMA cache_size = -4000000")
        if connection.execute(text("SELECT 1 FROM attempts LIMIT 1")).first() is None:
            begun = time.perf_counter()
            _year.fill(connection, rows)
            print(f"{rows:,} attempts made in {time.perf_counter() - begun:.0f} s", flush=True)
            refresh.mark_everything(connection)
        connection.commit()
    # Connections and all: those that follow are as shipped.
    engine.dispose()
    begun = time.perf_counter()
    days = refresh.refresh(engine, policy=Policy(), everything=True)
    print(f"{days} days rolled up in {time.perf_counter() - begun:.0f} s", flush=True)
    with engine.connect() as connection:
        _statistics(connection)
    engine.dispose()


def _statistics(connection: Connection) -> None:
    """Let the planner know what it would: PostgreSQL looks by itself, SQLite when it is told to.

    Nothing of ours tells it, so that it has none.
    """
    if connection.dialect.name == "sqlite":
        for table in ("sqlite_stat1", "sqlite_stat4"):
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table}")
    else:
        connection.exec_driver_sql("ANALYZE")
    connection.commit()


def seconds(connection: Connection, asked: Case) -> tuple[float, int]:
    """Ask twice, and give the time and the rows of the second."""
    took, count = 0.0, 0
    for _ in range(2):
        begun = time.perf_counter()
        with ask(connection, asked.report, asked.question) as answer:
            count = sum(1 for _ in answer.rows)
        took = time.perf_counter() - begun
        if took > SLOW_S:
            break
    return took, count


def _cell(engine: Engine, asked: Case, patience: int) -> tuple[str, bool]:
    """Write a figure and its rows, and say whether its bound was missed."""
    with snapshots(engine).connect() as connection:
        _end_after(connection, patience)
        try:
            took, count = seconds(connection, asked)
            figure, rows = f"{took:.2f}", f"{count:,}"
        except DBAPIError:
            took, figure, rows = math.inf, f"> {patience}", ""
        connection.rollback()
        connection.invalidate()
    if asked.at_most_s is None:
        return f"{f'({figure})':>10}{rows:>12}", False
    missed = took > asked.at_most_s
    return f"{'!' * missed + figure:>10}{rows:>12}", missed


def _end_after(connection: Connection, patience: int) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET statement_timeout = '{patience}s'"))
        return
    deadline = time.monotonic() + patience
    raw = connection.connection.driver_connection
    assert raw is not None  # noqa: S101 - for the type checker
    raw.set_progress_handler(lambda: int(time.monotonic() > deadline), 1_000_000)


def main() -> int:
    """Fill the database, print a table of seconds, and below it the further cases."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("url", nargs="?")
    parser.add_argument("--rows", type=int, help="10,000,000; 200,000 without an address")
    parser.add_argument("--only", default="", help="reports whose name holds this")
    parser.add_argument("--limit", type=int, help="at most so many rows of each answer")
    parser.add_argument("--patience", type=int, default=120, help="seconds for one report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return _measure(options.url or f"sqlite:///{folder}/bench.db", options)


def _measure(url: str, options: argparse.Namespace) -> int:
    fill(url, options.rows or (10_000_000 if options.url else 200_000))
    engine, misses = open_engine(url), 0
    print(f"{'report':<28}" + "".join(f"{span:>10}{'rows':>12}" for span in SPANS), flush=True)
    for report in REPORTS:
        if options.only not in report.name:
            continue
        print(f"{report.name:<28}", end="", flush=True)
        for span in SPANS:
            asked = case(report, span, options.limit)
            cell, missed = ("", False) if asked is None else _cell(engine, asked, options.patience)
            misses += missed
            print(f"{cell:>22}", end="", flush=True)
        print()
    for words, asked in further(options.limit):
        if options.only in words:
            cell, missed = _cell(engine, asked, options.patience)
            misses += missed
            print(f"{words:<72}{cell}", flush=True)
    engine.dispose()
    print(f"{misses} missed", flush=True)
    return int(misses > 0)


if __name__ == "__main__":
    sys.exit(main())
