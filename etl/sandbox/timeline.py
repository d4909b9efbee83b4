"""Place attempts in time and in verifications by arithmetic alone.

Index order is the order of creation. Nothing is stored for an attempt. Its index tells its time of
creation and the other tries of its verification.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from typing import NamedTuple

DAY = 86_400.0
# People ask for another code after most of a minute.
RESEND_AFTER = 45.0
# Noon (UTC) is busier, and midnight quieter, by this share of the mean rate.
_RHYTHM = 0.6
_OMEGA = 2 * math.pi / DAY
_SWING = _RHYTHM / _OMEGA
_ROWS = 8
_PATTERNS = 256
_TRIES = (1, 2, 3, 4)
_TRIES_WEIGHTS = (72, 18, 7, 3)


class Place(NamedTuple):
    """Place an attempt in its verification: first index, earlier tries, whether it is the last."""

    root: int
    position: int
    last: bool


class Timeline:
    """Map an index to its time of creation and its verification, in constant time.

    Attempts fill columns of eight rows, `stride` indexes apart. One of 256 patterns cuts each
    column into verifications of one to four attempts. The stride makes a resend follow after about
    RESEND_AFTER seconds in a world of any density.
    """

    def __init__(self, seed: int, size: int, start: float, span: float) -> None:
        """Spread `size` attempts over [start, start + span), epoch seconds, busier by day."""
        self.size = size
        self.start = start
        self.span = span
        self.stride = max(1, round(RESEND_AFTER * size / span))
        self._period = _ROWS * self.stride
        self._salt = random.Random(f"timeline:{seed}").getrandbits(32)
        self._patterns = _patterns(seed)
        self._origin = self._rhythm(0.0)
        self._scale = span / (self._rhythm(span) - self._origin)

    def place(self, index: int) -> Place:
        """Return an attempt's verification, as the index of its first attempt."""
        block, rest = divmod(index, self._period)
        row, column = divmod(rest, self.stride)
        mixed = (block * 0x9E3779B1 + column * 0x85EBCA6B + self._salt) & 0xFFFFFFFF
        first, position, last = self._patterns[(mixed * 0x2C1B3C6D >> 24) & 0xFF][row]
        root = block * self._period + first * self.stride + column
        return Place(root, position, last or index + self.stride >= self.size)

    def created(self, index: int) -> float:
        """Return an attempt's creation, epoch seconds to the millisecond.

        It never decreases with the index. In a sparse world a verification's tries are neighbours,
        and are pulled to within RESEND_AFTER of each other.
        """
        moment = self._moment(index)
        if self.stride == 1:
            place = self.place(index)
            if place.position:
                resent = self._moment(place.root) + RESEND_AFTER * place.position
                moment = min(moment, resent)
        return math.floor(moment * 1000) / 1000

    def first_at(self, moment: float) -> int:
        """Return the lowest index created at `moment` or later, the size if there is none."""
        return bisect_left(range(self.size), moment, key=self.created)

    def _moment(self, index: int) -> float:
        jitter = ((index * 0x9E3779B1 + self._salt) & 0xFFFFFFFF) / 0x1_0000_0000
        elapsed = self.span * (index + jitter) / self.size
        return self.start + (self._rhythm(elapsed) - self._origin) * self._scale

    def _rhythm(self, elapsed: float) -> float:
        # Its slope is 1 - 0.6 at noon UTC, the busiest time, and 1 + 0.6 at midnight.
        return elapsed + _SWING * math.sin(_OMEGA * (self.start + elapsed))


def _patterns(seed: int) -> list[tuple[tuple[int, int, bool], ...]]:
    """Cut eight rows into verifications in 256 ways: (first row, position, last) for each row."""
    chance = random.Random(f"patterns:{seed}")
    patterns = []
    for _ in range(_PATTERNS):
        rows: list[tuple[int, int, bool]] = []
        while len(rows) < _ROWS:
            tries = chance.choices(_TRIES, _TRIES_WEIGHTS)[0]
            tries = min(tries, _ROWS - len(rows))
            first = len(rows)
            rows.extend((first, position, position == tries - 1) for position in range(tries))
        patterns.append(tuple(rows))
    return patterns
