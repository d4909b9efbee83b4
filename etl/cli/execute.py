"""Carry out what sends requests: open what it needs, show how it goes, print what came of it."""

import json
import logging
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from etl.cli.context import Context, hide_password
from etl.cli.progress import ProgressLine
from etl.cli.words import counted
from etl.job.stop import StopFlag
from etl.run.opening import opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from etl.run.opening import Opened
    from etl.run.pipeline import RunReport
    from etl.settings import Settings

_log = logging.getLogger(__name__)

_ALSO = {
    "retry": "to retry",
    "dead": "dead",
    "given_back": "given back",
    "discarded": "lost to another worker",
    "throttled": "throttled",
}


def _seconds(
    _context: click.Context, _parameter: click.Parameter, value: float | None
) -> float | None:
    if value is not None and not math.isfinite(value):
        msg = f"'{value}' is no number of seconds: it would never be over."
        raise click.BadParameter(msg)
    return value


max_seconds_option = click.option(
    "--max-seconds",
    type=click.FloatRange(min=0),
    callback=_seconds,
    help="Stop in good order after this.",
)


def say(document: dict[str, Any]) -> None:
    """Print one line of JSON."""
    click.echo(json.dumps(document))


@contextmanager
def prefaced(document: "Mapping[str, Any] | None") -> "Iterator[Callable[[dict[str, Any]], None]]":
    """Give what prints a report as JSON: by itself, or in a document under ``run``.

    The document is printed in any case, for what it tells was done before.
    """
    if document is None:
        yield say
        return
    done: dict[str, Any] = {**document, "run": None}
    try:
        yield lambda report: done.update(run=report)
    finally:
        say(done)


@contextmanager
def working(
    context: Context,
    settings: "Settings",
    **asked: Any,  # noqa: ANN401 - as `opened` takes it
) -> "Iterator[tuple[Opened, ProgressLine]]":
    """Open what a run needs, and show how it goes."""
    with opened(settings, **asked) as tools:
        hide_password(tools.engine)
        with ProgressLine(tools.engine, tools.job, shown=context.watched()) as progress:
            yield tools, progress


def carry_out(
    context: Context,
    settings: "Settings",
    act: "Callable[..., RunReport]",
    *,
    as_json: bool,
    printing: "Callable[[dict[str, Any]], None]" = say,
    **asked: Any,  # noqa: ANN401 - as above
) -> None:
    """Open what a run needs, act, print the report, and leave with its exit code."""
    with working(context, settings, **asked) as (tools, watch):
        report = act(*tools, stop=StopFlag(), watch=watch)
    if as_json:
        printing(report.as_dict())
    else:
        context.conclude(summary(report), report.as_dict())
    if dead := report.counts["dead"]:
        # For cron, too: it reads stderr, and runs with -q.
        _log.error(
            "%s of this run %s dead. By reason: verify-etl status. To try again: verify-etl retry",
            counted(dead, "SID"),
            "is" if dead == 1 else "are",
        )
    exit_with(report)


def exit_with(report: "RunReport") -> None:
    """Raise what ended the run, or leave with its exit code."""
    if report.error is not None:
        raise report.error
    if report.exit_code:
        raise click.exceptions.Exit(report.exit_code)


def summary(report: "RunReport") -> str:
    """Say in one line what a run did."""
    counts = report.counts
    parts = [f"{counts['settled']:,} final", f"{counts['refresh']:,} to refresh"]
    parts += [f"{counts[name]:,} {words}" for name, words in _ALSO.items() if counts[name]]
    listed = f", {counts['listed']:,} listed" if counts["listed"] else ""
    known = f"{counts['already_final']:,} were final already; " if counts["already_final"] else ""
    return (
        f"Run {report.run_id}: {counts['fetched']:,} stored ({', '.join(parts)}{listed}) with "
        f"{counted(counts['requests'], 'request')} in {counts['seconds']:.1f} s; "
        f"{known}"
        f"{report.pending:,} pending."
    )
