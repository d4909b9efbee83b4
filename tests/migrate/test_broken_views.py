"""Break views that are there, on every database: `db check` names them, `db upgrade` mends them."""

import json
import os
import secrets
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text

from etl.database.engine import open_engine
from etl.migrate import upgrade
from etl.reports import REPORTS
from tests.support.harness import ROOT, command

VIEWS = [report.view for report in REPORTS]


def run(engine: Engine, *statements: str) -> None:
    """Run statements as somebody else would."""
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def check(url: str) -> tuple[int, list[str], str]:
    """Check the schema; return the exit code, the broken views, and what was said."""
    done = command(
        "db", "check", "--json", cwd=ROOT, env=os.environ | {"DATABASE_URL": url}
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout)["broken_views"], done.stderr


def readable(engine: Engine) -> None:
    """Assert that every view can be read, with the columns of this version."""
    for report in REPORTS:
        columns = [column["name"] for column in inspect(engine).get_columns(report.view)]
        assert columns == [column.name for column in report.columns]
        with engine.connect() as connection:
            connection.execute(text(f"SELECT * FROM {report.view}")).all()


def test_a_view_that_is_missing_is_seen_and_made(engine: Engine, database_url: str) -> None:
    """A view that somebody dropped is named, with the command that makes it again."""
    assert check(database_url)[:2] == (0, [])
    run(engine, "DROP VIEW v_attempts")
    code, broken, said = check(database_url)
    assert (code, broken) == (78, ["v_attempts"])
    assert "cannot be read: v_attempts. Run: verify-etl db upgrade --views" in said
    assert upgrade.upgrade(engine) == ["views: v_attempts"]
    readable(engine)


@pytest.mark.kinds("mariadb")
def test_a_view_whose_maker_is_gone_is_seen_and_made(engine: Engine, database_url: str) -> None:
    """MariaDB reads no view with the rights of an account that was dropped (error 1449)."""
    nobody = f"'n{secrets.token_hex(6)}'@'nowhere'"
    run(engine, f"ALTER DEFINER={nobody} SQL SECURITY DEFINER VIEW v_attempts AS SELECT 1 AS x")
    code, broken, _ = check(database_url)
    assert (code, broken) == (78, ["v_attempts"])
    assert upgrade.upgrade(engine) == ["views: v_attempts"]
    assert check(database_url)[:2] == (0, [])
    readable(engine)


@pytest.mark.kinds("mariadb")
def test_views_outlive_who_made_them(empty_engine: Engine, empty_database_url: str) -> None:
    """Views ask for their reader's rights, so dropping the account that upgraded breaks none."""
    name = f"n{secrets.token_hex(6)}"
    run(
        empty_engine,
        f"CREATE USER {name}@'%'",
        f"GRANT ALL ON `{empty_engine.url.database}`.* TO {name}@'%'",
    )
    maker = open_engine(empty_engine.url.set(username=name).render_as_string(hide_password=False))
    upgrade.upgrade(maker)
    maker.dispose()
    run(empty_engine, f"DROP USER {name}@'%'")
    assert check(empty_database_url)[:2] == (0, [])
    readable(empty_engine)


@pytest.mark.kinds("sqlite")
def test_a_view_that_reads_what_is_not_there_is_made_again(
    engine: Engine, database_url: str
) -> None:
    """SQLite creates a view on anything; a column that is missing shows when it is read."""
    run(engine, "DROP VIEW v_attempts", "CREATE VIEW v_attempts AS SELECT no_column FROM attempts")
    assert check(database_url)[:2] == (78, ["v_attempts"])
    assert upgrade.upgrade(engine) == ["views: v_attempts"]
    readable(engine)


def test_views_are_made_again_when_asked(engine: Engine, tmp_path: Path, database_url: str) -> None:
    """A view that somebody made another one of looks right; --views makes all of them again."""
    run(engine, "DROP VIEW v_attempts", "CREATE VIEW v_attempts AS SELECT 1 AS x")
    assert check(database_url)[:2] == (0, [])
    assert upgrade.upgrade(engine) == []
    env = os.environ | {"DATABASE_URL": database_url}
    done = command("db", "upgrade", "--views", env=env, cwd=tmp_path)
    assert (done.returncode, f"views: {', '.join(VIEWS)}" in done.stderr) == (0, True)
    readable(engine)
