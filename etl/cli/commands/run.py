"""``verify-etl run``: drain the queue."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from etl.cli.context import Context
from etl.cli.execute import carry_out, max_seconds_option, prefaced
from etl.decide.values import Strategy
from etl.run import pipeline

if TYPE_CHECKING:
    from etl.settings import Settings


@click.command()
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Take at most this many SIDs, each by its own request.",
)
@max_seconds_option
@click.option("--concurrency", type=int, help="Requests at a time.  [default: 16]")
@click.option(
    "--strategy",
    type=click.Choice(["auto", "fetch", "sweep"]),
    default="auto",
    show_default=True,
    help="One request for each SID, pages of the list, or whichever is cheaper.",
)
@click.option("--dry-run", is_flag=True, help="Say what it would do and cost; do nothing.")
@click.option("--migrate", is_flag=True, help="Bring the schema up to date first.")
@click.option("--strict", is_flag=True, help="Exit with 65 if a SID of this run is dead.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
@click.pass_obj
def run(
    context: Context,
    *,
    limit: int | None,
    max_seconds: float | None,
    concurrency: int | None,
    strategy: Strategy,
    dry_run: bool,
    migrate: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Drain the queue: get every pending SID the cheapest way and store its attempt.

    Ends when nothing is pending and it holds nothing; rows due later wait for a later run.

    \b
    Example:
      verify-etl run --max-seconds 540
    """
    if dry_run and migrate:
        msg = "--dry-run does nothing and --migrate changes the schema: choose one."
        raise click.UsageError(msg)
    if limit is not None and strategy == "sweep":
        msg = "--limit counts SIDs, each by its own request, and --strategy sweep lists pages."
        raise click.UsageError(msg)
    settings = context.settings(concurrency=concurrency)
    if migrate:
        _migrate(context, settings)
    if dry_run:
        from etl.cli.commands.plan import show

        show(context, settings, strategy=strategy, as_json=as_json, limit=limit)
        return
    run_now(
        context,
        settings,
        limit=limit,
        max_seconds=max_seconds,
        strict=strict,
        strategy=strategy,
        as_json=as_json,
    )


def run_now(
    context: Context,
    settings: "Settings",
    *,
    limit: int | None = None,
    max_seconds: float | None = None,
    strict: bool = False,
    strategy: Strategy = "auto",
    as_json: bool = False,
    within: Mapping[str, Any] | None = None,
) -> None:
    """Run once, print what came of it, and leave with its exit code.

    As JSON ``within`` another object, it is its key ``run``: null when it could not even begin.
    """
    with prefaced(within if as_json else None) as printing:
        carry_out(
            context,
            settings,
            pipeline.run,
            as_json=as_json,
            printing=printing,
            limit=limit,
            max_seconds=max_seconds,
            strict=strict,
            strategy=strategy,
        )


def _migrate(context: Context, settings: "Settings") -> None:
    from etl.migrate.upgrade import upgrade

    with context.database(settings, create=True) as engine:
        upgrade(engine)
