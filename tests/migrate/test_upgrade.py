"""Hold the migrated schema to etl/database/schema.py, and migrations to what they promise."""

import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, event, inspect, text

from etl.database import schema
from etl.database.engine import open_engine
from etl.database.times import moment_ms
from etl.errors import DatabaseBusy, SchemaError, StorageError
from etl.migrate import upgrade
from etl.reports import REPORTS
from tests.support.databases import differences
from tests.support.harness import PATIENCE_S

REVISIONS = [
    "0001: Create the tables.",
    "0002: Add roll-ups.",
    "0003: Keep milliseconds on SQLite.",
    "0004: Say whose tables these are.",
    "0005: Take NULL for a default in the queues.",
    "0006: Sum all roll-ups anew.",
]
VIEWS = f"views: {', '.join(report.view for report in REPORTS)}"
TABLES = [name for name in schema.metadata.tables if name != "report_views"]

UPGRADE = """
import sys
from etl.database.engine import open_engine
from etl.migrate.upgrade import upgrade
engine = open_engine(sys.argv[1])
print(len(upgrade(engine)))
engine.dispose()
"""


def fill(engine: Engine) -> None:
    """Put a row into each table that has a parent or a child, and one SID into the queue."""
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO attempt_queue (sid) VALUES ('VL1')",
            "INSERT INTO attempts (sid, first_fetched_at, fetched_at, is_final) SELECT 'VL1', 1, 1, TRUE",
            "INSERT INTO attempt_channel_data (attempt_sid, destination) VALUES ('VL1', '+1')",
            "INSERT INTO attempt_changes (attempt_sid, field, seen_at) VALUES ('VL1', 'channel', 1)",
        ):
            connection.execute(text(statement))


def check(engine: Engine) -> None:
    """Hold the database's revision to the program's."""
    upgrade.check(upgrade.current(engine))


def counts(engine: Engine) -> dict[str, int]:
    """Count the rows of each table but the one that names our views."""
    with engine.connect() as connection:
        return {
            name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()
            for name in TABLES
        }


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Add a revision that alters `attempts`, as a later version of the program would."""
    folder = tmp_path / "50% later" / "migrations"
    shutil.copytree(upgrade.script_location(), folder)
    (folder / "versions" / "9000_widen.py").write_text(
        '"""Widen the channel."""\n'
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        'revision = "9000"\n'
        f'down_revision = "{schema.REVISION}"\n'
        "def upgrade():\n"
        '    with op.batch_alter_table("attempts") as batch:\n'
        '        batch.alter_column("channel", type_=sa.String(99), existing_type=sa.String(64))\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(upgrade, "script_location", lambda: folder)
    return folder


def test_the_program_reads_the_head() -> None:
    """The revision that every claim compares with is the one the scripts lead to."""
    assert upgrade.head() == schema.REVISION


def test_migrated_schema_equals_the_tables(engine: Engine) -> None:
    """Alembic finds no difference between the migrated schema and etl/database/schema.py."""
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": schema.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, schema.metadata) == []


def test_names_and_defaults_equal_the_tables(engine: Engine) -> None:
    """Constraints, indexes and defaults, which Alembic compares in part, are equal too."""
    assert differences(engine) == []


def test_raw_insert(engine: Engine) -> None:
    """Any program may insert a SID and nothing else: every other column has its default."""
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO attempt_queue (sid) VALUES ('VL1')")
        row = connection.execute(text("SELECT * FROM attempt_queue")).mappings().one()
        now = connection.execute(schema.attempt_queue.select()).one().enqueued_at
    expected = {
        "id": 1, "sid": "VL1", "account": "", "state": "pending", "due_at": 0, "expires_at": 0,
        "claim_no": 0, "attempts": 0, "fetches": 0, "lost_leases": 0, "outcome": None,
        "leased_by": None, "last_error": None, "source": None, "settled_at": None,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    enqueued = moment_ms(now)
    assert enqueued is not None
    assert set(row) == {*expected, "enqueued_at"}


@pytest.mark.parametrize("zone", ["+09:00", "-11:00"])
def test_enqueued_at_is_utc(engine: Engine, zone: str) -> None:
    """The default of `enqueued_at` is UTC, whatever time zone the inserter's session has."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET TIME ZONE INTERVAL '{zone}' HOUR TO MINUTE")
        elif engine.dialect.name != "sqlite":
            connection.exec_driver_sql(f"SET time_zone = '{zone}'")
        connection.exec_driver_sql("INSERT INTO attempt_queue (sid) VALUES ('VL1')")
    # The session is somebody else's: ours is opened afresh.
    engine.dispose()
    with engine.begin() as connection:
        enqueued = moment_ms(connection.execute(schema.attempt_queue.select()).one().enqueued_at)
        here = connection.execute(text("SELECT CURRENT_TIMESTAMP")).scalar_one()
    assert enqueued is not None
    assert abs(enqueued - (moment_ms(here) or 0)) < 60_000


