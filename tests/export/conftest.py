"""Give the tests of the export their rows and their folder."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from etl.sandbox import World
from tests.support.export_world import FIRST, ODD, store


@pytest.fixture
def world() -> World:
    """Give a world of three days, with odd payloads among the ordinary ones."""
    world = World(size=300, start=FIRST.timestamp(), span=3 * 86_400 - 1, static_at=1_775_000_000)
    for number, odd in enumerate(ODD):
        world.overrides[world.sid(100 + number)] = world.attempt(100 + number) | odd
    world.overrides[world.sid(200)] = world.attempt(200) | {"date_created": None}
    return world


@pytest.fixture
def filled(engine: Engine, world: World) -> Engine:
    """Load the world."""
    store(engine, world, range(world.size))
    return engine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Name a folder that is not there yet."""
    return tmp_path / "lake" / "attempts"
