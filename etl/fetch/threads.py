"""Fetch leased SIDs in threads: HTTP and transform, no database but for a retry's slot.

The threads take tasks from one queue and put results on another. The loop in ``drain`` owns the
database. A request that cannot be answered while its lease holds is not sent.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from etl.errors import (
    BadBody,
    BodyTooLarge,
    DatabaseBusy,
    EtlError,
    NoSlot,
    NotFound,
    Reject,
    Stop,
    Throttled,
    TransientFailure,
    Unreachable,
)
from etl.extract import Reply, patiently
from etl.job.tools import Tools
from etl.queue.attempts import LEASE_MS
from etl.records import Attempt, Failed, Failure, Result, Spent, Task
from etl.transform.attempt import transform

TRIES: Final = 3
UNSENT_BELOW_S: Final = 30.0
"""A row with less than this left of its lease is given back unsent."""

SLOT_FRESH_S: Final = 10.0
"""With a slot older than this nothing is sent.

It is held for 25 s past its window, and connecting may take 5 s. A process that was stopped
meanwhile must not send beside the slot's next holder.
"""

SLOT_WAIT_S: Final = 10.0
"""A further try waits so long for a slot. After that its row waits for its turn."""

_FAILURES: Final = {
    NotFound: Failure.NOT_FOUND,
    BadBody: Failure.BAD_BODY,
    BodyTooLarge: Failure.BODY_TOO_LARGE,
}


class Threads:
    """Run ``size`` threads that turn tasks into results until it is closed."""

    def __init__(self, tools: Tools, size: int, *, ending: Callable[[], bool]) -> None:
        self.results: queue.SimpleQueue[Result | None] = queue.SimpleQueue()
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._tools = tools
        self._breaker = tools.breaker
        self._ending = ending
        self.hold = False
        self._size = size
        self._threads: list[threading.Thread] = []

    def submit(self, task: Task) -> None:
        """Hand a task to the next free thread. Threads start as tasks come, up to the size."""
        self._tasks.put(task)
        if len(self._threads) < self._size:
            name = f"fetch-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End the threads; those in mid-request are daemons and end with the process."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(timeout=0.2)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            result = Result(task.lease, task.claimed_at)
            try:
                self._fetch(task, result)
            except BaseException as error:  # noqa: BLE001 - the loop raises it again
                result.bug = error
            self.results.put(result)

    def _fetch(self, task: Task, result: Result) -> None:
        slot, taken_at = task.slot, task.claimed_at

        def over() -> bool:
            late = time.monotonic() - task.claimed_at > LEASE_MS / 1000 - UNSENT_BELOW_S
            down = bool(self._breaker.reason) or (self._breaker.tripped and not task.probe)
            return late or self.hold or down or self._ending()

        def unsent() -> bool:
            stale = slot is not None and time.monotonic() - taken_at > SLOT_FRESH_S
            return stale or over()

        def once() -> Reply:
            try:
                reply = self._tools.api.attempt(task.lease.sid)
            except (TransientFailure, BadBody) as error:
                self._refuse_late(error)
                result.last = error
                sent = not isinstance(error, Unreachable)
                self._breaker.failed(str(error), reached=sent, probe=task.probe)
                raise
            except EtlError:
                self._breaker.answered()
                raise
            finally:
                result.spent.append(Spent(slot, time.monotonic()))
            return reply

        def permit() -> None:
            nonlocal slot, taken_at
            slot = self._tools.permits.acquire(timeout_s=SLOT_WAIT_S, ending=over)
            taken_at = time.monotonic()
            if unsent():
                result.spent.append(Spent(slot, None))
                msg = "The slot came too late."
                raise NoSlot(msg)

        if unsent():
            result.spent.append(Spent(slot, None))
            return
        self._breaker.first_try()
        try:
            reply = patiently(
                once,
                permit=permit,
                sleep=self._tools.stop.sleep,
                may_retry=lambda: not over() and self._breaker.may_retry(),
                tries=TRIES,
            )
        except EtlError as error:
            self._note(result, error)
            return
        self._read(task, reply, result)

    def _refuse_late(self, error: EtlError) -> None:
        """Let a request that the time limit ended tell of neither its row nor the API."""
        if self._tools.stop.late():
            msg = "The time limit passed."
            raise NoSlot(msg) from error

    def _note(self, result: Result, error: EtlError) -> None:
        if isinstance(error, NoSlot):
            # Nobody sent a 429: what the last try met with stands.
            if result.last is not None:
                self._note(result, result.last)
        elif isinstance(error, Throttled):
            result.throttled = error
        elif isinstance(error, TransientFailure):
            result.failed = Failed(Failure.TRANSIENT, str(error))
        elif isinstance(error, Reject):
            result.failed = Failed(_FAILURES.get(type(error), Failure.BAD_BODY), str(error))
        elif isinstance(error, Stop | DatabaseBusy):
            result.stop = error
        else:
            result.bug = error

    def _read(self, task: Task, reply: Reply, result: Result) -> None:
        read = transform(reply.payload, sid=result.lease.sid)
        if isinstance(read, Attempt):
            self._breaker.answered()
            since_claim = int((reply.sent_at - task.claimed_at) * 1000)
            result.attempt = read
            result.sent_at = task.lease.due_at - LEASE_MS + since_claim
        else:
            self._breaker.failed(read.reason, probe=task.probe)
            result.failed = Failed(Failure.BAD_BODY, read.reason)
