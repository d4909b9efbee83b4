"""Test what goes with `run` on the command line: options that exclude each other, plans, backfill."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from etl.database.engine import open_engine
from etl.errors import Exit
from etl.sandbox import Sandbox, World
from tests.support.harness import environment, fill, verify_etl

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
        "requests": 3, "minutes": 0.0, "least": 3, "least_minutes": 0.0, "most": 3,
        "most_minutes": 0.0, "fetches": 3, "sweeps": [], "asks": [],
        "fetch_only": 3, "sweep_only": json.loads(done.stdout)["sweep_only"], "guessed": True,
    }  # fmt: skip
    assert "Fetch singly: 3 SIDs." in verify_etl(*asked, env=env).stdout
    verify_etl("backfill", "--verifications", "-", env=env, stdin="VE" + "0" * 32)
    assert json.loads(verify_etl(*asked, "--json", env=env).stdout)["requests"] == 4


def test_a_plan_names_the_range_and_what_is_used_up(env: dict[str, str]) -> None:
    """Before the Summary is asked, the plan goes from one page to a request each."""
    verify_etl("backfill", "-", env=env, stdin="\n".join(WORLD.sids()))
    limited = {**env, "VERIFY_ETL_ALLOWANCE": "4", "VERIFY_ETL_ALLOWANCE_WINDOW": "24h"}
    said = verify_etl("plan", env={**limited, "COLUMNS": "200"}).stdout
    assert "In all 2 to 31 requests, at once to about 10,080 min; the run asks one Summary" in said
    status = verify_etl("status", env={**limited, "COLUMNS": "200"}).stdout
    assert "2 to 31 requests, less than 1 s to about 7 d at 4 every 86400 s" in status
    made = json.loads(verify_etl("plan", "--json", env=limited).stdout)
    assert (made["least"], made["requests"], made["most"]) == (2, 31, 31)
    (ask,) = made["asks"]
    assert datetime.fromisoformat(ask["from"]) < datetime.fromisoformat(ask["to"])
    assert ask["to"].endswith("Z")
    assert verify_etl("run", "--limit", "4", env=limited).returncode == 0
    after = json.loads(verify_etl("plan", "--json", env=limited).stdout)
    assert (made["least_minutes"], after["least_minutes"] > 60) == (0.0, True)


def test_the_end_of_a_run_is_a_message_where_messages_are_json(env: dict[str, str]) -> None:
    """With `--log-format json` no command writes a plain line; the counts are fields."""
    sids = "\n".join(WORLD.sids())
    asked = (
        ["backfill", "-"], ["run", "--limit", "2"], ["discover"], ["retry", "--all"],
        ["prune", "--settled-before", "1d"], ["redact", "--older-than", "30d"],
    )  # fmt: skip
    counted = {}
    for words in asked:
        done = verify_etl("--log-format", "json", *words, env=env, stdin=sids)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        *_, last = map(json.loads, done.stderr.splitlines())
        counted[words[0]] = last["extra"]
    assert (counted["backfill"]["new"], counted["run"]["fetched"]) == (30, 2)
    assert (counted["discover"]["exit_code"], counted["retry"]) == (0, {"revived": 0})
    assert (counted["prune"]["pruned"], counted["redact"]["attempts"]) == (0, 0)


def test_windows_of_the_history_are_times(env: dict[str, str]) -> None:
    """The bounds that a run was asked for are written as times, as everywhere."""
    since = datetime.fromtimestamp(time.time() - 2 * 86_400, UTC)
    verify_etl("discover", "--since", f"{since:%Y-%m-%dT%H:%MZ}", env=env)
    (run,) = json.loads(verify_etl("runs", "--json", env=env).stdout)
    start = f"{since:%Y-%m-%dT%H:%M}:00Z"
    assert (run["asked"]["start"], run["asked"]["end"]) == (start, None)


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


@pytest.mark.parametrize(("words", "code"), [([], 0), (["--strict"], Exit.DATA)])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_dead_rows_reach_cron(
    env: dict[str, str], words: list[str], form: list[str], code: int
) -> None:
    """A run that found dead SIDs says so on stderr even with -q, whatever its exit code."""
    engine = open_engine(env["DATABASE_URL"])
    fill(engine, [WORLD.sid(0), "nonsense", "VLnope"])
    engine.dispose()
    done = verify_etl("-q", "run", *words, *form, env=env)
    assert done.returncode == code
    assert done.stderr == (
        "2 SIDs of this run are dead. By reason: verify-etl status. "
        "To try again: verify-etl retry\n"
    )
    again = verify_etl("-q", "run", *words, env=env)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_a_wrong_token_reaches_cron(env: dict[str, str]) -> None:
    """Refused credentials are said with -q, each time."""
    verify_etl("backfill", "-", env=env, stdin=WORLD.sid(0))
    for _ in range(2):
        done = verify_etl("-q", "run", env={**env, "TWILIO_AUTH_TOKEN": "wrong"})
        assert (done.returncode, done.stdout) == (Exit.CREDENTIALS, "")
        assert "TWILIO_AUTH_TOKEN" in done.stderr
