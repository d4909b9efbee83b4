import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from playwright.sync_api import Page
from sqlalchemy import Engine, text

from etl.database.engine import open_engine
from etl.migrate.upgrade import upgrade
from etl.rollups.refresh import mark_everything
from tests.support.browser import Open, choices, colours, pick, pictures, tables, text_of
from tests.support.harness import until
from tests.support.report_world import make, store

EVIL = "</script><img src=x onerror=document.title='owned'>\u2028<!--"
CHARTS = {
    "conversion", "success", "cost-0", "cost-1", "channel", "country", "service", "each-0", "each-1",
    "carriers", "errors", "funnel", "freshness",
}  # fmt: skip


@pytest.fixture(scope="module")
def page_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make the page of a random world, on SQLite."""
    engine = open_engine(f"sqlite:///{tmp_path_factory.mktemp('page') / 'page.db'}")
    upgrade(engine)
    with engine.begin() as connection:
        store(connection, make(11, verifications=400))
    found = text_of(engine)
    engine.dispose()
    return found


def test_every_chart_is_drawn(browse: Open, page_text: str) -> None:
    """Each chart holds more than one colour, in the dark and in the light."""
    for scheme in ("light", "dark"):
        found = colours(browse(page_text, color_scheme=scheme))
        assert set(found) == CHARTS
        assert {chart for chart, count in found.items() if count < 5} == set()


@pytest.mark.parametrize("kind", ["from", "to", "preset", "service", "channel", "country"])
def test_each_filter_changes_every_chart_and_table(browse: Open, page_text: str, kind: str) -> None:
    """Every chart and table changes, except the queue, which has no channel."""
    page = browse(page_text)
    charts, rows = pictures(page), tables(page)
    if kind in {"from", "to"}:
        page.fill(f"#{kind}", "2026-03-29")
    elif kind == "preset":
        page.click("#presets button >> nth=0")
    else:
        pick(page, kind, choices(page, kind)[0])
    later = pictures(page)
    assert {name for name, picture in charts.items() if later.get(name) == picture} == set()
    same = {name for name, row in tables(page).items() if rows[name] == row}
    assert same == ({"queue"} if kind in {"service", "channel", "country"} else set())
    page.click("#reset")
    assert pictures(page) == charts


def test_hostile_names_are_counted_as_other(reports: Engine, browse: Open) -> None:
    """A name of markup is counted as other, and does nothing."""
    with reports.begin() as connection:
        store(connection, make(12, verifications=60))
        for table, column in (
            ("attempts", "service_sid"), ("attempts", "channel"),
            ("attempt_channel_data", "country"), ("attempt_channel_data", "carrier"),
            ("attempt_channel_data", "error_code"),
        ):  # fmt: skip
            connection.execute(text(f"UPDATE {table} SET {column} = :evil"), {"evil": EVIL})
    found = text_of(reports)
    assert "<img" not in found
    assert "onerror" not in found
    assert found.count("</script") == 3
    page = browse(found)
    # What a script might have done is done once the page has drawn itself again.
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert page.title() == "Verify: conversion and cost"
    assert page.locator("img").count() == 0
    rows = tables(page)
    assert EVIL not in str(rows)
    for table in ("channel", "service", "country", "carriers", "errors"):
        assert rows[table][0][0].startswith("Other ")


def test_the_policy_lets_nothing_else_run(browse: Open, page_text: str) -> None:
    """The policy names two scripts and one style by hash, and allows no request."""
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page_text)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'"
    assert len(re.findall("'sha256-[A-Za-z0-9+/=]{44}'", rules["script-src"])) == 2
    assert len(re.findall("'sha256-[A-Za-z0-9+/=]{44}'", rules["style-src"])) == 1
    assert "unsafe" not in policy[1]
    assert set(rules) == {
        "default-src", "script-src", "style-src", "base-uri", "form-action",
        "require-trusted-types-for", "trusted-types",
    }  # fmt: skip
    assert "sourceMappingURL" not in page_text


def _focused(page: Page) -> str:
    found: str = page.evaluate(
        "document.activeElement.id || document.activeElement.name || document.activeElement.className"
    )
    return found


def test_the_keyboard_reaches_everything(browse: Open, page_text: str) -> None:
    """Tab reaches the switch and all filters, with a visible ring; keys change them."""
    page = browse(page_text)
    reached = []
    for _ in range(24):
        page.keyboard.press("Tab")
        reached.append(_focused(page))
        ring = page.evaluate(
            """() => { const at = document.activeElement; const on = at.type === 'radio' ?
            at.nextElementSibling : at; return getComputedStyle(on).outlineStyle; }"""
        )
        assert ring != "none", reached
    assert reached[0] == "skip"
    wanted = ["theme", "from", "to", "service", "channel", "country", "reset"]
    assert [name for name in dict.fromkeys(reached) if name in wanted] == wanted
    before = page.inner_text("#said")
    page.focus("#channel")
    for key in ("Enter", "Tab", "Tab", "Space"):
        page.keyboard.press(key)
    assert page.inner_text("#said") != before
    page.keyboard.press("Escape")
    assert _focused(page) == "channel"
    assert not page.is_visible("#pick-channel .options")
    page.focus("#table-country thead button >> nth=1")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert page.get_attribute("#table-country thead th >> nth=1", "aria-sort") == "ascending"
    counts = [int(row[1].replace(",", "")) for row in tables(page)["country"]]
    assert counts == sorted(counts)


def test_it_can_be_read_aloud(browse: Open, page_text: str) -> None:
    """Everything has a name: fields, charts, tables, sections; changes are announced."""
    page = browse(page_text)
    assert page.get_attribute("html", "lang") == "en"
    for label in ("From", "To"):
        assert page.get_by_label(label, exact=True).count() == 1
    for kind in ("service", "channel", "country"):
        page.click(f"#{kind}")
        assert page.get_by_role("group", name=kind.capitalize(), exact=True).count() == 1
        assert page.locator(f"#pick-{kind} label:not(:has(input))").count() == 0
    page.keyboard.press("Escape")
    names = page.eval_on_selector_all("canvas", "all => all.map((one) => one.ariaLabel)")
    assert len(names) == len(set(names)) == len(CHARTS)
    assert page.locator("table").count() == page.locator("table > caption").count() > 10
    assert page.locator("th:not([scope])").count() == 0
    assert page.get_attribute("#said", "aria-live") == "polite"
    assert page.locator("details.how").count() == page.locator("section.card").count()
    ids = page.eval_on_selector_all("[id]", "all => all.map((one) => one.id)")
    assert len(ids) == len(set(ids))


def test_it_is_dark_when_wanted(browse: Open, page_text: str) -> None:
    """The machine's preference counts, the switch overrules it, charts too."""
    ground = "getComputedStyle(document.body).backgroundColor"
    page = browse(page_text, color_scheme="dark")
    dark, charts = page.evaluate(ground), pictures(page)
    page.check("#theme input[value=light]", force=True)
    light = page.evaluate(ground)
    assert light != dark
    assert {name for name, picture in pictures(page).items() if charts[name] == picture} == set()
    page.emulate_media(color_scheme="light")
    page.check("#theme input[value=dark]", force=True)
    assert page.evaluate(ground) == dark
    page.check("#theme input[value=auto]", force=True)
    assert page.evaluate(ground) == light


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_it_fits_every_screen(browse: Open, page_text: str, width: int) -> None:
    """Nothing but a wide table scrolls sideways, and that within itself."""
    page = browse(page_text, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_prints(browse: Open, page_text: str) -> None:
    """Paper gets light charts and no controls; afterwards the screen is as before."""
    page = browse(page_text, color_scheme="dark")
    before = pictures(page)
    assert page.pdf(prefer_css_page_size=True, print_background=True).startswith(b"%PDF")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("canvas.paper").count() == len(CHARTS)
    assert page.locator("canvas.paper:visible").count() == len(CHARTS)
    assert not page.is_visible("#filters")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert page.locator("canvas.paper").count() == 0
    # The browser tells the charts of their old size when it has a moment.
    until(lambda: pictures(page) == before)


def test_the_address_keeps_the_filters(browse: Open, page_text: str) -> None:
    """The address holds the choice, and opening it chooses the same."""
    page = browse(page_text)
    page.fill("#from", "2026-03-28")
    pick(page, "channel", "SMS", "Call")
    pick(page, "country", *choices(page, "country")[:3])
    anchor = page.evaluate("location.hash")
    again = browse(page_text, anchor=anchor)
    assert tables(again) == tables(page)
    assert again.inner_text("#said") == page.inner_text("#said")


def test_periods_are_compared(reports: Engine, browse: Open) -> None:
    """A figure shows its change from as many days before, if the page has them."""
    with reports.begin() as connection:
        for number in range(30):
            day = 1 + number // 10
            connection.execute(
                text(
                    "INSERT INTO attempts (sid, conversion_status, date_created, first_fetched_at, "
                    "fetched_at, is_final, price_amount, price_currency) VALUES "
                    "(:sid, :status, :at, 1, 1, :final, :price, 'USD')"
                ),
                {
                    "sid": f"VL{number:032x}",
                    "status": "converted" if number % 10 < 2 * day else "unconverted",
                    "at": datetime(2026, 3, day, 12, tzinfo=UTC).strftime("%Y-%m-%d %H:%M:%S"),
                    "final": True,
                    "price": float(Decimal(day) / 2),
                },
            )
        mark_everything(connection)
    page = browse(text_of(reports))
    assert "no earlier days" in page.inner_text("#tiles")
    page.fill("#from", "2026-03-03")
    rate = page.locator(".tile", has_text="Conversion rate").inner_text()
    assert "60.0%" in rate
    assert "+20.0 points" in rate
    cost = page.locator(".tile", has_text="Cost").first.inner_text()
    assert "15.00 USD" in cost
    assert "+50.0%" in cost


def test_personal_data_is_not_in_the_page(page_text: str) -> None:
    """No destination, no SID of an attempt or a verification, no account."""
    assert not re.search(
        r"\+\d{6,}|@example|VL[0-9a-fA-F]{6}|VE[0-9a-f]{6}|AC[0-9a-f]{6}", page_text
    )
