"""Pack a cube into text that a browser unpacks in a moment.

Column after column of whole numbers in planes of bytes (the lowest byte of every row, then the
next), compressed with zlib, in base64:

- keys and `day`: the difference from the row before, zigzag (0, -1, 1, -2, ...);
- a count: as it is, or as what it lacks of the count that it is a part of, zigzag;
- an amount, which is a sum of whole millionths: divided by the count that it belongs to (by 1
  where that is 0), rounded down, the whole units, zigzag, then the millionths beside them, then
  what the division left. The mean price of a cell hardly changes from one day to the next, so this
  compresses well, and it is exact.
"""

import base64
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from etl.page.grid import MILLION, Grid

UNITS: Final = "_units"
"""A measure of this ending holds an amount's whole units, and its namesake the millionths beside."""


def packed(
    cube: Grid,
    *,
    most: int,
    parts: Mapping[str, str] | None = None,
    amounts: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Give the cube as JSON can hold it, in at most `most` characters: coarser until it fits.

    `parts` names the count that a count is a part of, `amounts` the count that an amount belongs
    to; either stands before what names it.
    """
    found = _packed(cube, parts or {}, amounts or {})
    while len(found["data"]) > most and cube.coarsen():
        found = _packed(cube, parts or {}, amounts or {})
    return found


def _packed(cube: Grid, parts: Mapping[str, str], amounts: Mapping[str, str]) -> dict[str, Any]:
    values = cube.sorted_columns()
    planes: list[int] = []
    stream = zlib.compressobj(9)
    out = bytearray()

    def write(column: Iterable[int]) -> None:
        count = 0
        rest = list(column)
        while count == 0 or any(rest):
            out.extend(stream.compress(bytes(value & 0xFF for value in rest)))
            rest = [value >> 8 for value in rest]
            count += 1
        planes.append(count)

    for name in ("day", *cube.keys):
        write(map(_zigzag, _differences(values[name])))
    measures = [name for name in cube.measures if not name.endswith(UNITS)]
    for name in measures:
        if name in amounts:
            for column in _divided(values[name + UNITS], values[name], values[amounts[name]]):
                write(column)
        elif name in parts:
            pairs = zip(values[parts[name]], values[name], strict=True)
            write(_zigzag(whole - part) for whole, part in pairs)
        else:
            write(values[name])
    out.extend(stream.flush())
    return {
        "keys": ["day", *cube.keys],
        "measures": [
            {"name": name, "of": parts.get(name), "per": amounts.get(name)} for name in measures
        ],
        "planes": planes,
        "rows": len(cube),
        "daysFrom": cube.calendar.days_from,
        "weeksFrom": cube.calendar.weeks_from,
        "kept": cube.kept,
        "data": base64.b64encode(bytes(out)).decode(),
    }


def _differences(values: Sequence[int]) -> Iterator[int]:
    return (after - before for before, after in pairwise((0, *values)))


def _divided(
    units: Sequence[int], millionths: Sequence[int], counts: Sequence[int]
) -> tuple[list[int], list[int], list[int]]:
    whole, beside, rest = [], [], []
    for unit, millionth, count in zip(units, millionths, counts, strict=True):
        quotient, left = divmod(unit * MILLION + millionth, count or 1)
        whole.append(_zigzag(quotient // MILLION))
        beside.append(quotient % MILLION)
        rest.append(left)
    return whole, beside, rest


def _zigzag(value: int) -> int:
    return value * 2 if value >= 0 else -value * 2 - 1
