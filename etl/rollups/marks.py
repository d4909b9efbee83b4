"""Mark the roll-ups that a write makes stale, in the write's transaction.

A mark is a UTC quarter of an hour whose roll-ups are out of date. Reports read it raw until
``refresh`` has summed it. Marks are appended and never looked up, so loaders do not wait for each
other. Two loaders of one verification do not see each other's attempts. So each calls ``enter``,
and sums wait until both have ended.
"""

from collections.abc import Collection, Iterable, Sequence
from functools import cache, partial
from typing import Any, Final

from sqlalchemy import Connection, Insert, Select, func, select

from etl import final
from etl.database import bulk
from etl.database.dialects import Dialect, dialect
from etl.database.engine import as_text
from etl.database.locks import lock_alone, lock_shared
from etl.database.schema import attempts, rollup_marks
from etl.database.times import moment_ms
from etl.final import Policy
from etl.rollups.cubes import UNKNOWN, quarter
from etl.sql.spans import DAY_S, QUARTER_S

_KEY: Final = 0x726F6C6C757073  # "rollups"
_CHUNK: Final = 1_000


def enter(connection: Connection) -> None:
    """Announce that this transaction writes attempts. Call it before any lock, or it may deadlock."""
    lock_shared(connection, _KEY)


def wait_for_writers(connection: Connection) -> int:
    """Wait until every transaction that writes attempts has ended; return the newest mark's key.

    Writers that begin later see everything marked so far, and mark for themselves. The caller
    commits at once.
    """
    lock_alone(connection, _KEY)
    return connection.execute(select(func.max(rollup_marks.c.id))).scalar() or 0


def quiet_before(policy: Policy, now: int) -> int:
    """Return the end (seconds) of the last day that no longer changes.

    Summing a day after each load would cost as much as loading. Reports read the newest days raw,
    and fast.
    """
    return final.quiet_before(policy, now) // 1000 // DAY_S * DAY_S


def any_before(connection: Connection, end: int) -> bool:
    """Say whether a mark is older than ``end`` (seconds)."""
    statement = select(rollup_marks.c.id).where(rollup_marks.c.start < end).limit(1)
    return connection.execute(statement).first() is not None


def mark(
    connection: Connection, times: Iterable[object], verifications: Collection[str | None]
) -> list[int]:
    """Mark the quarters of creation times and of all attempts of verifications; return them.

    ``times`` may come from any driver; None is the unknown time. Siblings count, too: a
    verification belongs to its first attempt's time and is paid for once.
    """
    found = set(times)
    # SQLite keeps others' bytes and numbers. They are no SIDs, and nobody shares them.
    sids = [sid for sid in set(verifications) if isinstance(sid, str)]
    # A page has a thousand times, in some dozens of quarters.
    rounded = dialect(connection).rounded(attempts.c.date_created, QUARTER_S)
    for start in range(0, len(sids), _CHUNK):
        siblings = select(rounded).where(
            bulk.among(connection, attempts.c.verification_sid, sids[start : start + _CHUNK])
        )
        read = partial(_times, connection, siblings.distinct())
        found.update(as_text(connection, read))
    starts = sorted({_start(moment_ms(at)) for at in found})
    bulk.execute(connection, _insert(dialect(connection)), {"start": starts})
    return starts


@cache
def _insert(dialect: Dialect) -> Insert:
    return dialect.insert(rollup_marks, ["start"])


def _times(connection: Connection, statement: Select[Any]) -> Sequence[object]:
    return connection.execute(statement).scalars().all()


def _start(ms: int | None) -> int:
    return UNKNOWN if ms is None else quarter(ms // 1000)
