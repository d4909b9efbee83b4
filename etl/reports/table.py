"""Draw a report for a person: numbers aligned, rates as percentages, as wide as the terminal.

What does not fit is first shortened (SIDs), then left out (spare columns) and named, and at last
turned: one line for each value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from textwrap import wrap
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from etl.reports.model import Column, ColumnKind
from etl.reports.query import Row, Value

NOTHING: Final = "-"
_NUMBERS: Final = frozenset(
    {ColumnKind.COUNT, ColumnKind.RATE, ColumnKind.RATIO, ColumnKind.MONEY, ColumnKind.SECONDS}
)
_SID_LENGTH: Final = 34
_GAP: Final = 2
_LEAST_DECIMALS: Final = 2
_LONGEST: Final = 60


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Hold a column with its cells as they will be read."""

    column: Column
    cells: Sequence[str]

    @property
    def header(self) -> Sequence[str]:
        return self.column.name.split("_")

    @property
    def width(self) -> int:
        return max(map(len, [*self.header, *self.cells]), default=0)


def draw(
    console: Console,
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    currency: str,
    width: int | None,
) -> list[str]:
    """Print the rows; return the names of the columns that were left out.

    ``currency`` names the column that the amounts' currency is in; it is written beside each
    amount. ``width`` None: as wide as it gets.
    """
    drawn = _drawn(columns, rows, currency)
    left_out: list[str] = []
    if width is not None and _total(drawn) > width:
        drawn = [_shortened(part) for part in drawn]
        fitting, left_out = _narrowed(drawn, width)
        if _total(fitting) > width:
            _records(console, drawn, width)
            return []
        drawn = fitting
    _print(console, drawn, len(rows), width)
    return left_out


def _drawn(columns: Sequence[Column], rows: Sequence[Row], currency: str) -> list[_Drawn]:
    names = [column.name for column in columns]
    has_money = any(column.kind is ColumnKind.MONEY for column in columns)
    place = names.index(currency) if has_money and currency in names else None
    units = [str(row[place] or "") if place is not None else "" for row in rows]
    return [
        _Drawn(column, _cells(column, [row[number] for row in rows], units))
        for number, column in enumerate(columns)
        if number != place
    ]


def _cells(column: Column, values: Sequence[Value], units: Sequence[str]) -> list[str]:
    if column.kind is ColumnKind.MONEY:
        places = max((_decimals(v) for v in values if isinstance(v, Decimal)), default=0)
        places = max(places, _LEAST_DECIMALS)
        return [
            f"{value:,.{places}f} {unit}".rstrip() if value is not None else NOTHING
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
    # The data is other people's: no line breaks, and nothing that steers a terminal.
    text = "".join(char if char.isprintable() else "�" for char in text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _total(drawn: Sequence[_Drawn]) -> int:
    return sum(part.width + _GAP for part in drawn) - _GAP


def _shortened(part: _Drawn) -> _Drawn:
    """Shorten SIDs: their first and last characters tell them apart."""
    if part.column.kind is not ColumnKind.TEXT or not part.column.name.endswith("sid"):
        return part
    cells = [c if len(c) < _SID_LENGTH else f"{c[:6]}…{c[-4:]}" for c in part.cells]
    return _Drawn(part.column, cells)


def _narrowed(drawn: Sequence[_Drawn], width: int) -> tuple[list[_Drawn], list[str]]:
    kept = list(drawn)
    # The most spare first, the empty ones before others, then from the right.
    candidates = sorted(
        (part for part in kept if part.column.spare),
        key=lambda part: (part.column.spare, all(cell == NOTHING for cell in part.cells)),
    )
    while candidates and _total(kept) > width:
        kept.remove(candidates.pop())
    names = [part.column.name for part in drawn if part not in kept]
    return kept, names


def _print(console: Console, drawn: Sequence[_Drawn], count: int, width: int | None) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for part in drawn:
        table.add_column(
            Text("\n".join(part.header)),
            justify="right" if part.column.kind in _NUMBERS else "left",
            no_wrap=True,
            vertical="bottom",
            header_style="bold",
            min_width=part.width,
        )
    for number in range(count):
        table.add_row(*(Text(part.cells[number]) for part in drawn))
    if width is None:
        # Where nobody looks it takes itself for 80 wide, and would leave columns out unsaid.
        console.width = width = _total(drawn) + 2 * len(drawn)
    console.print(table, width=width, crop=False)


def _records(console: Console, drawn: Sequence[_Drawn], width: int) -> None:
    """Print each row as lines of name and value; a value that is too long stands below."""
    label = max(len(part.column.name) for part in drawn)
    for number in range(len(drawn[0].cells)):
        if number:
            console.print()
        for part in drawn:
            name, cell = part.column.name, part.cells[number]
            if label + _GAP + len(cell) <= width:
                lines = [f"[bold]{name.ljust(label)}[/bold]  {escape(cell)}"]
            else:
                below = wrap(cell, max(width - _GAP, 1))
                lines = [f"[bold]{name}[/bold]", *(escape(f"  {line}") for line in below)]
            console.print("\n".join(lines), soft_wrap=True)
