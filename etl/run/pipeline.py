"""Run the job: from a queue of SIDs to final rows.

The whole, what is urgent first (``stages`` puts it in order)::

    due rows promoted
        | planned <---- enough came due or was enqueued meanwhile ----.
        |    '-- a Summary asked: planned again                       |
        | windows swept | Verifications listed | the rest drained ----'
        | quiet days summed for the reports

A window::

    leased | page | transform | merge | decide | upsert + settle + how far it came | next page

Draining::

    attempt_queue                                                        attempts
         |                                                                  ^
         | promote what is due                                              |
         | claim | fetch (threads, no transaction) | transform | merge | decide | upsert + settle
         |   ^          |                                                   |
         |   |          '-- 429: pause for all -- 401: stop -- down: breaker
         |   '---- request slots, shared by all workers <---- answers give them back
         '<--------- given back, retry, refresh, dead <---------------------'

A claim is one short transaction, a finish another. Nothing is locked between them. Each run has its
row in ``sync_runs``.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import Connection, Engine

from etl import __version__
from etl.allowance import slots
from etl.allowance.permits import Permits
from etl.database.schema import attempt_queue, verification_queue
from etl.database.times import Clock, clock
from etl.database.transact import check_revision, transact
from etl.errors import (
    ApiUnreachable,
    DatabaseBusy,
    EtlError,
    WriteRefused,
)
from etl.extract import Api
from etl.job.breaker import Breaker
from etl.job.counts import Counts
from etl.job.stop import Interrupted, StopFlag
from etl.job.tools import Job, Tools
from etl.queue import attempts, runs, verifications, windows
from etl.queue.defaults import write_defaults
from etl.rollups import marks
from etl.run.ending import end_badly, judge, leave, say_unreadable, take_back
from etl.run.rights import check_rights

if TYPE_CHECKING:
    from types import ModuleType

    from etl.listing.discover import DiscoverOptions
    from etl.listing.reconcile import DayLine
    from etl.listing.reconcile import ReconcileOptions as Compared

Watch: TypeAlias = Callable[[Counts], None]
"""Is called many times a second with a run's counts."""

SUM_LEAST: Final = 2
"""It sums this many days in any case, one more than a day brings. So a daily job catches up."""

ANSWER_LATE_S: Final = 1.0
"""A request that is under way at the time limit may take so much longer."""


