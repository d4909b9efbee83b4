"""Hand the global options to the commands, which build from them what they need."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etl import __version__
from etl.cli import messages
from etl.errors import SchemaError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from etl.extract import Api
    from etl.settings import Settings


def _absent(database: str | None) -> bool:
    """Say that a file is not there, in a folder that is; of another address SQLite may judge."""
    if not database or database.startswith((":", "file:")):
        return False
    path = Path(database)
    return path.parent.is_dir() and not path.exists()


@dataclass(frozen=True, slots=True)
class Context:
    """Carry the global options; build what a command asks for, when it asks."""

    config: str | None
    verbose: bool
    quiet: bool

    def settings(self, **flags: Any) -> "Settings":  # noqa: ANN401 - checked by the model
        """Resolve the settings; ``flags`` that are None were not given."""
        from etl.settings import load

        settings = load(flags, file=Path(self.config) if self.config else None)
        messages.hide(
            (settings.auth_token.get_secret_value(), settings.api_secret.get_secret_value())
        )
        return settings

    def engine(self, settings: "Settings", *, create: bool = False) -> "Engine":
        """Open the configured database; nothing is connected yet.

        Unless it may ``create`` one: an SQLite file that is not there would be made by looking.
        """
        from etl.database.dialects import dialect
        from etl.database.engine import open_engine

        engine = open_engine(settings.database_url.get_secret_value())
        messages.hide((str(engine.url.password or ""),))
        if not create and dialect(engine).is_file and _absent(engine.url.database):
            engine.dispose()
            msg = f"There is no database {engine.url.database} yet."
            raise SchemaError(msg, hint="Run: verify-etl db upgrade (or set DATABASE_URL).")
        return engine

    @contextmanager
    def database(self, settings: "Settings", *, read_only: bool = False) -> Iterator["Engine"]:
        """Open the configured database for a command, and close it after.

        Whatever is read in one transaction of a ``read_only`` one is of one moment.
        """
        engine = self.engine(settings)
        try:
            yield snapshots(engine) if read_only else engine
        finally:
            engine.dispose()

    def api(self, settings: "Settings") -> "Api":
        """Build the client for the configured account."""
        from etl.extract import Api

        user, password, name = settings.credentials()
        return Api(
            settings.api_url,
            user=user,
            password=password,
            credential_name=name,
            user_agent=f"verify-attempts-etl/{__version__}",
            proxy=settings.proxy.get_secret_value(),
            ca_bundle=settings.ca_bundle,
            window_s=settings.allowance_window / 1000,
        )

    def watched(self) -> bool:
        """Say whether a person watches stderr."""
        return sys.stderr is not None and sys.stderr.isatty() and not self.quiet


def snapshots(engine: "Engine") -> "Engine":
    """Give the engine for transactions that write nothing and see the database of one moment.

    The moment is that of the first statement; a loader that goes on meanwhile is not waited for.
    """
    from etl.database.bounds import PATIENT
    from etl.database.dialects import dialect
    from etl.database.engine import READ_ONLY

    return engine.execution_options(**dialect(engine).snapshot, **READ_ONLY, **PATIENT)
