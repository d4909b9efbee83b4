"""Pack a grid into text that a browser unpacks in a moment: see decode.js.

Column after column of signed whole numbers: the lowest byte of every row, then the next byte. All
of it is gzip'd and in base64. The same columns as JSON are a quarter larger: a busy year would
exceed 5 MB.

Two kinds of columns stand as differences that compress well:

- a count, as what it lacks of the count that it is a part of;
- an amount in millionths, as its mean for the count that it belongs to (for 1 where that is 0),
  rounded down. What the division left is the column after it. The mean price of a cell hardly
  changes from day to day. Both columns together are exact.
"""

import base64
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from etl.page.grid import MILLION, Grid

UNITS: Final = "_units"
"""Ending of a measure with an amount's whole units; the measure without it has the millionths."""

REST: Final = "_rest"
"""Ending of the column with what a division left."""

_GZIP: Final = 31
_INT64: Final = 8


def packed(
    cube: Grid,
    *,
    most: int,
    parts: Mapping[str, str] | None = None,
    amounts: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the grid as JSON can hold it; coarsen it until the data fit into `most` characters.

    `parts` names the count that a count is a part of. `amounts` names the count that an amount
    belongs to. Either count must stand before the measure that names it.
    """
    parts, amounts = parts or {}, amounts or {}
    while True:
        stream = zlib.compressobj(9, wbits=_GZIP)
        sizes, found = [], []
        for name, column in _columns(cube.sorted_columns(), parts, amounts):
            # One bit more than the number itself, for its sign.
            size = max((value.bit_length() for value in column), default=0) // 8 + 1
            raw = struct.pack(f"<{len(column)}q", *column)
            found += [stream.compress(raw[place::_INT64]) for place in range(size)]
            sizes.append((name, size))
        data = base64.b64encode(b"".join([*found, stream.flush()])).decode()
        if len(data) <= most or not cube.coarsen():
            return {
                "columns": sizes,
                "parts": parts,
                "amounts": amounts,
                "rows": len(cube),
                "daysFrom": cube.calendar.days_from,
                "weeksFrom": cube.calendar.weeks_from,
                "kept": cube.kept,
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
