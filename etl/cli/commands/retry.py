"""``verify-etl retry``: give dead rows another chance."""

import json

import click
from sqlalchemy import Connection

from etl.cli.context import Context
from etl.cli.types import Word
from etl.database.bounds import PATIENT
from etl.database.transact import check_revision, transact
from etl.queue import attempts, verifications
from etl.records import Outcome


@click.command()
@click.argument("sids", nargs=-1, metavar="[SID]...", type=Word())
@click.option("--outcome", "outcomes", multiple=True, help="All dead for this reason; repeatable.")
@click.option("--all", "everything", is_flag=True, help="All that are dead.")
@click.option("--json", "as_json", is_flag=True, help='Print {"revived": N}.')
@click.pass_obj
def retry(
    context: Context,
    *,
    sids: tuple[str, ...],
    outcomes: tuple[str, ...],
    everything: bool,
    as_json: bool,
) -> None:
    """Put dead SIDs back to pending, by SID or by outcome.

    With both, those of the SIDs that are dead for that reason. Rows that are not dead stay as
    they are. Verifications that the API did not know are listed again, by SID or with --all.

    \b
    Example:
      verify-etl retry --outcome not_found
      verify-etl retry --all
    """
    if not (sids or outcomes or everything):
        msg = "Say which: SIDs, --outcome NAME, or --all."
        raise click.UsageError(msg)
    if everything and (sids or outcomes):
        msg = "--all goes with neither SIDs nor --outcome."
        raise click.UsageError(msg)

    known = {outcome.value for outcome in Outcome}
    if unknown := sorted(set(outcomes) - known):
        msg = f"There is no outcome {unknown[0]!r}; there are: {', '.join(sorted(known))}."
        raise click.UsageError(msg)

    def work(connection: Connection) -> int:
        check_revision(connection)
        revived = attempts.revive(connection, sids=sids, outcomes=outcomes)
        if not outcomes:
            revived += verifications.revive(connection, sids)
        return revived

    with context.database(context.settings()) as engine:
        # All at once, however many: nobody waits for dead rows.
        patient = engine.execution_options(**PATIENT)
        revived = transact(patient, work, doing="reviving dead rows")
    document = {"revived": revived}
    if as_json:
        click.echo(json.dumps(document))
    else:
        others = len(set(sids)) - revived
        verb = "is" if others == 1 else "are"
        note = f" {others:,} of the SIDs {verb} not dead, or not queued." if others > 0 else ""
        context.conclude(f"{revived:,} back to pending.{note}", document)
