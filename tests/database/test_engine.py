import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from etl.database.address import parse_url
from etl.database.dialects import dialect
from etl.database.dialects.sqlite_driver import wal_is_safe
from etl.database.engine import READ_ONLY, open_engine
from etl.database.schema import REVISION
from etl.database.schema import attempt_queue as q
from etl.database.times import clock, moment, moment_ms
from etl.database.transact import check_revision, transact
from etl.errors import ConfigError, DatabaseBusy, SchemaError, StorageError
from tests.support.databases import Servers
from tests.support.harness import PATIENCE_S
from tests.support.queue_rows import execute, impatient, kill, own_engine, put, read

EDIT = "UPDATE attempt_queue SET source = 'x', attempts = attempts + 1 WHERE sid = '{}'"


@pytest.fixture
def postgresql(servers: Servers) -> Iterator[Engine]:
    """Open a PostgreSQL database."""
    with own_engine(servers, "postgresql") as engine:
        yield engine


def run(
    engine: Engine,
    statement: str,
    sleep: Callable[[float], None] = lambda _s: None,
    patience_s: float = 0.2,
) -> None:
    """Run one statement through ``transact``, without waiting between its tries."""
    transact(
        engine,
        lambda c: c.exec_driver_sql(statement),
        doing="testing",
        patience_s=patience_s,
        sleep=sleep,
    )


def at_once(_seconds: float) -> None:
    """Stand for a sleep where nothing may be tried again."""
    pytest.fail("it was tried again")


@pytest.mark.parametrize(
    ("scheme", "driver"),
    [
        ("postgres", "postgresql+psycopg"), ("postgresql", "postgresql+psycopg"),
        ("mysql", "mysql+pymysql"), ("mariadb", "mariadb+pymysql"), ("sqlite", "sqlite"),
    ],
)  # fmt: skip
def test_plain_addresses_mean_our_drivers(scheme: str, driver: str) -> None:
    """An address as platforms hand it out needs no driver's name."""
    assert parse_url(f"{scheme}://u@h/d").drivername == driver


@pytest.mark.parametrize(
    "url",
    [
        "s3cret", "", "oracle://u:s3cret@h/d", "postgresql://u:p@s3cret:word@h/d",
        "mysql://u:p@h:s3cret/d", "postgresql+nodriver://u@h/d",
        "postgresql://u:p@s3cret@h/d",
    ],
)  # fmt: skip
def test_wrong_addresses_are_refused_without_being_shown(url: str) -> None:
    """Neither the message nor what caused it quotes a part of the address."""
    with pytest.raises(ConfigError) as caught:
        open_engine(url)
    assert "DATABASE_URL" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in str(caught.value.__cause__)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("scheme", "module", "package"),
    [("postgres", "psycopg", "psycopg[binary]"), ("mariadb", "pymysql", "PyMySQL")],
)
def test_a_missing_driver_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, scheme: str, module: str, package: str
) -> None:
    """The message ends with the command that installs the driver."""
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(ConfigError) as caught:
        open_engine(f"{scheme}://u:s3cret@h/d")
    assert caught.value.hint == f"Run: pip install '{package}'"


def test_secrets_stay_out_of_errors(servers: Servers) -> None:
    """A refused row's own error quotes no value, and an engine's repr no password."""
    with own_engine(servers, "sqlite") as engine:
        put(engine, {"sid": "s3cret"})
        with pytest.raises(DBAPIError) as caught:
            put(engine, {"sid": "s3cret"})
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(open_engine("postgresql://u:s3cret@h/d"))


def test_a_server_out_of_reach_is_busy_and_names_no_password() -> None:
    """A refused connection is tried again, then reported without the password."""
    tries: list[float] = []
    for scheme in ("postgresql", "mariadb"):
        with pytest.raises(DatabaseBusy, match="could not be reached") as caught:
            run(open_engine(f"{scheme}://u:s3cret@127.0.0.1:1/d"), "SELECT 1", sleep=tries.append)
        assert "s3cret" not in str(caught.value)
    assert len(tries) >= 2


def test_two_writers_never_meet_a_busy_sqlite(servers: Servers) -> None:
    """Read-then-write transactions of several threads wait for each other: none is lost."""
    with own_engine(servers, "sqlite") as engine:
        put(engine, {"sid": "a"})
        errors: list[BaseException] = []

        def count() -> None:
            try:
                for _ in range(20):
                    with engine.begin() as connection:
                        found = connection.exec_driver_sql("SELECT claim_no FROM attempt_queue")
                        number = found.scalar_one() + 1
                        connection.exec_driver_sql(f"UPDATE attempt_queue SET claim_no = {number}")
            except BaseException as error:  # noqa: BLE001 - shown below
                errors.append(error)

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (errors, read(engine)["a"].claim_no) == ([], 80)


