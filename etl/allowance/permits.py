"""Hand out the allowance inside one process: database slots, pauses, this process's pace.

Every request of a run needs a slot from here. A claim's first tries take theirs in the claim's own
transaction (``look``, ``take``). All others call ``acquire``.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from sqlalchemy import Connection, Engine

from etl.allowance import slots
from etl.allowance.pace import Pace
from etl.allowance.slots import Allowance, Room
from etl.database.times import Clock
from etl.database.transact import transact
from etl.errors import NoSlot
from etl.records import Spent

LOOK_AGAIN_S: Final = 5.0
"""The longest sleep between two looks. Slots given back come free early."""

IN_HAND_MS: Final = 100
"""The sleep between two looks while this process uses the whole allowance."""


class Permits:
    """Take, give back and pause slots for one process. Threads may share it."""

    def __init__(  # noqa: PLR0913 - what a process shares
        self,
        engine: Engine,
        allowance: Allowance,
        *,
        clock: Clock,
        sleep: Callable[[float], None],
        ending: Callable[[], bool] = lambda: False,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self.allowance = allowance
        self._engine = engine
        self._clock = clock
        self._sleep = sleep
        self._ending = ending
        self._monotonic = monotonic or time.monotonic
        self._pace = Pace(allowance)
        self._held: dict[int, int] = {}
        self._lock = threading.Lock()

    @property
    def limited(self) -> bool:
        """Say whether there is a limit."""
        return self.allowance.requests > 0

    def look(self, connection: Connection) -> tuple[int, Room]:
        """Lock the gate, read the clock, and return it with the free room."""
        if not self.limited:
            return self._clock(connection), Room((), 0)
        paused_until = slots.lock_gate(connection, self.allowance)
        now = self._clock(connection)
        room = slots.room(connection, self.allowance, paused_until=paused_until, now=now)
        with self._lock:
            own = max(self._pace.room(self._monotonic()), 0)
            wait = self._pace.wait_until()
        if own >= len(room.free):
            return now, room
        # None: all are in hand. Only their answers make room, and nobody reports these here.
        wait_ms = IN_HAND_MS if wait is None else int((wait - self._monotonic()) * 1000) + 1
        return now, Room(room.free[:own], now + max(wait_ms, 1))

    def take(self, connection: Connection, free: Sequence[int], now: int) -> None:
        """Take free slots in the caller's transaction. Call ``taken`` once it is committed."""
        held = slots.take(connection, self.allowance, free, now)
        with self._lock:
            self._held |= dict.fromkeys(free, held)

    def taken(self, count: int) -> None:
        """Count slots whose taking is committed."""
        with self._lock:
            self._pace.take(count)

    def acquire(self, *, timeout_s: float, ending: Callable[[], bool] | None = None) -> int | None:
        """Wait for one slot and take it. None means that there is no limit.

        Raises ``NoSlot`` if none comes free within ``timeout_s``, and at once when the run is
        ``ending``: then no sleep waits, and endless looks would keep the database busy.
        """
        if not self.limited:
            return None
        give_up = self._monotonic() + timeout_s
        ending = ending or self._ending
        while not ending():
            slot, wait_s = transact(self._engine, self._take_one, doing="taking a request slot")
            if slot is not None:
                self.taken(1)
                return slot
            left = give_up - self._monotonic()
            if left <= 0:
                msg = f"No request slot came free within {timeout_s:.0f} s."
                raise NoSlot(msg)
            self._sleep(min(wait_s, left, LOOK_AGAIN_S))
        msg = "The run ends: no request slot is waited for."
        raise NoSlot(msg)

    def _take_one(self, connection: Connection) -> tuple[int | None, float]:
        now, room = self.look(connection)
        if not room.free:
            return None, max(room.wait_until - now, 1) / 1000
        self.take(connection, room.free[:1], now)
        return room.free[0], 0.0

    def give_back(
        self, connection: Connection, spent: Iterable[Spent], *, now: int, read_at: float
    ) -> None:
        """Write when slots come free, by their answers' times, in the caller's transaction.

        ``now`` is the database's clock. ``read_at`` is the monotonic clock *before* it was read, so
        an answer may seem later than it came, never earlier.
        """
        window = self.allowance.window_ms
        answered = [
            (
                done.slot,
                now - window
                if done.answered_at is None
                else now + 1 - int((read_at - done.answered_at) * 1000),
            )
            for done in spent
            if done.slot is not None
        ]
        with self._lock:
            held = dict(self._held)
        slots.release(connection, self.allowance, answered, held)

    def given_back(self, spent: Iterable[Spent]) -> None:
        """Count answers whose slots are written and committed."""
        with self._lock:
            for done in spent:
                if done.slot is not None:
                    self._pace.release(done.answered_at)

    def pause(self, connection: Connection, retry_after_ms: int | None, now: int) -> None:
        """Close the gate for every worker after a 429, for one window if no time is given."""
        if self.limited:
            slots.pause(connection, self.allowance, now + self.allowance.pause_ms(retry_after_ms))
