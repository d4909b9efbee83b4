"""Read `--since` and `--until`: a day, a time, or how long ago."""

import re
from datetime import UTC, date, datetime, time, tzinfo
from typing import Final

from etl.errors import OptionError

_AGO: Final = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s*(s|m|h|d|w)", re.ASCII)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FIRST_YEAR: Final = 1969
_LAST_YEAR: Final = 9998
_FIRST: Final = 0.0
_LAST: Final = datetime(_LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp()
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def moment(text: str, *, option: str, zone: tzinfo, now_s: float) -> float:
    """Turn the text of an option into seconds since 1970.

    ``2026-03-01`` is the first moment of that day in ``zone``. ``2026-03-01T10:00`` is a time in
    ``zone``, unless it ends in ``Z`` or an offset. ``7d`` (s, m, h, d, w) is that long before now.
    Times before 1970 or after 9998 become the nearest end of that span.
    Raises ``OptionError`` for anything else.
    """
    text = text.strip()
    if match := _AGO.fullmatch(text):
        return max(now_s - float(match[1]) * _UNITS[match[2]], _FIRST)
    try:
        if _DAY.fullmatch(text):
            found = datetime.combine(date.fromisoformat(text), time.min)
        else:
            found = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{option} {text!r} is neither a day, nor a time, nor a duration."
        raise OptionError(msg, hint="Write 2026-03-01, 2026-03-01T10:00Z or 7d.") from None
    if not _FIRST_YEAR < found.year <= _LAST_YEAR:
        return _FIRST if found.year <= _FIRST_YEAR else _LAST
    if found.tzinfo is None:
        found = _first_of(found, zone)
    return found.timestamp()


def _first_of(local: datetime, zone: tzinfo) -> datetime:
    """Place a wall-clock time in a zone.

    Of two equal times, take the first. A skipped time becomes the moment of the skip: a day without
    midnight begins there.
    """
    found = local.replace(tzinfo=zone, fold=0)
    back = datetime.fromtimestamp(found.timestamp(), zone).replace(tzinfo=None)
    if back == local:
        return found
    # The time is skipped. With fold=0 Python uses the old offset and lands after the gap, with
    # fold=1 before it. The gap lies between the two.
    early = local.replace(tzinfo=zone, fold=1).timestamp()
    late = found.timestamp()
    while late - early > 1:
        middle = (early + late) // 2
        behind = datetime.fromtimestamp(middle, zone).replace(tzinfo=None) >= local
        early, late = (early, middle) if behind else (middle, late)
    return datetime.fromtimestamp(late, UTC)
