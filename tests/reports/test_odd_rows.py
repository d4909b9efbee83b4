"""Write unreadable values into the attempts: every reader goes on."""

import csv
import io
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import Result
from sqlalchemy import Connection, Engine, Table, insert, select, text

from etl.database.schema import (
    attempt_changes,
    attempt_channel_data,
    attempt_queue,
    attempts,
    sweeps,
    sync_runs,
    verification_queue,
)
from etl.database.times import moment
from etl.errors import EtlError
from etl.reports import REPORTS
from etl.reports.output import WRITERS
from etl.sandbox import Sandbox, World
from tests.support.harness import in_process

NONE_OF_OURS = [
    "nonsense", "../../../evil", "/evil", "", "now", "12:00", "99999-01-01 00:00:00", "0000-01-01",
    "2026-13-45 99:00:00", "2026-02-31 10:00:00", "2026-01-01nonsense", "a\0b", b"\xff\x00",
    b"2026-01-01 00:00:00", 123, 1.5, float("inf"), 2**63 - 1,
]  # fmt: skip
"""What is no time, and SQLite keeps."""
NOT_UTF8 = "CAST(x'ff' AS TEXT)"
VALUES = ["'nonsense'", "x'ff00'", NOT_UTF8, "9e999", "1.5", "-1e300", "9223372036854775807",
          "'a' || char(0)", "'2026-01-01nonsense'", "'[1'"]  # fmt: skip
Run = Callable[..., Result]


@pytest.fixture
def world() -> World:
    """Give a world of five days that stands still; the newest is a day old."""
    now = time.time()
    return World(size=200, start=now - 6 * 86_400, span=5 * 86_400, static_at=now)


