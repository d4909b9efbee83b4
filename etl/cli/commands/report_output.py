"""Print a report, or write it to a file: `--format`, `--json` and `-o`."""

import io
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import tzinfo
from pathlib import Path
from typing import Final

import click

from etl.cli import table
from etl.cli.commands import report_as_of
from etl.cli.options import WITH_DESTINATION
from etl.reports.files import replaced
from etl.reports.model import Column, Report
from etl.reports.output import WRITERS
from etl.reports.personal import PERSONAL
from etl.reports.query import Question, Rows
from etl.reports.table import draw

_log = logging.getLogger(__name__)

MOST_ROWS: Final = 1000
"""A table shows no more, unless `--limit` asks for them."""

_TABLES: Final = ("", ".txt")
"""Endings of a file that holds a table."""


def options(report: Report) -> Iterator[click.Option]:
    """Give the options that say how a report is written, and where."""
    if any(column.name == PERSONAL for column in report.columns):
        yield WITH_DESTINATION.option()
    yield click.Option(["--limit"], type=click.IntRange(1, 2**31), help="At most this many rows.")
    yield click.Option(
        ["--format", "form"],
        type=click.Choice(["table", *WRITERS]),
        help="A table for people; the others for programs.  [default: as the name of the file "
        "says; else table]",
    )
    yield click.Option(
        ["--json", "as_json"], is_flag=True, help="Print a JSON array: --format json."
    )
    yield click.Option(
        ["-o", "--output"],
        type=click.Path(dir_okay=False),
        help="Write to this file; its name ends in .csv, .json, .parquet or .txt.",
    )


def format_of(form: str | None, output: str | None, *, as_json: bool) -> str:
    """Choose the format: as asked, else by the file's name. Doubt is a usage error."""
    if as_json:
        if form not in {None, "json"}:
            msg = f"--json and --format {form} exclude each other."
            raise click.UsageError(msg)
        return "json"
    ending = Path(output).suffix.lower() if output else ""
    if form is not None or ending in _TABLES:
        return form or "table"
    if ending[1:] not in WRITERS:
        known = ", ".join(f".{name}" for name in WRITERS)
        msg = f"{output}: no format ends in {ending}. Write {known} or .txt, or add --format."
        raise click.UsageError(msg)
    return ending[1:]


def print_table(
    asking: AbstractContextManager[Rows], report: Report, question: Question, output: str | None
) -> None:
    """Draw a table. A file gets all rows or none; a terminal is told what it does not get."""
    from rich.console import Console

    with asking as answer:
        rows = list(answer.rows)
    if cut := len(rows) > MOST_ROWS and question.limit == MOST_ROWS + 1:
        del rows[MOST_ROWS:]
    if cut and output:
        hint = "Add --limit, or write a .csv, .json or .parquet file."
        msg = f"{output} would hold the first {MOST_ROWS:,} rows only. {hint}"
        raise click.UsageError(msg)
    buffer = io.StringIO()
    console = Console(file=buffer) if output else Console()
    left_out = draw(console, answer.columns, rows, currency=report.currency, width=table.room())
    if output:
        with replaced(output) as stream:
            stream.write(buffer.getvalue().encode())
    if not rows:
        _log.info("No rows.")
    if cut:
        _log.info("The first %s rows; --limit or another format for more.", f"{MOST_ROWS:,}")
    table.say_left_out(left_out, "--format csv")
    if {PERSONAL} & (_names(report.columns) - _names(answer.columns)):
        _log.info("Without personal data; --with-destination shows it.")


def _names(columns: Iterable[Column]) -> set[str]:
    return {column.name for column in columns}


def write_file(
    asking: AbstractContextManager[Rows],
    question: Question,
    zone: tzinfo,
    form: str,
    output: str | None,
) -> None:
    """Write a format for programs to a file or stdout."""
    output = output or "-"
    if output == "-" and form == "parquet" and sys.stdout.isatty():
        msg = "Parquet is not for terminals: add -o FILE."
        raise click.UsageError(msg)
    # The outer one: what passes it on to a reader does so when the transaction has ended.
    with replaced(output) as stream, asking as answer:
        WRITERS[form](report_as_of.stamped(answer, question, zone), stream)
