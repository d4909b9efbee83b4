"""Stop in good order, on a signal or in time. A second signal stops at once."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """Leave work where it is, for the run must end."""


class StopFlag:
    """Remember that the run must end, and wake whoever sleeps or waits."""

    def __init__(self) -> None:
        self._wake: list[Callable[[], None]] = []
        self.signal: int | None = None
        self.deadline = math.inf

    def is_set(self) -> bool:
        """Say whether the run must end, by a signal or by the ``deadline`` (monotonic)."""
        return self.signal is not None or self.late()

    def late(self) -> bool:
        """Say whether the deadline is past."""
        return time.monotonic() >= self.deadline

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call ``wake`` when a signal comes. It must be safe inside a signal handler."""
        self._wake.append(wake)
        try:
            yield
        finally:
            self._wake.remove(wake)

    def sleep(self, seconds: float) -> None:
        """Sleep, but not longer than the run may go on."""
        # In slices: setting an Event inside a signal handler can deadlock with its waiter.
        until = time.monotonic() + seconds
        while not self.is_set() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def stop(self, number: int) -> None:
        """Ask the run to end, as signal ``number`` does."""
        self.signal = number
        for wake in self._wake:
            wake()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for SIGTERM and SIGINT inside the block. A second one ends the process."""

        def handle(number: int, _frame: FrameType | None) -> None:
            if self.signal is not None:
                # Leases run out by themselves, and two signals mean at once.
                os._exit(128 + number)
            self.stop(number)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {n: signal.signal(n, handle) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
