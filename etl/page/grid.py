"""Add facts up by day and a few keys, within a fixed number of cells.

A cell is one bucket of days with its keys. With too many cells, the oldest days become weeks, then
blocks of four weeks. At last the rarer values of the first key become one. The newest days stay days
as long as possible. Sums stay exact, memory and file size bounded.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from etl.errors import ConfigError

WEEK: Final = 7
BLOCK: Final = 28
MONDAY: Final = 4
"""1970-01-05, the first Monday since 1970; weeks and blocks begin there."""

MILLION: Final = 10**6
_BITS: Final = 16
_MASK: Final = (1 << _BITS) - 1
_FEWEST: Final = 3
_RECENT_DAYS: Final = (35, 21, 14, 7)


def _start(day: int, length: int) -> int:
    return (day - MONDAY) // length * length + MONDAY


@dataclass(frozen=True, slots=True)
class Calendar:
    """Say how long a bucket is: blocks first, then weeks, then days.

    Both edges are days since 1970. A bucket of the longer kind could begin there.
    """

    days_from: int
    weeks_from: int

    def bucket(self, day: int) -> int:
        """Give the first day of a day's bucket."""
        if day >= self.days_from:
            return day
        return _start(day, WEEK if day >= self.weeks_from else BLOCK)


def ladder(first: int, last: int) -> list[Calendar]:
    """Give ever coarser calendars for the days from `first` to `last`."""
    start, end = _start(first, BLOCK), last + 1
    recent = max(first, end - _RECENT_DAYS[0])
    found = [Calendar(start, start)]

    def coarser(days_from: int, weeks_from: int) -> None:
        weeks = _start(weeks_from + BLOCK - 1, BLOCK)
        found.append(Calendar(max(_start(days_from, WEEK), weeks), weeks))

    for part in (1, 2, 3, 4):
        coarser(first + (recent - first) * part // 4, start)
    for part in (2, 4):
        coarser(recent, start + (recent - start) * part // 4 - BLOCK)
    for days in _RECENT_DAYS:
        coarser(max(first, end - days), max(start, end - days - BLOCK))
    coarser(end + WEEK, max(start, end - _RECENT_DAYS[-1] - BLOCK))
    coarser(end + WEEK, end)
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Fold:
    """Fold the first key's codes from some number on into one code.

    ``into`` is that code; None means the number itself. ``most`` is the number to begin with.
    """

    most: int
    into: int | None = None

    def code(self, code: int, most: int) -> int:
        """Fold one code when the first `most` are kept."""
        if self.into is None:
            return min(code, most)
        return code if code < most else self.into


class Grid:
    """Hold sums of whole numbers by bucket and keys."""

    def __init__(
        self,
        keys: Sequence[str],
        measures: Sequence[str],
        *,
        calendars: Sequence[Calendar],
        limit: int,
        fold: Fold | None = None,
    ) -> None:
        """Begin without a cell; the values of `keys` are small codes."""
        self.keys = tuple(keys)
        self.measures = tuple(measures)
        self._calendars = calendars
        self._step = 0
        self._limit = limit
        self._fold = fold
        self._most = fold.most if fold else 0
        self._rows: dict[int, int] = {}
        self._columns = [array("q") for _ in measures]

    def __len__(self) -> int:
        """Count the cells."""
        return len(self._rows)

    @property
    def calendar(self) -> Calendar:
        """Give the calendar in force."""
        return self._calendars[self._step]

    @property
    def kept(self) -> int:
        """Give how many codes of the first key are kept; 0: all."""
        return self._most

    def add(self, day: int, keys: Sequence[int], values: Sequence[int]) -> None:
        """Add values to the cell of a day and its keys."""
        packed = self._first(keys[0])
        for key in keys[1:]:
            packed = packed << _BITS | key
        self._add(packed << _BITS | self.calendar.bucket(day), values)
        while len(self._rows) > self._limit:
            if not self.coarsen():
                msg = "there are too many services, channels and countries for one page."
                hint = "Narrow it with --since, --service, --channel or --country."
                raise ConfigError(msg, hint=hint)

    def _first(self, code: int) -> int:
        return self._fold.code(code, self._most) if self._fold else code

    def _add(self, packed: int, values: Sequence[int]) -> None:
        row = self._rows.setdefault(packed, len(self._rows))
        if row == len(self._columns[0]):
            for column, value in zip(self._columns, values, strict=True):
                column.append(value)
            return
        for column, value in zip(self._columns, values, strict=True):
            column[row] += value

    def coarsen(self) -> bool:
        """Take the next calendar, or keep half as many codes of the first key.

        False: it cannot be coarser.
        """
        if self._step + 1 < len(self._calendars):
            self._step += 1
        elif self._most > _FEWEST:
            self._most = max(_FEWEST, self._most // 2)
        else:
            return False
        rest = _BITS * len(self.keys)
        rows, columns = self._rows, self._columns
        self._rows, self._columns = {}, [array("q") for _ in self.measures]
        for old, row in rows.items():
            day = old & _MASK
            new = old & ~_MASK | self.calendar.bucket(day)
            new = self._first(new >> rest) << rest | new & (1 << rest) - 1
            self._add(new, [column[row] for column in columns])
        return True

    def sorted_columns(self) -> dict[str, list[int]]:
        """Give `day`, keys and measures as columns, sorted by keys and day.

        Neighbours are then alike, and columns compress well.
        """
        order = sorted(self._rows)
        found = {"day": [packed & _MASK for packed in order]}
        for place, key in enumerate(reversed(self.keys), 1):
            found[key] = [packed >> _BITS * place & _MASK for packed in order]
        rows = [self._rows[packed] for packed in order]
        for name, column in zip(self.measures, self._columns, strict=True):
            found[name] = [column[row] for row in rows]
        return found
