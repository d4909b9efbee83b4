"""Read the queue's condition: states, ages, the next loss, the time still needed."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, case, false, func, not_, or_, select

from etl.allowance.slots import Allowance, accounts_of, taken
from etl.database.dialects import dialect
from etl.database.schema import attempt_queue as q
from etl.database.schema import attempts
from etl.database.times import moment, moment_ms
from etl.decide.plan import plan, seconds
from etl.decide.values import Plan
from etl.queue import runs, verifications
from etl.queue.attempts import pending
from etl.queue.waiting import pending_or_due, read_density, read_waiting
from etl.records import State

BUCKET_MS: Final = 60_000
"""The forecast's step. SIDs that the API forgets in the same minute count as one."""


@dataclass(frozen=True, slots=True)
class Status:
    """Hold what ``status`` prints. Times are ISO 8601 UTC, or None."""

    states: dict[str, int]
    dead: dict[str, int]
    verifications: dict[str, int]
    attempts: int
    final: int
    unpriced: int
    oldest_pending: str | None
    next_to_be_lost: str | None
    next_due: str | None
    requests_left: int
    minutes_left: float
    least_requests_left: int
    least_minutes_left: float
    at_most: bool
    lost_before_turn: int
    needed_allowance: int
    allowance: dict[str, float]
    runs: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return the keys that ``status --json`` prints."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Outlook:
    """Say what the queue still takes: requests, SIDs lost before their turn, what would save them.

    ``at_most``: the run would first ask a Summary, and may then need fewer requests.
    """

    most: int
    least: int
    most_minutes: float
    least_minutes: float
    lost: int
    needed: int
    at_most: bool


def look_ahead(
    connection: Connection, *, allowance: Allowance, retention: int, page_size: int, now: int
) -> Outlook:
    """Plan a run now, and see which SIDs the API would forget before their turn."""
    accounts = accounts_of(allowance.account)
    waiting = read_waiting(connection, accounts=accounts, retention=retention, now=now, due=True)
    density = read_density(
        connection, waiting, account=allowance.account, retention=retention, now=now
    )
    made = plan(waiting, density, page_size=page_size, now=now)
    leased = select(func.count()).where(q.c.account.in_(accounts), q.c.state == State.LEASED)
    flying = int(connection.execute(leased).scalar_one())
    most, least, used = made.most + flying, made.least + flying, taken(connection, allowance, now)
    longest = minutes(most, allowance, used)
    ends = _ends(connection, accounts, _listed(made, retention), (now, now + int(longest * 60_000)))
    lost, needed = forecast(ends, allowance, now)
    return Outlook(
        most, least, longest, minutes(least, allowance, used), lost, needed, bool(made.ask)
    )


def read(
    connection: Connection, *, allowance: Allowance, retention: int, page_size: int, now: int
) -> Status:
    """Read the status in one transaction, without writing.

    The forecast covers what waits or is due for the allowance's account. It is the plan of a run
    now, and one request for each SID in flight. All else covers the whole queue.
    """
    accounts = accounts_of(allowance.account)
    counts = _count(connection)
    ahead = look_ahead(
        connection, allowance=allowance, retention=retention, page_size=page_size, now=now
    )
    stored, final, unpriced = _count_attempts(connection)
    return Status(
        states={
            state.value: sum(n for (_, of), n in counts.items() if of == state) for state in State
        },
        dead=count_dead(connection),
        verifications=verifications.states(connection),
        attempts=stored,
        final=final,
        unpriced=unpriced,
        oldest_pending=_oldest(connection),
        next_to_be_lost=_next_to_be_lost(connection, accounts, now),
        next_due=iso(_first_due(connection)),
        requests_left=ahead.most,
        minutes_left=ahead.most_minutes,
        least_requests_left=ahead.least,
        least_minutes_left=ahead.least_minutes,
        at_most=ahead.at_most,
        lost_before_turn=ahead.lost,
        needed_allowance=ahead.needed,
        allowance={"requests": allowance.requests, "window_s": allowance.window_ms / 1000},
        runs=[as_dict(row) for row in runs.latest(connection, 5)],
    )


def count_work(connection: Connection, accounts: Sequence[str], now: int) -> int:
    """Count what a run that starts now will do: pending rows and those come due."""
    due = select(func.count()).where(q.c.state.in_([State.RETRY, State.REFRESH]), q.c.due_at <= now)
    return pending(connection, accounts) + int(connection.execute(due).scalar_one())


def minutes(requests: int, allowance: Allowance, taken: Sequence[int] = ()) -> float:
    """Return how long so many requests take at the allowance, in minutes.

    ``taken`` is what of it is used up, as `slots.taken` tells.
    """
    return seconds(requests, allowance.requests, allowance.window_ms, taken) / 60


