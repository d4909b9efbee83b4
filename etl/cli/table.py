"""Lay out rows for a person: aligned columns where they fit, else one block for each row."""

import os
import re
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_NUMBER = re.compile(r"(-?[\d.,]+%?)?", re.ASCII)


def width() -> int:
    """Return the terminal's columns, or COLUMNS; 80 where there is neither."""
    return shutil.get_terminal_size().columns


def room(console: "Console") -> int | None:
    """Return how wide a table may be drawn; None without a terminal and COLUMNS."""
    return console.width if console.is_terminal or "COLUMNS" in os.environ else None


def aligned(
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    columns: int | None = None,
    spare: Sequence[str] = (),
) -> tuple[list[str], list[str]]:
    """Return the lines of a table, and the names of the columns that were left out.

    A table too wide for ``columns`` loses those in ``spare``, the first one first. If it is still
    too wide, each row becomes a block of name and value.
    """
    from etl.reports.table import GAP, Cells, lay_out

    drawn = []
    for place, name in enumerate(names):
        cells = [_text(row[place]) for row in rows]
        right = all(map(_NUMBER.fullmatch, cells))
        rank = len(spare) - spare.index(name) if name in spare else 0
        drawn.append(Cells(name, cells, right, rank))
    lines, left_out = lay_out(drawn, width() if columns is None else columns)
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
