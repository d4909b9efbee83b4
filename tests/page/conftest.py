"""Open pages in a real browser, which must be there: nothing here is skipped.

Every page that a test opens is watched: it may ask for its own file and nothing else, and it may
not complain.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy import Engine

from etl.database.engine import READ_ONLY
from etl.page import collect
from etl.page.render import facts, html

FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def reports(engine: Engine) -> Engine:
    """Open a migrated database, which has the views."""
    return engine


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium, with a profile of its own."""
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("The page is tested in Chromium: apt-get install -y chromium", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Seen:
    """Hold what a page asked for and complained of."""

    path: Path
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


Open = Callable[..., Page]


@pytest.fixture
def browse(chromium: Browser, tmp_path: Path) -> Iterator[Open]:
    """Give a function that opens a page from its text, and hold every page to its promises."""
    everything: list[Seen] = []
    with ExitStack() as stack:

        def opened(text: str, *, anchor: str = "", **options: Any) -> Page:
            seen = Seen(tmp_path / f"{len(everything)}.html")
            everything.append(seen)
            seen.path.write_text(text, encoding="utf-8")
            # The machine of the tests has no network to try; the page must not even try.
            context = chromium.new_context(timezone_id="Asia/Kolkata", **options)
            stack.callback(context.close)
            page = context.new_page()
            protocol = context.new_cdp_session(page)
            protocol.send("Network.enable")
            protocol.on(
                "Network.requestWillBeSent",
                lambda sent: seen.requests.append(sent["request"]["url"]),
            )
            page.on("request", lambda request: seen.requests.append(request.url))
            page.on("console", lambda message: seen.complaints.append(message.text))
            page.on("pageerror", lambda error: seen.complaints.append(str(error)))
            page.goto(seen.path.as_uri() + anchor)
            page.wait_for_selector("html[data-ready=yes]", timeout=20_000)
            return page

        yield opened
    for seen in everything:
        # The browser's own pictures, such as the calendar of a date, are `data:`.
        asked = {url.partition("#")[0] for url in seen.requests if not url.startswith("data:")}
        assert asked == {seen.path.as_uri()}
        assert seen.complaints == []


def text_of(engine: Engine, **question: Any) -> str:
    """Give the page of a database."""
    from etl.reports.query import Question

    with engine.execution_options(**READ_ONLY).connect() as connection:
        return html(facts(collect(connection, Question(**question))))


def pick(page: Page, kind: str, *labels: str) -> None:
    """Filter by these and no others, as a person does; by none of them: by all."""
    page.evaluate("(id) => { document.getElementById(id).open = true; }", f"pick-{kind}")
    box = page.locator(f"#pick-{kind}")
    everything = box.get_by_role("checkbox").and_(page.locator("input[value=all]"))
    if not everything.is_checked():
        everything.check()
    for label in labels:
        box.get_by_label(label, exact=True).check()
    page.keyboard.press("Escape")


def choices(page: Page, kind: str) -> list[str]:
    """Name what a kind can be filtered by, in order."""
    return page.locator(f"#pick-{kind} .list label").all_text_contents()


def tables(page: Page) -> dict[str, list[list[str]]]:
    """Give every row of every table by the table's name, as it is read."""
    page.evaluate(
        "document.querySelectorAll('.more[aria-expanded=false]').forEach((b) => b.click())"
    )
    found: dict[str, list[list[str]]] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('.table')].map((one) => [
            one.id.replace('table-', ''),
            [...one.querySelectorAll('tbody tr')].map((row) =>
                [...row.children].map((cell) => cell.textContent)),
        ]))"""
    )
    return found


def pictures(page: Page) -> dict[str, str]:
    """Give what every chart shows, by the chart's name."""
    found: dict[str, str] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('figure')].map((one) =>
            [one.dataset.plot, one.querySelector('canvas').toDataURL()]))"""
    )
    return found


def colours(page: Page) -> dict[str, int]:
    """Count the colours of every chart: one that was not drawn has a single one."""
    found: dict[str, int] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('figure')].map((one) => {
            const canvas = one.querySelector('canvas');
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            return [one.dataset.plot, new Set(new Uint32Array(data.buffer)).size];
        }))"""
    )
    return found
