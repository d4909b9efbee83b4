"""Hand the global options to the commands, which build from them what they need."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from etl.cli import messages

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from etl.settings import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Context:
    """Carry the global options; build what a command asks for, when it asks."""

    config: str | None
    verbose: bool
    quiet: bool
    log_format: str = "text"

    def settings(self, **flags: Any) -> "Settings":  # noqa: ANN401 - checked by the model
        """Resolve the settings; ``flags`` that are None were not given."""
        from etl.settings import load

        settings = load(flags, file=Path(self.config) if self.config else None)
        messages.hide(settings.secrets())
        return settings

    @contextmanager
    def database(
        self, settings: "Settings", *, create: bool = False, read_only: bool = False
    ) -> Iterator["Engine"]:
        """Open the configured database for a command, and close it after.

        Whatever is read in one transaction of a ``read_only`` one is of one moment.
        """
        from etl.database.engine import open_engine

        engine = open_engine(settings.database_url.get_secret_value(), create=create)
        hide_password(engine)
        try:
            yield snapshots(engine) if read_only else engine
        finally:
            engine.dispose()

    def conclude(self, words: str, done: "Mapping[str, Any]") -> None:
        """Say what a command did: a line on stdout, or one of the messages written as JSON."""
        if self.log_format == "json":
            _log.info("%s", words, extra={"fields": dict(done)})
        elif not self.quiet:
            click.echo(words)

    def watched(self) -> bool:
        """Say whether a person watches stderr."""
        return sys.stderr is not None and sys.stderr.isatty() and not self.quiet


def hide_password(engine: "Engine") -> None:
    """Let no message show the password of the database."""
    messages.hide((str(engine.url.password or ""),))


def snapshots(engine: "Engine") -> "Engine":
    """Give the engine for transactions that write nothing and see the database of one moment.

    The moment is that of the first statement; a loader that goes on meanwhile is not waited for.
    """
    from etl.database.bounds import PATIENT
    from etl.database.dialects import dialect
    from etl.database.engine import READ_ONLY

    return engine.execution_options(**dialect(engine).snapshot, **READ_ONLY, **PATIENT)
