"""Draw a table for a person: numbers aligned, rates as percentages.

Where the terminal is too narrow, SIDs are shortened. If that is not enough, spare columns are left
out and named. A column without which two rows would look alike stays. If that is not enough either,
each value gets a line of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len

from etl.reports.model import Column, ColumnKind
from etl.reports.query import Row, Value

if TYPE_CHECKING:
    from rich.console import Console

NOTHING: Final = "-"
GAP: Final = "  "
_KEYS: Final = frozenset({ColumnKind.TEXT, ColumnKind.DAY})
_NUMBERS: Final = frozenset(
    {ColumnKind.COUNT, ColumnKind.RATE, ColumnKind.RATIO, ColumnKind.MONEY, ColumnKind.SECONDS}
)
_SID_LENGTH: Final = 34
_LEAST_DECIMALS: Final = 2
_LONGEST: Final = 60
_NARROWEST: Final = 20

Line = tuple[str, str]
"""A line: its bold part, and the rest."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Hold a column as text. The highest ``spare`` is left out first, 0 never, a key last."""

    name: str
    cells: Sequence[str]
    right: bool
    spare: int = 0
    key: bool = False

    @cached_property
    def header(self) -> Sequence[str]:
        """Return the lines above the cells."""
        return self.name.split("_")

    @cached_property
    def width(self) -> int:
        """Return its width in characters of the terminal."""
        return max(map(cell_len, [*self.header, *self.cells]))


def draw(
    console: "Console",
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    currency: str,
    width: int | None,
) -> list[str]:
    """Print the rows; return the names of the columns left out.

    ``currency`` names the column with the currency, to print beside each amount. ``width`` None
    sets no limit.
    """
    lines, left_out = lay_out(_drawn(columns, rows, currency), width)
    for bold, rest in lines:
        console.out(bold, style="bold", end="", highlight=False)
        # Values are coloured beside their names only; a whole table in colours is too much.
        console.out(rest, highlight=bool(bold))
    return left_out


def lay_out(drawn: Sequence[Cells], width: int | None) -> tuple[list[Line], list[str]]:
    """Return the lines, and the names of the columns left out."""
    if width is None or _total(drawn) <= width:
        return list(_table(drawn)), []
    kept = drawn = [_shortened(part) for part in drawn]
    # The last goes first: keys last, the most spare, then empty ones, then from the right.
    candidates = sorted(
        (part for part in drawn if part.spare),
        key=lambda part: (not part.key, part.spare, all(cell == NOTHING for cell in part.cells)),
    )
    while candidates and _total(kept) > width:
        gone = candidates.pop()
        others = [part for part in kept if part is not gone]
        kept = kept if gone.key and _rows_apart(others) < _rows_apart(kept) else others
    if _total(kept) > width:
        return list(_turned(drawn, max(width, _NARROWEST))), []
    return list(_table(kept)), [part.name for part in drawn if part not in kept]


def _drawn(columns: Sequence[Column], rows: Sequence[Row], currency: str) -> list[Cells]:
    names = [column.name for column in columns]
    has_money = any(column.kind is ColumnKind.MONEY for column in columns)
    place = names.index(currency) if has_money and currency in names else None
    units = [str(row[place] or "") if place is not None else "" for row in rows]
    return [
        Cells(
            column.name,
            _cells(column, [row[number] for row in rows], units),
            right=column.kind in _NUMBERS,
            spare=column.spare,
            key=column.kind in _KEYS,
        )
        for number, column in enumerate(columns)
        if number != place
    ]


def _cells(column: Column, values: Sequence[Value], units: Sequence[str]) -> list[str]:
    if column.kind is ColumnKind.MONEY:
        places = max((_decimals(v) for v in values if isinstance(v, Decimal)), default=0)
        places = max(places, _LEAST_DECIMALS)
        return [
            f"{NOTHING if value is None else f'{value:,.{places}f}'} {unit}".rstrip()
            for value, unit in zip(values, units, strict=True)
        ]
    return [_cell(column.kind, value) for value in values]


def _decimals(value: Decimal) -> int:
    return len(f"{value:.6f}".rstrip("0").partition(".")[2])


def _cell(kind: ColumnKind, value: Value) -> str:
    if value is None:
        return "unknown" if kind is ColumnKind.DAY else NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        return f"{value * 100:.1f} %" if kind is ColumnKind.RATE else f"{value:,.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds").replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else _printable(value)


def _printable(text: str) -> str:
    # Remove line breaks and control characters from foreign text.
    text = "".join(char if char.isprintable() else "�" for char in text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _total(drawn: Sequence[Cells]) -> int:
    return sum(part.width + len(GAP) for part in drawn) - len(GAP)


def _rows_apart(drawn: Sequence[Cells]) -> int:
    """Count the rows that differ by their keys."""
    return len(set(zip(*(part.cells for part in drawn if part.key), strict=True)))


def _shortened(part: Cells) -> Cells:
    """Shorten SIDs to their first and last characters, unless two would look alike."""
    if not part.name.endswith("sid"):
        return part
    cells = [c if len(c) < _SID_LENGTH else f"{c[:6]}…{c[-4:]}" for c in part.cells]
    alike = len(set(cells)) < len(set(part.cells))
    return part if alike else replace(part, cells=cells)


def _table(drawn: Sequence[Cells]) -> Iterator[Line]:
    tall = max(len(part.header) for part in drawn)
    columns = [[""] * (tall - len(part.header)) + [*part.header, *part.cells] for part in drawn]
    for number, line in enumerate(zip(*columns, strict=True)):
        text = GAP.join(map(_padded, line, drawn))
        yield (text, "") if number < tall else ("", text)


def _padded(cell: str, part: Cells) -> str:
    blanks = " " * (part.width - cell_len(cell))
    return blanks + cell if part.right else cell + blanks


def _turned(drawn: Sequence[Cells], width: int) -> Iterator[Line]:
    """Write each row as lines of name and value; a long value goes below its name."""
    label = max(len(part.name) for part in drawn)
    for number in range(len(drawn[0].cells)):
        if number:
            yield "", ""
        for part in drawn:
            cell = part.cells[number]
            if label + len(GAP) + cell_len(cell) <= width:
                yield part.name.ljust(label), GAP + cell
            else:
                yield part.name, ""
                yield from ((GAP, line) for line in wrap(cell, width - len(GAP)))
