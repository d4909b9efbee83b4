"""Compare every number of every view and report with plain Python over the same rows."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import product
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, Engine, text

from etl.database.engine import READ_ONLY
from etl.reports import REPORTS, Report
from etl.reports.query import Question, _value, ask
from tests.support import oracle, oracle_changes, oracle_groups
from tests.support.oracle import Answer, Asked
from tests.support.report_world import SERVICES, World, make, store

ORACLES: Final[dict[str, Callable[[World, Asked], Answer]]] = {
    "conversion-daily": oracle.conversion_daily,
    "verification-success-daily": oracle_groups.verification_success_daily,
    "retry-funnel": oracle_groups.retry_funnel,
    "cost-daily": oracle.cost_daily,
    "cost-per-conversion": oracle.cost_per_conversion,
    "carrier-performance": oracle.carrier_performance,
    "delivery-errors": oracle.delivery_errors,
    "fraud-prefix-hourly": oracle_groups.fraud_prefix_hourly,
    "repeat-destinations": oracle_groups.repeat_destinations,
    "new-countries": oracle_groups.new_countries,
    "freshness": oracle.freshness,
    "changes-daily": oracle_changes.changes_daily,
    "changes": oracle_changes.changes,
    "verification-outcome": oracle_groups.verification_outcome,
    "attempts": oracle.attempts,
}
BERLIN, KOLKATA, LORD_HOWE = map(ZoneInfo, ("Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe"))
SINCE: Final = datetime(2026, 3, 27, 22, 59, 59, tzinfo=UTC)
UNTIL: Final = datetime(2026, 4, 4, 15, 0, 0, 500_000, tzinfo=UTC)
QUESTIONS: Final = {
    "whole": Asked(),
    "default-keys": Asked(by=("default",)),
    "total": Asked(by=()),
    "window": Asked(since=SINCE, until=UNTIL),
    "since": Asked(since=datetime(2026, 3, 29, tzinfo=UTC)),
    "until": Asked(until=datetime(2026, 3, 29, tzinfo=UTC)),
    "service": Asked(services=(str(SERVICES[0]),)),
    "channel": Asked(channels=("sms", "call"), by=("channel",)),
    "half-hour": Asked(
        since=datetime(2026, 3, 24, 22, 30, tzinfo=UTC),
        until=datetime(2026, 4, 1, 13, 15, tzinfo=UTC),
    ),
    "country": Asked(countries=("BR", "US"), since=SINCE, until=UNTIL),
    "berlin": Asked(zone=BERLIN),
    "berlin-window": Asked(zone=BERLIN, channels=("sms",), by=("day",), since=SINCE, until=UNTIL),
    "kolkata": Asked(zone=KOLKATA, by=("day", "country")),
    "kolkata-days": Asked(
        zone=KOLKATA,
        since=datetime(2026, 3, 24, tzinfo=KOLKATA),
        until=datetime(2026, 3, 28, tzinfo=KOLKATA),
    ),
    "lord-howe": Asked(zone=LORD_HOWE, by=("day",)),
}


def _same(expected: Answer, names: Sequence[str], actual: Sequence[Any], what: str) -> None:
    wanted = Counter(tuple(row[name] for name in names) for row in expected)
    found = Counter(map(tuple, actual))
    missing, surplus = wanted - found, found - wanted
    assert not missing, (
        what,
        names,
        sorted(map(repr, missing))[:3],
        sorted(map(repr, surplus))[:3],
    )
    assert not surplus, (what, names, sorted(map(repr, surplus))[:3])


def _names(report: Report, dropped: set[str]) -> list[str]:
    # The meaning of a measure is prose.
    out = dropped | ({"meaning"} if report.name == "freshness" else set())
    return [column.name for column in report.columns if column.name not in out]


@pytest.fixture(params=[1, 2])
def made(request: pytest.FixtureRequest, reports: Engine) -> World:
    """Fill the database with made-up rows."""
    world = make(request.param)
    with reports.begin() as connection:
        store(connection, world)
    return world


def _read_view(connection: Connection, report: Report) -> list[Any]:
    result = connection.execute(text(f"SELECT * FROM {report.view}"))
    kinds = {column.name: column.kind for column in report.columns}
    assert list(result.keys()) == list(kinds), report.view
    names = _names(report, set())
    return [[_value(kinds[name], getattr(row, name)) for name in names] for row in result]


def test_every_view_equals_plain_python(reports: Engine, made: World) -> None:
    """Each column of each row of each view is what Python computes."""
    with reports.execution_options(**READ_ONLY).connect() as connection:
        for report in REPORTS:
            expected = ORACLES[report.name](made, Asked())
            assert expected
            _same(expected, _names(report, set()), _read_view(connection, report), report.view)


def test_every_report_equals_plain_python(reports: Engine, made: World) -> None:
    """Each report narrows, groups and cuts days as Python does, whatever is asked."""
    with reports.execution_options(**READ_ONLY).connect() as connection:
        for asked, report in product(QUESTIONS, REPORTS):
            wanted = _asked(report, QUESTIONS[asked])
            with ask(connection, report, _question(wanted)) as answer:
                columns = [column.name for column in answer.columns]
                skip = columns.index("meaning") if report.name == "freshness" else None
                rows = [[v for n, v in enumerate(row) if n != skip] for row in answer.rows]
            names = [name for name in columns if skip is None or name != "meaning"]
            expected = ORACLES[report.name](made, wanted)
            _same(expected, names, rows, f"{report.name} {asked}")


def _asked(report: Report, asked: Asked) -> Asked:
    """Ask only what the report takes."""
    values = dict(vars(asked))
    if not report.filters:
        return Asked()
    if not report.by:
        values["by"] = None
    elif values["by"] == ("default",):
        values["by"] = report.default_by
    elif values["by"] is not None:
        values["by"] = tuple(key for key in report.by if key in values["by"])
    return Asked(**values)


def _question(asked: Asked) -> Question:
    return Question(
        since=asked.since.timestamp() if asked.since else None,
        until=asked.until.timestamp() if asked.until else None,
        services=asked.services,
        channels=asked.channels,
        countries=asked.countries,
        zone=asked.zone if asked.zone.key != "UTC" else None,
        by=asked.by,
    )
