"""Write results in batches, each in one transaction: finish rows | give slots back | pause."""

import logging
from collections.abc import Sequence

from sqlalchemy import Connection

from etl.database.transact import transact
from etl.errors import EtlError, WriteRefused
from etl.job.tools import Tools
from etl.load.finish import finish
from etl.records import Done, Result, Spent

_log = logging.getLogger(__name__)


class Writer:
    """Write batches; ``error`` is the first one, to be raised when the rest is done.

    ``spent`` are slots to give back with the next batch.
    """

    def __init__(self, tools: Tools) -> None:
        self.error: BaseException | None = None
        self.spent: list[Spent] = []
        self._tools = tools
        # Rows that met with a bug while no other's attempt could be written.
        self._unspared: set[int] = set()

    def write(self, batch: Sequence[Result]) -> bool:
        """Write a batch; say whether any row went back to the queue."""
        try:
            return self._write(batch)
        except EtlError:
            raise
        except Exception as bug:  # noqa: BLE001 - raised when the rest is done
            self.error = self.error or bug
            return self._single_out(batch)

    def _single_out(self, batch: Sequence[Result]) -> bool:
        """Write results one by one: a row is to blame if others are spared."""
        given_back = False
        for result in batch:
            try:
                given_back |= self._write([result])
            except EtlError:
                raise
            except Exception as bug:  # noqa: BLE001 - as above
                result.bug = bug
        struck = [result for result in batch if result.bug is not None]
        for result in struck:
            strike(self._tools, result)
        if not any(result.attempt and not result.bug for result in batch):
            self._unspared |= {result.lease.id for result in struck}
        if len(self._unspared) > 1:
            self._tools.struck.difference_update(self._unspared)
        return given_back

    def _write(self, batch: Sequence[Result]) -> bool:
        tools, permits = self._tools, self._tools.permits
        spent = [*self.spent, *(done for result in batch for done in result.spent)]

        def work(connection: Connection) -> Done:
            done = finish(
                connection, batch, tools.policy, clock=tools.clock,
                refusals=len(tools.counts.refused),
            )  # fmt: skip
            permits.give_back(connection, spent, now=done.now, read_at=done.read_at)
            for result in batch:
                if result.throttled is not None:
                    permits.pause(connection, result.throttled.retry_after_ms, done.now)
            return done

        doing = "writing fetched attempts"
        try:
            done = transact(tools.engine, work, doing=doing)
        except WriteRefused as error:
            # No row is to blame: these go back uncounted, like all that is held.
            self.error = self.error or error
            for result in batch:
                result.attempt = result.failed = None
            done = transact(tools.engine, work, doing=doing)
        permits.given_back(spent)
        self.spent = []
        tools.counts.add(done)
        if done.discarded:
            _log.warning(
                "%d answers were discarded: their rows were claimed, edited or deleted by others.",
                done.discarded,
            )
        return bool(done.given_back)


def strike(tools: Tools, result: Result) -> None:
    """Let the lease of a row with a bug run out: that is counted."""
    # What the machine is short of is no row's fault.
    if not isinstance(result.bug, OSError | MemoryError):
        tools.struck.add(result.lease.id)
