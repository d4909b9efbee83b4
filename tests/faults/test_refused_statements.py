"""Refuse each statement that each command writes: 78 and a name, never a bug or a value."""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, insert, select, update

from etl.cli import cli
from etl.cli.exits import ended
from etl.database.schema import (
    attempt_channel_data,
    attempts,
    sync_runs,
    verification_fees,
    verification_queue,
)
from etl.database.schema import attempt_queue as q
from etl.database.times import moment
from etl.errors import Exit
from etl.rollups.tables import rollups
from etl.sandbox import Sandbox, World
from tests.support.harness import environment, fill
from tests.support.in_process import run_here
from tests.support.user_rules import MARKER, Rule

Call = Callable[..., int]

FETCH = ("run", "--strategy", "fetch")
SWEEP = ("run", "--strategy", "sweep")
DISCOVER = ("discover", "--since", "30d")
NAMED = ("backfill", "--verifications", "named.txt")
SUMS = ("db", "rollups", "--all")
NAMED_SID = "VE" + "2" * 32
ROLLUP = next(iter(rollups.values())).name

CASES = [
    ("attempt_queue", "INSERT", ("backfill", "sids.txt")),
    ("attempt_queue", "INSERT", DISCOVER),
    ("attempt_queue", "UPDATE", FETCH),
    ("attempt_queue", "UPDATE", SWEEP),
    ("attempt_queue", "UPDATE", ("retry", "--all")),
    ("attempt_queue", "DELETE", ("prune", "--settled-before", "1d")),
    *(("attempts", verb, how) for verb in ("INSERT", "UPDATE") for how in (FETCH, SWEEP, DISCOVER)),
    ("attempt_channel_data", "INSERT", FETCH),
    ("attempt_channel_data", "UPDATE", DISCOVER),
    ("attempt_channel_data", "UPDATE", ("redact", "--older-than", "1d")),
    ("attempt_changes", "INSERT", FETCH),
    ("attempt_changes", "INSERT", SWEEP),
    ("api_slots", "INSERT", FETCH),
    ("api_slots", "UPDATE", FETCH),
    ("api_slots", "UPDATE", DISCOVER),
    ("api_slots", "UPDATE", ("reconcile", "--since", "2d")),
    ("sweeps", "INSERT", SWEEP),
    ("sweeps", "UPDATE", DISCOVER),
    ("sync_runs", "INSERT", FETCH),
    ("sync_runs", "UPDATE", FETCH),
    ("sync_runs", "UPDATE", DISCOVER),
    ("sync_runs", "INSERT", ("doctor", "--offline")),
    ("rollup_marks", "INSERT", FETCH),
    ("rollup_marks", "INSERT", SUMS),
    ("rollup_marks", "DELETE", SUMS),
    (ROLLUP, "INSERT", SUMS),
    (ROLLUP, "DELETE", SUMS),
    ("verification_queue", "INSERT", NAMED),
    ("verification_queue", "UPDATE", FETCH),
    ("verification_queue", "UPDATE", ("retry", "--all")),
    ("verification_fees", "INSERT", ("report", "fees", "fees.csv")),
    ("verification_fees", "DELETE", ("report", "fees", "fees.csv")),
]


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """Serve a world that stands still."""
    with Sandbox(World(size=40, static_at=time.time()), limit=0) as box:
        yield box


@pytest.fixture
def seeded(engine: Engine, box: Sandbox) -> Engine:
    """Give tables in which every command finds something to do."""
    fill(engine, box.world.sids())
    run_here(engine, box)
    with engine.begin() as connection:
        young = max(box.world.sids(), key=lambda sid: str(box.world.attempt(sid)["date_created"]))
        connection.execute(delete(q).where(q.c.sid == young))
        old, dead, *others = connection.execute(select(q.c.id).order_by(q.c.id)).scalars()
        for ids, values in (
            ([old], {"state": "settled", "settled_at": moment(1_600_000_000_000)}),
            ([dead], {"state": "dead", "outcome": "not_found"}),
            (others, {"state": "pending", "due_at": 0}),
        ):
            connection.execute(update(q).where(q.c.id.in_(ids)).values(values))
        earlier = {"conversion_status": "?", "fetched_at": 1, "is_final": False}
        connection.execute(update(attempts).values(earlier))
        connection.execute(update(attempt_channel_data).values(destination=MARKER))
        for sid, state in ((NAMED_SID, "pending"), ("VE" + "0" * 32, "missing")):
            connection.execute(insert(verification_queue).values(sid=sid, state=state))
        fee = {"currency": "USD", "valid_from": date(2020, 1, 1), "amount": Decimal(1)}
        connection.execute(insert(verification_fees).values(fee))
    return engine


@pytest.fixture
def call(
    seeded: Engine, database_url: str, box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Call]:
    """Call the program in this process, in a folder with files to load."""
    del seeded
    for name, value in environment(box, database_url, allowance="1000").items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    Path("sids.txt").write_text("VL" + "1" * 32 + "\n", encoding="utf-8")
    Path("named.txt").write_text("VE" + "1" * 32 + "\n", encoding="utf-8")
    Path("fees.csv").write_text("currency,amount\nUSD,0.05\n", encoding="utf-8")
    root, ours = logging.getLogger(), logging.getLogger("etl")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield lambda *words: ended(lambda: cli.main([*words], standalone_mode=False))
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.mark.parametrize(("table", "verb", "words"), CASES, ids=str)
def test_a_statement_that_is_refused_ends_its_command_with_78(
    seeded: Engine,
    call: Call,
    capsys: pytest.CaptureFixture[str],
    table: str,
    verb: str,
    words: tuple[str, ...],
) -> None:
    """Each is said with the table's name, without a traceback and without a word of the row's."""
    if words == SUMS:
        assert call(*SUMS) == 0
    Rule(seeded, table, verb)
    capsys.readouterr()
    code = call(*words)
    printed = "".join(capsys.readouterr())
    assert code == Exit.CONFIG, printed
    named = "function mine" if seeded.dialect.name == "postgresql" else f"table {table}"
    assert named in printed
    assert [word for word in ("Traceback", "A bug", MARKER) if word in printed] == []
    with seeded.connect() as connection:
        kept = [*connection.execute(select(sync_runs.c.error, sync_runs.c.exit_code))]
        kept += connection.execute(select(q.c.last_error))
        pending = connection.execute(select(q.c.attempts).where(q.c.state == "pending")).scalars()
        assert set(pending) <= {0}
    assert MARKER not in str(kept)


def test_the_traceback_says_no_value_either(
    seeded: Engine, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    """With -v and as JSON, what the database said of the row is not in the traceback."""
    Rule(seeded, "attempt_channel_data", "UPDATE")
    assert call("-v", "--log-format", "json", "redact", "--older-than", "1d") == Exit.CONFIG
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert MARKER not in said
