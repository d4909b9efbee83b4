"""Hold `db upgrade` to what it promises of views: ours are this version's, others' are untouched."""

import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from etl.database.schema import REVISION
from etl.errors import SchemaError
from etl.migrate import upgrade, views
from etl.reports import REPORTS
from etl.reports.views import create_statements
from tests.support.harness import PATIENCE_S, ROOT

VIEWS = [report.view for report in REPORTS]
SNAPSHOT = {
    "sqlite": "SELECT name, rowid, sql FROM sqlite_master ORDER BY name",
    "postgresql": "SELECT relname, oid, relacl FROM pg_class WHERE relnamespace ="
    " CAST('public' AS regnamespace) ORDER BY relname",
    "mariadb": "SELECT table_name, view_definition FROM information_schema.views"
    " WHERE table_schema = DATABASE() ORDER BY table_name",
}
PRIVILEGES = (
    "SELECT CAST(a.grantee AS regrole), a.privilege_type, a.is_grantable, c.relowner, c.reloptions,"
    " (SELECT CAST(attacl AS text) FROM pg_attribute WHERE attrelid = c.oid AND attname = 'sid')"
    " FROM pg_class c, aclexplode(c.relacl) a WHERE relname = 'v_attempts' ORDER BY 1, 2"
)


def snapshot(engine: Engine) -> list[tuple[object, ...]]:
    """Give what the database knows of every view, and the digests that we keep."""
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(SNAPSHOT[engine.dialect.name]))]
        digests = connection.execute(text("SELECT name, digest FROM report_views ORDER BY name"))
        return rows + [tuple(row) for row in digests]


