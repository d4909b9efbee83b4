"""Name the spans that roll-ups add up: quarters of an hour, hours, days."""

from typing import Final

QUARTER_S: Final = 900
HOUR_S: Final = 3600
DAY_S: Final = 86_400

FIRST_YEAR_S: Final = 62_135_596_800
"""Seconds from the year 1 to 1970, whole days: what is added before a moment is rounded down."""