def test_a_reader_takes_no_write_lock(servers: Servers) -> None:
    """A connection that will not write reads while another transaction writes."""
    with own_engine(servers, "sqlite") as engine, engine.begin() as writer:
        writer.exec_driver_sql("INSERT INTO attempt_queue (sid) VALUES ('a')")
        with engine.connect().execution_options(**READ_ONLY) as reader:
            assert reader.exec_driver_sql("SELECT count(*) FROM attempt_queue").scalar_one() == 0


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False), ((3, 44, 5), False), ((3, 44, 6), True), ((3, 45, 0), False),
        ((3, 50, 6), False), ((3, 50, 7), True), ((3, 51, 2), False), ((3, 51, 3), True),
        ((3, 52, 0), True), ((4, 0, 0), True),
    ],
)  # fmt: skip
def test_wal_waits_for_its_fix(version: tuple[int, ...], *, safe: bool) -> None:
    """Only versions whose write-ahead log cannot corrupt use it."""
    assert wal_is_safe(version) is safe


def test_the_journal_follows_the_version(servers: Servers) -> None:
    """The file is in WAL mode exactly if the linked SQLite is safe, and foreign keys are on."""
    with own_engine(servers, "sqlite") as engine, engine.connect() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        assert (mode == "wal") is wal_is_safe(sqlite3.sqlite_version_info)
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1


def test_a_lock_held_by_another_is_busy_after_our_patience(engine: Engine) -> None:
    """The transaction names the obstacle. Once that is gone, it passes."""
    put(engine, {"sid": "a"})
    impatient(engine)
    with engine.connect() as other:
        other.exec_driver_sql(EDIT.format("a"))
        with pytest.raises(DatabaseBusy, match="While testing, the database is") as caught:
            run(engine, EDIT.format("a"))
        assert ("locked by another process" in str(caught.value)) == (
            engine.dialect.name == "sqlite"
        )
        run(engine, EDIT.format("a"), sleep=lambda _s: other.commit(), patience_s=PATIENCE_S)
    assert read(engine)["a"].attempts == 2


def test_a_deadlock_is_tried_again(server: Engine) -> None:
    """Two transactions that lock two rows crosswise both commit in the end, each once."""
    put(server, {"sid": "a"}, {"sid": "b"})
    barrier = threading.Barrier(2)
    tries: list[str] = []
    errors: list[BaseException] = []

    def edit(first: str, second: str) -> None:
        def work(connection: Connection) -> None:
            connection.exec_driver_sql(EDIT.format(first))
            tries.append(first)
            if tries.count(first) == 1:
                barrier.wait(PATIENCE_S)
            connection.exec_driver_sql(EDIT.format(second))

        try:
            transact(server, work, doing="testing")
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=edit, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, len(tries) >= 3) == ([], True)
    assert [row.attempts for row in read(server).values()] == [2, 2]


def test_a_connection_killed_in_mid_transaction_is_replaced(server: Engine) -> None:
    """The whole transaction runs again on a new connection, and counts once."""
    put(server, {"sid": "a"})
    tries: list[int] = []

    def work(connection: Connection) -> None:
        connection.exec_driver_sql(EDIT.format("a"))
        tries.append(1)
        if len(tries) == 1:
            kill(server, connection)
        connection.exec_driver_sql("SELECT 1")

    transact(server, work, doing="testing", sleep=lambda _s: None)
    assert (len(tries), read(server)["a"].attempts) == (2, 1)


def test_a_commit_without_an_answer_is_looked_up(server: Engine) -> None:
    """The work runs once more after a commit that succeeded and never said so."""
    put(server, {"sid": "a"})
    seen: list[int] = []

    def work(connection: Connection) -> None:
        seen.append(connection.exec_driver_sql("SELECT attempts FROM attempt_queue").scalar_one())
        if not seen[-1]:
            connection.exec_driver_sql(EDIT.format("a"))

    def lose(connection: Connection) -> None:
        if len(seen) == 1 and connection.exec_driver_sql("SELECT 1").scalar_one():
            connection.connection.dbapi_connection.commit()  # type: ignore[union-attr]
            connection.exec_driver_sql("BEGIN")
            kill(server, connection)

    event.listen(server, "commit", lose)
    transact(server, work, doing="testing", sleep=lambda _s: None)
    assert (seen, read(server)["a"].attempts) == ([0, 1], 1)


def test_a_missing_table_is_named_with_the_command_that_mends_it(empty_engine: Engine) -> None:
    """An empty database is a schema error that names the table, at once."""
    with pytest.raises(SchemaError, match=r"attempt_queue.*verify-etl db upgrade") as caught:
        run(empty_engine, "DELETE FROM attempt_queue", sleep=at_once)
    assert caught.value.exit_code == 78
    with pytest.raises(SchemaError, match=r"verify_etl_version.*verify-etl db upgrade"):
        transact(empty_engine, check_revision, doing="testing")


