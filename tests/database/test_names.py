"""Hold what is said of a refusal to names: of tables, columns and constraints, never of a row."""

import traceback

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from etl.database.dialects.driver import Fault
from etl.database.errors import classify, explain
from etl.database.names import names_of
from tests.support.queue_rows import execute

SECRET = "s3cret"
"""The row's value. Its database or its trigger quotes it."""

TABLE = "CREATE TABLE mine (k INTEGER, c VARCHAR(40))"
ROW = f"INSERT INTO mine (k, c) VALUES (1, '{SECRET}')"
RAISES = (
    "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
    " RAISE EXCEPTION USING MESSAGE = NEW.c, ERRCODE = '{}'; END$$;"
    " CREATE TRIGGER x BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION audit()"
)
REFERS = (
    "CREATE TABLE other (c VARCHAR(40) PRIMARY KEY);"
    "ALTER TABLE mine ADD CONSTRAINT fk FOREIGN KEY (c) REFERENCES other (c)"
)
SIGNALS = (
    "CREATE TRIGGER x BEFORE INSERT ON mine FOR EACH ROW SIGNAL SQLSTATE '45000'"
    f" SET MESSAGE_TEXT = '{SECRET} for key ''{SECRET}'''"
)
CASES = {
    "sqlite": [
        (f"ALTER TABLE mine ADD d TEXT DEFAULT '{SECRET}' CONSTRAINT ck CHECK (d <> c)",
         ROW, "table mine, constraint ck (SQLITE_CONSTRAINT_CHECK)"),
        (f"ALTER TABLE mine ADD d TEXT CHECK (c <> '{SECRET}')",
         ROW, "table mine (SQLITE_CONSTRAINT_CHECK)"),
        (f"CREATE UNIQUE INDEX u ON mine (c); {ROW}",
         ROW, "table mine, column c (SQLITE_CONSTRAINT_UNIQUE)"),
        ("ALTER TABLE mine ADD d TEXT NOT NULL DEFAULT ''",
         f"INSERT INTO mine (c, d) VALUES ('{SECRET}', NULL)",
         "table mine, column d (SQLITE_CONSTRAINT_NOTNULL)"),
        (f"CREATE TRIGGER x BEFORE INSERT ON mine BEGIN SELECT RAISE(ABORT, '{SECRET}'); END",
         ROW, "table mine (SQLITE_CONSTRAINT_TRIGGER)"),
        (f"CREATE TRIGGER x BEFORE INSERT ON mine BEGIN SELECT RAISE(ROLLBACK, '{SECRET}'); END",
         ROW, "table mine (SQLITE_CONSTRAINT_TRIGGER)"),
        ("CREATE TABLE strict (c INTEGER) STRICT",
         f"INSERT INTO strict (c) VALUES ('{SECRET}')",
         "table strict, column c (SQLite error 3091)"),
    ],
    "postgresql": [
        (f"ALTER TABLE mine ADD CONSTRAINT ck CHECK (c <> '{SECRET}')",
         ROW, "table mine, constraint ck (CheckViolation 23514)"),
        ("ALTER TABLE mine ADD d INT NOT NULL",
         ROW, "table mine, column d (NotNullViolation 23502)"),
        (f"CREATE UNIQUE INDEX u ON mine (c); {ROW}",
         ROW, "table mine, constraint u (UniqueViolation 23505)"),
        ("ALTER TABLE mine ALTER c TYPE VARCHAR(3)",
         ROW, "table mine (StringDataRightTruncation 22001)"),
        ("ALTER TABLE mine ALTER c TYPE INT USING NULL",
         ROW, "table mine (InvalidTextRepresentation 22P02)"),
        (RAISES.format("P0001"), ROW, "table mine, function audit (RaiseException P0001)"),
        (RAISES.format("U0001"), ROW, "table mine, function audit"),
        (RAISES.format("42P01"), ROW, "table mine, function audit (UndefinedTable 42P01)"),
    ],
    "mariadb": [
        (f"ALTER TABLE mine ADD CONSTRAINT ck CHECK (c <> '{SECRET}')",
         ROW, "table mine, constraint ck (error 4025)"),
        ("ALTER TABLE mine ADD d INT NOT NULL", ROW, "table mine, column d (error 1364)"),
        ("ALTER TABLE mine ADD d INT NOT NULL",
         f"INSERT INTO mine (c, d) VALUES ('{SECRET}', NULL)", "table mine, column d (error 1048)"),
        (f"CREATE UNIQUE INDEX u ON mine (c); {ROW}", ROW, "table mine, constraint u (error 1062)"),
        ("ALTER TABLE mine MODIFY c VARCHAR(3)", ROW, "table mine, column c (error 1406)"),
        ("ALTER TABLE mine MODIFY c INT", ROW, "table mine, column c (error 1366)"),
        ("ALTER TABLE mine MODIFY c DATETIME", ROW, "table mine, column c (error 1292)"),
        ("ALTER TABLE mine MODIFY c VARCHAR(40) CHARACTER SET utf8mb3",
         f"INSERT INTO mine (c) VALUES ('{SECRET}\U0001f600')", "table mine, column c (error 1366)"),
        (REFERS,
         ROW, "table mine, constraint fk (error 1452)"),
        ("ALTER TABLE mine MODIFY c JSON", ROW, "table mine, constraint mine.c (error 4025)"),
        (SIGNALS, ROW, "table mine (error 1644)"),
        (f"{SIGNALS}, MYSQL_ERRNO = 1062", ROW, "table mine"),
        (f"{SIGNALS}, MYSQL_ERRNO = 30001", ROW, "table mine (error 30001)"),
        ("CREATE TRIGGER x BEFORE INSERT ON mine FOR EACH ROW UPDATE mine SET k = 1",
         ROW, "table mine (error 1442)"),
    ],
}  # fmt: skip


