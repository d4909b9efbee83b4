"""Open pages in a real browser, which must be there: nothing here is skipped.

Every page that a test opens is watched: it may ask for its own file and nothing else, and it may
not complain.
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy import Engine

from tests.support.browser import Open

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


@pytest.fixture
def browse(chromium: Browser, tmp_path: Path) -> Iterator[Open]:
    """Give a function that opens a page from its text, and check each page."""
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
