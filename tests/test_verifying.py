"""Note, lease and give back Verifications inside the test's own process."""

import time
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select

from etl import verifying
from etl.listing import Lister
from etl.sandbox import Sandbox, World
from etl.schema import attempts
from etl.schema import verification_queue as v
from etl.verifying import Verifier
from tests.conftest import MakeApi
from tests.in_process import HOUR, parts_of, run_here
from tests.queue_rows import watch
from tests.test_listing import REFUSED, enqueue, stored


@pytest.fixture
def world() -> World:
    """Give a world of ten days that stands still, and is old enough to be final."""
    now = time.time()
    return World(size=4_000, start=now - 14 * 86_400, span=10 * 86_400, static_at=now)


def _ask_for(engine: Engine, world: World, count: int) -> set[str]:
    """Enqueue so many Verifications of a world; return the SIDs of their attempts."""
    places = range(0, world.size, world.size // count)
    wanted = [world.attempt(i)["verification_sid"] for i in places]
    enqueue(engine, *wanted)
    return {world.sid(i) for sid in wanted for i in world.members(sid)}


def _rows(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        return {row.sid: row for row in connection.execute(select(v).order_by(v.c.id))}


# ---- what a sweep has shown


def test_what_a_sweep_has_shown_is_noted_in_one_update(engine: Engine, world: World) -> None:
    """However many Verifications a sweep has shown, one statement notes all that are final."""
    sids = _ask_for(engine, world, 400)
    with Sandbox(world, limit=0) as box, watch(engine) as noted:
        report = run_here(engine, box, strategy="auto")
    assert report.counts["requests"] <= 10
    assert len([s for s, _ in noted if s.startswith("UPDATE") and "found=" in s]) == 1
    assert stored(engine) == sids
    rows = _rows(engine).values()
    assert {row.state for row in rows} == {"listed"}
    assert {row.sid: row.found for row in rows} == {
        row.sid: len(world.members(row.sid)) for row in rows
    }


def test_only_what_is_stored_and_due_is_noted(engine: Engine, make_api: MakeApi) -> None:
    """Without attempts a Verification still waits, and one that is not due is left as it is."""
    ahead = time.time_ns() // 1_000_000 + HOUR
    finals = {"final": [True, True], "young": [True, False], "ahead": [True], "none": []}
    enqueue(engine, *(sid for sid in finals if sid != "ahead"))
    rows = [
        {"sid": f"{ve}{n}", "verification_sid": ve, "is_final": final}
        for ve, several in finals.items()
        for n, final in enumerate(several)
    ]
    with engine.begin() as connection:
        connection.execute(insert(v).values(sid="ahead", due_at=ahead))
        fetched = {"first_fetched_at": 1, "fetched_at": 1}
        connection.execute(insert(attempts), [{**row, **fetched} for row in rows])
    Verifier(Lister(parts_of(engine, make_api(REFUSED)), largest_page=1000)).covered(finals)
    assert {
        row.sid: (row.state, row.found, row.listed_at is not None) for row in _rows(engine).values()
    } == {
        "final": ("listed", 2, True),
        "young": ("pending", 2, True),
        "none": ("pending", 0, False),
        "ahead": ("pending", 0, False),
    }
    assert _rows(engine)["young"].due_at > ahead
    assert _rows(engine)["ahead"].due_at == ahead


def test_without_a_sweep_nobody_reads_all_that_are_due(engine: Engine, world: World) -> None:
    """Where a few Verifications are listed by name, no statement asks for all of them."""
    sids = _ask_for(engine, world, 4)
    with Sandbox(world, limit=0) as box, watch(engine) as noted:
        run_here(engine, box, strategy="auto")
        assert box.stats()["lists"] == 4
    assert [s for s, parameters in noted if str(verifying.ALL) in str(parameters)] == []
    assert stored(engine) == sids
