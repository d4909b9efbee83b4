"""Ask each kind of database the same questions, and compare its answers."""

import re
import sqlite3
import tomllib
from datetime import UTC, datetime
from typing import Any

import psycopg
import pymysql
import pytest
from sqlalchemy import URL, Engine, func, insert, select
from sqlalchemy.exc import NoSuchModuleError

from etl.database import bulk
from etl.database.address import parse_url
from etl.database.dialects import DIALECTS, dialect
from etl.database.engine import open_engine
from etl.database.names import driver_of
from etl.database.schema import attempt_queue as q
from etl.errors import ConfigError
from tests.support.harness import ROOT

AT = datetime(2026, 3, 1, 10, 17, 42, 250_000, tzinfo=UTC)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_plain_scheme_means_our_driver(name: str) -> None:
    """The address of a kind names its driver, with which an engine opens."""
    address = "sqlite://" if name == "sqlite" else f"{name}://u@h/d"
    assert parse_url(address).drivername == dialect(name).driver.name
    engine = open_engine(address)
    assert dialect(engine) is dialect(name) is DIALECTS[engine.dialect.name]


@pytest.mark.parametrize("name", DIALECTS)
def test_a_driver_comes_with_an_extra(name: str) -> None:
    """What installs a driver is in an extra of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [wanted for each in project["optional-dependencies"].values() for wanted in each]
    names = {re.split(r"[^\w.-]", wanted)[0] for wanted in extras}
    package = dialect(name).driver.package
    assert name == "sqlite" or package.partition("[")[0] in names


@pytest.mark.parametrize("error", [ImportError, NoSuchModuleError])
def test_a_missing_driver_is_named(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is not installed is named, be its kind SQLAlchemy's own or a package's."""

    def missing(*_words: object, **_options: object) -> None:
        raise error

    def unknown(_url: URL) -> None:
        raise NoSuchModuleError

    monkeypatch.setattr("etl.database.engine.create_engine", missing)
    monkeypatch.setattr(URL, "get_dialect", unknown)
    for address in ("mysql://u@h/d", "mysql+pymysql://u@h/d"):
        with pytest.raises(ConfigError, match="The driver for mysql is not installed") as caught:
            open_engine(address)
        assert caught.value.hint == "Run: pip install 'PyMySQL'"


@pytest.mark.parametrize(
    ("cause", "name"),
    [
        (sqlite3.OperationalError("no such table: x"), "sqlite"),
        (psycopg.errors.UniqueViolation("duplicate key"), "postgresql"),
        (pymysql.err.IntegrityError(1062, "Duplicate entry"), "mysql"),
        (ValueError("a programmer's"), None),
        (None, None),
    ],
)
def test_an_error_is_its_drivers(cause: BaseException | None, name: str | None) -> None:
    """Each driver knows its own errors, and none claims another's."""
    assert driver_of(cause) is (name and dialect(name).driver)


def test_new_rows_are_inserted_and_others_left(engine: Engine) -> None:
    """A batch leaves alone what is there, and tells how many were new where it says so."""
    columns: dict[str, Any] = {"sid": ["a", "b", "c"], "source": ["new"] * 3}
    with engine.begin() as connection:
        spoken = dialect(connection)
        connection.execute(insert(q).values(sid="b", source="old"))
        done = bulk.execute(connection, spoken.insert_new(q, "sid", columns), columns)
        if spoken.counts_inserts:
            assert done.rowcount == 2
        found = connection.execute(select(q.c.sid, q.c.source).order_by(q.c.sid)).all()
    assert [tuple(row) for row in found] == [("a", "new"), ("b", "old"), ("c", "new")]


def test_rows_are_updated_by_their_key(engine: Engine) -> None:
    """Some columns come row by row, others are the same for all; no other row changes."""
    with engine.begin() as connection:
        connection.execute(insert(q), [{"sid": sid} for sid in "abc"])
        ids = connection.execute(select(q.c.id).order_by(q.c.sid)).scalars().all()
        statement = dialect(connection).update(q, ["due_at"], "new_", {"fetches": q.c.fetches + 1})
        bulk.execute(connection, statement, {"new_id": ids[:2], "new_due_at": [7, 8]})
        found = connection.execute(select(q.c.due_at, q.c.fetches).order_by(q.c.sid)).all()
    assert [tuple(row) for row in found] == [(7, 1), (8, 1), (0, 0)]


def test_an_upsert_writes_what_is_newer(engine: Engine) -> None:
    """The row sent wins where its column is greater; without one it always does."""
    names = ["source", "due_at"]
    with engine.begin() as connection:
        spoken = dialect(connection)
        # By the primary key: the row that is there is sent with its id.
        connection.execute(insert(q).values(sid="a", source="there", due_at=5))
        row = dict(connection.execute(select(q)).mappings().one())
        for due_at, newer, wins in ((4, "due_at", False), (6, "due_at", True), (1, None, True)):
            sent = {**row, "source": f"at {due_at}", "due_at": due_at}
            statement = spoken.upsert(q, names, newer=newer)
            bulk.execute(connection, statement, {name: [value] for name, value in sent.items()})
            found = connection.execute(select(q.c.source)).scalar_one()
            assert (found == f"at {due_at}") is wins


def test_a_moment_is_read_and_compared(engine: Engine) -> None:
    """Seconds, the quarter and what is bound agree on a moment that was stored."""
    with engine.begin() as connection:
        spoken = dialect(connection)
        connection.execute(insert(q).values(sid="a", enqueued_at=AT))
        stored = q.c.enqueued_at
        assert connection.execute(select(spoken.epoch_s(stored))).scalar() == int(AT.timestamp())
        rounded = connection.execute(select(func.max(spoken.rounded(stored, 900)))).scalar()
        assert str(rounded)[:16] in {"2026-03-01 10:15", "2026-03-01 10:17"}
        compared = f"SELECT COUNT(*) FROM attempt_queue WHERE enqueued_at < {spoken.bound('{}')}"
        for at, count in ((AT, 0), (AT.replace(microsecond=251_000), 1)):
            literal = f"'{spoken.as_bound(at)}'"
            assert connection.exec_driver_sql(compared.format(literal)).scalar() == count


def test_what_stands_is_told(engine: Engine) -> None:
    """Tables and views are found by their names, and told apart."""
    with engine.begin() as connection:
        rows = connection.exec_driver_sql(dialect(connection).standing)
        found = {name: bool(is_view) for name, is_view in rows}
    assert found["attempt_queue"] is False
    assert found["v_attempts"] is True


def test_all_sequences_are_usable_to_their_owner(engine: Engine) -> None:
    """Who owns the tables may draw ids."""
    with engine.begin() as connection:
        assert [*dialect(connection).unusable_sequences(connection, [q.name])] == []


def test_a_lock_is_the_transactions_own(engine: Engine) -> None:
    """A database that needs named locks gives both kinds of them."""
    with engine.begin() as connection:
        spoken = dialect(connection)
        for shared in (True, False):
            statement = spoken.lock(1, "verify_etl_version", shared=shared)
            assert (statement is None) is spoken.writes_alone
            if statement is not None:
                connection.exec_driver_sql(statement).all()