@pytest.fixture
def run(sqlite: Engine, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Load the world, and run the program beside its sandbox."""
    monkeypatch.setenv("DATABASE_URL", sqlite.url.render_as_string(hide_password=False))
    monkeypatch.setenv("VERIFY_ETL_ALLOWANCE", "0")
    with Sandbox(world, limit=0) as box:
        for name, value in box.environ().items():
            monkeypatch.setenv(name, value)

        def run(*args: object) -> Result:
            done = in_process(*map(str, args))
            ended = done.exception is None or isinstance(done.exception, SystemExit | EtlError)
            assert ended, (args, done.exception)
            code = getattr(done.exception, "exit_code", done.exit_code)
            assert code in {0, 65}, (args, done.output, done.exception)
            return done

        run("discover", "--since", "9d")
        yield run


def _rows(done: Result) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(done.stdout, newline="")))


def _spoil(engine: Engine, world: World) -> None:
    """Give the first attempts creation times that are none."""
    rows = [{"b": world.sid(n), "at": value} for n, value in enumerate(NONE_OF_OURS)]
    with engine.begin() as connection:
        connection.execute(text("UPDATE attempts SET date_created = :at WHERE sid = :b"), rows)
        earlier = "first_fetched_at = first_fetched_at - 7200000, fetched_at = fetched_at - 7200000"
        connection.execute(text(f"UPDATE attempts SET {earlier}"))


@pytest.mark.parametrize("summed", [True, False])
def test_a_time_that_is_none_counts_as_unknown(
    sqlite: Engine, world: World, run: Run, *, summed: bool
) -> None:
    """Reports count such attempts as undated, with roll-ups or without, and say how many."""
    if summed:
        run("db", "rollups", "--all")
    _spoil(sqlite, world)
    many = len(NONE_OF_OURS)
    for words in ((), ("--timezone", "Europe/Berlin"), ("--as-of", "1h")):
        done = run("report", "conversion-daily", "--by", "day", "--format", "csv", *words)
        found = {row["day"]: int(row["attempts"]) for row in _rows(done)}
        assert found.pop("") == many
        assert sum(found.values()) == world.size - many
        assert f"{many} attempts have a creation time that is none" in done.stderr
    done = run("report", "freshness", "--format", "csv")
    assert {row["measure"]: row["number"] for row in _rows(done)}["no_date"] == str(many)
    done = run("report", "conversion-daily", "--since", "9d", "--by", "total", "--format", "csv")
    assert [row["attempts"] for row in _rows(done)] == [str(world.size - many)]
    assert f"{many} attempts of unknown time are in no window." in done.stderr
    done = run("reconcile", "--since", "7d", "--json")
    assert json.loads(done.stdout)["undated"] == many
    if summed:
        run("db", "rollups", "--all")


def test_no_path_is_made_of_a_time_that_is_none(
    sqlite: Engine, world: World, run: Run, tmp_path: Path
) -> None:
    """Every export has folders of real days, and one of unknown time."""
    _spoil(sqlite, world)
    folder = tmp_path / "a" / "b" / "c" / "d"
    folder.parent.mkdir(parents=True)
    done = run("export", "-o", folder, "--json")
    assert f"{len(NONE_OF_OURS)} attempts have a creation time that is none" in done.stderr
    assert json.loads(done.stdout)["rows"] == world.size
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    days = {day for (day,) in _sql(folder, "SELECT DISTINCT CAST(day AS VARCHAR) FROM lake")}
    real = {world.attempt(n)["date_created"][:10] for n in range(len(NONE_OF_OURS), world.size)}
    assert days == {None, *real}
    assert made == {"a/b/c/d/day=1970-01-01/undated-0.parquet"} | {
        f"a/b/c/d/day={day}/part-0.parquet" for day in real
    }
    undated = _sql(folder, "SELECT sid, date_created FROM lake WHERE day IS NULL ORDER BY sid")
    assert undated == [
        (sid, None) for sid in sorted(world.sid(n) for n in range(len(NONE_OF_OURS)))
    ]
    again = json.loads(run("export", "-o", folder, "--json").stdout)
    assert (again["days_written"], again["days_removed"]) == (0, 0)
    # Mended, they move to their days.
    run("discover", "--since", "9d")
    assert json.loads(run("export", "-o", folder, "--json").stdout)["days_removed"] == 1
    assert _sql(folder, "SELECT COUNT(*), COUNT(day) FROM lake") == [(world.size, world.size)]


def _sql(folder: Path, query: str) -> list[tuple[Any, ...]]:
    files = f"read_parquet('{folder}/*/*.parquet', hive_partitioning = true)"
    lake = f"(SELECT * REPLACE (NULLIF(day, DATE '1970-01-01') AS day) FROM {files})"
    return duckdb.execute(query.replace("lake", lake)).fetchall()


def _fill_tables(engine: Engine, world: World) -> None:
    """Give each table as many rows as there are columns and odd values."""
    now = int(time.time() * 1000)
    at, sids = moment(now), list(world.sids())
    run = {"command": "run", "version": "1", "worker": "w", "asked": {}, "started_at": at}
    window = {"window_from": 1, "window_to": 2, "state": "done", "page_size": 9, "created_at": at}
    change = {"field": "price_amount", "old_value": "0.1", "new_value": "0.2", "seen_at": now}
    rows: dict[Table, list[dict[str, Any]]] = {
        attempt_queue: [{"sid": sid} for sid in sids],
        verification_queue: [{"sid": f"VE{n:032x}"} for n in range(160)],
        sync_runs: [run] * 160,
        sweeps: [{"account": world.account_sid, "purpose": "sweep", **window}] * 160,
        attempt_changes: [{"attempt_sid": sid, **change} for sid in sids[:100]],
    }
    with engine.begin() as connection:
        for table, filled in rows.items():
            connection.execute(insert(table).prefix_with("OR IGNORE"), filled)


def _spoil_table(connection: Connection, table: Table) -> None:
    """Put each odd value into each column except keys, if the database takes it."""
    name = table.name
    keys = {"id", "attempt_sid", *(column.name for column in table.primary_key)}
    found = connection.execute(text(f"SELECT rowid FROM {name} ORDER BY rowid")).scalars().all()
    columns = [column.name for column in table.c if column.name not in keys]
    for row, (column, value) in zip(found, itertools.product(columns, VALUES), strict=False):
        statement = f"UPDATE OR IGNORE {name} SET {column} = {value} WHERE rowid = {row}"
        connection.exec_driver_sql(statement)


def test_what_no_column_should_hold_ends_no_command(
    sqlite: Engine, world: World, run: Run, tmp_path: Path
) -> None:
    """Any text, bytes or numbers in SQLite's columns stop no command."""
    tables = (attempts, attempt_channel_data, attempt_queue, verification_queue, sync_runs, sweeps)
    _fill_tables(sqlite, world)
    with sqlite.begin() as connection:
        for table in (*tables, attempt_changes):
            _spoil_table(connection, table)
    for report in REPORTS:
        for form in ("table", *WRITERS):
            run("report", report.name, "--format", form, "-o", tmp_path / "report")
    for words in (
        ("report", "conversion-daily", "--since", "5d", "--timezone", "Europe/Berlin"),
        ("report", "cost-daily", "--as-of", "1h"),
        ("report", "html", "-o", tmp_path / "page.html"),
        ("export", "-o", tmp_path / "with", "--with-destination"),
        ("export", "-o", tmp_path / "without"),
        ("status",), ("status", "--json"), ("runs",), ("runs", "--json"), ("plan",),
        ("reconcile", "--since", "7d", "--by", "channel"),
        ("reconcile", "--since", "7d", "--by", "country"),
        ("db", "rollups", "--all"), ("redact", "--older-than", "1d"),
        ("prune", "--settled-before", "1d"), ("retry", "--outcome", "not_found"),
        ("discover", "--since", "9d"), ("run",), ("discover",),
    ):  # fmt: skip
        run(*words)
    with sqlite.connect() as connection:
        found = set(connection.execute(select(attempts.c.sid)).scalars())
    assert found.issuperset(world.sids())


FAR: dict[str, list[str]] = {
    "postgresql": ["'infinity'", "'-infinity'", "'10000-01-01'", "'0044-03-15 BC'"],
    "mariadb": ["'0000-00-00'", "'2026-00-10'", "'2026-11-00 10:00:00'", "'0000-01-01'"],
}


@pytest.mark.kinds("postgresql", "mariadb")
def test_a_time_beyond_ours_counts_as_unknown(
    engine: Engine,
    database_kind: str,
    database_url: str,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """PostgreSQL's infinity and MariaDB's dates without a day stop no report or export."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("VERIFY_ETL_ALLOWANCE", "0")
    with Sandbox(world, limit=0) as box:
        for name, value in box.environ().items():
            monkeypatch.setenv(name, value)
        assert in_process("discover", "--since", "9d").exit_code == 0
    with engine.begin() as connection:
        if database_kind == "mariadb":
            connection.execute(text("SET SESSION sql_mode = ''"))
        for number, at in enumerate(FAR[database_kind]):
            statement = f"UPDATE attempts SET date_created = {at} WHERE sid = :sid"
            connection.execute(text(statement), {"sid": world.sid(number)})
    for words in (("--by", "day"), ("--by", "day", "--timezone", "Europe/Berlin")):
        done = in_process("report", "conversion-daily", "--format", "csv", *words)
        assert done.exception is None, done.exception
        found = {row["day"]: int(row["attempts"]) for row in _rows(done)}
        assert (found.pop(""), sum(found.values())) == (4, world.size - 4)
    for report in REPORTS:
        out = str(tmp_path / "report")
        done = in_process("report", report.name, "--format", "csv", "-o", out)
        assert done.exception is None, (report.name, done.exception)
    done = in_process("export", "-o", str(tmp_path / "lake"))
    assert done.exception is None, done.exception
    counts = "SELECT COUNT(*), COUNT(date_created) FROM lake WHERE day IS NULL"
    undated = _sql(tmp_path / "lake", counts)
    assert undated == [(4, 0)]


@pytest.mark.parametrize("spelling", ["substr({0}, 1, 23)", "{0} || '000'", "substr({0}, 1, 19)"])
def test_other_spellings_of_a_time_count_alike(
    sqlite: Engine, world: World, run: Run, tmp_path: Path, spelling: str
) -> None:
    """Three digits, six or none: reports, export and reconcile count the same rows by day."""
    on_time = "datetime(date_created, 'start of day') || '.000'"
    with sqlite.begin() as connection:
        # Half of the rows are at the very beginning of a day, where a comparison decides.
        connection.execute(text(f"UPDATE attempts SET date_created = {on_time} WHERE rowid % 2"))
    asked = [
        ("report", "conversion-daily", "--since", "9d", "--by", "day", "--format", "csv"),
        ("report", "verification-success-daily", "--timezone", "Europe/Berlin", "--format", "csv"),
        ("report", "fraud-prefix-hourly", "--format", "csv"),
    ]

    def answers(name: str) -> list[Any]:
        done = json.loads(run("export", "-o", tmp_path / name, "--json").stdout)
        lines = json.loads(run("reconcile", "--since", "9d", "--json").stdout)["lines"]
        days = [(line["day"], line["database"]) for line in lines]
        return [*(run(*words).stdout for words in asked), days, done["rows"], done["days_written"]]

    before = answers("before")
    assert before[-2] == world.size
    with sqlite.begin() as connection:
        spelled = spelling.format("date_created")
        connection.execute(text(f"UPDATE attempts SET date_created = {spelled}"))
    assert answers("after") == before
