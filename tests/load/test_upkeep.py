"""Test what looks after the tables: runs, doctor, prune and redact, on every database."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, select, update

from etl.database.schema import attempt_channel_data, attempt_queue, attempts, sync_runs
from etl.database.times import clock, moment
from etl.errors import Exit
from etl.load import redact
from etl.queue.prune import prune
from etl.queue.runs import begin, end
from etl.sandbox import Fault, Sandbox, World
from tests.support.harness import environment, fill, run_json, verify_etl
from tests.support.queue_rows import queued

MINUTE, DAY = 60_000, 86_400_000


def test_runs(engine: Engine, database_url: str) -> None:
    """The history is the newest first, as JSON and as a table, with those that never ended."""
    with engine.begin() as connection:
        for number in range(3):
            key = begin(
                connection, command="run", account="AC", version="1", worker=f"me {number}",
                asked={"limit": number}, now=1_800_000_000_000,
            )  # fmt: skip
            if number:
                did = {"requests": 7, "fetched": number, "settled": 1, "dead": 0}
                end(
                    connection, key, did=did, exit_code=75, error="It was busy.",
                    now=1_800_000_001_500,
                )  # fmt: skip
    with Sandbox(World(size=0)) as box:
        env = environment(box, database_url)
    printed = json.loads(verify_etl("runs", "--limit", "2", "--json", env=env).stdout)
    assert [(run["asked"]["limit"], run["seconds"], run["exit_code"]) for run in printed] == [
        (2, 1.5, 75), (1, 1.5, 75),
    ]  # fmt: skip
    table = verify_etl("runs", env={**env, "COLUMNS": "100"}).stdout
    assert table.count("2027-01-15T08:00:00Z") == 3
    assert "not ended" in table
    assert "It was busy." in table
    with engine.begin() as connection:
        connection.execute(sync_runs.delete())
    nothing = verify_etl("runs", env=env)
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "No run yet.\n")


def settled(engine: Engine, ages: list[int], **more: Any) -> None:
    """Insert rows that settled so many days ago."""
    now = int(time.time() * 1000)
    row = {"state": "settled", "outcome": "final"} | more
    queued(engine, *({**row, "settled_at": moment(now - age * DAY)} for age in ages))


def sids(engine: Engine) -> list[int]:
    """Return the numbers of the rows that are left."""
    with engine.connect() as connection:
        found = connection.execute(select(attempt_queue.c.sid)).scalars()
        return sorted(int(sid.removeprefix("VL"), base=16) for sid in found)


def test_prune(engine: Engine, database_url: str) -> None:
    """Only settled rows of that age go, a dry run changes nothing, a second run finds nothing."""
    settled(engine, [100, 91, 89, 1, 100])
    with engine.begin() as connection:
        last = attempt_queue.c.sid == f"VL{4:032x}"
        connection.execute(update(attempt_queue).where(last).values(state="dead"))
    with Sandbox(World(size=0)) as box:
        env = environment(box, database_url)
    words = ["prune", "--settled-before", "90d", "--json"]
    dry = verify_etl(*words, "--dry-run", env=env)
    assert json.loads(dry.stdout) == {"pruned": 2, "dry_run": True}
    assert sids(engine) == [0, 1, 2, 3, 4]
    assert json.loads(verify_etl(*words, env=env).stdout) == {"pruned": 2, "dry_run": False}
    assert sids(engine) == [2, 3, 4]
    assert json.loads(verify_etl(*words, env=env).stdout)["pruned"] == 0
    soon = verify_etl("prune", "--settled-before", "2d", env=env)
    assert (soon.stdout, sids(engine)) == ("1 row taken out of the queue.\n", [3, 4])
    assert "Discover enqueues none whose attempt is final" in soon.stderr


def test_prune_goes_in_steps(engine: Engine) -> None:
    """Each step looks at so many rows, goes on after the last of them, and ends."""
    settled(engine, [100, 1, 100, 100, 1])
    steps = []
    last: int | None = 0
    with engine.begin() as connection:
        before = clock(connection) - 90 * DAY
        while last is not None:
            done = prune(connection, before=before, after=last, write=True, step=2)
            last = done.last
            steps.append(done.rows)
    assert steps == [1, 2, 0, 0]
    assert sids(engine) == [1, 4]


EXTRA = {
    "_raw": {"to": "four one five", "channel_data": "[1]", "price": "12345678.90"},
    "_attempt": {"contact": "someone@example.com", "note": "text", "list": [1, "+14155550100"]},
    "phone": "(415) 555-0100",
    "msisdn": 14155550100,
    "+14155550100": "is the key",
    "date_sent": "2026-11-01T10:00:00Z",
    "code": 30003,
    "lookup": {"type": "mobile", "mail": "write to a@b.example, please"},
}
CLEAN = {"date_sent": "2026-11-01T10:00:00Z", "code": 30003, "lookup": {"type": "mobile"}}


def stored(connection: Connection, number: int, age: int | None, extra: object) -> None:
    """Insert an attempt of so many days with a destination; None: its creation is not known."""
    now = int(time.time() * 1000)
    sid = f"VL{number:032x}"
    row = {
        "sid": sid, "first_fetched_at": now - 40 * DAY, "fetched_at": now, "is_final": True,
        "date_created": None if age is None else moment(now - age * DAY),
    }  # fmt: skip
    connection.execute(insert(attempts).values(row))
    data = {
        "attempt_sid": sid, "destination": "+14155550100", "destination_prefix": "+141555",
        "country": "US", "extra": extra,
    }  # fmt: skip
    connection.execute(insert(attempt_channel_data).values(data))


def test_redact(engine: Engine, database_url: str) -> None:
    """Old destinations go and what is not known to be harmless, and once is enough."""
    with engine.begin() as connection:
        for number, age in enumerate([31, None, 29, 31]):
            stored(connection, number, age, EXTRA if number < 3 else None)
    with Sandbox(World(size=0)) as box:
        env = environment(box, database_url)
    words = ["redact", "--older-than", "30d", "--json"]
    none = {"columns": 0, "changes": 0, "rows": 0}
    expected = {"attempts": 3, "destinations": 3, "extras": 2, **none}
    dry = json.loads(verify_etl(*words, "--dry-run", env=env).stdout)
    assert dry == {**expected, "dry_run": True}
    assert data_of(engine)[0] == ("+14155550100", "+141555", "US", EXTRA)
    assert json.loads(verify_etl(*words, env=env).stdout) == {**expected, "dry_run": False}
    assert data_of(engine) == [
        (None, "+141555", "US", CLEAN),
        (None, "+141555", "US", CLEAN),
        ("+14155550100", "+141555", "US", EXTRA),
        (None, "+141555", "US", None),
    ]
    again = json.loads(verify_etl(*words, env=env).stdout)
    assert again == {"attempts": 3, "destinations": 0, "extras": 0, **none, "dry_run": False}


def data_of(engine: Engine) -> list[tuple[Any, ...]]:
    """Return destination, prefix, country and extra of each attempt."""
    d = attempt_channel_data.c
    columns = (d.destination, d.destination_prefix, d.country, d.extra)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(*columns).order_by(d.attempt_sid))]


def test_redact_goes_in_steps(engine: Engine) -> None:
    """Each step takes so many attempts, goes on after the last of them, and ends."""
    steps: list[int] = []
    last: str | None = ""
    with engine.begin() as connection:
        for number in range(5):
            stored(connection, number, 31, None)
        before = clock(connection) - 30 * DAY
        while last is not None:
            done = redact.redact(connection, before=before, after=last, write=True, step=2)
            last = done.last
            steps.append(done.destinations)
    assert steps == [2, 2, 1, 0]


def doctor(env: dict[str, str], *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the doctor; return its exit code and its findings by name."""
    done = verify_etl("doctor", "--json", *words, env=env)
    assert done.stderr == ""
    return done.returncode, {found["check"]: found for found in json.loads(done.stdout)}


