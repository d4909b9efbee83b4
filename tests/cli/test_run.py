"""Test what goes with `run` on the command line: options that exclude each other, plans, backfill."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from etl.errors import Exit
from etl.sandbox import Sandbox, World
from tests.support.harness import environment, verify_etl

WORLD = World(size=30)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """Serve a small world."""
    with Sandbox(WORLD, limit=0) as box:
        yield box


@pytest.fixture
def env(box: Sandbox, tmp_path: Path) -> dict[str, str]:
    """Name a new database and the sandbox."""
    found = environment(box, f"sqlite:///{tmp_path}/q.db")
    assert verify_etl("db", "upgrade", env=found).returncode == 0
    return found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--dry-run", "--migrate"], "--migrate changes the schema"),
        (["run", "--limit", "3", "--strategy", "sweep"], "--limit counts SIDs"),
        (["discover", "--since", "1d", "--until", "2d"], "--since must be before --until"),
        (["discover", "--since", "2026-01-01", "--until", "2026-01-01"], "--since must be before"),
        (["discover", "--since", "2026-13-01"], "--since '2026-13-01' is neither a day"),
        (["discover", "--since", "2999-01-01"], "--since lies in the future"),
        (["reconcile", "--since", "7"], "Write 2026-03-01, 2026-03-01T10:00Z or 7d."),
    ],
)
def test_what_does_not_go_together_is_refused(words: list[str], said: str, tmp_path: Path) -> None:
    """Options of which one would be ignored are a usage error, and nothing is touched."""
    with Sandbox(WORLD, limit=0) as box:
        done = verify_etl(*words, env=environment(box, f"sqlite:///{tmp_path}/none.db"))
        assert box.stats()["requests"] == 0
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert said in done.stderr
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("days", [14, 3])
def test_windows_are_written_as_for_the_reports(tmp_path: Path, days: int) -> None:
    """`discover` and `reconcile` take weeks, and times that say they are of UTC."""
    now = time.time()
    since = datetime.fromtimestamp(now - days * 86_400, UTC)
    text = "2w" if days == 14 else f"{since:%Y-%m-%dT%H:%MZ}"
    # An odd number, so that none was created within the minute that is asked for.
    world = World(size=37, start=now - 20 * 86_400, span=20 * 86_400, static_at=now)
    with Sandbox(world, limit=0) as box:
        env = environment(box, f"sqlite:///{tmp_path}/q.db")
        assert verify_etl("db", "upgrade", env=env).returncode == 0
        loaded = verify_etl("discover", "--since", text, "--json", env=env)
        compared = verify_etl("reconcile", "--since", text, "--json", env=env)
    low, high = world.range(since.timestamp(), now)
    assert json.loads(loaded.stdout)["fetched"] == high - low, loaded.stderr
    lines = json.loads(compared.stdout)["lines"]
    assert lines[0]["day"] == since.date().isoformat(), compared.stderr


def test_a_window_that_ended_before_all_time_is_empty(env: dict[str, str]) -> None:
    """What lies before 1970 is no end that was left out."""
    done = verify_etl("discover", "--until", "1969-07-20", "--json", env=env)
    assert (done.returncode, json.loads(done.stdout)["fetched"]) == (0, 0), done.stderr
    assert "forgets attempts after 30 days: nothing from before --until is left" in done.stderr


def test_a_window_that_the_api_has_half_forgotten_says_so(env: dict[str, str]) -> None:
    """What is older than the API remembers is not loaded without a word; the usual month is whole."""
    cut = verify_etl("discover", "--since", "31d", env=env)
    usual = verify_etl("discover", "--since", "30d", env=env)
    assert (cut.returncode, usual.returncode) == (0, 0)
    assert "forgets attempts after 30 days: what is older is not listed" in cut.stderr
    assert "forgets" not in usual.stderr


def test_a_dry_run_with_a_limit_plans_so_many(env: dict[str, str]) -> None:
    """`run --limit 3 --dry-run` costs three requests, and those of Verifications."""
    verify_etl("backfill", "-", env=env, stdin="\n".join(WORLD.sids()))
    asked = ["run", "--strategy", "auto", "--limit", "3", "--dry-run"]
    done = verify_etl(*asked, "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "requests": 3, "minutes": 0.0, "fetches": 3, "sweeps": [], "asks": [],
        "fetch_only": 3, "sweep_only": json.loads(done.stdout)["sweep_only"], "guessed": True,
    }  # fmt: skip
    assert "Fetch singly: 3 SIDs." in verify_etl(*asked, env=env).stdout
    verify_etl("backfill", "--verifications", "-", env=env, stdin="VE" + "0" * 32)
    assert json.loads(verify_etl(*asked, "--json", env=env).stdout)["requests"] == 4


def backfill(env: dict[str, str], *words: str) -> tuple[int, dict[str, Any], str]:
    """Enqueue the world and run; return the exit code, the one line printed, and what was said."""
    sids = "\n".join(WORLD.sids())
    done = verify_etl("backfill", "-", "--run", "--json", *words, env=env, stdin=sids)
    (line,) = done.stdout.splitlines()
    return done.returncode, json.loads(line), done.stderr


def test_backfill_and_run_print_one_object(env: dict[str, str], box: Sandbox) -> None:
    """What was enqueued and the run are one line of JSON, however the run ends."""
    code, printed, _ = backfill(env)
    assert (code, printed["new"], printed["run"]["fetched"]) == (0, 30, 30)
    assert printed["run"]["exit_code"] == 0
    verify_etl("prune", "--settled-before", "0d", env=env)
    box.faults.add("unauthorized")
    verify_etl("backfill", "-", env=env, stdin="VL" + "0" * 32)
    code, printed, said = backfill(env)
    assert (code, printed["lines"]) == (Exit.CREDENTIALS, 30)
    assert printed["run"]["exit_code"] == Exit.CREDENTIALS
    assert "refused" in said
    bare = {k: word for k, word in env.items() if k != "TWILIO_AUTH_TOKEN"}
    code, printed, _ = backfill(bare)
    assert (code, printed["lines"], printed["run"]) == (Exit.CONFIG, 30, None)


def test_backfill_and_run_say_two_lines(env: dict[str, str]) -> None:
    """For people the counts come first, then the run."""
    sids = "\n".join(WORLD.sids())
    done = verify_etl("backfill", "-", "--run", env=env, stdin=sids)
    first, second = done.stdout.splitlines()
    assert first.startswith("30 lines: 30 SIDs enqueued")
    assert second.startswith("Run 1: 30 stored")
