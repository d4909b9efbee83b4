"""Finish rows in one transaction: fence | merge | decide | upsert | settle.

Two ways in: leases that were fetched, and pages that were listed. One refused row does not take
its batch along: the batch is written under a savepoint, and after a refusal each row under its own.
"""

import logging
import time
from collections.abc import Sequence
from typing import TypeAlias

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import DBAPIError

from etl import final
from etl.database.dialects.driver import Fault
from etl.database.engine import carefully
from etl.database.errors import classify, first
from etl.database.schema import TRACKED
from etl.database.schema import attempt_queue as q
from etl.database.times import Clock
from etl.decide.verdict import after_failure, after_fetch
from etl.final import Policy
from etl.load import upsert
from etl.load.upsert import Known, Merged
from etl.queue import attempts, verifications
from etl.queue.leases import give_back, insert_listed, lock_leases, write_verdicts
from etl.queue.refusals import PROBE_SID, each, set_aside
from etl.records import (
    Attempt,
    Done,
    Failed,
    Failure,
    Fetched,
    Judged,
    Lease,
    Outcome,
    Result,
    State,
    Verdict,
)
from etl.rollups import marks

LeasedRow: TypeAlias = tuple[Lease, Merged]
_log = logging.getLogger(__name__)

_Write: TypeAlias = tuple[Lease, Merged, Verdict]


def finish(
    connection: Connection,
    results: Sequence[Result],
    policy: Policy,
    *,
    clock: Clock,
    refusals: int = 0,
) -> Done:
    """Write what came of leases that are still ours; a lost lease is discarded and counted.

    Idempotent: run again after a commit whose answer was lost, it finds its rows finished.
    ``refusals``: how many rows in a row the database has refused before. Raises ``WriteRefused``
    when these are too many, or it would refuse any.
    """
    marks.enter(connection)
    held, finished = lock_leases(connection, [result.lease for result in results])
    read_at = time.monotonic()
    done = Done(clock(connection), read_at)
    done.discarded = sum(r.lease.id not in held and r.lease.id not in finished for r in results)
    mine = [result for result in results if result.lease.id in held]
    back = [r.lease for r in mine if r.attempt is None and r.failed is None]
    if back:
        done.given_back = give_back(connection, back)
    fetched = [(r.lease, Fetched(r.attempt, r.sent_at)) for r in mine if r.attempt is not None]
    rows = _merge(connection, fetched, done)
    good, refused = write_all(connection, rows, policy, done, before=refusals)
    failures = [
        (r.lease, after_failure(policy, r.lease, r.failed, now=done.now))
        for r in mine
        if r.failed is not None
    ]
    _write_failed(connection, refused + failures, done)
    done.fetched = len(good)
    done.count(good + refused + failures)
    if finished:
        _count_finished(connection, [r for r in results if r.lease.id in finished], done)
    return done


def _count_finished(connection: Connection, results: Sequence[Result], done: Done) -> None:
    """Count what a commit did whose answer was lost: the rows say so."""
    fetched = {result.lease.id for result in results if result.attempt is not None}
    ids = [result.lease.id for result in results]
    for row in connection.execute(select(q.c.id, q.c.state).where(q.c.id.in_(ids))):
        done.states[row.state] = done.states.get(row.state, 0) + 1
        done.fetched += row.id in fetched and row.state != State.DEAD


