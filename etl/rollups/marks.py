"""Mark whose roll-ups a write makes stale, in the transaction of the write.

A mark is a quarter of an hour, UTC, whose raw rows say more than the roll-ups; reports read it raw
until ``rollups`` has caught up. Marks are appended and never looked up, so loaders do not wait for
each other. ``enter`` closes the gap between two of them: neither sees the attempts that the other
is just writing of the same verification, so no roll-up is made before both have ended.
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
    """Say that this transaction will write attempts; before its first lock, or it may deadlock."""
    lock_shared(connection, _KEY)


def settled(connection: Connection) -> int:
    """Wait until every transaction that wrote attempts has ended; return the newest mark's key.

    What begins to write after this sees all that is marked up to there, and marks for itself. The
    caller commits at once.
    """
    lock_alone(connection, _KEY)
    return connection.execute(select(func.max(rollup_marks.c.id))).scalar() or 0


def quiet_before(policy: Policy, now: int) -> int:
    """Return the end (seconds) of the last day that no longer changes.

    To sum a day after each load would cost as much as the loading, and reports read the newest
    days raw in no time.
    """
    return final.quiet_before(policy, now) // 1000 // DAY_S * DAY_S


def any_before(connection: Connection, end: int) -> bool:
    """Say whether a mark is older than ``end`` (seconds)."""
    statement = select(rollup_marks.c.id).where(rollup_marks.c.start < end).limit(1)
    return connection.execute(statement).first() is not None


def mark(
    connection: Connection, times: Iterable[object], verifications: Collection[str | None]
) -> list[int]:
    """Mark the quarters of creation times, and of all attempts of verifications; return them.

    ``times`` as any driver returns them; None is the unknown time. Siblings count, for a
    verification belongs to the time of its first attempt and is paid for once.
    """
    found = set(times)
    # SQLite keeps bytes and numbers of others, too: they are no SIDs that anybody shares.
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
