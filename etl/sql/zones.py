"""Cut a time zone into stretches of one offset, daylight saving time included.

A report in another zone shifts each moment by the offset at that moment. The offsets come from
Python's `zoneinfo`, so no database needs zone tables.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from etl.errors import OptionError
from etl.sql.scope import Offset

# No zone has changed twice within this time.
_STEP_S = 6 * 3600


def zone_named(name: str) -> tzinfo:
    """Find a zone by its IANA name; raise ``OptionError`` when there is none. UTC always is."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        if not available_timezones():
            msg = f"this machine has no time zones, and so not {name}."
            raise OptionError(msg, hint="Run: pip install tzdata") from error
        msg = f"there is no time zone {name!r} here."
        raise OptionError(msg, hint="Write an IANA name such as Europe/Berlin.") from error


def offsets(zone: tzinfo, first_s: float, last_s: float) -> tuple[Offset, ...]:
    """Give the offsets between two moments (seconds since 1970), in order.

    Each has its end; the last one has none.
    """
    return tuple(_stretches(zone, int(first_s), max(int(last_s), int(first_s))))


def _stretches(zone: tzinfo, start: int, end: int) -> Iterator[Offset]:
    at, offset = start, _offset(zone, start)
    while at < end:
        step = min(at + _STEP_S, end)
        if _offset(zone, step) != offset:
            change = _change(zone, at, step)
            yield Offset(offset, change)
            step, offset = change, _offset(zone, change)
        at = step
    yield Offset(offset)


def _change(zone: tzinfo, low: int, high: int) -> int:
    """Find the first second of the new offset between two moments."""
    before = _offset(zone, low)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, middle) == before:
            low = middle
        else:
            high = middle
    return high


def _offset(zone: tzinfo, at: int) -> int:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at)
    found = moment.astimezone(zone).utcoffset()
    return int(found.total_seconds()) if found is not None else 0
