"""Move rows of ``attempt_queue`` between their states: claim, promote, revive, count.

Every function runs inside the caller's transaction. Rows are locked by SELECT .. FOR UPDATE, then
updated by key. PostgreSQL may run a subquery with SKIP LOCKED twice and so update more rows than
its LIMIT.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    case,
    exists,
    func,
    select,
    update,
)

from etl.database.bulk import among, unindexed
from etl.database.dialects import dialect
from etl.database.engine import any_text, carefully
from etl.database.locks import locked
from etl.database.schema import attempt_queue as q
from etl.database.schema import attempts as loaded
from etl.database.times import moment, moment_ms
from etl.queue import runs
from etl.queue.refusals import MOST as REFUSALS
from etl.queue.refusals import at_rest, update_rows
from etl.records import Lease, Outcome, State

LEASE_MS: Final = 120_000
"""How long a claim holds: far longer than a request takes, short enough after a crash."""

SOON_MS: Final = 72 * 3_600_000
"""Rows that the API forgets within this time come first."""

ALONE_AFTER: Final = 2
"""A row that has lost this many leases is claimed alone."""

DEAD_AFTER: Final = 5
"""A row that has lost this many leases is dead: it seems to kill its workers."""

COUNT_MOST: Final = 10**9
_MOST: Final = 2**62
"""Bounds of counts and of fencing tokens and times. Other programs write them, too."""

PROMOTE_LIMIT: Final = 1_000
"""Rows promoted in one transaction, so that locks stay short after a long pause."""

LEASE_COLUMNS: Final = (
    q.c.id, q.c.sid, q.c.claim_no, q.c.expires_at, q.c.attempts, q.c.fetches, q.c.lost_leases,
    q.c.outcome,
)  # fmt: skip
_NEW: Final = (q.c.state == State.PENDING, q.c.fetches == 0)
BACK: Final = {"state": State.PENDING, "due_at": 0, "leased_by": None}


def claim_statements(account: str, now: int, limit: int) -> list[Select[Any]]:
    """Return the claim's SELECTs in the order of urgency; a test reads their plans.

    Soon forgotten rows come first, then those of unknown age, then the rest, and last the expired.
    Each ORDER BY is the index after its two constants. So nothing is sorted, and MariaDB locks only
    the rows it returns. With the constants in it MariaDB would sort, for their collation is the
    session's.
    """
    expires = q.c.expires_at
    ranges = (
        (expires > now, expires <= now + SOON_MS),
        (expires <= 0,),
        (expires > now + SOON_MS,),
        (expires > 0, expires <= now),
    )
    return [
        select(*LEASE_COLUMNS)
        .where(q.c.account == account, q.c.state == State.PENDING, *window)
        .order_by(q.c.expires_at, q.c.id)
        .limit(limit)
        for window in ranges
    ]


def claim(  # noqa: PLR0913 - a claim is these facts
    connection: Connection,
    *,
    accounts: Sequence[str],
    worker: str,
    now: int,
    limit: int,
    holding: bool,
    others: Sequence[Select[Any]] = (),
) -> list[Lease]:
    """Lease up to ``limit`` pending rows, the most urgent first, each with a new ``claim_no``.

    ``others`` are SELECTs of ``LEASE_COLUMNS`` to use instead.

    A row that has lost ``ALONE_AFTER`` leases ends the batch. It is returned alone, and only while
    the process is not ``holding`` others. If it kills its worker again, no other row loses a lease.
    """
    rows: list[Any] = []
    # Other rows show whether a refused row is to blame.
    wanted, limit = limit, max(limit, REFUSALS) if carefully(connection) else limit
    # Urgency before account: one account's backlog must not make the other's rows late.
    by_account = [claim_statements(account, now, limit) for account in accounts]
    for statement in others or chain.from_iterable(zip(*by_account, strict=True)):
        if len(rows) < limit:
            picked = statement.add_columns(
                dialect(connection).as_written(q.c.enqueued_at).label("enqueued_at")
            ).limit(limit - len(rows))
            with any_text(connection):
                rows += connection.execute(locked(picked, skip=True)).all()
    suspect = next((n for n, r in enumerate(rows) if _number(r.lost_leases) >= ALONE_AFTER), None)
    if suspect is not None:
        rows = rows[:suspect] if suspect or holding else rows[:1]
    values = {
        "state": State.LEASED, "claim_no": one_more(q.c.claim_no), "due_at": now + LEASE_MS,
        "leased_by": worker,
    }  # fmt: skip
    taken = set(_update(connection, [row.id for row in rows], values, now, enough=wanted))
    return [_lease(row, now) for row in rows if row.id in taken]


def _update(
    connection: Connection,
    ids: Sequence[int],
    values: Mapping[str, Any],
    now: int,
    *,
    enough: int | None = None,
) -> list[int]:
    """Update rows and return those that the database took. A refused row is dead."""
    aside = partial(at_rest, now=now)
    return update_rows(connection, q, ids, values, aside=aside, enough=enough)


def _lease(row: Sequence[Any], now: int, *, unplanned: bool = False) -> Lease:
    # LEASE_COLUMNS, and when it was enqueued.
    key, sid, claim_no, expires_at, attempts, fetches, lost_leases, outcome, written = row
    enqueued_at = moment_ms(written)
    return Lease(
        id=key,
        # A blob is no SID, and neither is its text.
        sid=str(sid),
        claim_no=_one_more(claim_no),
        due_at=now + LEASE_MS,
        expires_at=_number(expires_at, most=2**63 - 1),
        enqueued_at=now if enqueued_at is None else enqueued_at,
        attempts=_number(attempts),
        fetches=_number(fetches),
        lost_leases=_number(lost_leases),
        outcome=outcome,
        unplanned=unplanned,
    )


def _number(value: object, *, most: int = COUNT_MOST) -> int:
    """Read an integer; text and fractions, which SQLite keeps too, count as 0."""
    return min(max(value, 0), most) if isinstance(value, int) else 0


def one_more(column: ColumnElement[Any], *, most: int = _MOST) -> ColumnElement[Any]:
    """Add one, or start at 1 if the value is no count: an overflow would end every run."""
    return case((column.between(0, most), column + 1), else_=1)


def _one_more(value: object) -> Any:  # noqa: ANN401 - SQLite counts on from fractions, too
    """Count as ``one_more`` does."""
    return value + 1 if isinstance(value, int | float) and 0 <= value <= _MOST else 1


def lock_listed(
    connection: Connection, sids: Sequence[str], *, accounts: Sequence[str], now: int
) -> list[Lease]:
    """Lock the rows of these SIDs that a list page may finish: waiting or dead.

    Rows leased or locked by others are left alone. The leases carry the old token;
    ``write_verdicts(listed=True)`` raises it. ``now`` replaces an unreadable ``enqueued_at``.
    """
    state = unindexed(q.c.state)
    # The page contradicts whatever a row died of.
    waits = state.in_([State.PENDING, State.RETRY, State.REFRESH, State.DEAD])
    mine = unindexed(q.c.account).in_(accounts)
    statement = (
        select(
            *LEASE_COLUMNS,
            dialect(connection).as_written(q.c.enqueued_at).label("enqueued_at"),
            (q.c.state == State.PENDING).label("planned"),
        )
        .where(among(connection, q.c.sid, sids), mine, waits)
        .order_by(q.c.sid)
    )
    with any_text(connection):
        rows = connection.execute(locked(statement, skip=True)).all()
    return [_lease(row, now, unplanned=not planned) for *row, planned in rows]


@dataclass(frozen=True, slots=True)
class Promoted:
    """Count the rows that changed, and the dead among them."""

    changed: int
    dead: int


def promote(connection: Connection, now: int) -> Promoted:
    """Make due rows pending again, and take back expired leases: pending, or dead at last.

    A lease counts as lost unless its run ended by itself. Then the database refused to take it
    back.
    """
    due = [
        row.id
        for state in (State.RETRY, State.REFRESH)
        for row in connection.execute(_due(state, now))
    ]
    lapsed = connection.execute(_due(State.LEASED, now)).all()
    if lapsed:
        left = (q.c.id.in_([row.id for row in lapsed]), runs.ended_well(q.c.leased_by))
        ended = set(connection.execute(select(q.c.id).where(*left)).scalars())
        due += ended
        lapsed = [row for row in lapsed if row.id not in ended]
    killers = [row.id for row in lapsed if _number(row.lost_leases) + 1 >= DEAD_AFTER]
    others = [row.id for row in lapsed if _number(row.lost_leases) + 1 < DEAD_AFTER]
    lost = one_more(q.c.lost_leases, most=COUNT_MOST)
    if due:
        _update(connection, due, BACK, now)
    if others:
        _update(connection, others, {**BACK, "lost_leases": lost}, now)
    if killers:
        dead = {
            **BACK, "lost_leases": lost, "state": State.DEAD, "outcome": Outcome.KILLED_WORKER,
            "settled_at": moment(now),
            "last_error": f"its worker died {DEAD_AFTER} times while it held this row",
        }  # fmt: skip
        _update(connection, killers, dead, now)
    return Promoted(len(due) + len(lapsed), len(killers))


def set_down(connection: Connection, now: int, *, latest: int) -> None:
    """Make due now what is due after ``latest`` or leased for too long.

    This is part of a run's start. A clock ran fast, or somebody wrote it, and the row would rest
    until then. The rows are read first, without a lock. An UPDATE would wait for others' locks
    nearby.
    """
    bounds = {State.LEASED: now + 2 * LEASE_MS, State.RETRY: latest, State.REFRESH: latest}
    for state, bound in bounds.items():
        ahead = (q.c.state == state, q.c.due_at > bound)
        found = select(q.c.id).where(*ahead).limit(PROMOTE_LIMIT)
        if ids := connection.execute(found).scalars().all():
            # Unless somebody has claimed it meanwhile.
            connection.execute(update(q).where(q.c.id.in_(ids), *ahead).values(due_at=now))


def known_final(
    connection: Connection, *, accounts: Sequence[str], sids: list[str] | None = None
) -> list[int]:
    """Return the ids of new rows whose attempts are final already, of these SIDs or of all.

    `discover` loads attempts without a row, and `prune` takes rows away.
    """
    final = exists().where(loaded.c.sid == q.c.sid, loaded.c.is_final)
    statement = select(q.c.id).where(q.c.account.in_(accounts), *_NEW, final)
    if sids is not None:
        statement = statement.where(among(connection, q.c.sid, sids))
    return [*connection.execute(statement).scalars()]


def settle_known(connection: Connection, ids: Sequence[int], now: int) -> int:
    """Settle new rows without a request, unless somebody has claimed them; return how many."""
    settled = {
        "state": State.SETTLED, "outcome": Outcome.FINAL, "due_at": 0, "settled_at": moment(now)
    }  # fmt: skip
    count = 0
    for start in range(0, len(ids), PROMOTE_LIMIT):
        some = q.c.id.in_(ids[start : start + PROMOTE_LIMIT])
        mine = connection.execute(locked(select(q.c.id).where(some, *_NEW), skip=True))
        count += len(_update(connection, [*mine.scalars()], settled, now))
    return count


def _due(state: State, now: int) -> Select[Any]:
    statement = (
        select(q.c.id, q.c.lost_leases)
        .where(q.c.state == state, q.c.due_at <= now)
        .order_by(q.c.due_at)
        .limit(PROMOTE_LIMIT)
    )
    return locked(statement, skip=True)


def revive(
    connection: Connection, *, sids: Iterable[str] = (), outcomes: Iterable[str] = ()
) -> int:
    """Make dead rows pending again, by SID, by outcome or all; return how many."""
    statement = update(q).where(q.c.state == State.DEAD)
    if sids := list(sids):
        statement = statement.where(q.c.sid.in_(sids))
    if outcomes := list(outcomes):
        statement = statement.where(q.c.outcome.in_(outcomes))
    fresh = {
        "state": State.PENDING, "due_at": 0, "attempts": 0, "lost_leases": 0, "outcome": None,
        "last_error": None, "settled_at": None,
    }  # fmt: skip
    return connection.execute(statement.values(fresh)).rowcount


def any_pending(connection: Connection, accounts: Sequence[str]) -> bool:
    """Say whether a row waits, even if another worker has locked it."""
    statement = select(q.c.id).where(q.c.state == State.PENDING).limit(1)
    return any(
        connection.execute(statement.where(q.c.account == account)).first() for account in accounts
    )


def pending(connection: Connection, accounts: Sequence[str]) -> int:
    """Count the rows that wait to be claimed."""
    # Two conditions, not a pair: SQLite finds pairs in no index.
    waits = (q.c.account.in_(accounts), q.c.state == State.PENDING)
    statement = select(func.count()).where(*waits)
    return int(connection.execute(statement).scalar_one())
