"""Lay out rows for a person: aligned columns where they fit, else one block for each row."""

import logging
import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any

_log = logging.getLogger(__name__)

_NUMBER = re.compile(r"(-?[\d.,]+%?)?", re.ASCII)


def width() -> int:
    """Return the terminal's columns, or COLUMNS; 80 where there is neither."""
    return shutil.get_terminal_size().columns


def room() -> int | None:
    """Return how wide a table on stdout may be; None without a terminal and COLUMNS."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return width() if terminal or "COLUMNS" in os.environ else None


def say_left_out(names: Sequence[str], instead: str) -> None:
    """Name the columns left out, and the option that has them."""
    if names:
        said = f"Left out for want of width: {', '.join(names)}. {instead} has them."
        _log.info("%s", wrapped("", said, indent=0) if sys.stderr.isatty() else said)


def aligned(
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    columns: int | None,
    spare: Sequence[str] = (),
) -> tuple[list[str], list[str]]:
    """Return the lines of a table, and the names of the columns that were left out.

    A table too wide for ``columns`` loses those in ``spare``, the first one first. If it is still
    too wide, each row becomes a block of name and value. None sets no limit.
    """
    from etl.reports.table import GAP, Cells, lay_out

    drawn = []
    for place, name in enumerate(names):
        cells = [_text(row[place]) for row in rows]
        right = all(map(_NUMBER.fullmatch, cells))
        rank = len(spare) - spare.index(name) if name in spare else 0
        drawn.append(Cells(name, cells, right, rank))
    lines, left_out = lay_out(drawn, columns)
    # Blocks need no line for an empty cell.
    return [(bold + rest).rstrip() for bold, rest in lines if rest != GAP], left_out


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def wrapped(label: str, text: str, *, indent: int) -> str:
    """Return ``label``, then the text from column ``indent`` on, folded between words."""
    import textwrap

    return textwrap.fill(
        text,
        max(width(), indent + 20),
        initial_indent=label.ljust(indent),
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
