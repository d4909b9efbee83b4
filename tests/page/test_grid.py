import base64
import gzip
import json
from collections import defaultdict
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Page

from etl.errors import ConfigError
from etl.page.grid import BLOCK, MONDAY, WEEK, Fold, Grid, ladder
from etl.page.pack import packed
from etl.page.render import html
from tests.support.browser import Open, tables
from tests.support.busy_page import busy, known

MOST_BYTES = 5_000_000
Cells = dict[tuple[int, ...], list[int]]


@given(st.integers(0, 30_000), st.integers(0, 3_000))
def test_each_calendar_is_coarser(first: int, span: int) -> None:
    """Later calendars keep the buckets of earlier ones together; edges begin a bucket."""
    calendars = ladder(first, first + span)
    for finer, coarser in pairwise(calendars):
        for day in range(first, first + span + 1):
            assert coarser.bucket(finer.bucket(day)) == coarser.bucket(day)
            assert coarser.bucket(day) <= finer.bucket(day) <= day
    for calendar in calendars:
        assert (calendar.weeks_from - MONDAY) % BLOCK == 0
        assert (calendar.days_from - MONDAY) % WEEK == 0


def filled(limit: int, fold: Fold | None = None) -> tuple[Grid, Cells]:
    """Fill a grid and a dictionary with the same random facts, the days in no order."""
    random = Random(limit)
    grid = Grid(
        ("name", "place"), ("count", "part", "money", "money_units"),
        calendars=ladder(20_000, 20_399), limit=limit, fold=fold,
    )  # fmt: skip
    facts: Cells = defaultdict(lambda: [0, 0, 0, 0])
    for _ in range(4000):
        keys = (random.randrange(9), random.randrange(3))
        count = random.randrange(1000)
        values = [
            count,
            random.randrange(count + 1),
            random.randrange(10**6),
            random.randrange(-9, 10**9),
        ]
        day = 20_000 + random.randrange(400)
        grid.add(day, keys, values)
        for place, value in enumerate(values):
            facts[day, *keys][place] += value
    return grid, facts


@pytest.mark.parametrize("limit", [10_000, 2500, 900, 300])
def test_folding_keeps_every_sum(limit: int) -> None:
    """A coarser grid holds the same sums in fewer cells."""
    grid, facts = filled(limit, Fold(9, into=9))
    assert len(grid) <= limit
    expected: Cells = defaultdict(lambda: [0, 0, 0, 0])
    for (day, name, place), values in facts.items():
        here = expected[grid.calendar.bucket(day), name if name < grid.kept else 9, place]
        here[:] = [one + other for one, other in zip(here, values, strict=True)]
    columns = grid.sorted_columns()
    actual = {
        key: list(values)
        for *key_, values in zip(
            columns["day"], columns["name"], columns["place"],
            zip(*(columns[name] for name in grid.measures), strict=True), strict=True,
        )
        for key in [tuple(key_)]
    }  # fmt: skip
    assert actual == expected


def test_too_much_is_refused() -> None:
    """A grid that cannot be coarser says what to do."""
    with pytest.raises(ConfigError, match="too many") as caught:
        filled(30)
    assert "--since" in str(caught.value.hint)


def test_packing_is_exact() -> None:
    """Packed columns unpack by the documented rules, amounts to the millionth."""
    grid, _ = filled(10_000)
    columns = grid.sorted_columns()
    found = packed(grid, most=10**9, parts={"part": "count"}, amounts={"money": "count"})
    bytes_ = gzip.decompress(base64.b64decode(found["data"]))
    at, rows, read = 0, found["rows"], {}
    for name, size in found["columns"]:
        planes = [bytes_[start : start + rows] for start in range(at, at + size * rows, rows)]
        read[name] = [int.from_bytes(c, "little", signed=True) for c in zip(*planes, strict=True)]
        at += size * rows
    assert at == len(bytes_)
    assert len(read["place"]) == len(grid)
    assert {name: read[name] for name in ("day", "name", "place", "count")} == {
        name: columns[name] for name in ("day", "name", "place", "count")
    }
    whole = [n - lack for n, lack in zip(read["count"], read["part"], strict=True)]
    assert whole == columns["part"]
    amounts = [
        mean * (n or 1) + rest
        for mean, rest, n in zip(read["money"], read["money_rest"], read["count"], strict=True)
    ]
    assert amounts == [
        unit * 10**6 + millionth
        for unit, millionth in zip(columns["money_units"], columns["money"], strict=True)
    ]


def thread_seconds(page: Page) -> float:
    """Return the CPU time of the page's own thread so far."""
    protocol = page.context.new_cdp_session(page)
    protocol.send("Performance.enable")
    metrics = protocol.send("Performance.getMetrics")["metrics"]
    protocol.detach()
    return next(float(one["value"]) for one in metrics if one["name"] == "ThreadTime")


@pytest.fixture(scope="module")
def year() -> dict[str, Any]:
    """Synthesize a busy account's year."""
    return known(busy())


def test_a_busy_year_fits(year: dict[str, Any], browse: Open) -> None:
    """A year of 200,000 attempts a day takes at most 5 MB, opens, and filters by day."""
    text = html(year)
    assert len(text.encode()) <= MOST_BYTES
    assert year["grids"]["main"]["daysFrom"] <= year["firstDay"]
    page = browse(text)
    page.click("#presets button >> nth=3")
    attempts = sum(int(row[1].replace(",", "")) for row in tables(page)["service"])
    assert attempts == pytest.approx(365 * 200_000, rel=0.05)
    before = thread_seconds(page)
    page.evaluate("document.querySelectorAll('#pick-country .list input')[3].click()")
    assert thread_seconds(page) - before < 3
    assert page.locator("figure").count() >= 10


@pytest.mark.long
def test_the_data_is_plain_json(year: dict[str, Any]) -> None:
    """The data block has no character of HTML, and reads back as the data."""
    text = html(year | {"names": year["names"] | {"extra": "<&>\u2028\u2029</script>"}})
    block = text.split('id="data">')[1].split("</script>")[0]
    assert not set("<>&\u2028\u2029") & set(block)
    assert json.loads(block)["names"]["extra"] == "<&>\u2028\u2029</script>"
