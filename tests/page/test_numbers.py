from datetime import date
from typing import Any

import pytest
from playwright.sync_api import Page
from sqlalchemy import Engine, text

from etl.reports import find
from etl.reports.query import Question, ask
from tests.support.browser import Open, pick, tables, text_of
from tests.support.page_oracle import NAMES, Asked, Truth, day_of, name
from tests.support.report_world import CHANNELS, SERVICES, World, make, store


def days_of(world: World) -> tuple[date, date]:
    """Give the first and the last day of a world."""
    days = [day for row in world.rows if (day := day_of(row))]
    return min(days), max(days)


def narrow(page: Page, asked: Asked) -> None:
    """Set the filters as a person does."""
    page.fill("#from", asked.since.isoformat())
    page.fill("#to", asked.until.isoformat())
    for kind in ("service", "channel", "country"):
        pick(page, kind, *(name(kind, value) for value in getattr(asked, kind) or ()))


def compare(actual: dict[str, list[list[str]]], expected: dict[str, list[list[str]]]) -> None:
    """Hold every table to the truth; the order of rows that tie is free."""
    for table, rows in expected.items():
        assert sorted(actual.get(table, [])) == sorted(rows), table


@pytest.mark.parametrize("seed", [1, 2])
def test_tables_are_right(reports: Engine, browse: Open, seed: int) -> None:
    """Every table equals plain Python over the same rows, for many filters."""
    world = make(seed, verifications=220)
    with reports.begin() as connection:
        store(connection, world)
    first, last = days_of(world)
    page = browse(text_of(reports))
    questions: list[dict[str, Any]] = [
        {},
        {"since": date(2026, 3, 27), "until": date(2026, 4, 2)},
        {"since": last},
        *({"service": {sid}} for sid in SERVICES),
        *({"channel": {channel}} for channel in set(CHANNELS)),
        *({"country": {country}} for country in ("BR", "US", None)),
        {"service": {SERVICES[0], None}, "channel": {"sms", "call", None}},
        {"country": {"BR", "US", None}, "channel": {"sms", "whatsapp"}},
        {
            "since": date(2026, 3, 25),
            "service": {SERVICES[0]},
            "channel": {"sms"},
            "country": {"BR"},
        },
    ]
    # What the page makes of its data does not depend on where they came from.
    few = 4
    for question in questions if reports.dialect.name == "sqlite" else questions[:few]:
        asked = Asked(**({"since": first, "until": last} | question))
        narrow(page, asked)
        compare(tables(page), Truth(world, asked).tables() | empty(world, asked))


def empty(world: World, asked: Asked) -> dict[str, Any]:
    """Expect no tables but freshness where there are no attempts."""
    found = Truth(world, asked).tables()
    if found["channel"]:
        return {}
    # A verification counts where its first attempt is, which may be elsewhere than the others.
    return {table: [] for table in found if table != "freshness" and "success" not in table}


def test_the_queue_is_what_freshness_says(reports: Engine, browse: Open) -> None:
    """The queue's states add up to the freshness report, and days narrow them."""
    world = make(3)
    with reports.begin() as connection:
        store(connection, world)
    freshness = find("freshness")
    assert freshness is not None
    with reports.connect() as connection, ask(connection, freshness, Question()) as answer:
        expected = {str(row[1]): f"{row[3]:,}" for row in answer.rows}
    page = browse(text_of(reports))
    whole = tables(page)["queue"]
    names = ["waiting", "to_retry", "to_refresh", "last_known", "lost", "dead"]
    assert [row[2] for row in whole] == [expected[measure] for measure in names]
    page.fill("#from", page.get_attribute("#from", "max") or "")
    assert [row[1] for row in tables(page)["queue"]] == [
        f"{sum(_measure(row.state, row.outcome) == measure and row.enqueued_at.date() == days_of(world)[1] for row in world.queue):,}"
        for measure in names
    ]


def _measure(state: str, outcome: str | None) -> str | None:
    """Name what a queued SID counts as, from the documentation."""
    if state in {"pending", "leased"}:
        return "waiting"
    if state in {"retry", "refresh"}:
        return f"to_{state}"
    if state == "settled":
        return outcome if outcome == "last_known" else None
    return "lost" if outcome in {"expired", "not_found"} else "dead"


def test_an_empty_database_has_a_page(reports: Engine, browse: Open) -> None:
    """Without a row every section says so, and rates are dashes."""
    page = browse(text_of(reports))
    assert page.locator(".empty").count() == page.locator(".card").count()
    assert "\N{EN DASH}" in page.inner_text("#tiles")
    assert "NaN" not in page.inner_text("body")


def test_amounts_of_any_size_are_exact(reports: Engine, browse: Open) -> None:
    """Sums beyond what a double holds are shown to the last millionth."""
    with reports.begin() as connection:
        store(connection, make(4, verifications=30))
        connection.execute(
            text("UPDATE attempts SET price_currency = 'USD', price_amount = 0.000001")
        )
        connection.execute(
            text(
                "UPDATE attempts SET price_amount = 12345678.000001 WHERE conversion_status = 'converted'"
            )
        )
        converted, dated = connection.execute(
            text(
                "SELECT SUM(CASE WHEN conversion_status = 'converted' THEN 1 ELSE 0 END), COUNT(*) "
                "FROM attempts WHERE date_created IS NOT NULL"
            )
        ).one()
    page = browse(text_of(reports))
    shown = page.locator(".tile", has_text="Cost").first.locator(".figure").first.inner_text()
    units = int(converted) * 12_345_678 + int(dated) / 10**6
    assert shown == f"{units:,.2f} USD"


def test_names_are_those_of_the_world() -> None:
    """The oracle has a name for each country of its world."""
    assert {"US", "CO", "BR", "GB"} <= set(NAMES)
