"""Drain the queue one SID at a time: claim | fetch in threads | finish in batches.

The loop owns the database; no transaction is open while a thread talks HTTP. What a crash costs:
between claim and answer, one slot and a lease of two minutes; between answer and commit, the
request, which is sent again.
"""

import logging
import queue as queues
import time
from contextlib import suppress
from typing import Final

from sqlalchemy import Connection

from etl.allowance.permits import LOOK_AGAIN_S
from etl.database.transact import transact
from etl.errors import ApiUnreachable, EtlError, WriteRefused
from etl.fetch import claims
from etl.fetch.claims import STORED, Claimed
from etl.fetch.doubts import Doubts
from etl.fetch.threads import Threads
from etl.job.tools import Tools
from etl.load.finish import finish
from etl.queue import attempts
from etl.records import SID_PATTERN, Done, Failed, Failure, Lease, Result, Spent, Task

FLUSH_S: Final = 0.5
"""What has arrived waits at most this long for its transaction."""

BATCH: Final = 500
AHEAD_S: Final = 2.0
"""Without an allowance, a claim takes what the threads will send in this time (10 s at most)."""

LOCKED_S: Final = attempts.LEASE_MS / 1000
"""How long a run with nothing else to do waits for rows that another program has locked."""

PROMOTE_EVERY_S: Final = 1.0

_log = logging.getLogger(__name__)


