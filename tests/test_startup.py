"""Hold the start to what imports cost, and the imports to what a command needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from etl.database.engine import open_engine
from etl.migrate.upgrade import upgrade
from tests.support.harness import ROOT, measured

HEAVY = {
    "alembic", "rich", "psycopg", "pymysql", "pyarrow", "mako", "twilio",
    "etl.migrate.upgrade", "etl.sandbox", "etl.reports", "etl.backfill.enqueue",
}  # fmt: skip


@pytest.fixture
def queue_url(tmp_path: Path) -> str:
    """Give the address of a migrated SQLite file whose queue is empty."""
    url = f"sqlite:///{tmp_path}/q.db"
    engine = open_engine(url)
    upgrade(engine)
    engine.dispose()
    return url


def imported(*words: str, database: str) -> set[str]:
    """Return the names of the modules that a command has imported when it ends."""
    program = (
        "import sys\nfrom etl.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env={
            **os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": database,
            "TWILIO_ACCOUNT_SID": "AC" + "0" * 32, "TWILIO_AUTH_TOKEN": "nobody",
        },
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stderr.split())


def test_run_imports_what_it_needs(queue_url: str) -> None:
    """A run on SQLite imports neither Alembic nor other databases' dialects nor what others need."""
    names = imported("run", database=queue_url)
    assert {"sqlalchemy", "requests", "pydantic", "etl.run.pipeline"} <= names
    assert names & HEAVY == set()
    assert {name for name in names if name.startswith("sqlalchemy.dialects.")} & {
        "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.mysql",
    } == set()  # fmt: skip


def test_help_imports_next_to_nothing(queue_url: str) -> None:
    """The help of all commands is shown without a database, HTTP or a model being imported."""
    names = imported("--help", database=queue_url)
    assert "click" in names
    assert names & (HEAVY | {"sqlalchemy", "requests", "pydantic", "tenacity", "urllib3"}) == set()


def test_the_start_is_quick() -> None:
    """The help starts within 150 ms of Python, a run within 1.5 times its libraries' imports."""
    measured("startup.py", "--rounds", "3")
