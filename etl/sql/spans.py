"""Name the spans of roll-ups, in seconds."""

from typing import Final

QUARTER_S: Final = 900
HOUR_S: Final = 3600
DAY_S: Final = 86_400