@pytest.mark.parametrize("state", ["", "PENDING", "done", "pending "])
def test_state_is_checked(engine: Engine, state: str) -> None:
    """A state that is none of the six is refused, by the constraint's name where there is one."""
    with pytest.raises(Exception, match=schema.CK_QUEUE_STATE), engine.begin() as connection:
        connection.execute(
            text("INSERT INTO attempt_queue (sid, state) VALUES ('VL1', :state)"), {"state": state}
        )


def test_a_sid_is_queued_once(engine: Engine) -> None:
    """The same SID a second time is refused."""
    with pytest.raises(Exception, match=r"(?i)unique|error 1062"), engine.begin() as connection:
        connection.execute(text("INSERT INTO attempt_queue (sid) VALUES ('VL1'), ('VL1')"))


def test_a_sid_is_compared_exactly(engine: Engine) -> None:
    """Twins in upper and lower case, with an accent or a trailing blank are different SIDs."""
    twins = ["VLa", "VLA", "VLa ", "VLa\t", "VLá", "VLa\U0001f600", "", " "]
    with engine.begin() as connection:
        for sid in twins:
            connection.execute(text("INSERT INTO attempt_queue (sid) VALUES (:sid)"), {"sid": sid})
        for sid in twins:
            found = connection.execute(
                text("SELECT sid FROM attempt_queue WHERE sid = :sid"), {"sid": sid}
            )
            assert found.scalars().all() == [sid]


def test_sid_is_not_null(engine: Engine) -> None:
    """NULL is refused."""
    with pytest.raises(Exception, match=r"(?i)null"), engine.begin() as connection:
        connection.execute(text("INSERT INTO attempt_queue (sid) VALUES (NULL)"))


def test_sid_too_long(engine: Engine) -> None:
    """65 characters are refused, but for SQLite, which takes what it gets."""
    insert = text(f"INSERT INTO attempt_queue (sid) VALUES ('{'x' * 65}')")
    if engine.dialect.name == "sqlite":
        with engine.begin() as connection:
            connection.execute(insert)
        assert counts(engine)["attempt_queue"] == 1
        return
    with pytest.raises(Exception, match=r"too long|22001|1406"), engine.begin() as connection:
        connection.execute(insert)


def test_channel_data_goes_with_its_attempt(engine: Engine) -> None:
    """Deleting an attempt deletes what hangs on it."""
    fill(engine)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM attempts"))
    assert counts(engine) | {"attempt_queue": 0} == dict.fromkeys(TABLES, 0)


def test_upgrade_twice(empty_engine: Engine) -> None:
    """The first upgrade says what it did, the second finds nothing to do."""
    engine = empty_engine
    assert upgrade.current(engine) is None
    with pytest.raises(SchemaError, match=r"does not have the tables.*verify-etl db upgrade"):
        check(engine)
    assert upgrade.upgrade(engine) == [*REVISIONS, VIEWS]
    assert upgrade.upgrade(engine) == []
    assert upgrade.current(engine) == schema.REVISION
    check(engine)
    engine.dispose()


def test_two_at_once(empty_database_url: str) -> None:
    """Of several upgrades at once one does the work, and the others find nothing to do."""
    command = [sys.executable, "-c", UPGRADE, empty_database_url]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    done = sorted(racer.communicate(timeout=PATIENCE_S)[0].strip() for racer in racers)
    assert (done, [racer.returncode for racer in racers]) == (
        ["0", "0", str(len(REVISIONS) + 1)],
        [0, 0, 0],
    )


