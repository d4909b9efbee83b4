"""Test what the page says of its numbers: with what they compare, what is cut, what is not final."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page
from sqlalchemy import Engine, text

from etl.database.engine import open_engine
from etl.migrate.upgrade import upgrade
from etl.rollups.refresh import mark_everything
from tests.support.browser import Open, choices, pick, pictures, tables, text_of
from tests.support.page_oracle import DASH
from tests.support.report_world import make, store


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Engine]:
    """Open an empty database; what the page makes of it does not depend on the kind."""
    engine = open_engine(f"sqlite:///{tmp_path}/page.db")
    upgrade(engine)
    yield engine
    engine.dispose()


def attempts(engine: Engine, day: int, prices: Sequence[float | None], **more: Any) -> None:
    """Store attempts of a day in March 2026, each with its price, converted unless told else."""
    row: dict[str, Any] = {"country": "US", "converted": True, "final": len(prices)} | more
    with engine.begin() as connection:
        (have,) = connection.execute(text("SELECT COUNT(*) FROM attempts")).one()
        for number, price in enumerate(prices):
            sid = f"VL{have + number:032x}"
            connection.execute(
                text(
                    "INSERT INTO attempts (sid, conversion_status, date_created, first_fetched_at, "
                    "fetched_at, is_final, price_amount, price_currency) VALUES "
                    "(:sid, :status, :at, 1, 1, :final, :price, :currency)"
                ),
                {
                    "sid": sid, "at": f"2026-03-{day:02} 12:00:00", "final": number < row["final"],
                    "status": "converted" if row["converted"] else "unconverted", "price": price,
                    "currency": None if price is None else "USD",
                },
            )  # fmt: skip
            connection.execute(
                text("INSERT INTO attempt_channel_data (attempt_sid, country) VALUES (:s, :c)"),
                {"s": sid, "c": row["country"]},
            )
        mark_everything(connection)


def tile(page: Page, title: str) -> str:
    """Give the words of a tile."""
    return page.locator(
        ".tile", has=page.get_by_role("heading", name=title, exact=True)
    ).inner_text()


def test_a_link_means_the_same_on_the_next_page(plain: Engine, browse: Open) -> None:
    """Filters are kept by code: another order changes nothing, and what is gone is said."""
    for country, count in (("US", 3), ("CO", 2), ("BR", 1)):
        attempts(plain, 1, [1.0] * count, country=country)
    page = browse(text_of(plain))
    pick(page, "country", "Colombia (CO)")
    anchor = page.evaluate("location.hash")
    attempts(plain, 1, [1.0] * 5, country="BR")
    later = browse(text_of(plain), anchor=anchor)
    assert choices(later, "country")[0] == choices(page, "country")[0]
    assert [row[0] for row in tables(later)["country"]] == ["Colombia (CO)"]
    assert later.is_hidden("#notice")
    without = browse(text_of(plain, countries=("US", "BR")), anchor=anchor)
    assert "Not on this page, so left out of the link's filters: country CO." in without.inner_text(
        "#notice"
    )
    assert len(tables(without)["country"]) == 2
    old = browse(text_of(plain), anchor="#country=1")
    assert "country 1" in old.inner_text("#notice")


def test_days_that_are_gone_are_said(plain: Engine, browse: Open) -> None:
    """A link to days beyond the page, or from a later day back, says so and shows the usual."""
    attempts(plain, 10, [1.0])
    attempts(plain, 12, [1.0])
    for anchor, said in (
        ("#from=2026-03-01&to=2026-03-11", "days before 2026-03-10"),
        ("#from=2025-03-01&to=2025-03-11", "the days 2025-03-01 to 2025-03-11"),
        ("#from=2026-03-12&to=2026-03-10", "days from 2026-03-12 back to 2026-03-10"),
    ):
        assert said in browse(text_of(plain), anchor=anchor).inner_text("#notice")


def test_from_later_than_to_is_said(plain: Engine, browse: Open) -> None:
    """Nothing is swapped or moved: the page says it, and waits for the other date."""
    for day in range(1, 6):
        attempts(plain, day, [1.0])
    page = browse(text_of(plain))
    page.fill("#to", "2026-03-03")
    before = tables(page)
    page.fill("#from", "2026-03-04")
    said = page.inner_text("#said")
    assert said.startswith("From 2026-03-04 is later than To 2026-03-03")
    assert (tables(page), page.input_value("#to")) == (before, "2026-03-03")
    page.fill("#to", "2026-03-05")
    assert page.inner_text("#said").startswith("2026-03-04 to 2026-03-05")


def test_whole_days_are_compared(plain: Engine, browse: Open) -> None:
    """A day that was not over when the page was made is compared with nothing."""
    for day, count in ((1, 10), (2, 20), (3, 1)):
        attempts(plain, day, [1.0] * count)
    page = browse(text_of(plain, made_at="2026-03-03T02:00:00Z"))
    page.fill("#from", "2026-03-02")
    assert "+100.0% on the 1 day before, whole days only" in tile(page, "Attempts")
    assert "+100.0%" in tile(page, "Cost")
    page.fill("#from", "2026-03-03")
    assert "no earlier days" in tile(page, "Attempts")
    done = browse(text_of(plain, made_at="2026-03-04T00:00:00Z"))
    done.fill("#from", "2026-03-03")
    assert "\N{MINUS SIGN}95.0% on the 1 day before" in tile(done, "Attempts")
    assert "whole days" not in done.inner_text("#tiles")


def test_a_first_day_that_was_cut_is_compared_with_nothing(plain: Engine, browse: Open) -> None:
    """`--since` in the middle of a day leaves only part of it."""
    for day in (1, 2):
        attempts(plain, day, [1.0] * 4)
    cut = browse(text_of(plain, since=1_772_334_000.0))
    cut.fill("#from", "2026-03-02")
    assert "no earlier days" in tile(cut, "Attempts")


def test_what_has_no_price_changes_no_cost(plain: Engine, browse: Open) -> None:
    """Where prices are missing, the price of those that have one is compared."""
    attempts(plain, 1, [1.0] * 4)
    attempts(plain, 2, [1.5, 1.5, None, None])
    page = browse(text_of(plain))
    page.fill("#from", "2026-03-02")
    assert "+50.0% per priced attempt on the 1 day before" in tile(page, "Cost")
    assert "50.0% not priced" in tile(page, "Cost")


def test_hatching_is_in_proportion(plain: Engine, browse: Open) -> None:
    """Five of a hundred not final look nothing like all of them."""
    shown = {}
    for final in (100, 95, 0):
        with plain.begin() as connection:
            connection.execute(text("DELETE FROM attempt_channel_data"))
            connection.execute(text("DELETE FROM attempts"))
        attempts(plain, 1, [1.0] * 100, final=final)
        page = browse(text_of(plain))
        share = page.eval_on_selector(
            "#table-conversion tbody tr", "(row) => row.style.getPropertyValue('--open')"
        )
        light = page.evaluate(
            """() => {
            const canvas = document.querySelector('[data-plot=conversion] canvas');
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            const blue = [...Array(data.length / 4).keys()].filter((at) =>
                data[4 * at] < 90 && data[4 * at + 2] > 150 && data[4 * at + 3] > 250);
            return blue.length; }"""
        )
        shown[final] = (share, light)
    assert [shown[final][0] for final in (100, 95, 0)] == ["", "0.05", "1"]
    whole, most, none = (shown[final][1] for final in (100, 95, 0))
    assert whole > most > 0.9 * whole
    assert none < 0.8 * whole


def test_a_column_has_one_number_of_decimals(plain: Engine, browse: Open) -> None:
    """Amounts below one add decimals to their whole column."""
    attempts(plain, 1, [0.0075])
    attempts(plain, 2, [0.05] * 300)
    cost = tables(browse(text_of(plain)))["cost"]
    assert [row[3] for row in cost] == ["15.000000", "0.007500"]


def test_no_amount_stands_alone_among_dashes(plain: Engine, browse: Open) -> None:
    """Where no fee is known, that of a day without conversions is not 0 either."""
    attempts(plain, 1, [1.0])
    attempts(plain, 2, [1.0], converted=False)
    cost = tables(browse(text_of(plain)))["cost"]
    assert [row[5:] for row in cost] == [[DASH, DASH]] * 2


@pytest.mark.parametrize("width", [390, 1600])
def test_what_is_off_the_screen_is_hinted_at(plain: Engine, browse: Open, width: int) -> None:
    """On a telephone tables say that they scroll, and labels of bars are whole or end in a mark."""
    with plain.begin() as connection:
        store(connection, make(11, verifications=200))
    page = browse(text_of(plain), viewport={"width": width, "height": 800})
    assert page.locator("#table-carriers .hint").is_visible() == (width == 390)
    too_wide = page.evaluate(
        """() => [...document.querySelectorAll('figure canvas')].flatMap((canvas) => {
            const chart = Chart.getChart(canvas);
            if (chart.options.indexAxis !== 'y') return [];
            chart.ctx.font = Chart.helpers.toFont(chart.scales.y.options.ticks.font).string;
            return chart.data.labels.flat().filter((label) =>
                chart.ctx.measureText(label).width > chart.scales.y.width);
        })"""
    )
    assert too_wide == []
    caption = page.locator("#table-cost caption span").bounding_box()
    assert caption
    assert caption["x"] + caption["width"] <= width


def test_headings_show_that_they_sort(plain: Engine, browse: Open) -> None:
    """Each heading has a sign, and that of the sorted column says which way."""
    attempts(plain, 1, [1.0])
    page = browse(text_of(plain))
    sign = "(all) => all.map((one) => getComputedStyle(one, '::after').content)"
    signs = page.eval_on_selector_all("#table-conversion thead button", sign)
    assert all("↕" in one for one in signs)
    page.click("#table-conversion thead button >> nth=1")
    assert "↓" in page.eval_on_selector_all("#table-conversion thead button", sign)[1]
    assert pictures(page)
