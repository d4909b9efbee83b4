"""``verify-etl runs``: the history of runs."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from sqlalchemy import Connection

from etl.cli import table
from etl.cli.context import Context
from etl.database.transact import check_revision, transact
from etl.queue import runs as history
from etl.queue import status

_log = logging.getLogger(__name__)

_NAMES = ("run", "command", "started", "seconds", "exit", "requests", "fetched", "final", "dead")
_SPARE = ("seconds", "requests", "command", "final", "fetched")


@click.command()
@click.option(
    "--limit", type=click.IntRange(min=1, max=100_000), default=20, show_default=True,
    help="The newest so many.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array (help cli).")
@click.pass_obj
def runs(context: Context, *, limit: int, as_json: bool) -> None:
    """Show the history of runs, the newest first: what each did and how it ended.

    \b
    Example:
      verify-etl runs --limit 5
    """

    def work(connection: Connection) -> list[dict[str, Any]]:
        check_revision(connection)
        return [status.as_dict(row) for row in history.latest(connection, limit)]

    with context.database(context.settings(), read_only=True) as engine:
        found = transact(engine, work, doing="reading the history of runs")
    if as_json:
        click.echo(json.dumps(found, default=str))
    elif found:
        rows = [_row(run) for run in found]
        lines, gone = table.aligned(_NAMES, rows, columns=table.room(), spare=_SPARE)
        click.echo("\n".join([*lines, *_errors(found)]))
        table.say_left_out(gone, "--json")
    else:
        _log.info("No run yet.")


def _row(run: Mapping[str, Any]) -> list[Any]:
    did = run["did"] if isinstance(run["did"], dict) else {}
    counts = [did.get(name) for name in ("requests", "fetched", "settled", "dead")]
    ended = "not ended" if run["ended_at"] is None else run["exit_code"]
    return [run["id"], run["command"], run["started_at"], run["seconds"], ended, *counts]


def _errors(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for run in found:
        if run["error"]:
            yield table.wrapped(f"{run['id']}:", run["error"], indent=6)
