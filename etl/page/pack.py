"""Pack a grid into text. decode.js unpacks it in the browser.

A column holds signed whole numbers. First comes the lowest byte of every row, then the next byte.
All columns are gzipped together, in base64. JSON is a quarter larger: a busy year would exceed 5 MB.

Two kinds of columns are stored as differences, which compress well:

- A part of a count is stored as the rest of that count.
- An amount in millionths is divided by its count (or 1 for 0), rounded down. The next column holds
  the rest of the division, so both together are exact. Mean prices hardly change from day to day.
"""

import base64
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from etl.page.grid import MILLION, Grid

UNITS: Final = "_units"
"""Ending of the measure with an amount's whole units."""

REST: Final = "_rest"
"""Ending of the column with the rest of a division."""

_GZIP: Final = 31
_INT64: Final = 8


def packed(
    grid: Grid,
    *,
    most: int,
    parts: Mapping[str, str] | None = None,
    amounts: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the grid, ready for JSON; coarsen it to at most `most` characters.

    `parts` names the whole of a partial count, `amounts` the count of an amount. Either must come
    before the measure itself.
    """
    parts, amounts = parts or {}, amounts or {}
    while True:
        stream = zlib.compressobj(9, wbits=_GZIP)
        sizes, found = [], []
        for name, column in _columns(grid.sorted_columns(), parts, amounts):
            # One bit more than the number itself, for its sign.
            size = max((value.bit_length() for value in column), default=0) // 8 + 1
            raw = struct.pack(f"<{len(column)}q", *column)
            found += [stream.compress(raw[place::_INT64]) for place in range(size)]
            sizes.append((name, size))
        data = base64.b64encode(b"".join([*found, stream.flush()])).decode()
        if len(data) <= most or not grid.coarsen():
            return {
                "columns": sizes,
                "parts": parts,
                "amounts": amounts,
                "rows": len(grid),
                "daysFrom": grid.calendar.days_from,
                "weeksFrom": grid.calendar.weeks_from,
                "kept": grid.kept,
                "data": data,
            }


def _columns(
    values: Mapping[str, Sequence[int]], parts: Mapping[str, str], amounts: Mapping[str, str]
) -> Iterator[tuple[str, Sequence[int]]]:
    for name, column in values.items():
        if name in amounts:
            cells = zip(values[name + UNITS], column, values[amounts[name]], strict=True)
            split = [divmod(unit * MILLION + part, count or 1) for unit, part, count in cells]
            yield name, [mean for mean, _ in split]
            yield name + REST, [rest for _, rest in split]
        elif name in parts:
            yield name, [w - p for w, p in zip(values[parts[name]], column, strict=True)]
        elif not name.endswith(UNITS):
            yield name, column
