"""End a run: give back what it holds, complete its row, and choose the exit code."""

import logging
from contextlib import suppress
from typing import Final

from sqlalchemy import Connection

from etl.database.transact import transact
from etl.errors import EtlError, Exit, NoSlot, StorageError, Throttled
from etl.job.counts import Counts
from etl.job.stop import StopFlag
from etl.job.tools import Job, Tools
from etl.queue import attempts, refusals, runs, windows
from etl.queue.leases import give_back_strays

_log: Final = logging.getLogger(__name__)


def leave(tools: Tools) -> None:
    """Give back uncounted what this worker still holds, if the database allows it.

    If not, the leases run out by themselves. The run's row then says that the run ended by itself,
    so no row is blamed. If that row cannot be written either, the rows are blamed.
    """

    def work(connection: Connection) -> int:
        now = tools.clock(connection)
        return windows.leave(connection, account=tools.account, worker=tools.worker, now=now)

    with suppress(Exception):
        _give_back(tools)
        transact(tools.engine, work, doing="leaving windows", patience_s=5)


def _give_back(tools: Tools) -> None:
    most = attempts.PROMOTE_LIMIT

    def work(connection: Connection) -> int:
        return give_back_strays(connection, tools.worker, tools.struck, most=most)

    given = most
    while given == most:
        try:
            given = transact(tools.engine, work, doing="giving leases back", patience_s=5)
        except StorageError:
            if most == 1:
                raise
            # A full disk may still have room for one row.
            given = most = 1
        else:
            tools.counts.given_back += given


def end_badly(tools: Tools, run_id: int, bug: BaseException) -> None:
    """Complete the row of a run that a bug ended, if the database allows it.

    Only the bug's name is kept, since its words may quote what the API sent.
    """

    def work(connection: Connection) -> None:
        runs.end(
            connection, run_id, did=tools.counts.as_dict(), exit_code=code,
            error=f"ended by {type(bug).__name__}", now=tools.clock(connection),
        )  # fmt: skip

    code = Exit.IO if isinstance(bug, OSError) else Exit.BUG
    if isinstance(bug, KeyboardInterrupt):
        code = Exit.SIGINT
    with suppress(Exception):
        transact(tools.engine, work, doing="ending the run", patience_s=5)


def take_back(tools: Tools) -> None:
    """Let rows wait again that were refused before the database was blamed."""
    counts = tools.counts

    def work(connection: Connection) -> int:
        return refusals.take_back(connection, counts.refused)

    # The run's end has already told why they stay dead.
    with suppress(EtlError):
        back = transact(tools.engine, work, doing="taking refused rows back", patience_s=5)
        counts.dead -= back
        counts.given_back += back


def judge(
    job: Job, counts: Counts, left: int, *, error: EtlError | None, stop: StopFlag
) -> tuple[EtlError | None, int]:
    """Choose the exit code. Of several, the first of the documented order wins."""
    if error is not None:
        return error, error.exit_code
    if stop.signal is not None:
        return None, 128 + stop.signal
    if stop.late() and counts.throttled and not counts.progress:
        msg = "The API answered 429 for the whole time limit; somebody else uses the allowance."
        return Throttled(msg), Exit.TRY_LATER
    if stop.late() and left and not counts.progress:
        msg = (
            f"The time limit passed with nothing done, and {left:,} SIDs wait: other runs list them "
            "or use the allowance, or the limit is too short."
        )
        return NoSlot(msg), Exit.TRY_LATER
    if job.strict and (counts.dead or counts.differences):
        return None, Exit.DATA
    return None, Exit.OK


def say_unreadable(counts: Counts) -> None:
    """Warn of what could not be stored as sent: by kind, with a count and an example."""
    for kind, (count, sid) in counts.unreadable.items():
        example = f" (for example {sid})" if sid else ""
        kept = "it was left out" if kind.startswith("an item") else "what was sent is in extra"
        often = "once" if count == 1 else f"{count:,} times"
        _log.warning("%s: %s%s; %s.", kind, often, example, kept)
