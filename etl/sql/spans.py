"""Name the spans that roll-ups add up: quarters of an hour, hours, days."""

from typing import Final

QUARTER_S: Final = 900
HOUR_S: Final = 3600
DAY_S: Final = 86_400
