"""``verify-etl prune``: take settled rows out of the queue."""

import json
import logging

import click
from sqlalchemy import Connection

from etl.cli.context import Context
from etl.cli.steps import in_steps
from etl.cli.types import AGE
from etl.cli.words import counted
from etl.database.times import clock
from etl.database.transact import transact
from etl.queue.prune import Pruned
from etl.queue.prune import prune as take_out

_log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--settled-before", "age", type=AGE, required=True, metavar="AGE",
    help="How long ago they settled, such as 90d.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Count; delete nothing.")
@click.option("--json", "as_json", is_flag=True, help='Print {"pruned": N, "dry_run": BOOL}.')
@click.pass_obj
def prune(context: Context, *, age: int, dry_run: bool, as_json: bool) -> None:
    """Take rows that settled long ago out of the queue; their attempts stay.

    Rows in any other state stay. The queue no longer knows a pruned SID: enqueued again, it is
    fetched again.

    \b
    Example:
      verify-etl prune --settled-before 90d --dry-run
    """
    settings = context.settings()
    if age < settings.retention:
        _log.warning(
            "The API still knows attempts of that age: a SID that is enqueued again is fetched "
            "again. Discover enqueues none whose attempt is final."
        )
    with context.database(settings, read_only=dry_run) as engine:
        before = transact(engine, clock, doing="reading the clock") - age

        def step(connection: Connection, after: int) -> Pruned:
            return take_out(connection, before=before, after=after, write=not dry_run)

        rows = sum(done.rows for done in in_steps(engine, step, 0, doing="pruning the queue"))
    document = {"pruned": rows, "dry_run": dry_run}
    if as_json:
        click.echo(json.dumps(document))
    else:
        would = "would be " if dry_run else ""
        context.conclude(f"{counted(rows, 'row')} {would}taken out of the queue.", document)
