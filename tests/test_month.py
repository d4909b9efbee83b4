"""Live through two days in simulated time: every attempt final in time, for few requests."""

import json
from typing import Any

import pytest

from tests.support.harness import measured

RUNS_A_DAY = 144
pytestmark = pytest.mark.long


def lived(*args: str) -> Any:
    """Live through a month as short as asked, and return its figures."""
    return json.loads(measured("month.py", "--json", *args))


@pytest.mark.parametrize("way", ["auto", "discover"])
def test_every_attempt_becomes_final_in_time(way: str) -> None:
    """2,000 attempts a day are all final within 26 hours, as the world holds them, for pages."""
    outcome = lived("--days", "2", "--per-day", "2000", "--way", way)
    assert (outcome["lost"], outcome["wrong"], outcome["throttled"]) == (0, 0, 0)
    assert outcome["in_time"] == outcome["had_time"] == outcome["created"] == 4_000
    assert outcome["slowest_h"] <= 26
    # So few attempts fill no page: what remains is a page for a run and one for an hour's refreshes.
    assert outcome["requests"] <= (2 + 26 / 24) * (RUNS_A_DAY + 24) * 1.25


def test_single_fetches_cannot_keep_up() -> None:
    """Where two fetches for each attempt are 2.8 times what fits, SIDs are left waiting."""
    # This way lives through a hundredth of both counts: 2,000 attempts a day, a request a minute.
    outcome = lived("--days", "0.1", "--per-day", "200000", "--way", "fetch", "--tail", "0")
    assert (outcome["throttled"], outcome["wrong"]) == (0, 0)
    # Fifteen runs of ten minutes each, at one request a minute.
    assert outcome["requests"] <= 151
    assert outcome["waiting"] >= 40