def test_a_wrong_revision_stops(engine: Engine) -> None:
    """The message names both revisions and the command."""
    transact(engine, check_revision, doing="testing")
    execute(engine, "UPDATE verify_etl_version SET version_num = '9999'")
    with pytest.raises(SchemaError, match=rf"9999.*{REVISION}.*verify-etl db upgrade"):
        transact(engine, check_revision, doing="testing")


def test_a_missing_permission_names_the_table_and_the_grant(postgresql: Engine) -> None:
    """A role without the right to write is told the table and the missing grant."""
    name = f"reader_{postgresql.url.database}"
    execute(postgresql, f'CREATE ROLE "{name}"')
    try:
        with pytest.raises(SchemaError, match=r"attempt_queue.*Grant this user SELECT, INSERT"):
            run(postgresql, f'SET ROLE "{name}"; DELETE FROM attempt_queue', sleep=at_once)
    finally:
        postgresql.dispose()
        execute(postgresql, f'DROP ROLE "{name}"')


def test_a_statement_that_took_too_long_is_no_rows_fault(postgresql: Engine) -> None:
    """An administrator's statement timeout is a busy database, not a refused row."""
    with pytest.raises(DatabaseBusy, match=r"took too long.*statement timeout"):
        run(postgresql, "SET LOCAL statement_timeout = 20; SELECT pg_sleep(60)")


@pytest.mark.parametrize("case", ["read-only", "no folder", "no database", "a folder"])
def test_a_file_that_cannot_be_written_is_a_storage_error(case: str, tmp_path: Path) -> None:
    """Each is told at once, with exit code 74 and what to check."""
    path = tmp_path / "x.db"
    sqlite3.connect(path).close()
    url = f"sqlite:///{path}"
    if case == "read-only":
        url = f"sqlite:///file:{path}?mode=ro&uri=true"
    elif case == "no folder":
        url = f"sqlite:///{tmp_path}/none/x.db"
    elif case == "no database":
        path.write_bytes(b"This is text, and no database at all." * 100)
    else:
        url = f"sqlite:///{tmp_path}"
    with pytest.raises(
        StorageError, match=r"While testing.*(permissions|Check DATABASE_URL)"
    ) as caught:
        run(open_engine(url), "CREATE TABLE t (x INTEGER)", sleep=at_once)
    assert caught.value.exit_code == 74


def test_a_read_only_server_is_a_storage_error(server: Engine) -> None:
    """A replica that takes no writes stops the run."""
    if server.dialect.name == "postgresql":
        name = server.url.database
        execute(server, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')

    def set_read_only(connection: Any, _record: object) -> None:
        connection.cursor().execute("SET SESSION TRANSACTION READ ONLY")

    server.dispose()
    if server.dialect.name != "postgresql":
        event.listen(server, "connect", set_read_only)
    with pytest.raises(StorageError):
        run(server, "INSERT INTO attempt_queue (sid) VALUES ('a')", sleep=at_once)


def test_a_refused_login_is_a_configuration_error(server: Engine) -> None:
    """An absent database is told at once, without the password."""
    url = server.url.set(database="absent").render_as_string(hide_password=False)
    with pytest.raises(ConfigError, match="DATABASE_URL") as caught:
        run(open_engine(url), "SELECT 1", sleep=at_once)
    assert caught.value.exit_code == 78


def test_what_is_there_already_is_ignored_and_nothing_else(engine: Engine) -> None:
    """A duplicate leaves the row alone, a NULL is still refused."""
    put(engine, {"sid": "a", "source": "first"})
    with engine.begin() as connection:
        connection.execute(
            dialect(connection).insert_ignore(q, "sid"), {"sid": "a", "source": "second"}
        )
    assert read(engine)["a"].source == "first"
    with pytest.raises(DBAPIError), engine.begin() as connection:
        connection.execute(dialect(connection).insert_ignore(q, "sid").values(sid=None))


def test_the_clock_is_the_time_in_milliseconds(engine: Engine) -> None:
    """The database's clock moves inside a transaction and is near ours."""
    with engine.connect() as connection:
        first = clock(connection)
        while (second := clock(connection)) == first:
            pass
    assert abs(first - datetime.now(UTC).timestamp() * 1000) < 5_000
    assert first < second < first + 1_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(1970, 1, 1, 0, 0, 1, 500_000), 1_500),  # noqa: DTZ001 - as MariaDB gives it
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        ("1970-01-01 00:00:01.5", 1_500),
        (" 1970-01-01T00:00:01Z ", 1_000),
        ("0000-00-00 00:00:00", None),
        ("infinity", None),
        ("", None),
        (None, None),
        (17, None),
        (b"1970-01-01", None),
        (date(1970, 1, 1), None),
    ],
)
def test_any_value_is_a_moment_or_none(value: object, expected: int | None) -> None:
    """What a driver may return as a time is read as UTC, and never an error."""
    assert moment_ms(value) == expected
    assert expected is None or moment_ms(moment(expected)) == expected
