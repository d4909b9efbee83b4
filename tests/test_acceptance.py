"""Do the whole job on a file as people have them: long, with duplicates, with lines that are none."""

import json
import random
import time
from pathlib import Path

from sqlalchemy import Engine, func, select

from etl.database.schema import attempt_queue as q
from etl.database.schema import sync_runs
from etl.errors import Exit
from etl.sandbox import Sandbox, World
from tests.support.harness import assert_loaded, environment, run_json, verify_etl

COUNT = 10_000
_NONSENSE = (
    "VL123", "nonsense", "SM" + "0" * 32, "VE" + "a" * 32, "VL" + "g" * 32, "+15551234567",
    "VL" + "0" * 31, "VL" + "0" * 33, "'; DROP TABLE attempts; --", "\u00fcber",
)  # fmt: skip


def _file(folder: Path, world: World) -> tuple[Path, int, int]:
    """Write every SID of the world, every tenth twice, and bad lines; return lines and bad ones."""
    chance = random.Random(7)
    sids = list(world.sids())
    lines = [*sids, *sids[::10], *_NONSENSE * 10]
    chance.shuffle(lines)
    file = folder / "sids.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file, len(lines), len(_NONSENSE) * 10


def test_a_file_of_ten_thousand_becomes_rows(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    """Every good SID of the file ends as the API holds it, and every count that is printed agrees."""
    world = World(size=COUNT, static_at=time.time())
    file, lines, bad = _file(tmp_path, world)
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url, concurrency="32")
        refused = verify_etl("backfill", str(file), env=env)
        with engine.connect() as connection:
            assert connection.execute(select(func.count()).select_from(q)).scalar_one() == 0
        done = verify_etl("backfill", "--skip-bad", "--json", str(file), env=env)
        again = verify_etl("backfill", "--skip-bad", "--json", str(file), env=env)
        report = run_json("--strategy", "fetch", env=env)
        assert box.stats()["requests"] == COUNT
        status = json.loads(verify_etl("status", "--json", env=env).stdout)
    assert refused.returncode == Exit.DATA
    assert refused.stdout == ""
    assert done.returncode == again.returncode == 0
    enqueued, known = json.loads(done.stdout), json.loads(again.stdout)
    doubled = COUNT // 10
    assert [enqueued[name] for name in ("lines", "new", "already_queued", "bad")] == [
        lines, COUNT, doubled, bad,
    ]  # fmt: skip
    assert [known[name] for name in ("new", "already_queued", "bad")] == [0, COUNT + doubled, bad]
    assert_loaded(engine, world, world.sids())
    assert report["fetched"] == report["requests"] == report["claimed"] == COUNT
    assert report["settled"] + report["refresh"] == COUNT
    assert (report["pending"], report["dead"], report["discarded"]) == (0, 0, 0)
    assert status["states"]["settled"] == report["settled"]
    assert status["states"]["refresh"] == report["refresh"]
    with engine.connect() as connection:
        row = connection.execute(select(sync_runs)).one()
    assert row.did == {name: report[name] for name in row.did}
