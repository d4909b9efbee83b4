"""Keep files with numbers for their owner alone, under any umask."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from etl.backfill.files import replayable
from etl.database.engine import open_engine
from etl.export.folder import FILE
from etl.sandbox import Sandbox, World
from tests.support.harness import environment, fill, run_json, verify_etl


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Let everybody read what is created, as on most machines."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give the environment of a program whose database, in SQLite's file, the program made."""
    world = World(size=30)
    with Sandbox(world, limit=0) as box:
        url = f"sqlite:///{tmp_path}/made.db"
        env = environment(box, url)
        assert verify_etl("db", "upgrade", env=env).returncode == 0
        engine = open_engine(url)
        fill(engine, world.sids())
        engine.dispose()
        run_json(env=env)
        yield env


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return path.stat().st_mode & 0o777


def test_the_database_file_is_its_owners(env: dict[str, str]) -> None:
    """SQLite's file is made so, and its journal too. An existing file stays as it is."""
    file = Path(make_url(env["DATABASE_URL"]).database or "")
    assert mode(file) == 0o600
    engine = open_engine(env["DATABASE_URL"])
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM attempts")
        assert {mode(path) for path in file.parent.glob("made.db*")} == {0o600}
        assert len([*file.parent.glob("made.db-*")]) >= 1
    engine.dispose()
    file.chmod(0o640)
    assert verify_etl("db", "upgrade", env=env).returncode == 0
    assert mode(file) == 0o640


@pytest.mark.parametrize("spelled", ["{}", "file:{}?uri=true", "file:{}?mode=rwc&uri=true"])
def test_a_database_file_is_its_owners_however_it_is_named(tmp_path: Path, spelled: str) -> None:
    """A URI makes no other file, and none without permission."""
    file = tmp_path / "a b.db"
    engine = open_engine(f"sqlite:///{spelled.format(file)}")
    engine.connect().close()
    engine.dispose()
    assert ([*tmp_path.iterdir()], mode(file)) == ([file], 0o600)
    file.unlink()
    refused = open_engine(f"sqlite:///file:{file}?mode=ro&uri=true")
    with pytest.raises(Exception, match="unable to open"):
        refused.connect()
    assert [*tmp_path.iterdir()] == []


def test_a_database_in_memory_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What names no file is left to SQLite."""
    monkeypatch.chdir(tmp_path)
    for name in ("", "/:memory:", "/file::memory:?uri=true"):
        engine = open_engine(f"sqlite://{name}")
        engine.connect().close()
        engine.dispose()
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("report", [("freshness", "--format", "csv"), ("freshness",), ("html",)])
def test_a_report_is_its_owners(
    env: dict[str, str], tmp_path: Path, report: tuple[str, ...]
) -> None:
    """A new file is; one that is there keeps its mode."""
    file = tmp_path / "report"
    assert verify_etl("report", *report, "-o", str(file), env=env).returncode == 0
    assert mode(file) == 0o600
    file.chmod(0o644)
    assert verify_etl("report", *report, "-o", str(file), env=env).returncode == 0
    assert mode(file) == 0o644


def test_an_export_is_its_owners_until_it_is_shared(env: dict[str, str], tmp_path: Path) -> None:
    """Its files are; in a folder that was shared new days are, too, for they follow the first."""
    folder = tmp_path / "lake"
    assert verify_etl("export", "-o", str(folder), env=env).returncode == 0
    days = sorted(folder.glob(f"*/{FILE}"))
    assert len(days) >= 2
    assert {mode(path) for path in days} == {0o600}
    days[0].chmod(0o644)
    days[1].unlink()
    assert verify_etl("export", "--full", "-o", str(folder), env=env).returncode == 0
    assert [mode(path) for path in days[:2]] == [0o644] * 2
    assert {mode(path) for path in days[2:]} <= {0o600}


def test_what_is_spooled_is_its_owners(tmp_path: Path) -> None:
    """A pipe of SIDs is copied to a file that nobody else can open."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("VL" + "0" * 32 + "\n",))
    writer.start()
    with replayable(str(pipe)) as spooled:
        assert isinstance(spooled.path, int)
        found = os.fstat(spooled.path)
    writer.join()
    assert (found.st_mode & 0o777, found.st_nlink) == (0o600, 0)
