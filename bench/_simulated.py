"""Let the program's time jump wherever it would wait.

Time flows as it does and jumps ahead by each sleep, for every clock that ``etl`` reads: requests
and transactions take as long as they take, and a wait for the allowance takes nothing.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ctypes import c_double
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

from bench._box import SPAWN

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

_MINE: Final = {"monotonic", "sleep", "time", "time_ns"}


class Simulated:
    """A clock that is ahead of the machine's by all that was slept; other processes may share it."""

    def __init__(self, ahead: "Synchronized[float] | None" = None) -> None:
        self.ahead: Synchronized[float] = SPAWN.Value(c_double, 0.0) if ahead is None else ahead

    def time(self) -> float:
        """Return seconds since the epoch."""
        return time.time() + self.ahead.value

    def time_ns(self) -> int:
        """Return nanoseconds since the epoch."""
        return int(self.time() * 1e9)

    def ms(self) -> int:
        """Return milliseconds since the epoch."""
        return int(self.time() * 1000)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic() + self.ahead.value

    def sleep(self, seconds: float) -> None:
        """Jump ahead."""
        with self.ahead.get_lock():
            self.ahead.value += max(seconds, 0.0)

    def until(self, moment: float) -> None:
        """Jump to a time, unless it is past."""
        self.sleep(moment - self.time())

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Give every module of ``etl`` this clock in place of the machine's.

        Raises ``RuntimeError`` at the end when a module came later, and lived by the machine's: two
        clocks in one run measure nothing.
        """
        mine = {name: getattr(self, name) for name in _MINE}
        stand_in = SimpleNamespace(**{**vars(time), **mine})
        with ExitStack() as stack:
            for name, module in list(sys.modules.items()):
                if not name.startswith("etl."):
                    continue
                if getattr(module, "time", None) is time:
                    stack.enter_context(patch.object(module, "time", stand_in))
                if getattr(module, "monotonic", None) is time.monotonic:
                    stack.enter_context(patch.object(module, "monotonic", self.monotonic))
            yield
            late = [
                name
                for name, module in sys.modules.items()
                if name.startswith("etl.")
                and (
                    getattr(module, "time", None) is time
                    or getattr(module, "monotonic", None) is time.monotonic
                )
            ]
        if late:
            msg = f"Import these before the clock is installed: {', '.join(sorted(late))}."
            raise RuntimeError(msg)


if __name__ == "__main__":
    sys.exit("This is a part of the other scripts.")
