"""Ask `verify-etl check` about queues with one thing wrong, on every database."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, insert, update

from etl.database.schema import attempt_queue as q
from etl.database.schema import sync_runs
from etl.database.times import moment
from etl.errors import Exit
from etl.sandbox import Sandbox, World
from tests.support.harness import environment, fill, verify_etl

WORLD = World(size=5)
NOW = int(time.time() * 1000)
HOUR = 3_600_000


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """Serve a small world."""
    with Sandbox(WORLD, limit=0) as box:
        yield box


@pytest.fixture
def env(box: Sandbox, database_url: str) -> dict[str, str]:
    """Name the database and the sandbox."""
    return environment(box, database_url)


def asked(env: dict[str, str], *words: str) -> tuple[int, list[str], dict[str, Any]]:
    """Check; return the exit code, the kinds of the problems, and the whole object."""
    done = verify_etl("check", "--json", *words, env=env)
    assert done.stderr == ""
    printed = json.loads(done.stdout)
    assert printed["exit_code"] == done.returncode
    return done.returncode, [problem["check"] for problem in printed["problems"]], printed


def test_all_is_well_after_a_run(engine: Engine, env: dict[str, str]) -> None:
    """A queue that was drained is well, in one line or none."""
    fill(engine, WORLD.sids())
    assert verify_etl("run", env=env).returncode == 0
    code, problems, printed = asked(env)
    assert (code, problems, printed["dead"], printed["waiting_since"]) == (0, [], {}, None)
    done = verify_etl("check", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("All is well: nothing waits, the last good run ended ")
    assert done.stdout.count("\n") == 1
    assert verify_etl("-q", "check", env=env).stdout == ""


def test_dead_rows_are_told_from_a_time_on(engine: Engine, env: dict[str, str]) -> None:
    """Nonsense is dead after a run; --since leaves out who died before it."""
    fill(engine, ["nonsense", "VLnope", WORLD.sid(0)])
    assert verify_etl("run", env=env).returncode == 0
    code, problems, printed = asked(env)
    assert (code, problems, printed["dead"]) == (Exit.DATA, ["dead"], {"malformed_sid": 2})
    said = "2 SIDs are dead (2 malformed_sid). To try them again: verify-etl retry --all\n"
    assert verify_etl("-q", "check", env=env).stdout == said
    assert asked(env, "--since", "1d")[1] == ["dead"]
    with engine.begin() as connection:
        connection.execute(
            update(q).where(q.c.sid == "VLnope").values(settled_at=moment(NOW - 30 * HOUR))
        )
    assert asked(env, "--since", "1d")[2]["dead"] == {"malformed_sid": 1}
    with engine.begin() as connection:
        connection.execute(update(q).values(settled_at=moment(NOW - 30 * HOUR)))
    assert asked(env, "--since", "1d")[:2] == (0, [])


@pytest.mark.parametrize("state", ["pending", "retry", "refresh"])
def test_who_waits_too_long(engine: Engine, env: dict[str, str], state: str) -> None:
    """A SID that no run took up is told after --max-age: since it was enqueued, or came due."""
    assert verify_etl("run", env=env).returncode == 0
    long_ago, due = moment(NOW - 30 * HOUR), 0 if state == "pending" else NOW - 3 * HOUR
    with engine.begin() as connection:
        row = {"sid": WORLD.sid(0), "state": state, "enqueued_at": long_ago, "due_at": due}
        connection.execute(insert(q).values(row))
    code, problems, _ = asked(env)
    assert (code, problems) == ((Exit.DATA, ["waiting"]) if state == "pending" else (0, []))
    assert asked(env, "--max-age", "2h")[1] == ["waiting"]
    assert asked(env, "--max-age", "31h")[:2] == (0, [])


def test_who_is_looked_at_again_does_not_wait(engine: Engine, env: dict[str, str]) -> None:
    """A row that was fetched, and is to be fetched once more, was enqueued long ago for a reason."""
    assert verify_etl("run", env=env).returncode == 0
    row = {"sid": WORLD.sid(0), "fetches": 1, "enqueued_at": moment(NOW - 30 * HOUR)}
    with engine.begin() as connection:
        connection.execute(insert(q).values(row))
    assert asked(env)[:2] == (0, [])


def test_who_will_be_forgotten(engine: Engine, env: dict[str, str]) -> None:
    """More SIDs than the allowance can fetch before the API forgets them are told."""
    assert verify_etl("run", env=env).returncode == 0
    with engine.begin() as connection:
        # Of ages so far apart that no page shows two.
        rows = [{"sid": WORLD.sid(n), "expires_at": NOW + (n + 1) * HOUR} for n in range(5)]
        connection.execute(insert(q), rows)
    assert asked(env)[:2] == (0, [])
    slow = {**env, "VERIFY_ETL_ALLOWANCE": "1", "VERIFY_ETL_ALLOWANCE_WINDOW": "5h"}
    code, problems, printed = asked(slow)
    assert (code, problems) == (Exit.DATA, ["lost"])
    assert printed["lost_before_turn"] == 4


def test_no_run_ends_well(engine: Engine, env: dict[str, str]) -> None:
    """A wrong token is told with the last run's own words, and so is a cron that has stopped."""
    assert asked(env)[1] == ["last_run"]
    assert verify_etl("run", env=env).returncode == 0
    assert asked(env)[:2] == (0, [])
    with engine.begin() as connection:
        connection.execute(update(sync_runs).values(ended_at=moment(NOW - 3 * HOUR)))
    assert asked(env)[:2] == (0, [])
    assert asked(env, "--last-run", "2h")[1] == ["last_run"]
    fill(engine, WORLD.sids())
    refused = verify_etl("-q", "run", env={**env, "TWILIO_AUTH_TOKEN": "wrong"})
    assert refused.returncode == Exit.CREDENTIALS
    assert "TWILIO_AUTH_TOKEN" in refused.stderr
    done = verify_etl("check", "--last-run", "2h", env=env)
    assert done.returncode == Exit.DATA
    assert done.stdout.startswith("The last good run ended about 3 h ago. The last one ended: ")
    assert "TWILIO_AUTH_TOKEN" in done.stdout
    assert done.stdout.count("\n") == 1