def run(engine: Engine, *statements: str) -> None:
    """Run statements as somebody else would."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def outdate(engine: Engine, name: str = "v_attempts") -> None:
    """Make a view one that an older version has created."""
    run(engine, f"UPDATE report_views SET digest = 'old' WHERE name = '{name}'")


def attempts(engine: Engine, view: str = "v_attempts") -> int:
    """Count what a view shows."""
    with engine.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {view}")).scalar_one())


@pytest.fixture
def role(engine: Engine) -> Iterator[str]:
    """Make a user of the server who may read nothing yet."""
    name = f"reader_{secrets.token_hex(4)}"
    kind = "ROLE" if engine.dialect.name == "postgresql" else "USER"
    run(engine, f"CREATE {kind} {name}")
    yield name
    if kind == "ROLE":
        run(engine, f"DROP OWNED BY {name}")
    run(engine, f"DROP {kind} {name}")


@pytest.fixture
def migration(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a revision that alters a column which the views read, once the database is there."""
    folder = tmp_path / "migrations"
    shutil.copytree(upgrade.script_location(), folder)
    (folder / "versions" / "9000_widen.py").write_text(
        '"""Widen."""\n'
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        'revision = "9000"\n'
        f'down_revision = "{REVISION}"\n'
        "def upgrade():\n"
        '    with op.batch_alter_table("attempts") as batch:\n'
        '        batch.alter_column("channel", type_=sa.String(99), existing_type=sa.String(64))\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(upgrade, "script_location", lambda: folder)


def test_every_view_can_be_read(engine: Engine) -> None:
    """A migrated database has every view, and a row for each."""
    with engine.connect() as connection:
        for view in VIEWS:
            connection.execute(text(f"SELECT * FROM {view}")).all()
        rows = connection.execute(text("SELECT name FROM report_views")).scalars().all()
    assert sorted(rows) == sorted(VIEWS)


def test_a_second_upgrade_changes_nothing(engine: Engine) -> None:
    """Views of this version stay the very same."""
    before = snapshot(engine)
    assert upgrade.upgrade(engine) == []
    assert snapshot(engine) == before


def test_only_the_changed_text_is_replaced(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view whose text is another one is made again, and no other is."""
    changed = [
        (name, "CREATE VIEW v_attempts AS SELECT 'new' AS sid" if name == "v_attempts" else create)
        for name, create in create_statements(engine.dialect.name)
    ]
    before = snapshot(engine)
    monkeypatch.setattr(views, "create_statements", lambda _dialect: changed)
    assert upgrade.upgrade(engine) == ["views: v_attempts"]
    assert attempts(engine) == 1
    after = snapshot(engine)
    assert {row[0] for row in set(before) ^ set(after)} == {"v_attempts"}
    assert upgrade.upgrade(engine) == []


def test_a_dropped_view_comes_back(engine: Engine) -> None:
    """A view that somebody dropped is made again."""
    run(engine, "DROP VIEW v_attempts", "DROP VIEW v_freshness")
    assert upgrade.upgrade(engine) == ["views: v_freshness, v_attempts"]
    assert attempts(engine) == 0


def test_a_view_that_the_code_no_longer_has_goes(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view of ours without a report is dropped, and its row with it."""
    kept = create_statements(engine.dialect.name)[:-1]
    monkeypatch.setattr(views, "create_statements", lambda _dialect: kept)
    assert upgrade.upgrade(engine) == ["views dropped: v_attempts"]
    assert "v_attempts" not in {row[0] for row in snapshot(engine)}
    assert upgrade.upgrade(engine) == []


def test_a_name_we_no_longer_use_is_somebody_elses(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table where our former view was is left alone, and we forget the name."""
    kept = create_statements(engine.dialect.name)[:-1]
    run(engine, "DROP VIEW v_attempts", "CREATE TABLE v_attempts (score INTEGER)")
    monkeypatch.setattr(views, "create_statements", lambda _dialect: kept)
    assert upgrade.upgrade(engine) == ["views dropped: v_attempts"]
    assert attempts(engine) == 0


@pytest.mark.usefixtures("migration")
def test_a_migration_is_held_up_by_no_view_of_ours(engine: Engine) -> None:
    """A revision may change what the views read, and after it every view is made again."""
    assert upgrade.upgrade(engine) == ["9000: Widen.", f"views: {', '.join(VIEWS)}"]
    assert attempts(engine) == 0
    assert upgrade.upgrade(engine) == []


@pytest.mark.kinds("postgresql", "second-postgresql", "mariadb")
def test_grants_survive(engine: Engine, role: str) -> None:
    """Whoever could read the old view, or a column of it, can read the new one."""
    run(
        engine,
        f"GRANT SELECT (sid) ON v_attempts TO {role}",
        f"GRANT SELECT ON v_freshness TO {role}",
    )
    if engine.dialect.name == "postgresql":
        run(engine, f"GRANT SELECT, REFERENCES ON v_attempts TO {role} WITH GRANT OPTION")
        run(engine, "GRANT SELECT ON v_attempts TO PUBLIC")
        run(engine, "ALTER VIEW v_attempts SET (security_invoker = true)")
    ask = PRIVILEGES if engine.dialect.name == "postgresql" else f"SHOW GRANTS FOR {role}"
    with engine.connect() as connection:
        before = connection.execute(text(ask)).all()
    outdate(engine)
    outdate(engine, "v_freshness")
    assert upgrade.upgrade(engine) == ["views: v_freshness, v_attempts"]
    with engine.connect() as connection:
        assert connection.execute(text(ask)).all() == before
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL ROLE {role}"))
            connection.execute(text("SELECT * FROM v_freshness")).all()
            connection.rollback()


@pytest.mark.kinds("postgresql", "second-postgresql")
def test_an_owner_and_what_was_revoked_survive(engine: Engine, role: str) -> None:
    """The new view is its former owner's, and default privileges do not open it again."""
    run(engine, f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}, PUBLIC")
    run(engine, f"ALTER VIEW v_freshness OWNER TO {role}")
    outdate(engine)
    outdate(engine, "v_freshness")
    upgrade.upgrade(engine)
    ask = "SELECT CAST(relowner AS regrole) = CAST(:role AS regrole),"
    ask += " has_table_privilege(:role, oid, 'SELECT') FROM pg_class WHERE relname = :name"
    with engine.connect() as connection:
        found = [
            tuple(connection.execute(text(ask), {"role": role, "name": name}).one())
            for name in ("v_attempts", "v_freshness")
        ]
    run(engine, f"ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM {role}, PUBLIC")
    assert found == [(False, False), (True, True)]


@pytest.mark.kinds("postgresql", "second-postgresql", "mariadb")
def test_a_column_that_is_gone_takes_its_grants(
    engine: Engine, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grant on a column that the new text lacks does not stop the upgrade."""
    run(engine, f"GRANT SELECT (sid, url) ON v_attempts TO {role}")
    shorter = [
        (
            name,
            "CREATE VIEW v_attempts AS SELECT sid FROM attempts" if name == "v_attempts" else sql,
        )
        for name, sql in create_statements(engine.dialect.name)
    ]
    monkeypatch.setattr(views, "create_statements", lambda _dialect: shorter)
    assert upgrade.upgrade(engine) == ["views: v_attempts"]
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            connection.execute(text(f"SET LOCAL ROLE {role}"))
            assert connection.execute(text("SELECT sid FROM v_attempts")).all() == []


def narrow(script: Path) -> None:
    """Let the revision add a table, which changes the columns of no view."""
    head, _, _ = script.read_text(encoding="utf-8").partition("    with op")
    script.write_text(f'{head}    op.create_table("more", sa.Column("id", sa.Integer))\n')


@pytest.mark.parametrize("revision", [False, True])
def test_somebodys_view_survives(
    engine: Engine, request: pytest.FixtureRequest, *, revision: bool
) -> None:
    """A view that reads ours stays through an upgrade that leaves our columns, grants included."""
    run(engine, "CREATE VIEW somebodys AS SELECT sid FROM v_attempts")
    outdate(engine)
    before = {row[0]: row for row in snapshot(engine)}["somebodys"]
    if revision:
        request.getfixturevalue("migration")
        narrow(upgrade.script_location() / "versions" / "9000_widen.py")
    assert upgrade.upgrade(engine)[-1].endswith("v_attempts")
    assert {row[0]: row for row in snapshot(engine)}["somebodys"] == before
    assert attempts(engine, "somebodys") == 0


@pytest.mark.usefixtures("migration")
@pytest.mark.kinds("postgresql", "second-postgresql", "mariadb")
def test_grants_survive_a_revision(engine: Engine, role: str) -> None:
    """Whoever could read a view still can when a revision has changed the types of its columns."""
    run(
        engine,
        f"GRANT SELECT ON v_attempts TO {role}",
        f"GRANT SELECT ON v_freshness TO {role}",
    )
    ask = f"SHOW GRANTS FOR {role}"
    if engine.dialect.name == "postgresql":
        run(engine, f"GRANT SELECT (sid) ON v_attempts TO {role} WITH GRANT OPTION")
        run(engine, "ALTER VIEW v_attempts SET (security_invoker = true)")
        ask = PRIVILEGES
    with engine.connect() as connection:
        before = connection.execute(text(ask)).all()
    assert before
    upgrade.upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(text(ask)).all() == before
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL ROLE {role}"))
            connection.execute(text("SELECT * FROM v_freshness")).all()
            connection.rollback()


def test_somebodys_view_stops_other_columns(engine: Engine, request: pytest.FixtureRequest) -> None:
    """Where a view holds on to ours both are named and all stays; elsewhere it reads the new one."""
    run(engine, "CREATE VIEW somebodys AS SELECT sid FROM v_attempts")
    outdate(engine)
    outdate(engine, "v_freshness")
    request.getfixturevalue("migration")
    before = snapshot(engine)
    if engine.dialect.name == "postgresql":
        with pytest.raises(SchemaError, match=r"view somebodys depends on view v_attempts.*Drop"):
            upgrade.upgrade(engine)
        assert (snapshot(engine), upgrade.current(engine)) == (before, REVISION)
        run(engine, "DROP VIEW somebodys")
        upgrade.upgrade(engine)
        return
    upgrade.upgrade(engine)
    assert attempts(engine, "somebodys") == 0


@pytest.mark.parametrize(
    "foreign",
    ["CREATE TABLE v_attempts (score INTEGER)", "CREATE VIEW v_attempts AS SELECT 1 AS score"],
)
def test_a_name_that_is_taken(empty_engine: Engine, foreign: str) -> None:
    """A table or view of our view's name stops the first upgrade before anything is made."""
    run(empty_engine, foreign)
    with pytest.raises(SchemaError, match=r"names of our views: v_attempts\..*Rename"):
        upgrade.upgrade(empty_engine)
    assert upgrade.current(empty_engine) is None
    assert attempts(empty_engine) == (1 if "VIEW" in foreign else 0)
    with empty_engine.connect() as connection:
        assert not connection.dialect.has_table(connection, "attempts")


@pytest.mark.parametrize("kind", ["table", "view"])
def test_a_name_that_is_taken_later(engine: Engine, kind: str) -> None:
    """A table in our dropped view's place, or a view that we did not make, stops the upgrade."""
    run(engine, "DROP VIEW v_attempts")
    if kind == "table":
        run(engine, "CREATE TABLE v_attempts (score INTEGER)")
    else:
        run(engine, "DELETE FROM report_views WHERE name = 'v_attempts'")
        run(engine, "CREATE VIEW v_attempts AS SELECT 1 AS score")
    outdate(engine, "v_freshness")
    before = snapshot(engine)
    with pytest.raises(SchemaError, match=r"not ours under the names of our views: v_attempts\."):
        upgrade.upgrade(engine)
    assert snapshot(engine) == before


def test_a_cut_off_upgrade_is_mended(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was cut off between two views is undone, or done by the next upgrade."""
    sound = create_statements(engine.dialect.name)
    broken = [*sound[:-1], ("v_attempts", "CREATE VIEW v_attempts AS SELECT FROM")]
    for view in VIEWS:
        outdate(engine, view)
    before = snapshot(engine)
    with monkeypatch.context() as patch:
        patch.setattr(views, "create_statements", lambda _dialect: broken)
        with pytest.raises(SchemaError, match="upgrading the schema, the database refused"):
            upgrade.upgrade(engine)
    if engine.dialect.name != "mariadb":
        assert snapshot(engine) == before
    assert upgrade.upgrade(engine)[0].endswith("v_attempts")
    assert attempts(engine) == 0
    assert upgrade.upgrade(engine) == []


def test_two_upgrades_at_once(engine: Engine, database_url: str) -> None:
    """Of several upgrades at once one replaces a view, and the others find nothing to do."""
    outdate(engine)
    engine.dispose()
    command = [sys.executable, "-m", "etl", "db", "upgrade"]
    racers = [
        subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": database_url},
        )
        for _ in range(3)
    ]
    said = sorted(racer.communicate(timeout=PATIENCE_S)[1] for racer in racers)
    nothing = f"The schema is at {REVISION}, nothing to do.\n"
    assert said == [nothing, nothing, f"views: v_attempts\nThe schema is at {REVISION}.\n"]


def test_written_views_are_ours(empty_database_url: str, empty_engine: Engine) -> None:
    """What `--sql` prints runs as it is, comments included, and the next upgrade has nothing to do."""
    script = upgrade.upgrade_sql(empty_database_url)
    raw = empty_engine.raw_connection()
    if isinstance(raw.driver_connection, sqlite3.Connection):
        raw.driver_connection.executescript(script)
    elif empty_engine.dialect.name == "postgresql":
        raw.cursor().execute(script)
    else:
        for statement in script.split(";\n\n"):
            if statement.strip():
                raw.cursor().execute(statement)
    raw.commit()
    raw.close()
    assert upgrade.upgrade(empty_engine) == []
    assert [attempts(empty_engine, view) for view in VIEWS[:2]] == [0, 0]