def test_filled_database_survives(engine: Engine, later: Path) -> None:
    """Altering `attempts`, which SQLite does by copying it, loses no row that hangs on it."""
    fill(engine)
    before = counts(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE VIEW somebodys AS SELECT sid FROM attempts"))
    with pytest.raises(
        SchemaError, match=rf"behind: at revision {schema.REVISION}.*needs 9000.*db upgrade"
    ):
        check(engine)
    assert upgrade.upgrade(engine) == ["9000: Widen the channel.", VIEWS]
    check(engine)
    assert counts(engine) == before
    with engine.connect() as connection:
        assert connection.execute(text("SELECT sid FROM somebodys")).scalars().all() == ["VL1"]
    columns = {column["name"]: column for column in inspect(engine).get_columns("attempts")}
    assert columns["channel"]["type"].length == 99  # type: ignore[attr-defined]
    # Foreign keys are enforced again on the same pooled connection.
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM attempts"))
    assert counts(engine)["attempt_channel_data"] == 0


def test_a_migration_that_orphans_rows_is_undone(
    engine: Engine, later: Path, database_kind: str
) -> None:
    """SQLite's switched-off keys cannot let a migration leave rows without their attempt."""
    fill(engine)
    script = later / "versions" / "9000_widen.py"
    source = script.read_text(encoding="utf-8")
    script.write_text(source + '    op.execute("DELETE FROM attempts")\n', encoding="utf-8")
    if database_kind != "sqlite":
        upgrade.upgrade(engine)
        assert counts(engine)["attempt_channel_data"] == 0
        return
    before = counts(engine)
    with pytest.raises(SchemaError, match="without the attempt"):
        upgrade.upgrade(engine)
    assert (upgrade.current(engine), counts(engine)) == (schema.REVISION, before)


def test_a_failing_migration_is_undone(engine: Engine, later: Path) -> None:
    """A statement that is refused is said in words, and the revision stays what it was."""
    script = later / "versions" / "9000_widen.py"
    source = script.read_text(encoding="utf-8")
    script.write_text(source + '    op.execute("SELECT nonsense FROM nowhere")\n', encoding="utf-8")
    with pytest.raises(SchemaError, match=r"upgrading the schema, the database refused.*nowhere"):
        upgrade.upgrade(engine)
    assert upgrade.current(engine) == schema.REVISION


def test_a_newer_schema(engine: Engine) -> None:
    """A revision that only a newer program knows is named, and nothing is touched."""
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    for action in (check, upgrade.upgrade):
        with pytest.raises(SchemaError, match=r"ahead: at revision 9999.*newest"):
            action(engine)
    assert upgrade.current(engine) == "9999"


def test_an_applications_database(empty_engine: Engine) -> None:
    """Another program's tables, its Alembic history included, stay as they are."""
    engine = empty_engine
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
        connection.execute(text("CREATE TABLE users (id INTEGER PRIMARY KEY)"))
    upgrade.upgrade(engine)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT version_num FROM alembic_version"))
        assert found.scalars().all() == ["theirs"]
    assert {"users", "attempt_queue"} <= set(inspect(engine).get_table_names())
    engine.dispose()


def test_a_table_of_our_name(empty_engine: Engine) -> None:
    """A table of another program that has our name stops the upgrade before anything is made."""
    engine = empty_engine
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE attempts (score INTEGER)"))
    with pytest.raises(SchemaError, match=r"another program under our names: attempts\."):
        upgrade.upgrade(engine)
    assert inspect(engine).get_table_names() == ["attempts"]
    engine.dispose()


def test_a_cut_off_first_upgrade(engine: Engine) -> None:
    """Empty tables without a revision are what a crash left, and are made again; full ones not."""
    with engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {schema.VERSION_TABLE}"))
        connection.execute(text("DROP TABLE sync_runs"))
    assert upgrade.upgrade(engine) == [*REVISIONS, VIEWS]
    fill(engine)
    with engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {schema.VERSION_TABLE}"))
    with pytest.raises(SchemaError, match="cut off, and attempt_queue already holds rows"):
        upgrade.upgrade(engine)
    assert counts(engine)["attempts"] == 1
    engine.dispose()


def test_written_sql_builds_the_same(empty_database_url: str, empty_engine: Engine) -> None:
    """What `--sql` prints builds the schema, and needs no migration afterwards."""
    engine = empty_engine
    written = upgrade.upgrade_sql(empty_database_url)
    raw = engine.raw_connection()
    if engine.dialect.name == "sqlite":
        assert isinstance(raw.driver_connection, sqlite3.Connection)
        raw.driver_connection.executescript(written)
    else:
        cursor = raw.cursor()
        for statement in re.split(r";\s*\n", re.sub(r"(?m)^--.*$", "", written)):
            if statement.strip():
                cursor.execute(statement)
    raw.commit()
    raw.close()
    check(engine)
    assert (upgrade.upgrade(engine), differences(engine)) == ([], [])


@pytest.mark.parametrize(
    ("url", "collation"), [("mariadb://", "utf8mb4_nopad_bin"), ("mysql://", "utf8mb4_0900_bin")]
)
def test_written_sql_compares_exactly(url: str, collation: str) -> None:
    """Written SQL knows MariaDB from MySQL by the address, and gives every table its collation."""
    made = re.findall(r"COLLATE (\w+)", upgrade.upgrade_sql(url))
    assert made == [collation] * len(schema.metadata.tables)


def test_the_alembic_command(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a checkout `alembic` works on DATABASE_URL, and finds nothing that is not ours."""
    root = Path(__file__).parents[2]
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    engine = open_engine(empty_database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE users (id INTEGER PRIMARY KEY)"))
    engine.dispose()
    for words in (["upgrade", "head"], ["check"], ["upgrade", "head", "--sql"]):
        ran = subprocess.run(
            [sys.executable, "-m", "alembic", "-c", str(root / "pyproject.toml"), *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr


def test_sqlite_locked(tmp_path: Path) -> None:
    """A database that another process keeps locked is said to be, and is not a bug."""
    url = f"sqlite:///{tmp_path / 'locked.db'}"
    engine = open_engine(url)
    event.listen(engine, "connect", lambda ours, _record: ours.execute("PRAGMA busy_timeout = 50"))
    with sqlite3.connect(tmp_path / "locked.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy, match=r"upgrading the schema, the database is locked"):
            upgrade.upgrade(engine)
    other.close()
    engine.dispose()


def test_no_scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An installation without the scripts says so."""
    monkeypatch.setattr("importlib.resources.files", lambda _name: tmp_path / "etl")
    with pytest.raises(StorageError, match="migration scripts are missing"):
        upgrade.script_location()
