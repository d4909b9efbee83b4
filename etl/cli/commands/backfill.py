"""``verify-etl backfill``: enqueue SIDs from files."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from etl.backfill.enqueue import Checked, Loaded, OnProgress, check, load, refusal
from etl.backfill.files import STDIN, Source, replayable
from etl.backfill.lines import ATTEMPTS, VERIFICATIONS
from etl.cli.commands.run import run_now
from etl.cli.context import Context
from etl.cli.words import counted
from etl.database.transact import check_revision, transact

if TYPE_CHECKING:
    from etl.settings import Settings

SHOWN = 20
"""Bad lines that are shown, of all files together."""

_log = logging.getLogger(__name__)


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--verifications",
    "of_verifications",
    is_flag=True,
    help="The files hold SIDs of Verifications (VE...): all their attempts are wanted.",
)
@click.option("--skip-bad", is_flag=True, help="Leave bad lines out and enqueue the others.")
@click.option("--source", help="Label of the rows.  [default: the file's name]")
@click.option("--run", "then_run", is_flag=True, help="Drain the queue afterwards.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
@click.pass_obj
def backfill(
    context: Context,
    *,
    files: tuple[str, ...],
    of_verifications: bool,
    skip_bad: bool,
    source: str | None,
    then_run: bool,
    as_json: bool,
) -> None:
    """Enqueue attempt SIDs from files, `-` being standard input.

    Reads plain text (one SID a line), CSV with a `sid` column and perhaps `date_created`, JSON
    (values, arrays, pages of a list, Verifications with their attempts, Event Streams), and gzip
    of each. A SID that is queued already
    stays as it is. All files are checked first: one bad line, and nothing is enqueued.

    \b
    Example:
      verify-etl backfill sids.txt attempts.csv.gz
    """
    settings = context.settings()
    loaded = _enqueue(
        context, settings, files, source, skip_bad=skip_bad, of_verifications=of_verifications
    )
    if as_json and not then_run:
        click.echo(json.dumps(_as_dict(loaded)))
    elif not as_json:
        context.conclude(_summary([counts for _, counts in loaded]), _as_dict(loaded))
    if then_run:
        run_now(context, settings, as_json=as_json, within=_as_dict(loaded))


def _enqueue(
    context: Context,
    settings: "Settings",
    paths: Sequence[str],
    label: str | None,
    *,
    skip_bad: bool,
    of_verifications: bool,
) -> list[tuple[str, Loaded]]:
    """Check every file, then enqueue every file. Raises ``InputError`` for bad lines."""
    kind = VERIFICATIONS if of_verifications else ATTEMPTS
    with ExitStack() as stack:
        engine = stack.enter_context(context.database(settings))
        # Before gigabytes are read for a database that cannot take them.
        transact(engine, check_revision, doing="reading the schema's revision")
        bar = stack.enter_context(_bar(shown=context.watched()))
        sources = [stack.enter_context(replayable(path, kind)) for path in paths]
        checked = [check(file, bar(f"checking {file.name}")) for file in sources]
        _show_bad(list(zip(sources, checked, strict=True)))
        if not skip_bad and any(counts.bad for counts in checked):
            raise refusal(checked, kind)
        loaded = []
        for path, file, counts in zip(paths, sources, checked, strict=True):
            name = label or ("stdin" if path == STDIN else Path(path).name)
            progress = bar(f"enqueueing {file.name}")
            done = load(
                engine,
                file,
                counts,
                account="",
                source=name,
                retention_ms=settings.retention,
                progress=progress,
            )
            loaded.append((file.name, done))
        return loaded


def _show_bad(files: Sequence[tuple[Source, Checked]]) -> None:
    left = SHOWN
    for file, counts in files:
        for line in counts.first_bad[:left]:
            fields = {"file": file.name, "line": line.line}
            _log.error(
                "%s, line %d: %s", file.name, line.line, line.reason, extra={"fields": fields}
            )
            left -= 1
    more = sum(counts.bad for _, counts in files) - (SHOWN - left)
    if more:
        _log.error("and %s more", f"{more:,}")


def _summary(loaded: Sequence[Loaded]) -> str:
    total = _total(loaded)
    parts = [
        f"{counted(total['lines'], 'line')}: {counted(total['new'], 'SID')} enqueued",
        f"{total['already_queued']:,} queued already",
        f"{counted(total['bad'], 'bad line')} left out",
    ]
    if total["already_final"]:
        parts.append(f"{total['already_final']:,} settled at once, for they are final already")
    if total["unreadable_dates"]:
        parts.append(f"{counted(total['unreadable_dates'], 'date')} not readable")
    return ", ".join(parts) + "."


def _as_dict(loaded: Sequence[tuple[str, Loaded]]) -> dict[str, Any]:
    """Build the documented object: the sums, and under ``files`` the same for each file."""
    files = [{"name": name, **_total([counts])} for name, counts in loaded]
    return {**_total([counts for _, counts in loaded]), "files": files}


def _total(loaded: Sequence[Loaded]) -> dict[str, int]:
    return {
        "lines": sum(counts.lines for counts in loaded),
        "bad": sum(counts.bad for counts in loaded),
        "new": sum(counts.enqueued for counts in loaded),
        "already_queued": sum(counts.already for counts in loaded),
        "already_final": sum(counts.final for counts in loaded),
        "unreadable_dates": sum(counts.undated for counts in loaded),
    }


@contextmanager
def _bar(*, shown: bool) -> Iterator[Callable[[str], OnProgress | None]]:
    """Lend a function that starts a bar on stderr for one pass over a file."""
    if not shown:
        yield lambda _title: None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.DownloadColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as drawn:

        def start(title: str) -> OnProgress:
            task = drawn.add_task(title, total=None)
            # Of an empty file the bar would be full, and say 0/0.
            return lambda done, total: drawn.update(task, completed=done, total=total or None)

        yield start
