"""``verify-etl report``: the questions that the rows answer."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from etl.cli.commands import report_as_of, report_output
from etl.cli.commands.report_html import html
from etl.cli.context import Context
from etl.cli.types import Word, check_order
from etl.cli.words import counted
from etl.database.errors import explain
from etl.database.transact import check_revision, transact
from etl.reports import REPORTS, find
from etl.reports import fees as price_list
from etl.reports.model import Report
from etl.reports.personal import impersonal
from etl.reports.query import Question, Rows, ask, undated
from etl.reports.window import moment
from etl.sql.odd import say
from etl.sql.zones import zone_named

if TYPE_CHECKING:
    from etl.settings import Settings

_log = logging.getLogger(__name__)

_ISO = 2


class _Reports(click.Group):
    """Make a command of each report in the registry, when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the reports, and what else stands under `report`."""
        return [report.name for report in REPORTS] + super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Build one report's command; its view's name will do."""
        found = super().get_command(ctx, cmd_name)
        if found is None and (report := find(cmd_name)):
            return _command(report)
        return found


@click.group(cls=_Reports, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print the list as a JSON array.")
@click.pass_context
def report(ctx: click.Context, *, as_json: bool) -> None:
    """Answer a question from the rows; without a name, list the questions.

    \b
    Example:
      verify-etl report conversion-daily --since 7d --channel sms
    """
    if as_json and ctx.invoked_subcommand:
        msg = "--json stands behind the report's name."
        raise click.UsageError(msg)
    if as_json:
        click.echo(json.dumps([{"name": r.name, "sentence": r.sentence} for r in REPORTS]))
    elif ctx.invoked_subcommand is None:
        others = [command for name, command in sorted(report.commands.items())]
        formatter = ctx.make_formatter()
        formatter.write_dl([(found.name, found.sentence) for found in REPORTS])
        formatter.write("\n")
        formatter.write_dl([(str(one.name), one.get_short_help_str(limit=100)) for one in others])
        click.echo(formatter.getvalue(), nl=False)


@report.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help='Print {"fees": N}.')
@click.pass_obj
def fees(context: Context, *, file: str, as_json: bool) -> None:
    """Load the fees for successful verifications from a TOML or CSV file, in place of all others.

    \b
    Example:
      verify-etl report fees fees.toml
    """
    found = price_list.read(Path(file))

    def work(connection: Connection) -> int:
        check_revision(connection)
        return price_list.replace(connection, found)

    with context.database(context.settings()) as engine:
        count = transact(engine, work, doing="storing the fees")
    if as_json:
        click.echo(json.dumps({"fees": count}))
    else:
        _log.info("%s loaded.", counted(count, "fee"))


def _command(report: Report) -> click.Command:
    def run(context: Context, **options: Any) -> None:  # noqa: ANN401 - click's
        _run(context, report, **options)

    width = max(len(column.name) for column in report.columns)
    columns = "".join(f"  {c.name:<{width}}  {c.meaning}\n" for c in report.columns)
    return click.Command(
        report.name,
        callback=click.pass_obj(run),
        params=list(_options(report)),
        help=(
            f"{report.sentence}\n\n{report.counts}\n\n\b\nExample:\n  {_example(report)}\n\n"
            f"\b\nColumns, as in the view {report.view}:\n{columns}"
        ),
        short_help=report.sentence,
    )


def _example(report: Report) -> str:
    since = " --since 7d" if "window" in report.filters else ""
    return f"verify-etl report {report.name}{since} --format csv"


