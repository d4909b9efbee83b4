"""Carry out what sends requests: build the parts, show how it goes, print what came of it."""

import json
import math
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from etl.allowance.slots import Allowance
from etl.cli.context import Context
from etl.cli.progress import ProgressLine
from etl.cli.words import counted
from etl.job.stop import StopFlag
from etl.job.tools import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Engine

    from etl.decide.values import Strategy
    from etl.extract import Api
    from etl.run.pipeline import RunReport, Watch
    from etl.settings import Settings

    Act = Callable[[Engine, Api, StopFlag, Watch], RunReport]

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


def carry_out(
    context: Context,
    settings: "Settings",
    job: "Job",
    act: "Act",
    *,
    as_json: bool,
    printing: "Callable[[dict[str, Any]], None]" = say,
) -> None:
    """Build the parts, act, print the report, and leave with its exit code."""
    with ExitStack() as stack:
        api = context.api(settings)
        stack.callback(api.close)
        engine = context.engine(settings)
        stack.callback(engine.dispose)
        progress = stack.enter_context(ProgressLine(engine, job, shown=context.watched()))
        report = act(engine, api, StopFlag(), progress)
    if as_json:
        printing(report.as_dict())
    elif not context.quiet:
        click.echo(summary(report))
    if report.error is not None:
        raise report.error
    if report.exit_code:
        raise click.exceptions.Exit(report.exit_code)


def build_job(
    settings: "Settings",
    *,
    limit: int | None = None,
    max_seconds: float | None = None,
    strict: bool = False,
    strategy: "Strategy" = "auto",
) -> "Job":
    """Turn settings into what the pipeline is asked; raise ``ConfigError`` without credentials."""
    settings.credentials()
    return Job(
        account=settings.account_sid,
        allowance=Allowance(settings.account_sid, settings.allowance, settings.allowance_window),
        policy=settings.policy,
        concurrency=settings.concurrency,
        limit=limit,
        max_seconds=max_seconds,
        strict=strict,
        strategy=strategy,
        page_size=settings.page_size,
    )


def summary(report: "RunReport") -> str:
    """Say in one line what a run did."""
    counts = report.counts
    parts = [f"{counts['settled']:,} final", f"{counts['refresh']:,} to refresh"]
    parts += [f"{counts[name]:,} {words}" for name, words in _ALSO.items() if counts[name]]
    listed = f", {counts['listed']:,} listed" if counts["listed"] else ""
    return (
        f"Run {report.run_id}: {counts['fetched']:,} stored ({', '.join(parts)}{listed}) with "
        f"{counted(counts['requests'], 'request')} in {counts['seconds']:.1f} s; "
        f"{report.pending:,} pending."
    )
