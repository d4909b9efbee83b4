"""Give each test a real database of its own, on every kind that this machine can offer.

SQLite and PostgreSQL 18 are always there (the latter out of a wheel); a second PostgreSQL and a
MariaDB join when ``VERIFY_ETL_TEST_POSTGRES_URL`` and ``VERIFY_ETL_TEST_MARIADB_URL`` name servers
on which databases may be created; ``tests/support/parts.py`` chooses among them. A test asks for

- ``database_url``: the address of a migrated database, once for each kind;
- ``empty_database_url``: the same without any table;
- ``engine``, ``empty_engine``: an engine of the program on the one or the other;
- ``sqlite``, ``server``: an engine on a migrated SQLite file, on each kind that is a server;
- ``database_kind``: the name of the kind, to ask for before any of these when it matters;
- ``scale``: what a long test multiplies its counts by.

The schema is migrated once for each kind and process, then copied.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings
from sqlalchemy import Engine

from etl.database.engine import open_engine
from etl.extract import Api
from tests.support.databases import Server, Servers, start
from tests.support.harness import PATIENCE_S, SCALE, MakeApi, scaled

pytest_plugins = ["tests.support.memory", "tests.support.parts", "tests.support.progress"]

# A busy machine is no defect: what an example may take is not looked at.
settings.register_profile("any machine", deadline=None, max_examples=scaled(100))
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Start each kind's server when it is first asked for, and stop it at the end."""
    with ExitStack() as stack:
        started: dict[str, Server] = {}

        def get(name: str) -> Server:
            if name not in started:
                folder = tmp_path_factory.mktemp(name)
                started[name] = stack.enter_context(start(name, folder))
            return started[name]

        yield get


@pytest.fixture
def database_url(database_kind: str, servers: Servers) -> Iterator[str]:
    """Give the address of a migrated database that no other test sees."""
    with servers(database_kind).database(migrated=True) as url:
        yield url


@pytest.fixture
def empty_database_url(database_kind: str, servers: Servers) -> Iterator[str]:
    """Give the address of a database without tables that no other test sees."""
    with servers(database_kind).database(migrated=False) as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Open the program's own engine on the migrated database."""
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def empty_engine(empty_database_url: str) -> Iterator[Engine]:
    """Open the program's own engine on the empty database."""
    engine = open_engine(empty_database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite(servers: Servers) -> Iterator[Engine]:
    """Open the program's own engine on a migrated SQLite file, which keeps anything anywhere."""
    with servers("sqlite").database(migrated=True) as url:
        engine = open_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def server(server_kind: str, servers: Servers) -> Iterator[Engine]:
    """Open it on a migrated database on which two transactions write at once."""
    with servers(server_kind).database(migrated=True) as url:
        engine = open_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def make_api() -> Iterator[MakeApi]:
    """Build clients whose deadlines no busy machine reaches, and close them.

    A test of a deadline names its own.
    """
    built = []

    def build(url: str, **options: str | float) -> Api:
        who = {"user": "ACx", "password": "hush", "credential_name": "KEY", "user_agent": "test/1"}
        bounds = dict.fromkeys(("connect_s", "read_s", "total_s"), PATIENCE_S)
        terms: dict[str, object] = {**bounds, **options}
        api = Api(url, **who, **terms)  # type: ignore[arg-type]  # strings and numbers mixed
        built.append(api)
        return api

    yield build
    for api in built:
        api.close()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own credentials and settings out of the tests."""
    for name in list(os.environ):
        ours = name == "DATABASE_URL" or name.startswith(("TWILIO_", "VERIFY_ETL_"))
        if ours and not name.startswith("VERIFY_ETL_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def scale() -> float:
    """Give what a long test multiplies its counts by."""
    return SCALE
