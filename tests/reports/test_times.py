"""Test how windows are read and zones are cut."""

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.errors import OptionError
from etl.reports.window import moment
from etl.sql.zones import offsets, zone_named
from tests.support.zones import no_zones

NOW: Final = datetime(2026, 4, 8, 12, tzinfo=UTC).timestamp()
NAMES: Final = (
    "UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns",
    "Africa/Casablanca", "Pacific/Apia", "America/Sao_Paulo", "Asia/Tehran",
)  # fmt: skip


def _read(text: str, zone: str = "UTC") -> datetime:
    found = moment(text, option="--since", zone=ZoneInfo(zone), now_s=NOW)
    return datetime.fromtimestamp(found, UTC)


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-03-01", "UTC", "2026-03-01T00:00+00:00"),
        ("2026-03-01", "Europe/Berlin", "2026-02-28T23:00+00:00"),
        ("2026-03-01T10:00", "Asia/Kolkata", "2026-03-01T04:30+00:00"),
        ("2026-03-01T10:00Z", "Asia/Kolkata", "2026-03-01T10:00+00:00"),
        ("2026-03-01 10:00:00.5+02:00", "UTC", "2026-03-01T08:00:00.5+00:00"),
        ("7d", "Asia/Kolkata", "2026-04-01T12:00+00:00"),
        (" 90m ", "UTC", "2026-04-08T10:30+00:00"),
        ("2w", "UTC", "2026-03-25T12:00+00:00"),
        # Shown twice: the first. Skipped: when it was skipped.
        ("2026-10-25T02:30", "Europe/Berlin", "2026-10-25T00:30+00:00"),
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T01:00+00:00"),
        # A day without a midnight begins at one; a day that never was, when it was skipped.
        ("2018-11-04", "America/Sao_Paulo", "2018-11-04T03:00+00:00"),
        ("2011-12-30", "Pacific/Apia", "2011-12-30T10:00+00:00"),
        # Before and after anything could have been created.
        ("0001-01-01", "Pacific/Apia", "1970-01-01T00:00+00:00"),
        ("999999w", "UTC", "1970-01-01T00:00+00:00"),
        ("9999-12-31T23:59:59Z", "UTC", "9999-01-01T00:00+00:00"),
    ],
)
def test_a_window_is_read(text: str, zone: str, expected: str) -> None:
    """Days and times belong to the zone, durations are counted from now."""
    assert _read(text, zone) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "text", ["", "7", "yesterday", "2026-13-01", "-7d", "7 years", "2026-02-30"]
)
def test_what_is_no_window_is_refused(text: str) -> None:
    """The message says what may be written."""
    with pytest.raises(OptionError, match="--since"):
        _read(text)


def test_an_unknown_zone_is_refused() -> None:
    """A name that is no zone, or a path, is a configuration error."""
    for name in ("Mars/Olympus", "../../etc/passwd", ""):
        with pytest.raises(OptionError, match="time zone"):
            zone_named(name)


@given(
    st.sampled_from(NAMES),
    st.integers(min_value=0, max_value=2_000_000_000),
    st.integers(min_value=0, max_value=700),
    st.floats(min_value=0, max_value=1),
)
def test_offsets_are_those_of_the_zone(name: str, start: int, days: int, part: float) -> None:
    """Between the bounds every moment has the offset that zoneinfo gives it."""
    zone = ZoneInfo(name)
    end = start + days * 86_400
    at = start + int((end - start) * part)
    found = offsets(zone, start, end)
    offset = next(o.seconds for o in found if o.until is None or at < o.until)
    local = datetime.fromtimestamp(at, UTC).astimezone(zone).utcoffset()
    assert timedelta(seconds=offset) == local


def test_a_change_is_found_to_the_second() -> None:
    """Berlin goes to summer time at 01:00 UTC."""
    start, end = (datetime(2026, month, 1, tzinfo=UTC).timestamp() for month in (3, 5))
    change = int(datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp())
    found = offsets(ZoneInfo("Europe/Berlin"), start, end)
    assert [(o.seconds, o.until) for o in found] == [(3600, change), (7200, None)]


def test_utc_needs_no_time_zone_database() -> None:
    """Without one UTC works, and for another zone the message says what to install."""
    with no_zones():
        assert offsets(zone_named("UTC"), 0, 1)[0].seconds == 0
        with pytest.raises(OptionError, match=r"no time zones.*Run: pip install tzdata"):
            zone_named("Europe/Berlin")
    assert zone_named("Europe/Berlin") == ZoneInfo("Europe/Berlin")
    with pytest.raises(OptionError, match="Write an IANA name such as Europe/Berlin"):
        zone_named("Europe/Nowhere")
