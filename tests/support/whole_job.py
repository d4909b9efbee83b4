"""Do all that people do with the program, from an empty database to the export."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from etl.errors import Exit
from etl.reports import REPORTS
from etl.sandbox import Sandbox, World
from tests.support.harness import NOW, assert_loaded, command, environment, run_json

ABROAD = "\u041c\u0435\u0433\u0430\u0424\u043e\u043d"
"""A carrier of which no letter is in LATIN1."""

_BY_THE_CLOCK = {"freshness", "attempts", "changes"}
"""Reports that say when a row was fetched."""


class Abroad(World):
    """A world that stands still, with a carrier whose name is in Cyrillic letters."""

    def __init__(self, size: int = 240) -> None:
        """Lay the attempts over two weeks, so that reports have days to sum."""
        super().__init__(size=size, static_at=NOW, start=NOW - 15 * 86_400, span=14 * 86_400)

    def natural(self, index: int, at: float, sid: str | None = None) -> dict[str, Any]:
        """Describe an attempt as the API does."""
        payload = super().natural(index, at, sid)
        if payload["channel_data"].get("carrier"):
            payload["channel_data"]["carrier"] = ABROAD
        return payload


def ok(*args: str, env: dict[str, str], stdin: str = "") -> str:
    """Run a command, which must end well, and return what it printed."""
    done = command(*args, env=env, stdin=stdin)
    assert done.returncode == Exit.OK, f"{args}: {done.stdout}{done.stderr}"
    return done.stdout


def healthy(env: dict[str, str], *, but: frozenset[str]) -> None:
    """Let doctor look; it may find nothing wrong ``but`` these."""
    found = json.loads(command("doctor", "--json", env=env).stdout)
    wrong = [each for each in found if not each["ok"] and each["check"] not in but]
    assert wrong == []


def whole_job(
    url: str, engine: Engine, folder: Path, *, zones: bool = True
) -> dict[str, list[dict[str, str]]]:
    """Upgrade, enqueue, fetch one half, sweep the other, look, and export; return the reports.

    ``engine`` looks at the same database in the usual way. Without ``zones`` this machine knows UTC
    alone.
    """
    world = Abroad()
    sids = list(world.sids())
    half = len(sids) // 2
    unknown = frozenset() if zones else frozenset({"time zones"})
    with Sandbox(world, limit=0) as box:
        env = environment(box, url)
        ok("db", "upgrade", env=env)
        healthy(env, but=unknown)
        for strategy, part in (("fetch", sids[:half]), ("sweep", sids[half:])):
            ok("backfill", "-", env=env, stdin="\n".join(part))
            report = run_json("--strategy", strategy, env=env)
            assert (report["pending"], report["dead"]) == (0, 0), report
        ok("db", "check", env=env)
        healthy(env, but=unknown)
        assert json.loads(ok("status", "--json", env=env))["states"]["dead"] == 0
        ok("export", "-o", str(folder / "days"), env=env)
        ok("report", "html", "-o", str(folder / "page.html"), env=env)
        reports = {
            each.name: ok("report", each.name, "--format", "csv", env=env) for each in REPORTS
        }
    assert_loaded(engine, world, sids)
    return {
        name: list(csv.DictReader(io.StringIO(text)))
        for name, text in reports.items()
        if name not in _BY_THE_CLOCK
    }
