"""Test what goes with `run` on the command line: options that exclude each other, plans, backfill."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from etl.errors import Exit
from etl.sandbox import Sandbox, World
from tests.harness import environment, verify_etl

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


def test_a_dry_run_with_a_limit_plans_so_many(env: dict[str, str]) -> None:
    """`run --limit 3 --dry-run` costs three requests, and those of Verifications."""
    verify_etl("backfill", "-", env=env, stdin="\n".join(WORLD.sids()))
    asked = ["run", "--strategy", "auto", "--limit", "3", "--dry-run"]
    done = verify_etl(*asked, "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "requests": 3, "minutes": 0.0, "fetches": 3, "sweeps": [], "asks": [],
        "fetch_only": 3, "sweep_only": json.loads(done.stdout)["sweep_only"],
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
