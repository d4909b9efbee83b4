"""``verify-etl report html``: the page, in one file that opens offline."""

import json
import logging
import time
from datetime import UTC

import click
from sqlalchemy.exc import DBAPIError

from etl.cli.commands import report_as_of
from etl.cli.context import Context
from etl.cli.types import check_order
from etl.cli.words import sized
from etl.database.errors import explain
from etl.database.transact import check_revision
from etl.page import collect, write
from etl.reports.files import replaced
from etl.reports.query import Question
from etl.reports.window import moment
from etl.sql.odd import say

_log = logging.getLogger(__name__)


@click.command()
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False), help="The file to write."
)
@click.option("--since", metavar="WHEN", help="A day, a time (ISO 8601) or how long ago (365d).")
@click.option("--until", metavar="WHEN", help="Likewise; exclusive.")
@click.option("--service", multiple=True, metavar="SID", help="Only this service; repeatable.")
@click.option("--channel", multiple=True, metavar="NAME", help="Only this channel; repeatable.")
@click.option("--country", multiple=True, metavar="CODE", help="Only this country; repeatable.")
@click.option("--as-of", metavar="WHEN", help=report_as_of.AS_OF)
@click.option("--json", "as_json", is_flag=True, help='Print {"file": NAME, "bytes": N}.')
@click.pass_obj
def html(
    context: Context,
    *,
    output: str,
    since: str | None,
    until: str | None,
    service: tuple[str, ...],
    channel: tuple[str, ...],
    country: tuple[str, ...],
    as_of: str | None,
    as_json: bool,
) -> None:
    """Write the page: charts and tables in one file that opens offline and fetches nothing.

    It holds sums by day, service, channel and country, no destination and no SID of an attempt.
    Days are UTC. What is left out here is not in the file.

    \b
    Example:
      verify-etl report html -o verify.html --since 90d
    """
    zone, now = UTC, time.time()
    start = moment(since, option="--since", zone=zone, now_s=now) if since else None
    end = moment(until, option="--until", zone=zone, now_s=now) if until else None
    check_order(start, end)
    channels = tuple(name.lower() for name in channel)
    countries = tuple(code.upper() for code in country)
    settings = context.settings()
    past = report_as_of.asked(settings, zone, now, as_of=as_of)
    question = Question(start, end, service, channels, countries, **past)
    with context.database(settings, read_only=True) as engine:
        try:
            with engine.connect() as connection:
                check_revision(connection)
                say(connection)
                if question.as_of is not None:
                    report_as_of.say_moment(connection, question.as_of, zone)
                page = collect(connection, question)
        except DBAPIError as error:
            raise explain(error, "reading the reports") from error
    with replaced(output) as stream:
        size = write(page, stream)
    if as_json:
        click.echo(json.dumps({"file": output, "bytes": size}))
    else:
        _log.info("%s: %s.", output, sized(size))
