"""Read the database's clock, and convert times for people to milliseconds and back."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, and_, true

from etl.database.dialects import dialect
from etl.database.dialects.base import Element

Clock = Callable[[Connection], int]
"""Reads the time for leases, slots and due times, in epoch milliseconds UTC."""


def clock(connection: Connection) -> int:
    """Read the database's clock; on SQLite that is the machine's. Call it after taking locks."""
    return dialect(connection).now_ms(connection)


def moment(ms: int) -> datetime:
    """Turn epoch milliseconds into a UTC time for people's columns."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def moment_ms(value: object) -> int | None:
    """Turn a time for people, as any driver returns it, into epoch milliseconds.

    Other programs write ``enqueued_at``, too, and SQLite keeps any text. Unreadable times are None,
    never an error.
    """
    with suppress(ValueError, OverflowError):
        if isinstance(value, str):
            value = datetime.fromisoformat(value.strip())
        if isinstance(value, datetime):
            value = value if value.tzinfo else value.replace(tzinfo=UTC)
            return int(value.timestamp() * 1000)
    return None


def within(
    connection: Connection, at: Element, start: datetime | None = None, end: datetime | None = None
) -> ColumnElement[bool]:
    """Keep stored times from ``start`` up to, not including, ``end``.

    SQLite compares text. Others write a time with another fraction than ours, or with none.
    """
    ours = dialect(connection)
    stored = ours.as_stored(at)
    lower = true() if start is None else stored >= ours.as_bound(start)
    upper = true() if end is None else stored < ours.as_bound(end)
    return and_(lower, upper)
