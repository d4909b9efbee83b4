"""Lease a window of creation times, keep the lease, and give it back."""

from typing import Final

WAIT_S: Final = 2.0


class WindowLost(Exception):
    """Leave a window to the worker that took it over meanwhile: its pages are as good."""
