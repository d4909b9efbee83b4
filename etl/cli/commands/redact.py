"""``verify-etl redact``: remove personal data."""

import json
import logging
from functools import partial

import click
from sqlalchemy import Connection, Engine

from etl.cli.context import Context
from etl.cli.steps import in_steps
from etl.cli.types import AGE
from etl.cli.words import counted
from etl.database.times import clock
from etl.database.transact import transact
from etl.load import redact as clean
from etl.load.redact import Cleaned, Redacted

_log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--older-than", "age", type=AGE, required=True, metavar="AGE",
    help="The attempts' age, such as 30d.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Count; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts (help cli).")
@click.pass_obj
def redact(context: Context, *, age: int, dry_run: bool, as_json: bool) -> None:
    """Remove personal data of old attempts: whom they were sent to.

    The destination becomes NULL; its prefix and country stay. Of all else stays what is known to
    be harmless (verify-etl help redact): statuses, codes, prices, SIDs. In the queue, and in the history of runs, errors and
    odd texts of that age go. What is fetched again brings its destination back, so an age beyond
    the API's 30 days is for good.

    \b
    Example:
      verify-etl redact --older-than 30d --dry-run
    """
    settings = context.settings()
    if age < settings.retention:
        _log.warning(
            "The API still knows attempts of that age: what is fetched again brings it back."
        )
    with context.database(settings, read_only=dry_run) as engine:
        counts = _redact(engine, age, dry_run=dry_run)
    document = {**counts, "dry_run": dry_run}
    if as_json:
        click.echo(json.dumps(document))
    else:
        would = "would be " if dry_run else ""
        context.conclude(
            f"{counted(counts['destinations'], 'destination')} {would}removed, "
            f"{counted(counts['extras'], 'extra')} {would}cleaned, of "
            f"{counted(counts['attempts'], 'attempt')} looked at; other values of "
            f"{counted(counts['columns'], 'attempt')}, {counted(counts['changes'], 'change')} and "
            f"{counted(counts['rows'], 'row')} of queues and runs {would}removed.",
            document,
        )


def _redact(engine: Engine, age: int, *, dry_run: bool) -> dict[str, int]:
    before = transact(engine, clock, doing="reading the clock") - age

    def step(connection: Connection, after: str) -> Redacted:
        return clean.redact(connection, before=before, after=after, write=not dry_run)

    counts = dict.fromkeys(("attempts", "destinations", "extras", "columns", "changes", "rows"), 0)
    for done in in_steps(engine, step, "", doing="removing personal data"):
        counts["attempts"] += done.looked_at
        counts["destinations"] += done.destinations
        counts["extras"] += done.extras
        counts["columns"] += done.columns
        counts["changes"] += done.changes
    for name in clean.OTHERS:
        work = partial(_redact_others, name=name, before=before, dry_run=dry_run)
        doing = f"removing personal data from {name}"
        counts["rows"] += sum(cleaned.rows for cleaned in in_steps(engine, work, 0, doing=doing))
    return counts


def _redact_others(
    connection: Connection, after: int, *, name: str, before: int, dry_run: bool
) -> Cleaned:
    return clean.redact_others(connection, name, before=before, after=after, write=not dry_run)
