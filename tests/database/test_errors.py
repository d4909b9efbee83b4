"""Check how the drivers' errors are sorted and said."""

import re
import sqlite3
import threading
import traceback
from pathlib import Path

import psycopg.errors
import pymysql.err
import pytest
from sqlalchemy import Connection, Engine, insert
from sqlalchemy.exc import DBAPIError

from etl.database.dialects.driver import Fault
from etl.database.dialects.sqlite_driver import name_file
from etl.database.engine import carefully
from etl.database.errors import classify, explain
from etl.database.schema import attempt_queue as q
from etl.database.transact import transact
from etl.errors import ConfigError, DatabaseBusy, EtlError, SchemaError, StorageError, WriteRefused
from tests.support.queue_rows import put, read


def _postgresql(code: str) -> DBAPIError:
    return DBAPIError("", None, psycopg.errors.lookup(code)("said"))


def _mysql(code: int) -> DBAPIError:
    return DBAPIError("", None, pymysql.err.OperationalError(code, "said"))


def _sqlite(code: int) -> DBAPIError:
    cause = sqlite3.OperationalError("said")
    cause.sqlite_errorcode = code
    return DBAPIError("", None, cause)


@pytest.mark.parametrize(
    "cause",
    [
        psycopg.errors.QueryCanceled("canceling statement due to statement timeout"),
        pymysql.err.OperationalError(1969, "Query execution was interrupted"),
        pymysql.err.OperationalError(3024, "Query execution was interrupted"),
        pymysql.err.OperationalError(2013, "Lost connection to server during query (timed out)"),
    ],
)
def test_a_slow_statement_is_called_slow(cause: Exception) -> None:
    """What was ended for its time reads so, whoever ended it, and not as a lost connection."""
    found = explain(DBAPIError("", None, cause), "testing")
    assert isinstance(found, DatabaseBusy)
    assert str(found).startswith("While testing, a statement took too long (")


@pytest.mark.parametrize(
    "error",
    [
        _postgresql("23505"), _postgresql("22001"), _postgresql("P0001"), _postgresql("44000"),
        _postgresql("54000"), _mysql(1062), _mysql(1366), _mysql(1406), _mysql(4025),
        _sqlite(sqlite3.SQLITE_CONSTRAINT_CHECK), _sqlite(sqlite3.SQLITE_TOOBIG),
        DBAPIError("", None, psycopg.DataError("PostgreSQL text fields cannot contain NUL")),
    ],
)  # fmt: skip
def test_a_row_is_to_blame_for_its_values_alone(error: DBAPIError) -> None:
    """Constraints, wrong values and triggers are what rows are refused for, in no word of theirs."""
    assert classify(error) is Fault.REFUSED
    found = explain(error, "testing")
    assert isinstance(found, WriteRefused)
    assert "said" not in str(found)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        *((DatabaseBusy, _postgresql(c)) for c in ("55P03", "08006", "57P01", "53200", "40003")),
        *((DatabaseBusy, _postgresql(c)) for c in ("25P04", "72000")),
        (ConfigError, _postgresql("28P01")),
        *(
            (ConfigError, DBAPIError("", None, psycopg.OperationalError(f"FATAL:  {said}")))
            for said in (
                'role "x" does not exist', 'database "x" does not exist',
                'password authentication failed for user "x"', 'no pg_hba.conf entry for host "x"',
            )
        ),
        (DatabaseBusy, DBAPIError("", None, psycopg.OperationalError("connection refused"))),
        *((StorageError, _postgresql(c)) for c in ("53100", "58030", "XX001", "55000", "0A000")),
        (SchemaError, _postgresql("42883")),
        *((DatabaseBusy, _mysql(code)) for code in (1206, 1226, 1135, 1160)),
        *((StorageError, _mysql(code)) for code in (1180, 1026, 1037, 1041, 1114, 9999)),
        *((StorageError, _sqlite(code)) for code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM)),
        (SchemaError, _sqlite(sqlite3.SQLITE_ERROR)),
    ],
)  # fmt: skip
def test_what_is_no_rows_fault_ends_the_run(kind: type[EtlError], error: DBAPIError) -> None:
    """Each other error, known or not, is the run's, in words and with a hint."""
    found = explain(error, "testing")
    assert (type(found), bool(found.hint)) == (kind, True)