def _options(report: Report) -> Iterator[click.Option]:
    if "window" in report.filters:
        day = "A day, a time (ISO 8601), or how long ago (7d)"
        yield click.Option(["--since"], metavar="WHEN", help=f"{day}; inclusive.")
        yield click.Option(["--until"], metavar="WHEN", help=f"{day}; exclusive.")
        yield click.Option(
            ["--timezone"],
            metavar="NAME",
            help="Whose days, such as Europe/Berlin.  [default: UTC]",
        )
    yield from report_as_of.options(report)
    for name, what in (("service", "SID"), ("channel", "NAME"), ("country", "CODE")):
        if name in report.filters:
            yield click.Option(
                [f"--{name}"], multiple=True, metavar=what, type=Word(),
                help=f"Only this {name}; repeatable.",
            )  # fmt: skip
    if report.by:
        keys = ", ".join(key.removesuffix("_sid") for key in report.by)
        default = ",".join(key.removesuffix("_sid") for key in report.default_by) or "total"
        yield click.Option(
            ["--by"], metavar="KEYS", help=f"Any of {keys}; or total.  [default: {default}]"
        )
    yield from report_output.options(report)


def _run(
    context: Context,
    report: Report,
    *,
    form: str | None,
    output: str | None,
    as_json: bool,
    destination: bool = False,
    **asked: Any,  # noqa: ANN401 - options as click hands them over
) -> None:
    form = report_output.format_of(form, output, as_json=as_json)
    settings = context.settings()
    question, zone = _question(report, settings, form=form, **asked)
    with context.database(settings, read_only=True) as engine:
        asking = _asked(context, engine, report, question, zone, destination=destination)
        if form == "table":
            report_output.print_table(asking, report, question, output)
        else:
            report_output.write_file(asking, question, zone, form, output)


def _question(
    report: Report,
    settings: "Settings",
    *,
    form: str,
    since: str | None = None,
    until: str | None = None,
    timezone: str | None = None,
    service: tuple[str, ...] = (),
    channel: tuple[str, ...] = (),
    country: tuple[str, ...] = (),
    by: str | None = None,
    limit: int | None = None,
    **past: str | None,
) -> tuple[Question, tzinfo]:
    zone = zone_named(timezone) if timezone else UTC
    now = time.time()
    start = moment(since, option="--since", zone=zone, now_s=now) if since else None
    end = moment(until, option="--until", zone=zone, now_s=now) if until else None
    check_order(start, end)
    if limit is None and form == "table":
        limit = report_output.MOST_ROWS + 1
    question = Question(
        since=start,
        until=end,
        services=service,
        channels=tuple(name.lower() for name in channel),
        countries=tuple(code.upper() if len(code) == _ISO else code for code in country),
        zone=zone if timezone else None,
        by=_by(report, by),
        limit=limit,
        **report_as_of.asked(settings, zone, now, **past),
    )
    return question, zone


def _by(report: Report, text: str | None) -> tuple[str, ...] | None:
    if not report.by:
        return None
    if text is None:
        return report.default_by
    wanted = {word.strip().lower() for word in text.split(",")} - {"", "total"}
    names = {key.removesuffix("_sid"): key for key in report.by}
    if unknown := wanted - set(names):
        msg = f"--by {', '.join(sorted(unknown))}: choose among {', '.join(names)}, total"
        raise click.UsageError(msg)
    return tuple(key for name, key in names.items() if name in wanted)


@contextmanager
def _asked(
    context: Context,
    engine: Engine,
    report: Report,
    question: Question,
    zone: tzinfo,
    *,
    destination: bool,
) -> Iterator[Rows]:
    """Ask within a transaction that writes nothing, and say the database's errors in words."""

    def local(value: Any) -> Any:  # noqa: ANN401 - any cell
        return value.astimezone(zone) if isinstance(value, datetime) else value

    try:
        with engine.connect() as connection:
            check_revision(connection)
            say(connection)
            windowed = question.since is not None or question.until is not None
            if windowed and (missed := undated(connection, question.as_of)):
                verb = "is" if missed == 1 else "are"
                _log.warning(
                    "%s of unknown time %s in no window.", counted(missed, "attempt"), verb
                )
            if question.as_of is not None and not context.quiet:
                report_as_of.say(connection, report, question.as_of, zone)
            with ask(connection, report, question) as answer:
                rows = (tuple(local(value) for value in row) for row in answer.rows)
                shown = replace(answer, rows=rows)
                yield shown if destination else impersonal(shown)
    except DBAPIError as error:
        raise explain(error, f"reading {report.name}") from error


report.add_command(html)
