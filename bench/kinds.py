"""Time every report on MariaDB against PostgreSQL, on the same rows, before any roll-up.

    python bench/kinds.py postgresql://postgres@127.0.0.1/bench mariadb://root@127.0.0.1/bench \
        --rows 20000

Both databases must exist. Each is filled once, in SQL, and kept. Each report is asked for all rows,
by days of UTC and of Berlin. Then all days are summed, as ``verify-etl db rollups`` does. ``!``
marks what takes MariaDB more than twice PostgreSQL's time, and a second more. Exits with 1 if
anything does.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, delete, text
from sqlalchemy.exc import DBAPIError

from bench import _year
from etl.cli.context import snapshots
from etl.database.engine import open_engine
from etl.final import Policy
from etl.migrate.upgrade import upgrade
from etl.reports import REPORTS, Report
from etl.reports.query import Question, ask
from etl.rollups import refresh
from etl.rollups.tables import rollups

ZONES: Final = {"UTC": None, "Berlin": ZoneInfo("Europe/Berlin")}
AT_MOST: Final = 2.0
"""How many times as long as PostgreSQL MariaDB may take."""

SPARE_S: Final = 1.0
"""A second more is no fault: a busy machine adds as much."""


def filled(url: str, rows: int) -> Engine:
    """Make the tables, the views and the rows, and mark every quarter."""
    engine = open_engine(url)
    upgrade(engine)
    with engine.connect() as connection:
        if connection.execute(text("SELECT 1 FROM attempts LIMIT 1")).first() is None:
            _year.fill(connection, rows)
        connection.commit()
        for table in rollups.values():
            connection.execute(delete(table))
        refresh.mark_everything(connection)
        connection.commit()
        _statistics(connection)
        connection.commit()
    return engine


def _statistics(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("ANALYZE"))
    else:
        tables = "attempts, attempt_channel_data, rollup_marks"
        connection.execute(text(f"ANALYZE TABLE {tables}")).all()


def _asked(engine: Engine, report: Report, zone: ZoneInfo | None) -> Callable[[], None]:
    question = Question(zone=zone, by=report.default_by if report.by else None)

    def run() -> None:
        with snapshots(engine).connect() as connection, ask(connection, report, question) as found:
            for _ in found.rows:
                pass

    return run


def _summed(engine: Engine) -> Callable[[], None]:
    def run() -> None:
        refresh.refresh(engine, policy=Policy(), everything=True)

    return run


def _cases(engines: list[Engine], only: str) -> Iterator[tuple[str, list[Callable[[], None]]]]:
    for report in REPORTS:
        for words, zone in ZONES.items():
            if only in report.name and (zone is None or report.filters):
                name = f"{report.name} {words}"
                yield name, [_asked(engine, report, zone) for engine in engines]
    if not only or only == "rollups":
        yield "db rollups", [_summed(engine) for engine in engines]


def _seconds(run: Callable[[], None]) -> float:
    begun = time.perf_counter()
    try:
        run()
    except DBAPIError as error:
        print(str(error.orig)[:200], flush=True)
        return float("inf")
    return time.perf_counter() - begun


def main() -> int:
    """Fill both databases, print a table of seconds, and count what is too slow."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("postgresql", nargs="?")
    parser.add_argument("mariadb", nargs="?")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--only", default="", help="reports whose name holds this, or rollups")
    parser.add_argument("--at-most", type=float, default=AT_MOST, help="times as long")
    options = parser.parse_args()
    if options.mariadb is None:
        print("It needs two servers: name a database on each.")
        return 0
    engines = [filled(url, options.rows) for url in (options.postgresql, options.mariadb)]
    print(f"{'':<40}{'PostgreSQL':>12}{'MariaDB':>12}", flush=True)
    missed = 0
    for name, runs in _cases(engines, options.only):
        theirs, ours = map(_seconds, runs)
        slow = ours > options.at_most * theirs + SPARE_S
        missed += slow
        print(f"{name:<40}{theirs:>12.2f}{'!' * slow + f'{ours:.2f}':>12}", flush=True)
    print(f"{missed} too slow", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
