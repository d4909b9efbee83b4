"""Keep Verifications whose attempts are wanted in ``verification_queue``.

One list request by ``VerificationSid`` shows all attempts of a Verification, resends included. It
is listed again when they can be final. One request then refreshes them all.

A lease is a ``due_at`` in the future, so that others pass by. It is its own fencing token, too: the
next claim writes a later one. A lost lease costs a request, never a row, since both workers store
the same attempts.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, case, func, select, update

from etl.database.bulk import among, unindexed
from etl.database.dialects import dialect
from etl.database.engine import as_text
from etl.database.locks import locked
from etl.database.schema import attempts
from etl.database.schema import verification_queue as v
from etl.database.times import moment
from etl.queue.refusals import update_rows
from etl.records import VERIFICATION_PATTERN

TRIES: Final = 3
AGAIN_MS: Final = 30 * 60_000
"""A Verification without attempts is listed three times, over at least an hour.

One whose list fails while others work waits as long.
"""

CHUNK: Final = 1_000

LEASE_MS: Final = 120_000
"""How long a claim holds, and how long a crash delays its rows."""

_log = logging.getLogger(__name__)


def enqueue(connection: Connection, sids: Sequence[str], *, account: str, source: str) -> int:
    """Insert new Verifications and leave the others alone; return how many were new."""
    new = 0
    for start in range(0, len(sids), CHUNK):
        chunk = dict.fromkeys(sids[start : start + CHUNK])
        there = set(connection.execute(select(v.c.sid).where(v.c.sid.in_(chunk))).scalars())
        rows = [
            {"sid": sid, "account": account, "source": source[:255]}
            for sid in chunk
            if sid not in there
        ]
        if rows:
            connection.execute(dialect(connection).insert_ignore(v, "sid"), rows)
        new += len(rows)
    return new


def count_due(connection: Connection, *, accounts: Sequence[str], now: int) -> int:
    """Count the Verifications to be listed now."""
    statement = select(func.count()).where(*_due(accounts, now))
    return int(connection.execute(statement).scalar_one())


def due(connection: Connection, *, accounts: Sequence[str], now: int, limit: int) -> list[str]:
    """Return Verifications to be listed now, the longest due first."""
    statement = _longest_due(accounts, now, limit)
    return as_text(connection, lambda: [row.sid for row in connection.execute(statement)])


def claim(
    connection: Connection, *, accounts: Sequence[str], now: int, limit: int
) -> dict[str, int]:
    """Lease Verifications to be listed now, the longest due first; return each lease's end.

    Rows that another worker is claiming are skipped. A value that is no Verification's SID is
    parked as missing, for the API may take it for something else.
    """
    named: dict[int, str] = {}
    picked = locked(_longest_due(accounts, now, limit), skip=True)
    while not named and (rows := as_text(connection, lambda: connection.execute(picked).all())):
        named = {row.id: row.sid for row in rows if VERIFICATION_PATTERN.fullmatch(str(row.sid))}
        if nonsense := [row.id for row in rows if row.id not in named]:
            connection.execute(update(v).where(v.c.id.in_(nonsense)).values(state="missing"))
    until = now + LEASE_MS
    if named:
        aside = {"state": "missing"}
        taken = update_rows(connection, v, [*named], {"due_at": until}, aside=lambda _: aside)
        named = {key: named[key] for key in taken}
    return dict.fromkeys(named.values(), until)


def set_down(connection: Connection, now: int, *, latest: int) -> None:
    """Make due now what is due after ``latest``, as ``attempts.set_down`` does."""
    ahead = (v.c.state == "pending", v.c.due_at > latest)
    found = select(v.c.id).where(*ahead).limit(CHUNK)
    if ids := connection.execute(found).scalars().all():
        connection.execute(update(v).where(v.c.id.in_(ids), *ahead).values(due_at=now))


def put_off(connection: Connection, held: Mapping[str, int], *, due_at: int) -> dict[str, int]:
    """Renew leases, or give them back with a ``due_at`` of now; return those still ours.

    A row may already have this ``due_at``, if a commit's answer was lost.
    """
    statement = (
        select(v.c.sid, v.c.due_at)
        .where(among(connection, v.c.sid, held), unindexed(v.c.state) == "pending")
        .order_by(v.c.sid)
    )
    rows = connection.execute(locked(statement)).all() if held else []
    ours = [row.sid for row in rows if row.due_at in {held[row.sid], due_at}]
    if ours:
        connection.execute(update(v).where(among(connection, v.c.sid, ours)).values(due_at=due_at))
    return dict.fromkeys(ours, due_at)


def _due(accounts: Sequence[str], now: int) -> tuple[ColumnElement[bool], ...]:
    return v.c.state == "pending", v.c.due_at <= now, v.c.account.in_(accounts)


def _longest_due(accounts: Sequence[str], now: int, limit: int) -> Select[Any]:
    statement = select(v.c.id, v.c.sid).where(*_due(accounts, now))
    return statement.order_by(v.c.due_at, v.c.id).limit(limit)


def wanted(connection: Connection, sids: Collection[str], *, accounts: Sequence[str]) -> set[str]:
    """Return which of these Verifications wait to be listed."""
    # Most queues have none. This saves asking for a thousand with each page.
    if connection.execute(select(v.c.id).where(v.c.state == "pending").limit(1)).first() is None:
        return set()
    # Found by SID, however many wait.
    waits = unindexed(v.c.state) == "pending"
    statement = select(v.c.sid).where(
        among(connection, v.c.sid, sids), waits, unindexed(v.c.account).in_(accounts)
    )
    return set(connection.execute(statement).scalars())


def listed(  # noqa: PLR0913 - what a list showed, and under which lease
    connection: Connection, sid: str, *, found: int, due_at: int | None, lease: int, now: int
) -> None:
    """Note that all attempts of a Verification were listed, and end its ``lease``.

    ``due_at`` is when its changing attempts can be final, or None if all are.
    """
    values: dict[str, object] = {"found": found, "tries": 0, "listed_at": moment(now)}
    if not found:
        statement = select(v.c.tries, v.c.due_at).where(v.c.sid == sid)
        asked = locked(statement)
        before = as_text(connection, lambda: connection.execute(asked).one_or_none())
        if before is None:
            _log.warning("Verification %s was taken out of its queue while it was listed.", sid)
            return
        if before.due_at != lease:
            # Two lists at once, or one noted twice, are not half an hour apart.
            return
        # Others write it, and SQLite keeps text there.
        tries = before.tries if isinstance(before.tries, int) else TRIES
        tries = min(max(tries, 0), TRIES) + 1
        state = "missing" if tries >= TRIES else "pending"
        values |= {"tries": tries, "state": state, "due_at": now + AGAIN_MS}
    elif due_at is None:
        values |= {"state": "listed", "due_at": 0}
    else:
        values |= {"due_at": due_at}
    connection.execute(update(v).where(v.c.sid == sid).values(values))


def cover(
    connection: Connection, sids: Sequence[str], *, accounts: Sequence[str], due_at: int, now: int
) -> None:
    """Note Verifications as listed from their stored attempts; ``due_at`` as for ``listed``.

    Those without stored attempts, and those not due any more, stay as they are.
    """
    # A subquery is looked up row by row. A join, without statistics, reads all attempts.
    theirs = attempts.c.verification_sid == v.c.sid
    final = select(func.min(case((attempts.c.is_final, 1), else_=0))).where(theirs)
    found = select(func.count()).select_from(attempts).where(theirs)
    _, due, mine = _due(accounts, now)
    statement = (
        select(v.c.id, final.scalar_subquery().label("final"))
        .where(among(connection, v.c.sid, sids), unindexed(v.c.state) == "pending", due, mine)
        .order_by(v.c.sid)
    )
    rows = connection.execute(locked(statement, skip=True)).all()
    noted: dict[str, object] = {
        "found": found.scalar_subquery(), "tries": 0, "listed_at": moment(now)
    }  # fmt: skip
    for is_final, rest in ((1, {"state": "listed", "due_at": 0}), (0, {"due_at": due_at})):
        ids = [row.id for row in rows if row.final == is_final]
        if ids:
            these = among(connection, v.c.id, ids)
            connection.execute(update(v).where(these).values(noted | rest))


def all_final(connection: Connection, sid: str) -> bool:
    """Say whether all stored attempts of a Verification are final."""
    statement = select(attempts.c.is_final).where(attempts.c.verification_sid == sid)
    return as_text(connection, lambda: all(connection.execute(statement).scalars().all()))


def revive(connection: Connection, sids: Sequence[str] = ()) -> int:
    """Let missing Verifications be listed again, these or all; return how many."""
    statement = update(v).where(v.c.state == "missing")
    if sids:
        statement = statement.where(among(connection, v.c.sid, sids))
    return connection.execute(statement.values(state="pending", due_at=0, tries=0)).rowcount


def states(connection: Connection) -> dict[str, int]:
    """Count the Verifications of each state."""
    rows = connection.execute(select(v.c.state, func.count().label("n")).group_by(v.c.state))
    counts = {row.state: int(row.n) for row in rows}
    return {state: counts.get(state, 0) for state in ("pending", "listed", "missing")}
