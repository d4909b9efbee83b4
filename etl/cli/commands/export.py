"""``verify-etl export``: write Parquet files by day."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import click

from etl import export as parquet
from etl.cli.context import Context
from etl.cli.options import WITH_DESTINATION
from etl.cli.types import Since, check_order
from etl.cli.words import counted, sized
from etl.export import Exported

_DAY_MS = 86_400_000


@click.command()
@click.option("--format", "form", type=click.Choice(["parquet"]), default="parquet",
              show_default=True, help="What to write.")  # fmt: skip
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False), metavar="DIR",
              help="The folder to keep up to date; a new or empty one at first.")  # fmt: skip
@click.option(
    "--since", type=Since(), help="From which UTC day: a date, a time, or how long ago (7d, 2w)."
)
@click.option("--until", type=Since(), help="To when; a day begun is exported whole.")
@click.option("--full", is_flag=True, help="Write every day anew, changed or not.")
@WITH_DESTINATION
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (help export).")
@click.pass_obj
def export(
    context: Context,
    *,
    form: str,
    output: str,
    since: int | None,
    until: int | None,
    full: bool,
    destination: bool,
    as_json: bool,
) -> None:
    """Write the attempts to a folder of Parquet files, one for each UTC day of creation.

    Run again, it writes the days that changed and takes away those that are gone.

    \b
    Example:
      verify-etl export -o attempts
      verify-etl export --format parquet -o /srv/lake/attempts --since 90d
    """
    del form  # the only one so far
    check_order(since, until)
    asked = parquet.ExportOptions(
        folder=Path(output),
        first=_day(since),
        end=_day(None if until is None else until + _DAY_MS - 1),
        full=full,
        destination=destination,
    )
    with context.database(context.settings(), read_only=True) as engine:
        done = parquet.export(engine, asked)
    document = {"directory": output, "format": "parquet"} | done.as_dict()
    if as_json:
        click.echo(json.dumps(document))
    else:
        context.conclude(_line(done), document)


def _line(done: Exported) -> str:
    return (
        f"{counted(done.written, 'day')} written ({counted(done.rows, 'row')}, "
        f"{sized(done.bytes)}), "
        f"{done.unchanged:,} unchanged, {done.removed:,} removed in {done.seconds:.1f} s."
    )


def _day(ms: int | None) -> date | None:
    return (
        None if ms is None else datetime.fromtimestamp(ms // _DAY_MS * _DAY_MS / 1000, UTC).date()
    )
