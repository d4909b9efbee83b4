"""Send one list request after the other, each under a permit."""

from typing import Final, TypeVar

from etl.queue import windows

T = TypeVar("T")
TRIES: Final = 3
RENEW_S: Final = windows.LEASE_MS / 4_000
"""A window's lease is renewed when it is this old before a request or during a pause."""