def forecast(ends: Iterable[tuple[int, int]], allowance: Allowance, now: int) -> tuple[int, int]:
    """Count the SIDs forgotten before their turn, and the allowance that would save all.

    ``ends`` are pairs, soonest first, in the order of the claims: when the API forgets SIDs (ms),
    and how many. Without an allowance nothing waits: (0, 0).
    """
    if not allowance.requests:
        return 0, 0
    sent = lost = total = needed = 0
    for end, count in ends:
        windows = 1 + max(end - now, 0) // allowance.window_ms
        can = min(count, max(windows * allowance.requests - sent, 0))
        sent += can
        lost += count - can
        total += count
        needed = max(needed, -(-total // windows))
    return lost, needed if lost else allowance.requests


def _listed(made: Plan, retention: int) -> ColumnElement[bool]:
    """Say which SIDs a page will show. They need no turn of their own."""
    windows = [(sweep.start + retention, sweep.end + retention - 1) for sweep in made.sweeps]
    return or_(false(), *(q.c.expires_at.between(*window) for window in windows))


def _ends(
    connection: Connection,
    accounts: Sequence[str],
    listed: ColumnElement[bool],
    span: tuple[int, int],
) -> Iterable[tuple[int, int]]:
    """Count the SIDs to fetch singly by the minute of their end, within a span."""
    bucket: ColumnElement[int] = (q.c.expires_at // BUCKET_MS).label("bucket")
    statement = (
        select(bucket, func.count().label("n"))
        .where(
            q.c.account.in_(accounts),
            pending_or_due(span[0]),
            q.c.expires_at > span[0],
            q.c.expires_at < span[1],
            not_(listed),
        )
        .group_by(bucket)
        .order_by(bucket)
    )
    return [(int(row.bucket) * BUCKET_MS, int(row.n)) for row in connection.execute(statement)]


def _count(connection: Connection) -> dict[tuple[str, str], int]:
    """Count the rows by account and state, in one walk along the claims' index."""
    statement = select(q.c.account, q.c.state, func.count().label("n"))
    rows = connection.execute(statement.group_by(q.c.account, q.c.state))
    return {(row.account, row.state): int(row.n) for row in rows}


def _count_attempts(connection: Connection) -> tuple[int, int, int]:
    one = (
        func.sum(case((attempts.c.is_final, 1), else_=0)),
        # As the reports: an amount without its currency is no price.
        func.sum(
            case(
                (or_(attempts.c.price_amount.is_(None), attempts.c.price_currency.is_(None)), 1),
                else_=0,
            )
        ),
    )
    row = connection.execute(select(func.count(), *one).select_from(attempts)).one()
    return int(row[0]), int(row[1] or 0), int(row[2] or 0)


def _oldest(connection: Connection) -> str | None:
    """Return when the oldest pending row was enqueued; ids are given in that order."""
    first = select(func.min(q.c.id)).where(q.c.state == State.PENDING).scalar_subquery()
    enqueued_at = dialect(connection).as_written(q.c.enqueued_at)
    return iso(connection.execute(select(enqueued_at).where(q.c.id == first)).scalar())


def _next_to_be_lost(connection: Connection, accounts: Sequence[str], now: int) -> str | None:
    """Return when the first SID that is not at rest is forgotten: one index step each."""
    live = (State.PENDING, State.LEASED, State.RETRY, State.REFRESH)
    soonest = [
        connection.execute(
            select(func.min(q.c.expires_at)).where(
                q.c.account == account, q.c.state == state, q.c.expires_at > now
            )
        ).scalar()
        for account in accounts
        for state in live
    ]
    return iso(min((end for end in soonest if end is not None), default=None))


def _first_due(connection: Connection) -> int | None:
    due = [
        connection.execute(select(func.min(q.c.due_at)).where(q.c.state == state)).scalar()
        for state in (State.RETRY, State.REFRESH)
    ]
    return min((at for at in due if at is not None), default=None)


def count_dead(connection: Connection, *, since: int | None = None) -> dict[str, int]:
    """Count the dead rows by outcome: all, or those that died at ``since`` (ms) or later."""
    died = () if since is None else (q.c.settled_at >= moment(since),)
    statement = (
        select(q.c.outcome, func.count().label("n"))
        .where(q.c.state == State.DEAD, *died)
        .group_by(q.c.outcome)
        .order_by(q.c.outcome)
    )
    return {row.outcome or "": int(row.n) for row in connection.execute(statement)}


def iso(value: Any) -> str | None:  # noqa: ANN401 - milliseconds or a driver's time
    """Write a time of ours or of a driver's as ISO 8601, UTC; None for what is no time."""
    ms = value if isinstance(value, int) else moment_ms(value)
    # Others write these times, and not all are of this calendar.
    with suppress(ValueError, OverflowError, OSError):
        if ms is not None:
            return moment(ms).isoformat(timespec="seconds").replace("+00:00", "Z")
    return None


def as_dict(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row of sync_runs
    """Return a run under the keys that ``runs --json`` and ``status --json`` print."""
    started, ended = moment_ms(row.started_at), moment_ms(row.ended_at)
    took = None if started is None or ended is None else (ended - started) / 1000
    return {
        "id": row.id,
        "command": row.command,
        "account": row.account,
        "version": row.version,
        "worker": row.worker,
        "asked": _asked(row.asked),
        "started_at": iso(row.started_at),
        "ended_at": iso(row.ended_at),
        "seconds": took,
        "exit_code": row.exit_code,
        "did": row.did,
        "error": row.error,
    }


def _asked(options: object) -> object:
    """Write the bounds of a run's window as times."""
    if not isinstance(options, dict):
        return options
    bounds = {
        name: iso(options[name]) for name in ("start", "end") if isinstance(options.get(name), int)
    }
    return {**options, **bounds}
