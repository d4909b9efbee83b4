"""Read what the planner needs: the waiting SIDs and the attempts believed to exist."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    func,
    select,
)

from etl.database.bulk import unindexed
from etl.database.dialects import dialect
from etl.database.engine import any_text
from etl.database.schema import attempt_queue as q
from etl.database.schema import attempts
from etl.database.times import moment, moment_ms, within
from etl.decide.values import Bucket, Density, Waiting
from etl.queue import verifications, windows
from etl.records import State

BUCKET_MS: Final = 900_000
"""The histogram's step: a quarter of an hour."""

URGENT_MS: Final = 6 * 3_600_000
"""SIDs that the API forgets within this time come first, at any cost."""

HOUR_MS: Final = 3_600_000

_LAST: Final = datetime(9999, 1, 1, tzinfo=UTC)

SAMPLE: Final = 200
NEWEST: Final = 100_000
"""The sample is taken from this many newest ids."""

FEWEST: Final = 5
STEADY_MS: Final = 600_000
"""Lags are a habit if nine tenths of them lie this close together."""


def read_lag(connection: Connection, *, retention: int) -> int | None:
    """Learn how long after its creation a SID is enqueued here: the median in ms.

    None if the lag varies by more than ``STEADY_MS``, or too little is known. Applications enqueue
    as they send, which tells the age of SIDs; a backfill does not. A wrong guess costs requests,
    never rows: SIDs that are not found there are fetched singly.
    """
    # By id, not by state: an index on states would sort millions of settled rows.
    recent = q.c.id > select(func.max(q.c.id) - NEWEST).scalar_subquery()
    told = unindexed(q.c.state).in_([State.SETTLED, State.REFRESH])
    statement = (
        select(q.c.expires_at, dialect(connection).as_written(q.c.enqueued_at).label("enqueued_at"))
        .where(recent, told, q.c.expires_at > 0, q.c.fetches > 0)
        .where(func.coalesce(q.c.source, "") != "discover")
        .order_by(q.c.id.desc())
        .limit(SAMPLE)
    )
    with any_text(connection):
        rows = connection.execute(statement).all()
    lags: list[int] = sorted(
        enqueued - (row.expires_at - retention)
        for row in rows
        if isinstance(row.expires_at, int) and (enqueued := moment_ms(row.enqueued_at)) is not None
    )
    if len(lags) < FEWEST or lags[-1 - len(lags) // 20] - lags[len(lags) // 20] > STEADY_MS:
        return None
    # A backfill file's rows lie close together, too, but long after their creation.
    lag = lags[len(lags) // 2]
    return lag if lag <= STEADY_MS else None


def read_waiting(  # noqa: PLR0913 - whose, how old at most, when, and what not
    connection: Connection,
    *,
    accounts: Sequence[str],
    retention: int,
    now: int,
    busy: Sequence[tuple[int, int]] = (),
    left_out: Sequence[tuple[int, int]] = (),
    due: bool = False,
    urgent: bool = False,
) -> Waiting:
    """Count the pending SIDs by age; with ``due`` those due now, as well.

    ``urgent`` counts only SIDs that the API forgets soon. ``busy`` windows (start, end in ms)
    belong to other workers, who find the SIDs in them. While there is one, SIDs of unknown age are
    left to them, too. In ``left_out`` windows SIDs of known age are better fetched singly.
    """
    waits = pending_or_due(now) if due else q.c.state == State.PENDING
    mine = (q.c.account.in_(accounts), waits)
    # Others write it, too. Nothing is forgotten later than a retention from now.
    latest = now + (URGENT_MS if urgent else retention)
    created = (q.c.expires_at - retention) // BUCKET_MS
    counts = Counter(
        _histogram(connection, created, *mine, q.c.expires_at.between(now + 1, latest))
    )
    unknown = (*mine, (q.c.expires_at <= 0) | (q.c.expires_at > latest))
    strangers = 0 if urgent else _count(connection, *unknown)
    lag = read_lag(connection, retention=retention) if strangers else None
    if lag is not None:
        enqueued = (dialect(connection).epoch_s(q.c.enqueued_at) * 1000 - lag) // BUCKET_MS
        possible = range((now - retention) // BUCKET_MS, now // BUCKET_MS + 1)
        found = _histogram(connection, enqueued, *unknown)
        guessed = Counter({place: n for place, n in found.items() if place in possible})
        strangers -= guessed.total()
        counts += guessed
    known = [
        Bucket(place * BUCKET_MS, (place + 1) * BUCKET_MS, counts[place])
        for place in sorted(counts)
        if not any(start <= place * BUCKET_MS < end for start, end in (*busy, *left_out))
    ]
    named = 0 if urgent else verifications.count_due(connection, accounts=accounts, now=now)
    return Waiting(
        known=tuple(known),
        unknown=0 if busy else strangers,
        unknown_from=now - retention,
        # Nothing tells how old a Verification is.
        unknown_to=now if named else _latest(connection, *unknown, now=now),
        expired=_count(connection, *mine, q.c.expires_at.between(1, now)),
        verifications=0 if busy else named,
    )


def pending_or_due(now: int) -> ColumnElement[bool]:
    """Say which rows are work for a run that starts now."""
    due = q.c.state.in_([State.RETRY, State.REFRESH]) & (q.c.due_at <= now)
    return (q.c.state == State.PENDING) | due


def _histogram(
    connection: Connection, place: ColumnElement[Any], *where: ColumnElement[bool]
) -> dict[int, int]:
    statement = select(place.label("place"), func.count().label("n")).where(*where)
    rows = connection.execute(statement.group_by(place)).all()
    return {int(row.place): int(row.n) for row in rows if row.place is not None}


def _count(connection: Connection, *where: ColumnElement[bool]) -> int:
    return int(connection.execute(select(func.count()).where(*where)).scalar_one())


def _latest(connection: Connection, *where: ColumnElement[bool], now: int) -> int:
    """Return when the latest of these was enqueued: none can have been created after that."""
    latest = select(dialect(connection).as_written(func.max(q.c.enqueued_at))).where(*where)
    with any_text(connection):
        enqueued = moment_ms(connection.execute(latest).scalar_one())
    return min(now, (now if enqueued is None else enqueued) + 1000)


def count_urgent(connection: Connection, *, accounts: Sequence[str], now: int) -> int:
    """Count the pending SIDs that the API forgets soon."""
    soon = (q.c.expires_at > now, q.c.expires_at <= now + URGENT_MS)
    return _count(connection, q.c.account.in_(accounts), q.c.state == State.PENDING, *soon)


def read_density(
    connection: Connection, waiting: Waiting, *, account: str, retention: int, now: int
) -> Density:
    """Count the stored attempts by the hour, where the waiting SIDs lie.

    Windows that were listed whole are exact and stay so: nothing is created in the past.
    """
    starts = [bucket.start for bucket in waiting.known]
    ends = [bucket.end for bucket in waiting.known]
    if waiting.unknown:
        starts.append(waiting.unknown_from)
        ends.append(waiting.unknown_to)
    if not starts:
        return Density()
    first, last = min(starts) // HOUR_MS * HOUR_MS, max(ends)
    hours = _histogram(
        connection,
        dialect(connection).epoch_s(attempts.c.date_created) // 3600,
        within(connection, attempts.c.date_created, moment(first), moment(last)),
    )
    believed = [Bucket(hour * HOUR_MS, (hour + 1) * HOUR_MS, hours[hour]) for hour in sorted(hours)]
    listed = windows.counted(connection, account=account, since=now - retention)
    return Density(tuple(believed), tuple(Bucket(*window) for window in listed))