def finish_page(  # noqa: PLR0913 - what a page's rows depend on
    connection: Connection,
    listed: Sequence[Attempt],
    *,
    sent_at: int,
    policy: Policy,
    accounts: Sequence[str],
    discover: bool,
    clock: Clock,
    refusals: int = 0,
) -> Done:
    """Write what a list page showed of the SIDs and Verifications that wait.

    With ``discover`` every SID on it is wanted.

    Rows leased by someone else are left to their holder. A discovered attempt that can still
    change gets a row in the queue, due when it can have become final. ``sent_at`` is when the
    page was asked for, in ms of the database's clock. ``refusals`` and errors as for ``finish``.
    """
    marks.enter(connection)
    by_sid = {attempt.sid: attempt for attempt in listed}
    leases = attempts.lock_listed(connection, list(by_sid), accounts=accounts, now=sent_at)
    read_at = time.monotonic()
    done = Done(clock(connection), read_at)
    waiting = {lease.sid for lease in leases}
    more = by_sid if discover else _of_wanted(connection, listed, accounts)
    leases += [_stranger(sid, sent_at) for sid in more if sid not in waiting]
    fetched = [(lease, Fetched(by_sid[lease.sid], sent_at)) for lease in leases]
    # A fetch that was sent after this page has said more of its row already.
    rows = [
        (lease, merged)
        for lease, merged in _merge(connection, fetched, done)
        if merged.known is None or merged.known.fetched_at < sent_at
    ]
    done.unplanned = sum(lease.unplanned for lease, _ in rows)
    done.ageless = sum(
        lease.id > 0 and lease.expires_at <= 0 and not lease.unplanned for lease, _ in rows
    )
    good, refused = write_all(connection, rows, policy, done, listed=True, before=refusals)
    _write_failed(connection, refused, done, listed=True)
    new = [
        (lease.sid, verdict)
        for lease, verdict in good + refused
        if not lease.id and verdict.state is not State.SETTLED
    ]
    done.enqueued = _enqueue(connection, new, done) if new else 0
    done.fetched = len(good)
    done.count(good + refused)
    return done


def _enqueue(connection: Connection, new: Sequence[tuple[str, Verdict]], done: Done) -> int:
    """Enqueue what a page showed and can still change; a row that is refused is done without."""

    def some(pairs: Sequence[tuple[str, Verdict]]) -> int:
        return insert_listed(connection, pairs, now=done.now)

    if not carefully(connection):
        return some(new)
    taken, refused = each(
        connection,
        new,
        lambda pair: some([pair]),
        probe=lambda: _write_sample(connection, done.now),
    )
    for (sid, _), why in refused:
        _log.warning("%s is not brought up to date later: its row was refused (%s).", sid, why)
    return len(taken)


def _of_wanted(
    connection: Connection, listed: Sequence[Attempt], accounts: Sequence[str]
) -> list[str]:
    """Return the SIDs of the attempts whose Verification waits."""
    sids = {a.verification_sid for a in listed if a.verification_sid is not None}
    wanted = verifications.wanted(connection, sids, accounts=accounts)
    return [a.sid for a in listed if a.verification_sid in wanted]


def _stranger(sid: str, sent_at: int) -> Lease:
    """Stand for an attempt that no row waits for; id 0 is no row's."""
    return Lease(0, sid, 0, 0, 0, sent_at, 0, 0, 0)


def _queued(judged: Judged) -> Judged:
    return [(lease, verdict) for lease, verdict in judged if lease.id]


def _merge(
    connection: Connection, fetched: Sequence[tuple[Lease, Fetched]], done: Done
) -> list[LeasedRow]:
    known = upsert.known(connection, [lease.sid for lease, _ in fetched]) if fetched else {}
    for lease, found in fetched:
        for kind in found.attempt.warnings:
            done.unreadable.note(kind, lease.sid)
    return [(lease, upsert.merge(found, known.get(lease.sid))) for lease, found in fetched]


