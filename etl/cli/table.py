"""Lay out rows for a person: aligned columns where they fit, else one block for each row."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

GAP = "  "
_NUMBER = re.compile(r"(-?[\d.,]+%?)?", re.ASCII)


def width() -> int:
    """Return how many columns the terminal has; 80 where there is none, or COLUMNS says so."""
    return shutil.get_terminal_size().columns


def room(console: "Console") -> int | None:
    """Return how wide a table may be drawn; None where no terminal and no COLUMNS says."""
    return console.width if console.is_terminal or "COLUMNS" in os.environ else None


def aligned(
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    columns: int | None = None,
    spare: Sequence[str] = (),
) -> Iterator[str]:
    """Yield lines: numbers to the right, text to the left, no blanks at the end.

    Where a line would not fit into ``columns``, those named in ``spare`` are left out, the first
    named first; where that is not enough, each row becomes a block of name and value.
    """
    table = _fitted(names, rows, columns, spare)
    if table is None:
        yield from _blocks(names, [[_text(value) for value in row] for row in rows])
        return
    widths = _widths(table)
    right = [
        all(_NUMBER.fullmatch(cell) for cell in cells[1:]) for cells in zip(*table, strict=True)
    ]
    for line in table:
        yield GAP.join(
            cell.rjust(size) if to_right else cell.ljust(size)
            for cell, size, to_right in zip(line, widths, right, strict=True)
        ).rstrip()


def left_out(
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    columns: int | None = None,
    spare: Sequence[str] = (),
) -> list[str]:
    """Return the names of the columns that ``aligned`` leaves out for want of width."""
    table = _fitted(names, rows, columns, spare)
    return [] if table is None else [name for name in names if name not in table[0]]


def _fitted(
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    columns: int | None,
    spare: Sequence[str],
) -> list[list[str]] | None:
    """Return the cells, names first, less the columns that had to go; None if none would do."""
    columns = width() if columns is None else columns
    table = [[*names], *([_text(value) for value in row] for row in rows)]
    for name in ("", *spare):
        if name in table[0]:
            at = table[0].index(name)
            table = [line[:at] + line[at + 1 :] for line in table]
        if sum(widths := _widths(table)) + len(GAP) * (len(widths) - 1) <= columns:
            return table
    return None


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, cells)) for cells in zip(*table, strict=True)]


def _blocks(names: Sequence[str], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    size = max(map(len, names))
    for number, row in enumerate(cells):
        if number:
            yield ""
        for name, cell in zip(names, row, strict=True):
            if cell:
                yield f"{name.ljust(size)}{GAP}{cell}"


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def wrapped(label: str, text: str, *, indent: int, columns: int | None = None) -> str:
    """Return ``label``, then the text from column ``indent`` on, folded between words."""
    import textwrap

    columns = max(width() if columns is None else columns, indent + 20)
    return textwrap.fill(
        text,
        columns,
        initial_indent=label.ljust(indent),
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