@dataclass(frozen=True, slots=True)
class RunReport:
    """Say how a run ended: its row, its counts, what is left, and the exit code."""

    run_id: int
    counts: Mapping[str, Any]
    pending: int
    exit_code: int
    error: EtlError | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the keys that ``run --json`` prints."""
        return {
            "run_id": self.run_id,
            **self.counts,
            "pending": self.pending,
            "exit_code": self.exit_code,
            "error": None if self.error is None else str(self.error),
        }


def worker_name() -> str:
    """Name this process among all workers: host, process and a random part."""
    return f"{socket.gethostname()[:80]}:{os.getpid()}:{token_hex(3)}"


def run(  # noqa: PLR0913 - the parts of a run
    engine: Engine,
    api: Api,
    job: Job,
    *,
    stop: StopFlag,
    watch: Watch = lambda _counts: None,
    clock: Clock = clock,
) -> RunReport:
    """Drain the queue once and return the result.

    An error that ends the run is in the report with its exit code; the leases went back.
    ``EtlError`` is raised only if the run's row cannot be written.
    """
    return _record(
        engine, api, job, "run", job.asked(), partial(_drain, job=job), stop, watch, clock
    )


def discover(  # noqa: PLR0913 - the parts of a run
    engine: Engine,
    api: Api,
    job: Job,
    asked: "DiscoverOptions",
    *,
    stop: StopFlag,
    watch: Watch = lambda _counts: None,
    clock: Clock = clock,
) -> RunReport:
    """Load every attempt of a window, refresh the due ones, and report as ``run`` does.

    Without a queue, cron needs no other command. If the list cannot be read, due rows are fetched
    all the same.
    """

    def go(tools: Tools) -> None:
        try:
            _stages().discover(tools, job, asked)
        except ApiUnreachable:
            with suppress(ApiUnreachable):
                _drain(tools, job)
            raise
        _drain(tools, job)

    return _record(engine, api, job, "discover", asdict(asked), go, stop, watch, clock)


def reconcile(  # noqa: PLR0913 - the parts of a run
    engine: Engine,
    api: Api,
    job: Job,
    asked: "Compared",
    found: "list[DayLine]",
    *,
    stop: StopFlag,
    watch: Watch = lambda _counts: None,
    clock: Clock = clock,
) -> RunReport:
    """Compare a window's rows with Twilio's Summary.

    ``found`` gets the lines, whatever ends the run.
    """

    def go(tools: Tools) -> None:
        _stages().reconcile(tools, asked, found)

    return _record(engine, api, job, "reconcile", asdict(asked), go, stop, watch, clock)


def _stages() -> "ModuleType":
    """Import the stages only when there is work, so that an empty queue starts quickly."""
    from etl.run import stages  # noqa: PLC0415 - a third of the time to start

    return stages


def _record(  # noqa: PLR0913, PLR0917 - the parts of a run, and what is done with them
    engine: Engine,
    api: Api,
    job: Job,
    command: str,
    asked: Mapping[str, Any],
    go: Callable[[Tools], None],
    stop: StopFlag,
    watch: Watch,
    clock: Clock,
) -> RunReport:
    """Do something under a row of ``sync_runs``."""
    worker = worker_name()
    run_id = _begin(engine, job, command, asked, worker, clock)
    counts = Counts()
    if job.max_seconds is not None:
        stop.deadline = counts.started + job.max_seconds
        # What is under way may be answered, but not for as long as an answer may drip.
        api.ends_at = stop.deadline + ANSWER_LATE_S
    tools = Tools(
        engine=engine,
        api=api,
        permits=Permits(engine, job.allowance, clock=clock, sleep=stop.sleep, ending=stop.is_set),
        breaker=Breaker(),
        clock=clock,
        counts=counts,
        stop=stop,
        watch=watch,
        accounts=slots.accounts_of(job.account),
        account=job.account,
        worker=worker,
        policy=job.policy,
    )

    def roll_up(tools: Tools) -> None:
        _roll_up(tools, job.sum_share)

    with stop.listening():
        error = _go(tools, run_id, go) or _go(tools, run_id, roll_up)
    if isinstance(error, WriteRefused):
        take_back(tools)
    say_unreadable(counts)

    def end(connection: Connection) -> RunReport:
        left = attempts.pending(connection, tools.accounts)
        ended_by, code = judge(job, counts, left, error=error, stop=stop)
        did = counts.as_dict()
        words = None if ended_by is None else str(ended_by)
        runs.end(connection, run_id, did=did, exit_code=code, error=words, now=clock(connection))
        return RunReport(run_id, did, left, code, ended_by)

    try:
        return transact(engine, end, doing="ending the run", patience_s=5)
    except EtlError:
        # The run's own error matters more than its incomplete row.
        if error is not None:
            raise error from None
        raise


def _go(tools: Tools, run_id: int, go: Callable[[Tools], None]) -> EtlError | None:
    """Do it, and return the error that ended it, after the leases went back."""
    try:
        go(tools)
    except Interrupted:
        return None
    except EtlError as ended_by:
        leave(tools)
        return ended_by
    except BaseException as bug:
        leave(tools)
        end_badly(tools, run_id, bug)
        raise
    return None


def _drain(tools: Tools, job: Job) -> None:
    """Drain what waits, and plan anew when enough came due meanwhile."""
    _settle_known(tools)
    while _anything_waits(tools) and _stages().drain(tools, job):
        pass


def _settle_known(tools: Tools) -> None:
    """Settle new rows whose attempts are final already: they need no request."""
    found = partial(attempts.known_final, accounts=tools.accounts)
    ids = transact(tools.engine, found, doing="looking for attempts that are final already")
    for start in range(0, len(ids), attempts.PROMOTE_LIMIT):
        some = ids[start : start + attempts.PROMOTE_LIMIT]

        def work(connection: Connection, some: list[int] = some) -> int:
            return attempts.settle_known(connection, some, tools.clock(connection))

        doing = "settling attempts that are final already"
        tools.counts.already_final += transact(tools.engine, work, doing=doing)


def _anything_waits(tools: Tools) -> bool:
    """Promote the due rows, and say whether there is anything to do."""

    def work(connection: Connection) -> tuple[attempts.Promoted, bool]:
        check_revision(connection)
        now = tools.clock(connection)
        promoted = attempts.promote(connection, now)
        waits = attempts.any_pending(connection, tools.accounts)
        waits = waits or verifications.count_due(connection, accounts=tools.accounts, now=now) > 0
        return promoted, waits

    while True:
        promoted, waits = transact(tools.engine, work, doing="bringing due rows in")
        tools.counts.dead += promoted.dead
        if promoted.changed < attempts.PROMOTE_LIMIT:
            return waits


def _roll_up(tools: Tools, share: float) -> None:
    """Sum days anew that became quiet; what stays marked is right, and read raw, until then.

    No more of them than this share of the run's time is enough for: the backfill of a month must not
    take half as long again for reports that nobody may ask for.
    """

    def due(connection: Connection) -> bool:
        return marks.any_before(
            connection, marks.quiet_before(tools.policy, tools.clock(connection))
        )

    until = time.monotonic() + share * (time.monotonic() - tools.counts.started)

    def stop(done: int) -> bool:
        late = done >= SUM_LEAST and time.monotonic() >= until
        return late or tools.stop.signal is not None

    # A run that wrote nothing leaves it to the next one, so that an empty queue costs little.
    wrote = tools.counts.finished or tools.counts.listed
    if not wrote or not transact(tools.engine, due, doing="looking for days to sum"):
        return
    from etl.rollups import refresh  # noqa: PLC0415 - every report, which few runs need

    # Another worker is busy. The next run will do it.
    with suppress(DatabaseBusy):
        refresh.refresh(
            tools.engine, policy=tools.policy, clock=tools.clock, patience_s=5, stop=stop
        )


def _begin(  # noqa: PLR0913, PLR0917 - what a run's row says
    engine: Engine,
    job: Job,
    command: str,
    asked: Mapping[str, Any],
    worker: str,
    clock: Clock,
) -> int:
    def work(connection: Connection) -> int:
        # Write before the first request. A full disk shows here.
        check_revision(connection)
        check_rights(connection)
        now = clock(connection)
        for table in (attempt_queue, verification_queue):
            write_defaults(connection, table, now)
        latest = now + job.policy.latest
        attempts.set_down(connection, now, latest=latest)
        verifications.set_down(connection, now, latest=latest)
        windows.set_down(connection, account=job.account, now=now)
        if job.allowance.requests:
            slots.open_gate(connection, job.allowance, now)
        return runs.begin(
            connection,
            command=command,
            account=job.account,
            version=__version__,
            worker=worker,
            asked=asked,
            now=now,
        )

    return transact(engine, work, doing="starting the run")