@pytest.mark.parametrize("error", [_postgresql("25P03"), _postgresql("57P05"), _mysql(4031)])
def test_a_session_that_stood_still_is_said_to_have_been_ended(error: DBAPIError) -> None:
    """The database could be reached all the time: it was this process that said nothing."""
    assert classify(error) is Fault.LOST
    assert str(explain(error, "testing")) == (
        "While testing, the database ended the session, which had stood still "
        f"({error.orig}). Nothing is lost; run it again."
    )


@pytest.mark.parametrize("error", [_postgresql("57014"), _mysql(1969), _mysql(3024)])
def test_a_statement_that_took_too_long_is_tried_again(error: DBAPIError) -> None:
    """Whoever set the bound, nothing is wrong with a row."""
    assert classify(error) is Fault.BUSY


def test_a_file_that_cannot_be_opened_is_no_file_that_cannot_be_written(tmp_path: Path) -> None:
    """If nothing else is known, SQLite's words are passed on, with the file's name."""
    error = _sqlite(sqlite3.SQLITE_CANTOPEN_ISDIR)
    assert error.orig is not None
    assert str(explain(error, "testing")).startswith(
        "While testing, the file could not be opened (said). "
    )
    name_file(error.orig, f"{tmp_path}/x.db")
    assert str(explain(error, "testing")).startswith(
        f"While testing, {tmp_path}/x.db could not be opened (said). "
    )


@pytest.mark.kinds("postgresql", "second-postgresql", "mariadb")
def test_a_deadlock_under_a_savepoint_is_tried_again(engine: Engine) -> None:
    """A server that undoes the transaction, savepoint and all, is busy and refuses nothing."""
    put(engine, *({"sid": sid} for sid in "abcdefgh"))
    met = threading.Barrier(2)
    waited: set[str] = set()
    edit = "UPDATE attempt_queue SET attempts = attempts + 1 WHERE sid = '{}'"

    def both(connection: Connection, first: str, second: str) -> None:
        connection.exec_driver_sql(edit.format(first))
        if first not in waited:
            waited.add(first)
            met.wait()
        with connection.begin_nested():
            connection.exec_driver_sql(edit.format(second))

    def light(connection: Connection) -> None:
        both(connection, "a", "b")

    def heavy(connection: Connection) -> None:
        for sid in "cdefgh":
            connection.exec_driver_sql(edit.format(sid))
        both(connection, "b", "a")

    thread = threading.Thread(target=transact, args=(engine, heavy), kwargs={"doing": "other"})
    thread.start()
    transact(engine, light, doing="testing")
    thread.join()
    assert {read(engine)[sid].attempts for sid in "ab"} == {2}


def test_a_refused_row_is_said_by_names(engine: Engine) -> None:
    """A duplicate ends with 78, once it was tried carefully, and what it is of is not said."""
    put(engine, {"sid": "s3cret"})
    careful: list[bool] = []

    def work(connection: Connection) -> None:
        careful.append(carefully(connection))
        connection.execute(insert(q).values(sid="s3cret"))

    with pytest.raises(WriteRefused, match="table attempt_queue") as caught:
        transact(engine, work, doing="testing", sleep=lambda _s: None)
    assert (careful, caught.value.exit_code) == ([False, True], 78)
    told = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in told.replace('values(sid="s3cret")', "")


@pytest.mark.parametrize(
    ("error", "kind", "said", "mend"),
    [
        (_postgresql("25006"), StorageError, "takes? no writes", "name the primary"),
        (_mysql(1290), StorageError, "takes? no writes", "name the primary"),
        (_postgresql("57014"), DatabaseBusy, "a statement took too long", "statement_timeout"),
        (_mysql(1969), DatabaseBusy, "a statement took too long", "max_statement_time"),
        (_mysql(1153), ConfigError, "max_allowed_packet", "SET GLOBAL max_allowed_packet"),
        (_mysql(1665), ConfigError, "binary log", "binlog_format = 'ROW'"),
        (_mysql(1049), ConfigError, "no such database", "Create it"),
        (
            DBAPIError("", None, psycopg.OperationalError('FATAL: database "x" does not exist')),
            ConfigError,
            "no such database",
            "Create it",
        ),
    ],
)
def test_the_mend_is_the_one_that_helps(
    error: DBAPIError, kind: type[EtlError], said: str, mend: str
) -> None:
    """What a server's owner has set is called that, with the setting to change."""
    found = explain(error, "testing")
    assert type(found) is kind
    assert re.search(said, found.message)
    assert mend in found.hint
