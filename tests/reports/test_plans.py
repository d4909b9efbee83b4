"""Look at how a server reads raw rows: by the index, however many stretches are marked."""

from collections.abc import Iterator
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from etl.reports import REPORTS
from etl.reports.query import Question, binds, scope_of, statement
from tests.support.databases import Servers
from tests.support.harness import measured
from tests.support.report_world import make, store

ZONES: Final = (None, ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kathmandu"))


@pytest.mark.kinds("mariadb")
def test_no_stretch_is_joined_with_all_rows(reports: Engine) -> None:
    """MariaDB reads a marked stretch by the index, in every report and whatever the zone."""
    with reports.begin() as connection:
        store(connection, make(3))
    assert list(_scans(reports)) == []


def _scans(engine: Engine) -> Iterator[str]:
    with engine.connect() as connection:
        for report in REPORTS:
            for zone in ZONES if report.filters else (None,):
                scope = scope_of(connection, Question(zone=zone))
                sql = statement(report, scope)
                for row in connection.execute(text(f"EXPLAIN {sql}"), binds(scope, sql)).mappings():
                    if row["table"] in {"a", "w"} and "join buffer" in (row["Extra"] or ""):
                        yield f"{report.name} {zone}: {row['Extra']}"


@pytest.mark.kinds("mariadb")
def test_every_report_is_measured(database_url: str, servers: Servers) -> None:
    """The measurement asks every report on both servers, and sums the days."""
    with servers("postgresql").database(migrated=True) as other:
        said = measured("kinds.py", other, database_url, "--rows", "300", "--at-most", "1e9")
    names = [line.rsplit(maxsplit=2)[0] for line in said.splitlines()[1:-1]]
    zoned = [f"{report.name} Berlin" for report in REPORTS if report.filters]
    assert sorted(names) == sorted([f"{r.name} UTC" for r in REPORTS] + zoned + ["db rollups"])
