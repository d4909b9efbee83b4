"""Drain the queue one SID at a time: claim | fetch in threads | finish in batches.

The loop owns the database; no transaction is open while a thread talks HTTP. A crash between claim
and answer costs one slot and a lease of two minutes. Between answer and commit it costs the
request, which is sent again.
"""

import queue as queues
import time
from contextlib import suppress
from typing import Final

from etl.allowance.permits import LOOK_AGAIN_S
from etl.errors import ApiUnreachable, WriteRefused
from etl.fetch.claims import STORED, Claimed, Claims
from etl.fetch.hand import BATCH, Hand
from etl.fetch.limits import Locked, Quota
from etl.fetch.threads import Threads
from etl.fetch.write import Writer, strike
from etl.job.tools import Tools
from etl.queue.attempts import LEASE_MS, PROMOTE_LIMIT
from etl.records import SID_PATTERN, Failed, Failure, Result, Task

AHEAD_S: Final = 2.0
"""Without an allowance, a claim takes what the threads send in this time (10 s at most)."""

LOCKED_S: Final = LEASE_MS / 1000
"""A run with nothing else to do waits so long for locked rows."""


class Drain:
    """Drain the queue until nothing is pending and nothing is held.

    ``locked`` says whether it gave up waiting for rows that others have locked.
    """

    def __init__(
        self, tools: Tools, quota: Quota, *, concurrency: int, patient: bool = True
    ) -> None:
        self._tools = tools
        self._quota = quota
        self._concurrency = concurrency
        self._claims = Claims(tools, quota)
        self._threads = Threads(tools, concurrency, ending=self._ending)
        self._hand = Hand(tools.breaker)
        self._writer = Writer(tools)
        self.locked = Locked(LOCKED_S if patient else 0.0)
        self._claim_at = 0.0
        # Until the API has answered as itself, one request tells as much as sixteen.
        self._careful = True
        self._exhausted = False
        self._stop: BaseException | None = None

    def run(self) -> bool:
        """Claim, fetch and finish until done; True when it is time to plan again.

        Raises what ended the run. A ``Stop``, ``DatabaseBusy`` or bug in a thread is raised at the
        end: first answers are stored, and leases given back but for a bug's own row. A refusal of
        the database is raised at once; ``pipeline`` gives the leases back.
        """
        with self._tools.stop.waking(lambda: self._threads.results.put(None)):
            try:
                while not self._done():
                    self._claim()
                    self._collect()
                    self._flush()
                    self._tools.watch(self._tools.counts)
            except BaseException as error:
                # Threads shall not send what is about to be given back.
                self._stop = error
                raise
            finally:
                self._threads.close()
        if self._stop is not None:
            raise self._stop
        return self._quota.replans and not self._ending()

    def _ending(self) -> bool:
        return self._stop is not None or self._tools.stop.is_set()

    def _done(self) -> bool:
        reason = self._tools.breaker.reason
        if reason and self._stop is None:
            self._stop = ApiUnreachable(
                f"The API does not answer as itself: {reason}",
                hint="Nothing is lost and no row was counted; check the network and status, "
                "then run it again.",
            )
        return not self._hand.leases and (self._ending() or self._exhausted or self._quota.replans)

    # ---- claim

    def _want(self) -> int:
        outstanding = self._hand.outstanding
        # Should a suspect kill this process, no other row loses a lease with it.
        if self._quota.left <= 0 or self._hand.has_suspect:
            return 0
        if self._careful or self._tools.breaker.doubtful:
            return 0 if outstanding else 1
        size = self._concurrency
        if not self._tools.permits.limited:
            size = max(size * 2, int(self._tools.counts.rate() * AHEAD_S))
        want = size - outstanding
        if want < size // 2 and outstanding:
            return 0
        return min(want, self._quota.left, PROMOTE_LIMIT)

    def _closed(self) -> bool:
        return self._ending() or self._quota.replans or bool(self._tools.breaker.reason)

    def _claim(self) -> None:
        # Once it is to be told whether the API is down, what has arrived is stored first.
        if self._closed() or (self._tools.breaker.tripped and self._hand.answered):
            return
        if time.monotonic() < self._claim_at:
            return
        want = self._want()
        if want <= 0 and not self._asks_what_is_stored():
            self._exhausted = self._quota.left <= 0
            return
        try:
            claimed = self._claims.claim(want, self._hand.leases)
        except WriteRefused as error:
            self._stop = error
            return
        counts = self._tools.counts
        self._exhausted = not claimed.more
        if claimed.leases:
            self._send(claimed)
        elif claimed.wait_s > 0:
            counts.waiting_for = "a pause after 429" if claimed.paused else "the allowance"
            self._claim_at = time.monotonic() + min(claimed.wait_s, LOOK_AGAIN_S)
        elif claimed.probe and self._asks_what_is_stored():
            # Nothing is left that could tell.
            self._tools.breaker.open()
        else:
            self._stay(more=claimed.more)

    def _asks_what_is_stored(self) -> bool:
        """Say whether a stored attempt must tell about rows in doubt; no limit counts it."""
        breaker, hand = self._tools.breaker, self._hand
        return breaker.tripped and not hand.outstanding and bool(hand.in_doubt or breaker.probes)

    def _stay(self, *, more: bool) -> None:
        """Look again later for what is locked or must be claimed alone."""
        alone = more and not self._hand.leases
        self._tools.counts.waiting_for = "rows that are locked" if alone else ""
        wait_s = self.locked.look(more=more, alone=alone)
        self._claim_at = time.monotonic() + min(wait_s, LOOK_AGAIN_S)
        self._exhausted = self._exhausted or self.locked.given_up

    def _send(self, claimed: Claimed) -> None:
        self._tools.counts.claimed += sum(lease.id != STORED for lease in claimed.leases)
        self._tools.counts.waiting_for = ""
        self._threads.hold = False
        self.locked.free()
        slots = iter(claimed.slots)
        for lease in claimed.leases:
            self._hand.leases[lease.id] = lease
            if SID_PATTERN.fullmatch(lease.sid):
                self._threads.submit(Task(lease, next(slots), claimed.read_at, claimed.probe))
            else:
                error = f"{lease.sid[:80]!r} is not a Verification Attempt SID (VL, 32 hex digits)"
                self._hand.answer(Result(lease, failed=Failed(Failure.MALFORMED_SID, error)))

    # ---- collect

    def _collect(self) -> None:
        hand, stop = self._hand, self._tools.stop
        if not hand.leases and (self._exhausted or self._ending()):
            return
        now = time.monotonic()
        until = min(now + 1.0, hand.flush_at)
        if not self._closed() and self._want() > 0:
            until = min(until, max(self._claim_at, now))
        if stop.deadline > now:
            until = min(until, stop.deadline)
        if not hand.leases:
            # Nobody is going to answer.
            stop.sleep(until - now)
            return
        results = self._threads.results
        with suppress(queues.Empty):
            self._take_in(results.get(timeout=max(until - now, 0.0)))
            while len(hand.answered) < BATCH:
                self._take_in(results.get_nowait())

    def _take_in(self, result: Result | None) -> None:
        if result is None:
            return
        self._tools.counts.requests += result.requests
        self._stop = self._stop or result.bug or result.stop
        if result.bug is not None:
            del self._hand.leases[result.lease.id]
            strike(self._tools, result)
            return
        if result.attempt is not None:
            self._careful = False
        if result.throttled is not None:
            self._hold_back(result.throttled.retry_after_ms)
        if result.lease.id == STORED:
            # It has the last word on whether the API is down, and is stored already.
            del self._hand.leases[STORED]
            self._writer.spent += result.spent
            if result.failed is not None:
                self._tools.breaker.open()
            return
        failure = result.failed.failure if result.failed else None
        if failure is Failure.NOT_FOUND:
            self._careful = False
        if failure in {Failure.TRANSIENT, Failure.BAD_BODY}:
            self._hand.in_doubt.append(result)
        else:
            self._hand.answer(result)

    def _hold_back(self, retry_after_ms: int | None) -> None:
        """Send nothing for a while after a 429, and then one request."""
        self._tools.counts.throttled += 1
        self._threads.hold = self._careful = True
        permits = self._tools.permits
        if not permits.limited:
            pause_ms = permits.allowance.pause_ms(retry_after_ms)
            self._claim_at = time.monotonic() + pause_ms / 1000

    # ---- finish

    def _flush(self) -> None:
        nothing_more = (self._exhausted or self.locked) and not self._tools.breaker.tripped
        over = not self._hand.outstanding and bool(self._ending() or nothing_more)
        self._hand.clear_doubts(over=over)
        batch = self._hand.batch()
        if not batch:
            return
        if self._writer.write(batch):
            # What went back waits again.
            self._exhausted = False
        self._stop = self._stop or self._writer.error
        self._hand.drop(batch)
        if self.locked:
            self.locked.free()
            self._claim_at = 0.0
