"""``verify-etl reconcile``: hold the rows to Twilio's own counts."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import click

from etl.cli import table
from etl.cli.context import Context
from etl.cli.execute import exit_with, max_seconds_option, working
from etl.cli.types import Since, check_order
from etl.cli.words import counted
from etl.database.bounds import PATIENT
from etl.database.transact import transact
from etl.job.stop import StopFlag
from etl.listing.reconcile import By, DayLine, Finding, ReconcileOptions, Totals, commands, undated
from etl.reports.model import Column, ColumnKind
from etl.reports.table import draw
from etl.run import pipeline
from etl.run.pipeline import RunReport


@click.command()
@click.option(
    "--since", type=Since(), required=True, metavar="TIME",
    help="From which UTC day: a date, a time, or how long ago (7d, 2w).",
)  # fmt: skip
@click.option("--until", type=Since(), help="To when; a day begun is compared.  [default: now]")
@click.option(
    "--by", type=click.Choice(["service", "channel", "country"]),
    help="Compare each of these, too; one more request for each that had attempts.",
)  # fmt: skip
@click.option("--strict", is_flag=True, help="Exit with 65 if anything differs.")
@max_seconds_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (help cli).")
@click.pass_obj
def reconcile(
    context: Context,
    *,
    since: int,
    until: int | None,
    by: str | None,
    strict: bool,
    max_seconds: float | None,
    as_json: bool,
) -> None:
    """Compare the rows of each UTC day with Twilio's Summary, and say what loads what is missing.

    Counts attempts by their creation, as Summary does. Asks for days that the API still remembers
    only; each costs a request of the allowance.

    \b
    Example:
      verify-etl reconcile --since 7d --by service
      verify-etl reconcile --since 7d --until 1d --strict
    """
    check_order(since, until)
    settings = context.settings()
    asked = ReconcileOptions(since, until, None if by is None else By(by))
    lines: list[DayLine] = []
    with working(context, settings, max_seconds=max_seconds, strict=strict) as (tools, watch):
        report = pipeline.reconcile(*tools, asked, lines, stop=StopFlag(), watch=watch)
        patient = tools.engine.execution_options(**PATIENT)
        unknown = transact(patient, partial(undated, account=tools.job.account), doing="counting")
    if as_json:
        click.echo(json.dumps(_document(report, asked, lines, unknown)))
    elif lines:
        _draw(lines, asked.by)
        for said in _say(report, asked.by, lines, unknown):
            click.echo(said)
    exit_with(report)


def _draw(lines: Sequence[DayLine], by: By | None) -> None:
    """Print the table, as wide as the terminal; piped, as wide as it gets."""
    from rich.console import Console

    columns = [
        Column("day", ColumnKind.DAY, ""),
        *([Column("service_sid" if by == "service" else by, ColumnKind.TEXT, "")] if by else []),
        Column("attempts", ColumnKind.COUNT, ""),
        Column("twilio_attempts", ColumnKind.COUNT, ""),
        Column("diff", ColumnKind.COUNT, ""),
        Column("converted", ColumnKind.COUNT, ""),
        Column("twilio_converted", ColumnKind.COUNT, ""),
        Column("unconverted", ColumnKind.COUNT, "", spare=3),
        Column("twilio_unconverted", ColumnKind.COUNT, "", spare=3),
        Column("rate", ColumnKind.RATE, "", spare=1),
        Column("twilio_rate", ColumnKind.RATE, "", spare=1),
        Column("not_final", ColumnKind.COUNT, "", spare=2),
        Column("finding", ColumnKind.TEXT, ""),
    ]
    # Days that expired unloaded get one sentence below, not a line each.
    shown = [line for line in lines if line.twilio is not None or line.stored.counts.attempts]
    rows = [_row(line, by) for line in shown]
    left_out = draw(Console(), columns, rows, currency="", width=table.room())
    table.say_left_out(left_out, "--json")


def _row(line: DayLine, by: By | None) -> tuple[Any, ...]:
    ours, theirs, difference = line.stored.counts, line.twilio, line.difference
    group = () if by is None else (_named(line),)
    return (
        line.day, *group,
        ours.attempts, theirs and theirs.attempts, difference and difference.attempts,
        ours.converted, theirs and theirs.converted,
        ours.unconverted, theirs and theirs.unconverted,
        ours.rate, theirs and theirs.rate,
        line.stored.not_final, line.finding.value,
    )  # fmt: skip


def _named(line: DayLine) -> str:
    return "total" if line.is_total else line.group or "others"


def _say(report: RunReport, by: By | None, lines: Sequence[DayLine], undated: int) -> Iterator[str]:
    """Sum up below the table, and say what to do."""
    totals = [line for line in lines if line.is_total]
    of = {found: [line for line in totals if line.finding is found] for found in Finding}
    yield ""
    if not any(line.differs for line in lines) and not of[Finding.EXPIRED]:
        yield _folded(f"Equal: {counted(len(totals), 'day')}.")
    days = {found: counted(len(group), "day") for found, group in of.items()}
    lost = -sum(line.difference.attempts for line in of[Finding.MISSING] if line.difference)
    if lost:
        verb = "is" if lost == 1 else "are"
        missing = f"{counted(lost, 'attempt')} of {days[Finding.MISSING]} {verb} missing here."
        yield _folded(missing)
    if of[Finding.SURPLUS]:
        yield _folded(
            f"{days[Finding.SURPLUS]} with attempts here that Twilio does not count: "
            "deleted there, or not counted yet."
        )
    changed = [line for line in lines if line.finding is Finding.CHANGED]
    if any(line.expected for line in changed):
        yield _folded(
            "Conversions of rows that are not final yet may differ; run asks for them again when "
            "they are due."
        )
    if not all(line.expected for line in changed):
        yield _folded("Conversions of final rows differ from Twilio's.")
    if todo := commands(lines, by):
        yield "This loads what differs:"
        yield from (f"  {command}" for command in todo)
        if report.pending:
            waits = f"{counted(report.pending, 'SID')} still wait{'s' * (report.pending == 1)}"
            yield _folded(f"{waits} in the queue for: verify-etl run")
    if of[Finding.EXPIRED]:
        expired = days[Finding.EXPIRED]
        yield _folded(f"{expired} begun before what the API still remembers: not asked.")
    if undated:
        verb = "is" if undated == 1 else "are"
        yield _folded(f"{counted(undated, 'attempt')} of unknown creation time {verb} in no day.")


def _folded(text: str) -> str:
    return table.wrapped("", text, indent=0)


def _document(
    report: RunReport, asked: ReconcileOptions, lines: Sequence[DayLine], undated: int
) -> dict[str, Any]:
    return {
        "run_id": report.run_id,
        "by": asked.by,
        "days": sum(line.is_total for line in lines),
        "differences": sum(line.differs for line in lines),
        "lines": [_line(line) for line in lines],
        "commands": commands(lines, asked.by),
        "undated": undated,
        "pending": report.pending,
        "requests": report.counts["requests"],
        "throttled": report.counts["throttled"],
        "seconds": report.counts["seconds"],
        "exit_code": report.exit_code,
        "error": None if report.error is None else str(report.error),
    }


def _line(line: DayLine) -> dict[str, Any]:
    end = datetime.fromtimestamp(line.end / 1000, UTC)
    return {
        "day": line.day.isoformat(),
        "until": end.isoformat().replace("+00:00", "Z"),
        "total": line.is_total,
        "group": line.group,
        "database": _counts(line.stored.counts) | {"not_final": line.stored.not_final},
        "twilio": None if line.twilio is None else _counts(line.twilio),
        "difference": None if line.difference is None else _difference(line),
        "finding": line.finding.value,
        "expected": line.expected,
    }


def _counts(counts: Totals) -> dict[str, Any]:
    return {
        "attempts": counts.attempts,
        "converted": counts.converted,
        "unconverted": counts.unconverted,
        "rate": None if counts.rate is None else float(counts.rate * 100),
    }


def _difference(line: DayLine) -> dict[str, Any]:
    assert line.difference is not None  # noqa: S101 - the caller asked
    assert line.twilio is not None  # noqa: S101 - as above
    ours, theirs = line.stored.counts.rate, line.twilio.rate
    rate = None if ours is None or theirs is None else float((ours - theirs) * 100)
    return _counts(line.difference) | {"rate": rate}