def test_a_healthy_doctor(engine: Engine, database_url: str) -> None:
    """When all is well every check says so, with one request that the allowance knows of."""
    with Sandbox(World(size=2), limit=0) as box:
        env = environment(box, database_url, allowance="5")
        code, found = doctor(env)
        assert box.stats()["requests"] == 1
        fill(engine, World(size=2).sids())
        assert run_json(env=env)["requests"] > 0
        assert doctor(env, "--offline")[1].keys() == found.keys() - {"API"}
    assert code == 0
    assert list(found) == [
        "configuration", "credentials", "database", "encoding", "schema", "writing", "tables",
        "statements", "views", "time zones", "clock", "API",
    ]  # fmt: skip
    assert all(finding["ok"] and not finding["exit_code"] for finding in found.values())


@pytest.mark.parametrize(
    ("wrong", "check", "code", "mend"),
    [
        ({"VERIFY_ETL_CONCURRENCY": "many"}, "configuration", Exit.CONFIG, "config example"),
        ({"TWILIO_AUTH_TOKEN": ""}, "credentials", Exit.CONFIG, "TWILIO_API_KEY"),
        ({"TWILIO_AUTH_TOKEN": "wrong"}, "API", Exit.CREDENTIALS, "TWILIO_AUTH_TOKEN"),
        ({"VERIFY_ETL_API_URL": "http://127.0.0.1:9"}, "API", Exit.UNREACHABLE, "network"),
        ({"DATABASE_URL": "oracle://x"}, "database", Exit.CONFIG, "Use SQLite"),
        ({"DATABASE_URL": "sqlite:////nowhere/q.db"}, "database", Exit.IO, "make the folder"),
        ({"DATABASE_URL": "sqlite://"}, "configuration", Exit.CONFIG, "config example"),
        (
            {"DATABASE_URL": "postgresql://u@127.0.0.1:9/d"},
            "database",
            Exit.TRY_LATER,
            "run it again",
        ),
        ({"fault": "error:503"}, "API", Exit.UNREACHABLE, "network"),
        ({"fault": "html:200"}, "API", Exit.PROTOCOL, "VERIFY_ETL_PROXY"),
        ({"fault": "throttle"}, "API", Exit.TRY_LATER, "verify-etl doctor"),
    ],
)
def test_what_the_doctor_finds(
    wrong: dict[str, str], check: str, code: Exit, mend: str, tmp_path: Path
) -> None:
    """A single thing that is wrong is named, with what mends it and the code of its kind."""
    with Sandbox(World(size=2), limit=0) as box:
        env = environment(box, f"sqlite:///{tmp_path}/q.db")
        assert verify_etl("db", "upgrade", env=env).returncode == 0
        if "fault" in wrong:
            box.faults.add(Fault.parse(wrong["fault"]))
        ended, found = doctor(env | {k: v for k, v in wrong.items() if k != "fault"})
    assert [name for name, finding in found.items() if not finding["ok"]] == [check]
    assert (ended, found[check]["exit_code"]) == (code, code)
    assert mend in found[check]["mend"]


def test_of_several_problems_the_first_code_wins(tmp_path: Path) -> None:
    """Refused credentials and an absent database end with the code of the database."""
    with Sandbox(World(size=2), limit=0) as box:
        env = {**environment(box, f"sqlite:///{tmp_path}/q.db"), "TWILIO_AUTH_TOKEN": "wrong"}
        code, found = doctor(env)
    bad = {name: finding["exit_code"] for name, finding in found.items() if not finding["ok"]}
    assert bad == {"database": Exit.CONFIG, "API": Exit.CREDENTIALS}
    assert list(tmp_path.iterdir()) == []
    assert code == Exit.CONFIG
