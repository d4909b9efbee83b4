"""Read and use the page in a browser."""

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page
from sqlalchemy import Engine

from etl.database.engine import READ_ONLY
from etl.page import collect
from etl.page.render import facts, html

Open = Callable[..., Page]


def text_of(engine: Engine, *, made_at: str = "", **question: Any) -> str:
    """Give the page of a database, as if it were made at some moment."""
    from etl.reports.query import Question

    with engine.execution_options(**READ_ONLY).connect() as connection:
        known = facts(collect(connection, Question(**question)))
    return html(known | {"madeAt": made_at} if made_at else known)


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