def assert_says_names(engine: Engine, setup: str, statement: str, expected: str) -> None:
    """Assert that a refusal's names are said, and nothing of the row."""
    execute(engine, TABLE)
    apart = "\n" if engine.dialect.name == "postgresql" or "BEGIN" in setup else ";"
    with engine.begin() as connection:
        for each in setup.split(apart):
            connection.exec_driver_sql(each)
    error = refused(engine, statement)
    assert classify(error) is Fault.REFUSED
    assert names_of(error).startswith(expected)
    said = "".join(traceback.format_exception(error)) + str(explain(error, "testing"))
    assert SECRET not in said.replace(statement, "")


@pytest.mark.kinds("sqlite")
@pytest.mark.parametrize(("setup", "statement", "expected"), CASES["sqlite"])
def test_sqlite_is_said_by_names(
    empty_engine: Engine, setup: str, statement: str, expected: str
) -> None:
    """What SQLite says of a row is in no error, traceback or cause; the names are."""
    assert_says_names(empty_engine, setup, statement, expected)


@pytest.mark.kinds("postgresql", "second-postgresql")
@pytest.mark.parametrize(("setup", "statement", "expected"), CASES["postgresql"])
def test_postgresql_is_said_by_names(
    empty_engine: Engine, setup: str, statement: str, expected: str
) -> None:
    """What PostgreSQL says of a row is in no error, traceback or cause; the names are."""
    assert_says_names(empty_engine, setup, statement, expected)


@pytest.mark.kinds("mariadb")
@pytest.mark.parametrize(("setup", "statement", "expected"), CASES["mariadb"])
def test_mariadb_is_said_by_names(
    empty_engine: Engine, setup: str, statement: str, expected: str
) -> None:
    """What MariaDB says of a row is in no error, traceback or cause; the names are."""
    assert_says_names(empty_engine, setup, statement, expected)


def refused(engine: Engine, statement: str) -> DBAPIError:
    """Run a statement, and return the error that its database makes of it."""
    with pytest.raises(DBAPIError) as caught, engine.begin() as connection:
        connection.exec_driver_sql(statement)
    return caught.value