def write_all(  # noqa: PLR0913 - whose rows these are
    connection: Connection,
    rows: Sequence[LeasedRow],
    policy: Policy,
    done: Done,
    *,
    listed: bool = False,
    before: int = 0,
) -> tuple[Judged, Judged]:
    """Write merged attempts and settle their rows; return the verdicts of those, and of the refused.

    ``before``: refusals in a row before these.
    """
    judged = [(lease, merged, _judge(lease, merged, policy)) for lease, merged in rows]
    if not judged:
        return [], []
    if not carefully(connection) and _write_together(connection, judged, done):
        good = [(lease, verdict) for lease, _, verdict in judged]
        write_verdicts(connection, _queued(good), fetched=True, listed=listed, now=done.now)
        return good, []

    def one(row: _Write) -> None:
        lease, merged, verdict = row
        changes = upsert.write(connection, [(merged, verdict.state is State.SETTLED)])
        good = _queued([(lease, verdict)])
        write_verdicts(connection, good, fetched=True, listed=listed, now=done.now)
        done.changes += changes

    taken, refused = each(
        connection, judged, one, probe=lambda: _write_sample(connection, done.now), before=before
    )
    done.refused = [lease for (lease, _, _), _ in refused]
    return [(lease, verdict) for lease, _, verdict in taken], [
        (lease, after_failure(policy, lease, _reject(why), now=done.now))
        for (lease, _, _), why in refused
    ]


def _reject(why: str) -> Failed:
    return Failed(Failure.DB_REJECT, f"the database refused it: {why}")


def _write_together(connection: Connection, judged: Sequence[_Write], done: Done) -> bool:
    """Write attempts under one savepoint; False when the database refused any of them."""
    rows = [(merged, verdict.state is State.SETTLED) for _, merged, verdict in judged]
    try:
        with connection.begin_nested():
            done.changes += upsert.write(connection, rows)
    except DBAPIError as error:
        if classify(error) is not Fault.REFUSED or first(error) is not error:
            raise
        return False
    return True


def _write_sample(connection: Connection, now: int) -> None:
    """Write what the database has taken before, under another SID: an attempt, changed and settled.

    While it holds none, one of which nothing is known, and to which no condition can apply.
    """
    sample = upsert.sample(connection, PROBE_SID)
    for known in (None, Known(0, is_final=False, values=dict.fromkeys(TRACKED, "before"))):
        upsert.write(connection, [(Merged(sample, now, known), False)])
        # The second one is newer.
        now += 1
    key = connection.execute(insert(q).values(sid=PROBE_SID)).inserted_primary_key
    assert key is not None  # noqa: S101 - one row was inserted
    lease = _stranger(PROBE_SID, now)._replace(id=key[0])
    verdict = Verdict(State.SETTLED, 0, 0, 0, Outcome.FINAL, None)
    write_verdicts(connection, [(lease, verdict)], fetched=True, now=now)


def _write_failed(
    connection: Connection, judged: Judged, done: Done, *, listed: bool = False
) -> None:
    """Settle rows that could not be stored; one whose own row is refused is set aside by itself."""
    judged = _queued(judged)
    if not carefully(connection):
        write_verdicts(connection, judged, fetched=False, listed=listed, now=done.now)
        return

    def one(pair: tuple[Lease, Verdict]) -> None:
        write_verdicts(connection, [pair], fetched=False, listed=listed, now=done.now)

    _, refused = each(connection, judged, one, probe=lambda: _write_sample(connection, done.now))
    for (lease, _), why in refused:
        set_aside(connection, lease, why, now=done.now)


def _judge(lease: Lease, merged: Merged, policy: Policy) -> Verdict:
    if merged.is_final:
        return Verdict(State.SETTLED, 0, lease.expires_at, 0, Outcome.FINAL, None)
    created_at = merged.attempt.created_ms
    if created_at is not None and created_at > merged.sent_at + final.DAY_MS:
        # Nothing was created tomorrow: such a time says nothing of its age.
        created_at = None
    # It was there when it was fetched first, whatever was written of when it was enqueued.
    known = merged.known
    first = None if known is None else known.first_fetched_at
    known_from = final.known_from(
        policy,
        created_at=created_at,
        expires_at=final.believed(policy, lease.expires_at, merged.sent_at),
        enqueued_at=lease.enqueued_at if first is None else min(lease.enqueued_at, first),
    )
    return after_fetch(
        policy,
        sent_at=merged.sent_at,
        known_from=known_from,
        expires_at=lease.expires_at if created_at is None else created_at + policy.retention,
        has_price=merged.attempt.price_amount is not None,
    )
