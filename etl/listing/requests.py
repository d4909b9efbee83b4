"""Send requests one after the other, each under a permit: slot | request | answer."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import Connection

from etl.database.times import moment
from etl.database.transact import PATIENCE_S, transact
from etl.errors import BadBody, BodyTooLarge, EtlError, NotFound, Throttled, TransientFailure
from etl.extract import Summary, patiently
from etl.job.stop import Interrupted
from etl.job.tools import Tools
from etl.records import Spent

T = TypeVar("T")

TRIES: Final = 3

LOOK_S: Final = 1.0
"""A wait is cut into pieces this long. In between the window's lease is kept."""

UNREADABLE: Final = (TransientFailure, BadBody, BodyTooLarge, NotFound)
"""What one request can fail with while the API may still answer others."""


class Requests:
    """Send requests under the allowance; ``keep`` is called while one waits for its turn."""

    def __init__(self, tools: Tools, *, keep: Callable[[], None] = lambda: None) -> None:
        self._tools = tools
        self._keep = keep
        self._spent: list[Spent] = []

    def ask(self, call: Callable[[], T], *, tries: int = TRIES) -> T:
        """Send one request; try again after failures that pass.

        A 429 pauses every worker first. Raises ``Interrupted`` when the run shall end, the errors
        of ``keep``, and those of the API.
        """
        stop = self._tools.stop
        while True:
            try:
                return patiently(
                    lambda: self._once(call), permit=lambda: None, sleep=stop.sleep,
                    may_retry=lambda: not stop.is_set(), tries=tries,
                )  # fmt: skip
            except Throttled as error:
                self._tools.counts.throttled += 1
                self._pause(error)

    def _once(self, call: Callable[[], T]) -> T:
        slot = self._slot()
        breaker = self._tools.breaker
        self._tools.counts.requests += 1
        try:
            answer = call()
        except (TransientFailure, BadBody) as error:
            if self._tools.stop.late():
                # The time limit ended it: that tells nothing of the API.
                raise Interrupted from error
            breaker.failed(str(error))
            raise
        except EtlError:
            breaker.answered()
            raise
        else:
            breaker.answered()
            return answer
        finally:
            self._spent.append(Spent(slot, time.monotonic()))

    def _slot(self) -> int | None:
        counts = self._tools.counts
        while True:
            if self._tools.stop.is_set():
                raise Interrupted
            self._keep()
            try:
                slot = self._tools.permits.acquire(timeout_s=LOOK_S)
            except Throttled:
                counts.waiting_for = "the allowance"
                self._tools.watch(counts)
            else:
                counts.waiting_for = ""
                return slot

    def _pause(self, error: Throttled) -> None:
        tools, permits = self._tools, self._tools.permits

        def work(connection: Connection) -> None:
            permits.pause(connection, error.retry_after_ms, tools.clock(connection))

        self.commit(work, doing="pausing after a 429")
        if permits.limited:
            return
        until = time.monotonic() + permits.allowance.pause_ms(error.retry_after_ms) / 1000
        while (left := until - time.monotonic()) > 0 and not tools.stop.is_set():
            tools.stop.sleep(min(left, LOOK_S))
            self._keep()

    def count(self, start: int, end: int, **only: str | None) -> Summary:
        """Ask the Summary of a window (ms, half open), or ``only`` of a part; raise as ``ask``."""
        call = partial(self._tools.api.summary, after=moment(start), before=moment(end), **only)
        try:
            return self.ask(call)
        finally:
            # Its slot comes free a window after this, and not after the longest it might have taken.
            self.commit(lambda _: None, doing="giving a slot back")
            self._tools.watch(self._tools.counts)

    def total(self, start: int, end: int, service: str) -> int | None:
        """Ask how many attempts a window holds; None when the Summary cannot be read."""
        with suppress(*UNREADABLE):
            return self.count(start, end, service_sid=service or None).total
        return None

    def commit(
        self, work: Callable[[Connection], T], *, doing: str, patience_s: float = PATIENCE_S
    ) -> T:
        """Run a transaction that also gives back the slots of answered requests."""
        tools = self._tools

        def both(connection: Connection) -> T:
            done = work(connection)
            read_at = time.monotonic()
            now = tools.clock(connection)
            tools.permits.give_back(connection, self._spent, now=now, read_at=read_at)
            return done

        done = transact(tools.engine, both, doing=doing, patience_s=patience_s)
        tools.permits.given_back(self._spent)
        self._spent = []
        return done
