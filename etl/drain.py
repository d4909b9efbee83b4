"""Drain the queue one SID at a time: claim | fetch in threads | finish in batches.

The loop owns the database; no transaction is open while a thread talks HTTP. What a crash costs:
between claim and answer, one slot and a lease of two minutes; between answer and commit, the
request, which is sent again.
"""

import logging
import queue as queues
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from etl import queue
from etl.database import check_revision, transact
from etl.errors import ApiUnreachable, WriteRefused
from etl.finish import Done, finish
from etl.parts import Parts
from etl.permits import LOOK_AGAIN_S
from etl.pool import Pool, Result, Task
from etl.records import SID_PATTERN, Failed, Failure, Lease

FLUSH_S: Final = 0.5
"""What has arrived waits at most this long for its transaction."""

BATCH: Final = 500
AHEAD_S: Final = 2.0
"""Without an allowance, a claim takes what the threads will send in this time (10 s at most)."""

DOUBT_S: Final = 20.0
"""How long failures wait to learn whether they were the rows' or the API's."""

PROMOTE_EVERY_S: Final = 1.0

_log = logging.getLogger(__name__)


class Drain:
    """Drain the queue until nothing is pending and nothing is held."""

    def __init__(
        self,
        parts: Parts,
        *,
        concurrency: int,
        limit: int | None = None,
        planned: int = 0,
        replan_after: int | None = None,
    ) -> None:
        self._parts = parts
        self._concurrency = concurrency
        self._limit = limit
        self._planned = planned
        self._replan_after = replan_after
        self._tally = parts.tally
        self._permits = parts.permits
        self._circuit = parts.circuit
        self._before = parts.tally.claimed - parts.tally.given_back
        self._held: dict[int, Lease] = {}
        self._arrived: list[Result] = []
        self._doubtful: deque[tuple[float, Result]] = deque()
        self._first_arrival = 0.0
        self._claim_at = 0.0
        self._promote_at = 0.0
        self._promoted = 0
        self._careful = True
        self._exhausted = False
        self._stop: BaseException | None = None

    def run(self) -> bool:
        """Claim, fetch and finish until done; True when it is time to plan again.

        That is when ``replan_after`` rows have come due meanwhile, or were enqueued beyond those
        ``planned``. Raises what ended the run, after
        what had arrived was stored and all leases went back: a ``Stop``, a ``DatabaseBusy`` that a
        thread met with, or a bug (whose row's lease runs out by itself: should it be the row's
        fault, that is counted). Raises ``TryAgain`` when the database did not come back; then all
        leases run out by themselves.
        """
        self._pool = Pool(
            self._concurrency,
            self._parts.api,
            self._permits,
            self._circuit,
            stopping=self._ending,
            sleep=self._parts.stopping.sleep,
        )
        with self._parts.stopping.waking(lambda: self._pool.results.put(None)):
            try:
                while not self._done():
                    self._claim()
                    self._collect()
                    self._flush()
                    self._parts.watch(self._tally)
            finally:
                self._pool.close()
        if self._stop is not None:
            raise self._stop
        return self._replans() and not self._ending()

    def _ending(self) -> bool:
        return self._stop is not None or self._parts.stopping.is_set()

    def _replans(self) -> bool:
        if self._replan_after is None:
            return False
        return self._promoted + max(self._taken() - self._planned, 0) >= self._replan_after

    def _done(self) -> bool:
        if self._circuit.reason and self._stop is None:
            self._stop = ApiUnreachable(
                f"The API does not answer as itself: {self._circuit.reason}",
                hint="Nothing is lost and no row was counted; check the network and status, "
                "then run it again.",
            )
        return not self._held and (self._ending() or self._exhausted or self._replans())

    # ---- claim

    def _want(self) -> int:
        outstanding = len(self._held) - len(self._arrived) - len(self._doubtful)
        if self._limit is not None and self._left() <= 0:
            return 0
        if self._suspect_in_hand():
            # Should it kill this process, no other row loses a lease with it.
            return 0
        if self._careful:
            # Until the API has answered as itself, one request tells as much as sixteen.
            return 0 if outstanding else 1
        size = self._concurrency
        if not self._permits.limited:
            size = max(size * 2, int(self._tally.rate() * AHEAD_S))
        want = size - outstanding
        if want < size // 2 and outstanding:
            return 0
        if self._limit is not None:
            want = min(want, self._left())
        return min(want, queue.PROMOTE_LIMIT)

    def _suspect_in_hand(self) -> bool:
        answered = {result.lease.id for _, result in self._doubtful}
        return any(
            lease.lost_leases >= queue.ALONE_AFTER and lease.id not in answered
            for lease in self._held.values()
        )

    def _left(self) -> int:
        return (self._limit or 0) - self._taken()

    def _taken(self) -> int:
        return self._tally.claimed - self._tally.given_back - self._before

    def _closed(self) -> bool:
        return self._ending() or self._replans() or bool(self._circuit.reason)

    def _claim(self) -> None:
        if self._closed():
            return
        if time.monotonic() < self._claim_at:
            return
        want = self._want()
        if want <= 0:
            self._exhausted = self._limit is not None and self._left() <= 0
            return
        try:
            claimed = self._claim_now(want)
        except WriteRefused as error:
            self._stop = error
            return
        self._exhausted = not claimed.more
        if claimed.leases:
            self._send(claimed)
        elif claimed.wait_s > 0:
            self._tally.waiting_for = "a pause after 429" if claimed.paused else "the allowance"
            self._claim_at = time.monotonic() + min(claimed.wait_s, LOOK_AGAIN_S)
        else:
            self._tally.waiting_for = ""
            # Rows that another worker has locked this moment, or that must be claimed alone.
            self._claim_at = time.monotonic() + 0.1

    def _claim_now(self, want: int) -> "_Claimed":
        tried = False

        def work(connection: Connection) -> _Claimed:
            nonlocal tried
            check_revision(connection)
            if tried:
                # A commit whose answer was lost may have leased rows that nobody will fetch.
                queue.give_back_strays(connection, self._parts.worker, self._held)
            tried = True
            now, room = self._permits.look(connection)
            read_at = time.monotonic()
            promoted = self._promote(connection, now)
            most = min(want, len(room.free)) if self._permits.limited else want
            leases = queue.claim(
                connection, accounts=self._parts.accounts, worker=self._parts.worker,
                now=now, limit=max(most, 0), holding=bool(self._held),
            ) if most > 0 else []  # fmt: skip
            sound = [lease for lease in leases if SID_PATTERN.fullmatch(lease.sid)]
            slots: list[int | None] = [None] * len(sound)
            if self._permits.limited:
                slots = list(room.free[: len(sound)])
                self._permits.take(connection, room.free[: len(sound)], now)
            wait_s = 0.0 if most > 0 else max(room.wait_until - now, 1) / 1000
            more = bool(leases) or queue.any_pending(connection, self._parts.accounts)
            wait_s = wait_s if more else 0.0
            return _Claimed(leases, slots, wait_s, room.paused, more, read_at, promoted)

        claimed = transact(self._parts.engine, work, doing="claiming SIDs from the queue")
        self._permits.taken(sum(slot is not None for slot in claimed.slots))
        if claimed.promoted is not None:
            self._promoted += claimed.promoted.changed
            self._tally.dead += claimed.promoted.dead
            # More than one transaction's worth is due: go on with the next claim.
            full = claimed.promoted.changed >= queue.PROMOTE_LIMIT
            self._promote_at = time.monotonic() + (0.0 if full else PROMOTE_EVERY_S)
        return claimed

    def _promote(self, connection: Connection, now: int) -> queue.Promoted | None:
        return queue.promote(connection, now) if time.monotonic() >= self._promote_at else None

    def _send(self, claimed: "_Claimed") -> None:
        self._tally.claimed += len(claimed.leases)
        self._tally.waiting_for = ""
        self._pool.hold = False
        slots = iter(claimed.slots)
        for lease in claimed.leases:
            self._held[lease.id] = lease
            if SID_PATTERN.fullmatch(lease.sid):
                self._pool.submit(Task(lease, next(slots), claimed.read_at))
            else:
                error = f"{lease.sid[:80]!r} is not a Verification Attempt SID (VL, 32 hex digits)"
                self._arrive(Result(lease, failed=Failed(Failure.MALFORMED_SID, error)))

    # ---- collect

    def _collect(self) -> None:
        if not self._held and (self._exhausted or self._ending()):
            return
        now = time.monotonic()
        until = now + 1.0
        if not self._closed() and self._want() > 0:
            until = min(until, max(self._claim_at, now))
        if self._arrived:
            until = min(until, self._first_arrival + FLUSH_S)
        if self._parts.stopping.deadline > now:
            until = min(until, self._parts.stopping.deadline)
        if not self._held:
            # Nobody is going to answer.
            self._parts.stopping.sleep(until - now)
            return
        with suppress(queues.Empty):
            self._take_in(self._pool.results.get(timeout=max(until - now, 0.0)))
            while len(self._arrived) < BATCH:
                self._take_in(self._pool.results.get_nowait())

    def _take_in(self, result: Result | None) -> None:
        if result is None:
            return
        self._tally.requests += result.requests
        if result.bug is not None:
            self._stop = self._stop or result.bug
            del self._held[result.lease.id]
            return
        if result.attempt is not None or result.failed is not None:
            self._careful = self._careful and result.attempt is None
        if result.throttled is not None:
            self._tally.throttled += 1
            self._pool.hold = self._careful = True
            if not self._permits.limited:
                pause_ms = self._permits.allowance.pause_ms(result.throttled.retry_after_ms)
                self._claim_at = time.monotonic() + pause_ms / 1000
        if result.stop is not None and self._stop is None:
            self._stop = result.stop
        failure = result.failed.failure if result.failed else None
        if failure is Failure.NOT_FOUND:
            self._careful = False
        if failure in {Failure.TRANSIENT, Failure.BAD_BODY}:
            self._doubtful.append((time.monotonic(), result))
        else:
            self._arrive(result)

    def _arrive(self, result: Result) -> None:
        if not self._arrived:
            self._first_arrival = time.monotonic()
        self._arrived.append(result)

    # ---- finish

    def _clear_doubts(self) -> None:
        """Move failures on, once it is known whether the rows or the API are to blame."""
        everything = len(self._doubtful) + len(self._arrived) == len(self._held)
        over = everything and (self._exhausted or self._ending())
        if over and self._doubtful:
            self._circuit.nothing_left()
        while self._doubtful:
            since, result = self._doubtful[0]
            if self._circuit.reason:
                result.failed = None
            elif self._circuit.streak and not over and self._in_doubt(since):
                return
            self._arrive(result)
            self._doubtful.popleft()

    def _in_doubt(self, since: float) -> bool:
        # Ten connections that time out one after the other take longer than ``DOUBT_S``.
        return time.monotonic() - since < DOUBT_S or not self._circuit.reached

    def _flush(self) -> None:
        self._clear_doubts()
        due = time.monotonic() - self._first_arrival >= FLUSH_S
        everything = len(self._arrived) == len(self._held)
        if not self._arrived or not (due or everything or len(self._arrived) >= BATCH):
            return
        batch = self._arrived[:BATCH]
        spent = [done for result in batch for done in result.spent]

        def work(connection: Connection) -> Done:
            done = finish(
                connection, batch, self._parts.policy, clock=self._parts.clock,
                refusals=len(self._tally.refused),
            )  # fmt: skip
            self._permits.give_back(connection, spent, now=done.now, read_at=done.read_at)
            for result in batch:
                if result.throttled is not None:
                    self._permits.pause(connection, result.throttled.retry_after_ms, done.now)
            return done

        doing = "writing fetched attempts"
        try:
            done = transact(self._parts.engine, work, doing=doing)
        except WriteRefused as error:
            # No row is to blame: these go back uncounted, like all that is held.
            self._stop = self._stop or error
            for result in batch:
                result.attempt = result.failed = None
            done = transact(self._parts.engine, work, doing=doing)
        self._permits.given_back(spent)
        self._tally.add(done)
        if done.discarded:
            _log.warning(
                "%d answers were discarded: their rows were claimed, edited or deleted by others.",
                done.discarded,
            )
        if done.given_back:
            self._exhausted = False
        for result in batch:
            del self._held[result.lease.id]
        self._arrived = self._arrived[BATCH:]
        self._first_arrival = time.monotonic()


@dataclass(frozen=True, slots=True)
class _Claimed:
    leases: list[Lease]
    slots: list[int | None]
    wait_s: float
    paused: bool
    more: bool
    read_at: float
    promoted: queue.Promoted | None
