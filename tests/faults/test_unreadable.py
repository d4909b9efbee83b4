"""Say what could not be stored as sent: by kind, with a count and an example."""

import logging
from typing import Any

import pytest
from sqlalchemy import Engine, select

from etl.database.schema import sync_runs
from etl.run.pipeline import RunReport
from etl.sandbox import Sandbox, World
from tests.support.harness import fill
from tests.support.in_process import run_here


@pytest.fixture
def world() -> World:
    """Give ten attempts of which three have a price that is none, and two no SID in a list."""
    world = World(size=10)
    for n in range(3):
        world.overrides[world.sid(n)] = world.attempt(n) | {
            "price": {"value": "free", "currency": "USD"}
        }
    return world


def _run(engine: Engine, world: World, **asked: Any) -> RunReport:
    with Sandbox(world, limit=0) as box:
        return run_here(engine, box, **asked)


def _kept(engine: Engine) -> Any:
    with engine.connect() as connection:
        return connection.execute(select(sync_runs.c.did)).scalar_one()["unreadable"]


def test_unreadable_fields_are_said(
    engine: Engine, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A field that could not be read is counted, warned of once, and kept with the run."""
    fill(engine, world.sids())
    with caplog.at_level(logging.WARNING):
        report = _run(engine, world, strategy="fetch")
    kinds = report.counts["unreadable"]
    assert {kind: found["count"] for kind, found in kinds.items()} == {"price: unreadable": 3}
    example = kinds["price: unreadable"]["example"]
    assert example in {world.sid(n) for n in range(3)}
    assert (report.counts["warnings"], _kept(engine)) == (3, kinds)
    said = [record.getMessage() for record in caplog.records]
    assert f"price: unreadable: 3 times (for example {example}); what was sent is in extra." in said
    assert "free" not in "".join(said)


def test_items_without_a_sid_are_said(
    engine: Engine, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """List items that are no attempts are counted and warned of; the others are loaded."""
    world.overrides.clear()
    for n, odd in enumerate([None, "nonsense"]):
        world.overrides[world.sid(n)] = world.attempt(n) | {"sid": odd}
    fill(engine, [world.sid(n) for n in range(2, 10)])
    with caplog.at_level(logging.WARNING):
        report = _run(engine, world, strategy="sweep")
    assert sum(found["count"] for found in _kept(engine).values()) == 2
    assert report.counts["warnings"] == 2
    assert {found["example"] for found in _kept(engine).values()} == {None}
    said = "".join(record.getMessage() for record in caplog.records)
    assert "an item of a list: the answer carries no sid: once; it was left out." in said
