"""Stop in good order: on SIGTERM or SIGINT (the first asks, the second does not), or in time."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """Leave work where it is: the run shall end."""


class StopFlag:
    """Remember that the run shall end, and wake whoever sleeps or waits."""

    def __init__(self) -> None:
        self._wake: list[Callable[[], None]] = []
        self.signal: int | None = None
        self.deadline = math.inf

    def is_set(self) -> bool:
        """Say whether the run shall end: a signal came, or ``deadline`` (monotonic) is past."""
        return self.signal is not None or self.late()

    def late(self) -> bool:
        """Say whether the deadline is past."""
        return time.monotonic() >= self.deadline

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call ``wake`` when a signal comes; it must be safe inside a signal handler."""
        self._wake.append(wake)
        try:
            yield
        finally:
            self._wake.remove(wake)

    def sleep(self, seconds: float) -> None:
        """Sleep, unless and until the run shall end."""
        # In slices: setting an Event inside a signal handler can deadlock with its own waiter.
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
        """Listen for SIGTERM and SIGINT inside the block; a second one ends the process."""

        def handle(number: int, _frame: FrameType | None) -> None:
            if self.signal is not None:
                # Leases run out by themselves; whoever asks twice wants it now.
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
