"""Claim what to ask for next, in one transaction: due rows in | slots | leases.

As a rule it claims the most urgent rows. While all fails, it claims one at a time from elsewhere in
the queue. At last it asks for a stored attempt: an API that works can show it again.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Select, or_, select

from etl.database.bulk import unindexed
from etl.database.schema import attempt_queue as q
from etl.database.schema import attempts
from etl.database.transact import check_revision, transact
from etl.fetch.limits import Quota
from etl.job.tools import Tools
from etl.queue import attempts as queue
from etl.queue.leases import give_back_strays
from etl.records import SID_PATTERN, Lease, State

STORED: Final = 0
"""The id of a lease without a row: its SID tells whether the API answers."""

PROBES: Final = 2
"""After so many failures of rows from elsewhere a stored attempt has the last word."""

PLACES: Final = (0.0, 0.5, 0.25, 0.75)
"""Where else to look, in parts of the way from the queue's other end."""

FAR: Final = 1_000
"""The way's length, counted in rows."""

NEAR: Final = 20
SAMPLE: Final = 100

PROMOTE_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Claimed:
    """Carry leases, the slots of those that can be sent, and what else was seen.

    ``wait_s``: until there is a slot; ``more``: rows wait, claimed or not; ``probe``: it was
    claimed to tell whether the API or the rows fail.
    """

    leases: list[Lease]
    slots: list[int | None]
    wait_s: float
    paused: bool
    more: bool
    read_at: float
    probe: bool


class Claims:
    """Claim for one drain, and bring in the rows that come due meanwhile."""

    def __init__(self, tools: Tools, quota: Quota) -> None:
        self._tools = tools
        self._quota = quota
        self._promote_at = 0.0

    def claim(self, want: int, held: Collection[int]) -> Claimed:
        """Lease up to ``want`` more rows, no more than there are slots."""
        tools, permits, probe = self._tools, self._tools.permits, self._tools.breaker.doubtful
        promotes = time.monotonic() >= self._promote_at
        tried = False

        def work(connection: Connection) -> tuple[Claimed, queue.Promoted | None]:
            nonlocal tried
            check_revision(connection)
            if tried:
                # A commit whose answer was lost may have leased rows that nobody will fetch.
                give_back_strays(connection, tools.worker, {*held, *tools.struck})
            tried = True
            now, room = permits.look(connection)
            read_at = time.monotonic()
            promoted = queue.promote(connection, now) if promotes else None
            room_for = len(room.free) if permits.limited else max(want, 1)
            leases: list[Lease] = []
            if room_for:
                leases = _pick(connection, tools, now, min(want, room_for), held)
            sound = [lease for lease in leases if SID_PATTERN.fullmatch(lease.sid)]
            slots: list[int | None] = [None] * len(sound)
            if permits.limited:
                slots = list(room.free[: len(sound)])
                permits.take(connection, room.free[: len(sound)], now)
            wait_s = 0.0 if room_for else max(room.wait_until - now, 1) / 1000
            more = bool(leases) or queue.any_pending(connection, tools.accounts)
            wait_s = wait_s if more or probe else 0.0
            return Claimed(leases, slots, wait_s, room.paused, more, read_at, probe), promoted

        claimed, promoted = transact(tools.engine, work, doing="claiming SIDs from the queue")
        permits.taken(sum(slot is not None for slot in claimed.slots))
        if promoted is not None:
            self._quota.promoted += promoted.changed
            tools.counts.dead += promoted.dead
            # More than one transaction's worth is due: go on with the next claim.
            full = promoted.changed >= queue.PROMOTE_LIMIT
            self._promote_at = time.monotonic() + (0.0 if full else PROMOTE_EVERY_S)
        return claimed


def _pick(
    connection: Connection, tools: Tools, now: int, want: int, held: Collection[int]
) -> list[Lease]:
    breaker, leases = tools.breaker, list[Lease]()
    tripped, probes = breaker.tripped, breaker.probes
    lease = partial(queue.claim, connection, accounts=tools.accounts, worker=tools.worker, now=now)
    if want and not (tripped and probes >= PROBES):
        if breaker.doubtful:
            others = _elsewhere(connection, tools.accounts, PLACES[probes % len(PLACES)])
            leases = lease(limit=1, holding=True, others=others) if others else []
        leases = leases or lease(limit=want, holding=bool(held))
    # Lists may have failed before any row was asked for: then nothing depends on it.
    return leases or (_stored(connection, now) if tripped and (held or probes) else [])


def far_statement(account: str) -> Select[Any]:
    """Return the SELECT of the queue's other end; a test reads its plan."""
    return (
        select(q.c.id)
        .where(q.c.account == account, q.c.state == State.PENDING)
        .order_by(q.c.expires_at.desc(), q.c.id.desc())
        .limit(FAR)
    )


def _elsewhere(connection: Connection, accounts: Sequence[str], place: float) -> list[Select[Any]]:
    """Return SELECTs of one harmless row each, far from the queue's head."""
    ids: list[int] = []
    for account in accounts:
        ids += connection.execute(far_statement(account)).scalars().all()
    start = int(len(ids) * place)
    # One after the other, should some of them be locked.
    near = [*ids[start:], *ids[:start]][:NEAR]
    waits = unindexed(q.c.state) == State.PENDING
    harmless = q.c.lost_leases < queue.ALONE_AFTER
    row = select(*queue.LEASE_COLUMNS).where(waits, harmless)
    return [row.where(q.c.id == key) for key in near]


def _stored(connection: Connection, now: int) -> list[Lease]:
    """Make a lease for one of the newest stored attempts."""
    newest = select(attempts.c.sid).order_by(attempts.c.date_created.desc()).limit(SAMPLE)
    sid = newest.subquery().c.sid
    at_rest = or_(q.c.state.is_(None), q.c.state.in_([State.SETTLED, State.REFRESH]))
    statement = select(sid).outerjoin(q, q.c.sid == sid).where(at_rest)
    sids: Sequence[str] = connection.execute(statement).scalars().all()
    if not sids:
        return []
    # Now this one, now that: one may have been shown by a list alone, and fail singly.
    chosen = sids[now % len(sids)]
    return [Lease(STORED, chosen, 0, now + queue.LEASE_MS, 0, now, 0, 0, 0)]