class Drain:
    """Drain the queue until nothing is pending and nothing is held."""

    def __init__(  # noqa: PLR0913 - what is asked of it
        self,
        tools: Tools,
        *,
        concurrency: int,
        limit: int | None = None,
        planned: int = 0,
        replan_after: int | None = None,
        patient: bool = True,
    ) -> None:
        self._tools = tools
        self._concurrency = concurrency
        self._limit = limit
        self._planned = planned
        self._replan_after = replan_after
        self._counts = tools.counts
        self._permits = tools.permits
        self._breaker = tools.breaker
        self._before = tools.counts.claimed - tools.counts.given_back
        self._held: dict[int, Lease] = {}
        self._arrived: list[Result] = []
        self._doubts = Doubts(tools.breaker)
        self._spent: list[Spent] = []
        self._first_arrival = 0.0
        self._claim_at = 0.0
        self._promote_at = 0.0
        self._promoted = 0
        self._careful = True
        self._exhausted = False
        self._stop: BaseException | None = None
        self._patience = LOCKED_S if patient else 0.0
        # Since when nothing could be claimed though rows wait; 0: not so.
        self._stuck_since = 0.0
        # Rows that met with a bug while no other's attempt could be written.
        self._unspared: set[int] = set()
        self.left_locked = False

    def run(self) -> bool:
        """Claim, fetch and finish until done; True when it is time to plan again.

        That is when ``replan_after`` rows have come due meanwhile, or were enqueued beyond those
        ``planned``. Raises what ended the run. What a thread met with, a ``Stop``, ``DatabaseBusy``
        or bug, is raised after what had arrived was stored and all leases went back, but for a
        bug's own row; what the database refuses is raised at once, and the leases are ``pipeline``'s
        to give back. ``left_locked``: the run did not wait any longer for what others have locked.
        """
        self._pool = Threads(
            self._concurrency,
            self._tools.api,
            self._permits,
            self._breaker,
            stop=self._ending,
            sleep=self._tools.stop.sleep,
        )
        with self._tools.stop.waking(lambda: self._pool.results.put(None)):
            try:
                while not self._done():
                    self._claim()
                    self._collect()
                    self._flush()
                    self._tools.watch(self._counts)
            except BaseException as error:
                # Threads shall not send what is about to be given back.
                self._stop = error
                raise
            finally:
                self._pool.close()
        if self._stop is not None:
            raise self._stop
        return self._replans() and not self._ending()

    def _ending(self) -> bool:
        return self._stop is not None or self._tools.stop.is_set()

    def _replans(self) -> bool:
        if self._replan_after is None:
            return False
        return self._promoted + max(self._taken() - self._planned, 0) >= self._replan_after

    def _done(self) -> bool:
        if self._breaker.reason and self._stop is None:
            self._stop = ApiUnreachable(
                f"The API does not answer as itself: {self._breaker.reason}",
                hint="Nothing is lost and no row was counted; check the network and status, "
                "then run it again.",
            )
        return not self._held and (self._ending() or self._exhausted or self._replans())

    # ---- claim

    def _want(self) -> int:
        outstanding = len(self._held) - len(self._arrived) - len(self._doubts)
        if self._limit is not None and self._left() <= 0:
            return 0
        if self._suspect_in_hand():
            # Should it kill this process, no other row loses a lease with it.
            return 0
        if self._careful or self._breaker.doubtful:
            # Until the API has answered as itself, one request tells as much as sixteen.
            return 0 if outstanding else 1
        size = self._concurrency
        if not self._permits.limited:
            size = max(size * 2, int(self._counts.rate() * AHEAD_S))
        want = size - outstanding
        if want < size // 2 and outstanding:
            return 0
        if self._limit is not None:
            want = min(want, self._left())
        return min(want, attempts.PROMOTE_LIMIT)

    def _suspect_in_hand(self) -> bool:
        answered = self._doubts.ids()
        return any(
            lease.lost_leases >= attempts.ALONE_AFTER and lease.id not in answered
            for lease in self._held.values()
        )

    def _left(self) -> int:
        return (self._limit or 0) - self._taken()

    def _taken(self) -> int:
        return self._counts.claimed - self._counts.given_back - self._before

    def _closed(self) -> bool:
        return self._ending() or self._replans() or bool(self._breaker.reason)

    def _claim(self) -> None:
        # Once it is to be told whether the API is down, what has arrived is stored first.
        if self._closed() or (self._breaker.tripped and self._arrived):
            return
        if time.monotonic() < self._claim_at:
            return
        want = self._want()
        if want <= 0 and not self._asks_what_is_stored():
            self._exhausted = self._limit is not None and self._left() <= 0
            return
        promotes = time.monotonic() >= self._promote_at
        try:
            claimed = claims.claim(self._tools, want=want, held=self._held, promotes=promotes)
        except WriteRefused as error:
            self._stop = error
            return
        self._note_promoted(claimed.promoted)
        self._exhausted = not claimed.more
        if claimed.leases:
            self._send(claimed)
        elif claimed.wait_s > 0:
            self._counts.waiting_for = "a pause after 429" if claimed.paused else "the allowance"
            self._claim_at = time.monotonic() + min(claimed.wait_s, LOOK_AGAIN_S)
        elif claimed.probe and self._asks_what_is_stored():
            # Nothing is left that could tell.
            self._breaker.open()
        else:
            self._counts.waiting_for = ""
            self._stay(more=claimed.more)

    def _asks_what_is_stored(self) -> bool:
        """Say whether rows in doubt depend on it: it is no row itself, and no limit counts it."""
        answered = len(self._arrived) + len(self._doubts) == len(self._held)
        return self._breaker.tripped and answered and bool(self._doubts or self._breaker.probes)

    def _stay(self, *, more: bool) -> None:
        """Look again later, and later each time, for what is locked or must be claimed alone."""
        now = time.monotonic()
        self._stuck_since = (self._stuck_since or now) if more else 0.0
        waited = now - self._stuck_since if more else 0.0
        self._claim_at = now + min(max(waited, 0.1), LOOK_AGAIN_S)
        if more and not self._held:
            self._counts.waiting_for = "rows that are locked"
            self._exhausted = self.left_locked = waited >= self._patience

    def _note_promoted(self, promoted: attempts.Promoted | None) -> None:
        if promoted is not None:
            self._promoted += promoted.changed
            self._counts.dead += promoted.dead
            # More than one transaction's worth is due: go on with the next claim.
            full = promoted.changed >= attempts.PROMOTE_LIMIT
            self._promote_at = time.monotonic() + (0.0 if full else PROMOTE_EVERY_S)

    def _send(self, claimed: Claimed) -> None:
        self._counts.claimed += sum(lease.id != STORED for lease in claimed.leases)
        self._counts.waiting_for = ""
        self._pool.hold = False
        self._stuck_since = 0.0
        slots = iter(claimed.slots)
        for lease in claimed.leases:
            self._held[lease.id] = lease
            if SID_PATTERN.fullmatch(lease.sid):
                self._pool.submit(Task(lease, next(slots), claimed.read_at, claimed.probe))
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
        if self._tools.stop.deadline > now:
            until = min(until, self._tools.stop.deadline)
        if not self._held:
            # Nobody is going to answer.
            self._tools.stop.sleep(until - now)
            return
        with suppress(queues.Empty):
            self._take_in(self._pool.results.get(timeout=max(until - now, 0.0)))
            while len(self._arrived) < BATCH:
                self._take_in(self._pool.results.get_nowait())

    def _take_in(self, result: Result | None) -> None:
        if result is None:
            return
        self._counts.requests += result.requests
        if result.bug is not None:
            self._stop = self._stop or result.bug
            self._strike(result)
            return
        if result.attempt is not None or result.failed is not None:
            self._careful = self._careful and result.attempt is None
        if result.throttled is not None:
            self._counts.throttled += 1
            self._pool.hold = self._careful = True
            if not self._permits.limited:
                pause_ms = self._permits.allowance.pause_ms(result.throttled.retry_after_ms)
                self._claim_at = time.monotonic() + pause_ms / 1000
        if result.stop is not None and self._stop is None:
            self._stop = result.stop
        if result.lease.id == STORED:
            self._heard_of_stored(result)
            return
        failure = result.failed.failure if result.failed else None
        if failure is Failure.NOT_FOUND:
            self._careful = False
        if failure in {Failure.TRANSIENT, Failure.BAD_BODY}:
            self._doubts.add(result)
        else:
            self._arrive(result)

    def _heard_of_stored(self, result: Result) -> None:
        """Take the last word on whether the API is down; the attempt itself is stored already."""
        del self._held[STORED]
        self._spent += result.spent
        if result.failed is not None:
            self._breaker.open()

    def _strike(self, result: Result) -> None:
        """Leave a row with which our code met a bug to run out of its lease: that is counted."""
        del self._held[result.lease.id]
        # What the machine is short of is no row's fault.
        if not isinstance(result.bug, OSError | MemoryError):
            self._tools.struck.add(result.lease.id)

    def _arrive(self, result: Result) -> None:
        if not self._arrived:
            self._first_arrival = time.monotonic()
        self._arrived.append(result)

    # ---- finish

    def _clear_doubts(self) -> None:
        """Move failures on, once it is known whether the rows or the API are to blame."""
        everything = len(self._doubts) + len(self._arrived) == len(self._held)
        nothing_more = self._exhausted or self._stuck_since > 0
        over = everything and (self._ending() or (nothing_more and not self._breaker.tripped))
        for result in self._doubts.certain(over=over):
            self._arrive(result)

    def _flush(self) -> None:
        self._clear_doubts()
        due = self._breaker.tripped or time.monotonic() - self._first_arrival >= FLUSH_S
        everything = len(self._arrived) == len(self._held)
        if not self._arrived or not (due or everything or len(self._arrived) >= BATCH):
            return
        batch, self._arrived = self._arrived[:BATCH], self._arrived[BATCH:]
        try:
            self._write(batch)
        except EtlError:
            raise
        except Exception as bug:  # noqa: BLE001 - raised when the rest is done
            self._stop = self._stop or bug
            self._single_out(batch)
        self._first_arrival = time.monotonic()

    def _single_out(self, batch: list[Result]) -> None:
        """Write one by one what failed together: a bug is laid to rows if others are spared."""
        for result in batch:
            try:
                self._write([result])
            except EtlError:
                raise
            except Exception as bug:  # noqa: BLE001 - as above
                result.bug = bug
        struck = [result for result in batch if result.bug is not None]
        for result in struck:
            self._strike(result)
        if not any(result.attempt and not result.bug for result in batch):
            self._unspared |= {result.lease.id for result in struck}
        if len(self._unspared) > 1:
            self._tools.struck.difference_update(self._unspared)

    def _write(self, batch: list[Result]) -> None:
        spent = [*self._spent, *(done for result in batch for done in result.spent)]

        def work(connection: Connection) -> Done:
            done = finish(
                connection, batch, self._tools.policy, clock=self._tools.clock,
                refusals=len(self._counts.refused),
            )  # fmt: skip
            self._permits.give_back(connection, spent, now=done.now, read_at=done.read_at)
            for result in batch:
                if result.throttled is not None:
                    self._permits.pause(connection, result.throttled.retry_after_ms, done.now)
            return done

        doing = "writing fetched attempts"
        try:
            done = transact(self._tools.engine, work, doing=doing)
        except WriteRefused as error:
            # No row is to blame: these go back uncounted, like all that is held.
            self._stop = self._stop or error
            for result in batch:
                result.attempt = result.failed = None
            done = transact(self._tools.engine, work, doing=doing)
        self._permits.given_back(spent)
        self._spent = []
        self._counts.add(done)
        if done.discarded:
            _log.warning(
                "%d answers were discarded: their rows were claimed, edited or deleted by others.",
                done.discarded,
            )
        if done.given_back:
            self._exhausted = False
        if self._stuck_since:
            self._stuck_since = self._claim_at = 0.0
        for result in batch:
            del self._held[result.lease.id]
