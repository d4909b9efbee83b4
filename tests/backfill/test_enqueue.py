import gzip
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from etl.backfill.enqueue import Loaded, check, enqueue, load, load_file
from etl.backfill.files import replayable
from etl.database.engine import open_engine
from etl.database.schema import attempt_queue as q
from etl.database.times import clock
from etl.database.transact import transact
from etl.errors import InputError, SchemaError
from tests.support.harness import command

DAY = 86_400_000
ROOT = Path(__file__).parents[2]


def sid(number: int) -> str:
    """Make the attempt SID of that number; neighbours are far apart, as in life."""
    return f"VL{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128):032x}"


def put(engine: Engine, rows: Sequence[tuple[str, int]], source: str = "test") -> int:
    """Enqueue rows in one transaction."""
    return transact(engine, lambda c: enqueue(c, rows, account="", source=source), doing="a test")


def queued(engine: Engine) -> list[tuple[str, int]]:
    """Read SIDs and what is known of their age, in the order of ids."""
    with engine.connect() as connection:
        rows = connection.execute(select(q.c.sid, q.c.expires_at).order_by(q.c.id))
        return [(row.sid, row.expires_at) for row in rows]


def load_text(engine: Engine, folder: Path, text: str, *, skip_bad: bool = False) -> Loaded:
    """Load a file of that text, with 30 days of retention."""
    path = folder / "sids"
    path.write_text(text)
    return load_file(
        engine, str(path), account="", source="sids", retention_ms=30 * DAY, skip_bad=skip_bad
    )


def test_enqueue_keeps_order_and_what_is_there(engine: Engine) -> None:
    """Rows get ids in their order; what is there, or comes twice, stays as it was."""
    first = [(sid(number), number) for number in range(25_000)]
    assert put(engine, first) == 25_000
    with engine.begin() as connection:
        connection.execute(update(q).where(q.c.sid == sid(7)).values(state="dead", claim_no=3))
    second = [(sid(30_000), 1), (sid(7), 99), (sid(29_999), 2), (sid(30_000), 3)]
    assert put(engine, second) == 2
    assert put(engine, second) == 0
    assert put(engine, []) == 0
    assert queued(engine) == [*first, (sid(30_000), 1), (sid(29_999), 2)]
    with engine.connect() as connection:
        row = connection.execute(select(q).where(q.c.sid == sid(7))).one()
    assert (row.state, row.claim_no, row.source, row.account) == ("dead", 3, "test", "")


def test_enqueue_fills_the_columns(engine: Engine) -> None:
    """Account and source are stored, a source too long is cut, the rest are the defaults."""
    rows = [(sid(1), 5), ("nonsense '\"\\\t%s é", 0)]
    transact(engine, lambda c: enqueue(c, rows, account="AC1", source="é" * 300), doing="a test")
    with engine.connect() as connection:
        found = connection.execute(select(q).order_by(q.c.id)).all()
    assert [row.sid for row in found] == [row[0] for row in rows]
    assert {(row.account, row.source, row.state) for row in found} == {
        ("AC1", "é" * 255, "pending")
    }


def test_upper_and_lower_case_are_two(engine: Engine) -> None:
    """SIDs are compared exactly."""
    assert put(engine, [("VL" + "a" * 32, 0), ("VL" + "A" * 32, 0)]) == 2


def test_a_transaction_may_enqueue_twice(engine: Engine) -> None:
    """Two batches in one transaction do not see each other's rows as their own."""

    def work(connection: object) -> tuple[int, int]:
        return tuple(  # type: ignore[return-value]
            enqueue(connection, [(sid(number), 0)], account="", source="x")  # type: ignore[arg-type]
            for number in (1, 2)
        )

    assert transact(engine, work, doing="a test") == (1, 1)
    assert [name for name, _ in queued(engine)] == [sid(1), sid(2)]


def test_two_at_once(engine: Engine) -> None:
    """Two that enqueue the same SIDs in opposite order lose none and double none."""
    rows = [(sid(number), 0) for number in range(3_000)]
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda part=part: counts.append(put(engine, part)))
        for part in (rows, rows[::-1])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == 2
    assert sorted(queued(engine)) == sorted(rows)


def test_second_run_changes_nothing(engine: Engine, tmp_path: Path) -> None:
    """The same file again finds everything queued, and changes no row."""
    created = datetime.now(UTC).replace(microsecond=0)
    text = f"sid,date_created\n{sid(1)},{created.isoformat()}\n{sid(2)},\n{sid(1)},\n{sid(3)},?\n"
    first = load_text(engine, tmp_path, text)
    assert first == Loaded(5, 4, 0, 1, (), 3, 1, 0)
    before = queued(engine)
    assert before == [
        (sid(1), int(created.timestamp() * 1000) + 30 * DAY),
        (sid(2), 0),
        (sid(3), 0),
    ]
    assert load_text(engine, tmp_path, text) == replace(first, enqueued=0, already=4)
    assert queued(engine) == before


