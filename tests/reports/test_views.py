"""Read the views as BI tools do: in other schemas, other time zones, and SQLite's text."""

import re

import pytest
from sqlalchemy import Engine, text

from etl.reports import REPORTS, Column, find
from etl.reports.query import _value
from etl.reports.views import comment_statements, create_statements
from etl.rollups.cubes import ROLLUPS
from tests.support.report_world import make, store

DIALECTS = ("sqlite", "postgresql", "mysql")


def _days(engine: Engine) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET TIME ZONE 'Pacific/Kiritimati'"))
        elif engine.dialect.name in {"mysql", "mariadb"}:
            connection.execute(text("SET time_zone = '+13:00'"))
        result = connection.execute(text("SELECT day, attempts FROM v_conversion_daily"))
        found: list[tuple[object, ...]] = sorted(tuple(map(str, row)) for row in result)
        hours = connection.execute(text("SELECT hour, attempts FROM v_fraud_prefix_hourly"))
        found += sorted(tuple(map(str, row)) for row in hours)
        connection.rollback()
        # The pool must not keep a connection of another zone.
        connection.invalidate()
    return found


def test_a_session_in_another_zone_sees_the_same_days(reports: Engine) -> None:
    """Days and hours are UTC whatever the session's time zone is."""
    with reports.begin() as connection:
        store(connection, make(4))
        result = connection.execute(text("SELECT day, attempts FROM v_conversion_daily"))
        expected: list[tuple[object, ...]] = sorted(tuple(map(str, row)) for row in result)
        hours = connection.execute(text("SELECT hour, attempts FROM v_fraud_prefix_hourly"))
        expected += sorted(tuple(map(str, row)) for row in hours)
    assert _days(reports) == expected


def test_an_empty_database_has_empty_views(reports: Engine) -> None:
    """Without rows there are no rows, but for freshness, which says nought."""
    with reports.connect() as connection:
        for report in REPORTS:
            rows = connection.execute(text(f"SELECT * FROM {report.view}")).all()
            if report.name == "freshness":
                assert {int(row.number) for row in rows} == {0}
            else:
                assert not rows


@pytest.mark.kinds("sqlite")
def test_times_without_a_fraction_count_like_others(reports: Engine) -> None:
    """On SQLite other programs write times without a fraction; the days are the same."""
    with reports.begin() as connection:
        store(connection, make(4))
        before = connection.execute(text("SELECT * FROM v_conversion_daily ORDER BY 1,2,3,4")).all()
        connection.execute(text("UPDATE attempts SET date_created = substr(date_created, 1, 19)"))
        after = connection.execute(text("SELECT * FROM v_conversion_daily ORDER BY 1,2,3,4")).all()
    assert after == before


@pytest.mark.kinds("postgresql", "second-postgresql")
def test_views_follow_the_search_path(reports: Engine) -> None:
    """On PostgreSQL the views can stand in another schema, with its tables."""
    with reports.begin() as connection:
        connection.execute(text("CREATE SCHEMA other"))
        for table in (
            "attempts", "attempt_channel_data", "attempt_changes", "attempt_queue",
            "verification_fees", "rollup_marks", *(cube.table for cube in ROLLUPS),
        ):  # fmt: skip
            connection.execute(text(f"CREATE TABLE other.{table} (LIKE public.{table})"))
        connection.execute(text("SET LOCAL search_path = other"))
        for _, statement in create_statements("postgresql") + comment_statements("postgresql"):
            connection.exec_driver_sql(statement)
        store_here = connection.execute(text("SELECT count(*) FROM v_attempts")).scalar_one()
    assert store_here == 0


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_driver_reads_a_parameter_into_a_view(dialect: str) -> None:
    """No view has a colon before a word or, except on SQLite, a percent sign."""
    for _, statement in create_statements(dialect) + comment_statements(dialect):
        assert not re.search(r":\w", statement)
        assert dialect == "sqlite" or "%" not in statement


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_view_says_what_it_counts(dialect: str) -> None:
    """The definition begins with the registry's sentence."""
    for name, statement in create_statements(dialect):
        report = find(name)
        assert report is not None
        comment = " ".join(re.findall(r"^-- (.*)$", statement, re.MULTILINE))
        assert comment == f"{report.sentence} {report.counts}"


def test_names_are_found_in_every_spelling() -> None:
    """A report answers to its name and its view's."""
    assert find("cost-daily") is find("v_cost_daily") is find("cost_daily") is not None
    assert find("nonsense") is None


def test_money_and_currency_go_together() -> None:
    """A report with money has the column that names its currency."""
    for report in REPORTS:
        names = {column.name for column in report.columns}
        assert not any(c.kind == "money" for c in report.columns) or report.currency in names


def test_a_column_reads_null_as_none() -> None:
    """Nothing is never a number."""
    columns: list[Column] = [column for report in REPORTS for column in report.columns]
    assert {_value(column.kind, None) for column in columns} == {None}
