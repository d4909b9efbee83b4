"""Break one thing that runs need, on every database: `doctor` tries it, names it, and says its mend."""

import json
import secrets
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from etl.errors import Exit
from etl.rollups.tables import metadata
from etl.run.checks import CHECKS
from etl.sandbox import Sandbox, World
from tests.support.harness import environment, verify_etl

HEALTHY = [
    "configuration", "credentials", "database", "encoding", "schema", "writing", "tables",
    "statements", "views", "time zones", "clock",
]  # fmt: skip
SPOIL = {
    "sqlite": [
        (
            "CREATE TRIGGER spoil AFTER INSERT ON {table} BEGIN"
            " UPDATE {table} SET {column} = 77 WHERE rowid = new.rowid; END"
        )
    ],
    "postgresql": [
        (
            "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN NEW.{column} = 77; RETURN NEW; END'"
        ),
        "CREATE TRIGGER spoil BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION spoil()",
    ],
    "mariadb": ["CREATE TRIGGER spoil BEFORE INSERT ON {table} FOR EACH ROW SET NEW.{column} = 77"],
}


def run(engine: Engine, *statements: str) -> None:
    """Run statements as somebody else would."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def doctor(url: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Ask the doctor; return its exit code and its findings by name."""
    with Sandbox(World(size=1), limit=0) as box:
        done = verify_etl("doctor", "--json", "--offline", env=environment(box, url))
    assert done.stderr == ""
    return done.returncode, {found["check"]: found for found in json.loads(done.stdout)}


def problems(url: str) -> dict[str, tuple[str, str]]:
    """Ask the doctor; return message and mend of each problem."""
    code, found = doctor(url)
    wrong = {name: each for name, each in found.items() if not each["ok"]}
    assert code == (Exit.CONFIG if wrong else 0)
    return {name: (each["message"], each["mend"]) for name, each in wrong.items()}


def test_what_is_tried_leaves_nothing(engine: Engine, database_url: str) -> None:
    """On a sound database all is well, and no table has a row more."""
    tables = [table for table in metadata.sorted_tables if table.name != "report_views"]
    code, found = doctor(database_url)
    assert (code, list(found)) == (0, HEALTHY)
    assert {check.name for check in CHECKS} <= set(HEALTHY)
    with engine.connect() as connection:
        counts = [connection.scalar(select(func.count()).select_from(table)) for table in tables]
    assert counts == [0] * len(tables)


@pytest.mark.parametrize(
    ("table", "column"), [("attempts", "fetched_at"), ("api_slots", "free_at"), ("sweeps", "window_to")]
)  # fmt: skip
def test_a_trigger_that_changes_rows_is_found(
    engine: Engine, database_url: str, table: str, column: str
) -> None:
    """What is read back is not what was written: the column is named."""
    words = {"table": table, "column": column}
    run(engine, *(each.format(**words) for each in SPOIL[engine.dialect.name]))
    message, _ = problems(database_url)["tables"]
    assert f"{table}.{column} does not keep what is written" in message


def test_a_column_that_a_run_does_not_fill_is_found(engine: Engine, database_url: str) -> None:
    """A column that somebody made compulsory refuses each row, and is found before the first."""
    null = "INTEGER NOT NULL DEFAULT 0" if engine.dialect.name == "sqlite" else "INTEGER NOT NULL"
    run(engine, f"ALTER TABLE attempt_changes ADD COLUMN theirs {null}")
    if engine.dialect.name == "sqlite":
        run(
            engine,
            "CREATE TRIGGER theirs BEFORE INSERT ON attempt_changes"
            " BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
    found = problems(database_url)
    # MariaDB says so of no row at all, and names the column alone.
    check, said = (
        ("writing", "theirs") if engine.dialect.name == "mariadb" else ("tables", "attempt_changes")
    )
    assert list(found) == [check]
    assert said in found[check][0]


def test_a_view_that_cannot_be_read_is_found(engine: Engine, database_url: str) -> None:
    """A view that is missing is named with the command that makes it."""
    run(engine, "DROP VIEW v_freshness")
    assert problems(database_url) == {
        "views": (
            "the view v_freshness cannot be read (missing).", "Run: verify-etl db upgrade --views"
        ),
    }  # fmt: skip


@pytest.mark.kinds("mariadb")
def test_a_view_whose_maker_is_gone_is_found(engine: Engine, database_url: str) -> None:
    """MariaDB's error 1449 shows when the view is read, not when the schema is looked at."""
    nobody = f"'n{secrets.token_hex(6)}'@'nowhere'"
    run(engine, f"ALTER DEFINER={nobody} SQL SECURITY DEFINER VIEW v_attempts AS SELECT 1 AS x")
    message, mend = problems(database_url)["views"]
    assert message == "the view v_attempts cannot be read (error 1449)."
    assert mend == "Run: verify-etl db upgrade --views"


def test_without_zones_utc_is_left(sqlite: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a time-zone database is told what to install."""
    monkeypatch.setattr("etl.sql.zones.ZoneInfo", _no_zone)
    url = sqlite.url.render_as_string()
    message, mend = problems(url)["time zones"]
    assert (message, mend) == ("no time zone is known here but UTC.", "Run: pip install tzdata")


def _no_zone(name: str) -> None:
    raise OSError(name)


def test_the_clock_of_a_file_is_the_machines(sqlite: Engine) -> None:
    """SQLite's clock is neither ahead nor behind."""
    _, found = doctor(sqlite.url.render_as_string())
    assert found["clock"]["message"] == "the database's clock is this machine's."


def test_a_database_that_is_dead_is_told_once() -> None:
    """The request to the API is sent all the same, uncounted, and is no second problem."""
    with Sandbox(World(size=1), limit=0) as box:
        env = environment(box, "postgresql://u@127.0.0.1:9/d", allowance="5")
        done = verify_etl("doctor", "--json", env=env)
        assert box.stats()["requests"] == 1
    found = {each["check"]: each["ok"] for each in json.loads(done.stdout)}
    assert found == {
        "configuration": True, "credentials": True, "database": False, "API": True,
    }  # fmt: skip
    assert done.returncode == Exit.TRY_LATER