def test_a_date_to_come_is_no_age(engine: Engine, tmp_path: Path) -> None:
    """An attempt cannot have been created tomorrow; one a month old may be enqueued."""
    with engine.connect() as connection:
        now = clock(connection)
    ages = [-2 * DAY, -DAY // 2, 45 * DAY]
    dates = [datetime.fromtimestamp((now - age) // 1000, UTC).isoformat() for age in ages]
    rows = "".join(f"{sid(number)},{date}\n" for number, date in enumerate(dates))
    load_text(engine, tmp_path, "sid,date_created\n" + rows)
    expected = [0, *((now - age) // 1000 * 1000 + 30 * DAY for age in ages[1:])]
    assert [at for _, at in queued(engine)] == expected


def test_batches_follow_the_file(engine: Engine, tmp_path: Path) -> None:
    """Ids follow the file over the borders of batches and statements."""
    path = tmp_path / "sids"
    numbers = [*range(25_500), *range(100)]
    path.write_text("\n".join(sid(number) for number in numbers))
    with replayable(str(path)) as file:
        loaded = load(
            engine, file, check(file), account="", source="x", retention_ms=DAY, batch=12_000
        )
    assert (loaded.enqueued, loaded.already) == (25_500, 100)
    assert [name for name, _ in queued(engine)] == [sid(number) for number in range(25_500)]


def test_bad_lines_keep_everything_out(engine: Engine, tmp_path: Path) -> None:
    """One bad line, and nothing is enqueued unless the user said so."""
    text = "\n".join([sid(1), "x", sid(2), *["y"] * 30])
    with pytest.raises(
        InputError, match="31 of 33 lines hold no attempt SID; nothing was enqueued"
    ):
        load_text(engine, tmp_path, text)
    assert queued(engine) == []
    loaded = load_text(engine, tmp_path, text, skip_bad=True)
    assert (loaded.bad, loaded.enqueued) == (31, 2)
    assert [line.line for line in loaded.first_bad] == [2, *range(4, 23)]
    assert [name for name, _ in queued(engine)] == [sid(1), sid(2)]


def test_a_file_that_changes(engine: Engine, tmp_path: Path) -> None:
    """A file that is not the one that was checked is reported."""
    path = tmp_path / "sids"
    path.write_text(f"{sid(1)}\n")
    with replayable(str(path)) as file:
        checked = check(file)
        path.write_text(f"{sid(1)}\n{sid(2)}\n")
        with pytest.raises(InputError, match="sids changed while it was read"):
            load(engine, file, checked, account="", source="x", retention_ms=DAY)


def test_progress_reaches_the_end(engine: Engine, tmp_path: Path) -> None:
    """Progress is told in bytes of the file, up to all of them, once for each pass."""
    path = tmp_path / "sids.gz"
    path.write_bytes(gzip.compress("".join(f"{sid(n)}\n" for n in range(100_000)).encode()))
    calls: list[tuple[int, int]] = []
    load_file(
        engine,
        str(path),
        account="",
        source="x",
        retention_ms=DAY,
        progress=lambda done, total: calls.append((done, total)),
    )
    size = path.stat().st_size
    assert calls.count((size, size)) >= 2
    assert {total for _, total in calls} == {size}
    assert [name for name, _ in queued(engine)] == [sid(number) for number in range(100_000)]


def test_no_tables(empty_database_url: str, tmp_path: Path) -> None:
    """Without the schema nothing is enqueued, and the message says what to run."""
    engine = open_engine(empty_database_url)
    with pytest.raises(SchemaError, match="verify-etl db upgrade"):
        load_text(engine, tmp_path, sid(1))
    engine.dispose()


_MEASURE = """
import resource, sys
from etl.cli import main
try:
    main(["backfill", *sys.argv[1:]])
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


@pytest.mark.long
@pytest.mark.parametrize("kind", ["text", "csv"])
def test_a_million_in_constant_memory(database_url: str, tmp_path: Path, kind: str) -> None:
    """A file of many SIDs is enqueued whole within 150 MB."""
    path = tmp_path / "sids"
    # A full million on SQLite; the other databases do their work in another process.
    count = 1_000_000 if kind == "text" and database_url.startswith("sqlite") else 150_000
    tail = ",2026-11-20T10:00:00Z" if kind == "csv" else ""
    head = "sid,date_created\n" if kind == "csv" else ""
    path.write_text(head + "".join(f"{sid(number)}{tail}\n" for number in range(count)))
    # The shell between: a process that is started directly reports its parent's peak as its own.
    done = subprocess.run(
        ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", _MEASURE, "--json", str(path)],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["new"] == count
    assert int(done.stderr) < 150_000


def backfill(
    engine: Engine, *arguments: object, stdin: bytes = b""
) -> "subprocess.CompletedProcess[str]":
    """Run the command."""
    url = engine.url.render_as_string(hide_password=False)
    env = {**os.environ, "DATABASE_URL": url, "PYTHONPATH": str(ROOT)}
    return command("backfill", *map(str, arguments), env=env, stdin=stdin.decode())


def test_command_enqueues(sqlite: Engine, tmp_path: Path) -> None:
    """Files and standard input are enqueued in order, under their names, with one line said."""
    path = tmp_path / "sids.txt"
    path.write_text(f"{sid(1)}\n{sid(2)}\n")
    done = backfill(sqlite, path, "-", stdin=f"sid\n{sid(2)}\n{sid(3)}\n".encode())
    assert done.stdout == ("5 lines: 3 SIDs enqueued, 1 queued already, 0 bad lines left out.\n")
    assert (done.returncode, done.stderr) == (0, "")
    with sqlite.connect() as connection:
        rows = connection.execute(select(q.c.sid, q.c.source).order_by(q.c.id)).all()
    assert rows == [(sid(1), "sids.txt"), (sid(2), "sids.txt"), (sid(3), "stdin")]


def test_command_refuses_bad_lines(sqlite: Engine, tmp_path: Path) -> None:
    """A bad line in the last file keeps the first out; twenty are shown, the rest counted."""
    good, bad, worse = (tmp_path / name for name in ("good", "bad", "worse"))
    good.write_text(f"{sid(1)}\n")
    bad.write_text("x\n" * 5)
    worse.write_text(f"{sid(2)}\n" + f"VE{1:032x}\n" * 1_500)
    done = backfill(sqlite, good, bad, worse)
    said = done.stderr.splitlines()
    assert (done.returncode, done.stdout, queued(sqlite)) == (65, "", [])
    assert said[0] == f"{bad}, line 1: 'x' is not VL and 32 hex digits"
    assert said[19] == f"{worse}, line 16: 'VE{1:032x}' is a Verification SID, not an attempt's"
    assert said[20] == "and 1,485 more"
    assert said[21] == (
        "1,505 of 1,507 lines hold no attempt SID; nothing was enqueued."
        " Mend them, or leave them out with --skip-bad. SIDs of Verifications are for --verifications."
    )
    assert len(said) == 22


def test_command_skips_bad_lines(sqlite: Engine, tmp_path: Path) -> None:
    """With --skip-bad the good ones are enqueued and the bad ones counted, in documented keys."""
    path = tmp_path / "sids.csv"
    path.write_text(f"sid,date_created\n{sid(1)},soon\nx,\n{sid(1)},\n")
    done = backfill(sqlite, "--skip-bad", "--json", "--source", "mine", path)
    counts = {
        "lines": 4,
        "bad": 1,
        "new": 1,
        "already_queued": 1,
        "already_final": 0,
        "unreadable_dates": 1,
    }
    assert json.loads(done.stdout) == {**counts, "files": [{"name": str(path), **counts}]}
    assert done.returncode == 0
    assert done.stderr == f"{path}, line 3: 'x' is not VL and 32 hex digits\n"
    with sqlite.connect() as connection:
        assert connection.scalars(select(q.c.source)).all() == ["mine"]


def test_command_on_missing_file_and_schema(sqlite: Engine, tmp_path: Path) -> None:
    """A file that is missing ends in 74 with nothing enqueued; a missing schema in 78."""
    path = tmp_path / "sids"
    path.write_text(f"{sid(1)}\n")
    done = backfill(sqlite, path, tmp_path / "missing")
    assert (done.returncode, queued(sqlite)) == (74, [])
    assert "missing cannot be read: No such file or directory." in done.stderr
    empty = open_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    done = backfill(empty, path)
    assert done.returncode == 78
    assert "verify-etl db upgrade" in done.stderr


def test_command_shows_a_bar_to_a_terminal_only(sqlite: Engine, tmp_path: Path) -> None:
    """A person at a terminal sees a bar on stderr, and stdout holds nothing of it."""
    path = tmp_path / "sids"
    path.write_text("".join(f"{sid(number)}\n" for number in range(60_000)))
    leader, follower = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", "from etl.cli import main; main()", "backfill", str(path)],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": str(sqlite.url), "TERM": "xterm", "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=follower,
        check=True,
    )
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 65_536):
            shown += chunk
    except OSError:
        # How Linux says that the other end is closed.
        os.close(leader)
    assert b"checking" in shown
    assert (
        done.stdout
        == b"60,000 lines: 60,000 SIDs enqueued, 0 queued already, 0 bad lines left out.\n"
    )
