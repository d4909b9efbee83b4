"""Take away what is no longer needed: settled rows of the queue, and personal data.

Both walk a key in short steps, a transaction each: whatever they are stopped at, the next run goes
on. Every function takes a connection inside the caller's transaction.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, delete, func, or_, select, update

from etl.database import locked, moment
from etl.records import State
from etl.schema import attempt_channel_data as data
from etl.schema import attempt_queue as q
from etl.schema import attempts

PRUNE_STEP: Final = 5_000
"""Rows of the queue that one transaction looks at."""

REDACT_STEP: Final = 1_000
"""Attempts that one transaction looks at."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """Say what one step did; ``last`` is the key to go on from, None at the end."""

    rows: int
    last: int | None


def prune(connection: Connection, *, before: int, after: int, write: bool) -> Pruned:
    """Delete rows that settled before ``before`` (ms), among the next ones after id ``after``.

    By ranges of the key: no index leads to ``settled_at``, and none is worth its upkeep.
    """
    step = select(q.c.id).where(q.c.id > after).order_by(q.c.id).limit(PRUNE_STEP).subquery()
    last = connection.execute(select(func.max(step.c.id))).scalar()
    if last is None:
        return Pruned(0, None)
    which = (
        q.c.id > after,
        q.c.id <= last,
        q.c.state == State.SETTLED,
        q.c.settled_at < moment(before),
    )
    if write:
        return Pruned(connection.execute(delete(q).where(*which)).rowcount, last)
    found = connection.execute(select(func.count()).select_from(q).where(*which)).scalar_one()
    return Pruned(int(found), last)


@dataclass(frozen=True, slots=True)
class Redacted:
    """Say what one step did; ``last`` is the key to go on from, None at the end."""

    looked_at: int
    destinations: int
    extras: int
    last: str | None


def redact(connection: Connection, *, before: int, after: str, write: bool) -> Redacted:
    """Remove personal data of attempts created before ``before`` (ms), next after SID ``after``.

    The destination goes, its prefix and country stay; of ``extra``, what ``without_personal``
    says. An attempt without a creation time counts from its first fetch.
    """
    old = or_(
        attempts.c.date_created < moment(before),
        and_(attempts.c.date_created.is_(None), attempts.c.first_fetched_at < before),
    )
    statement = (
        select(data.c.attempt_sid, data.c.destination, data.c.extra)
        .join(attempts, attempts.c.sid == data.c.attempt_sid)
        .where(data.c.attempt_sid > after, old)
        .where(or_(data.c.destination.is_not(None), data.c.extra.is_not(None)))
        .order_by(data.c.attempt_sid)
        .limit(REDACT_STEP)
    )
    rows = connection.execute(locked(statement) if write else statement).all()
    if not rows:
        return Redacted(0, 0, 0, None)
    cleaned = [(row, without_personal(row.extra)) for row in rows]
    changed = [
        {"b_sid": row.attempt_sid, "b_extra": extra}
        for row, extra in cleaned
        if row.destination is not None or extra != row.extra
    ]
    if write and changed:
        _write(connection, changed)
    return Redacted(
        looked_at=len(rows),
        destinations=sum(row.destination is not None for row in rows),
        extras=sum(extra != row.extra for row, extra in cleaned),
        last=rows[-1].attempt_sid,
    )


def _write(connection: Connection, changed: Sequence[dict[str, Any]]) -> None:
    values = {"destination": None, "extra": bindparam("b_extra", type_=data.c.extra.type)}
    which = data.c.attempt_sid == bindparam("b_sid")
    connection.execute(update(data).where(which).values(values), changed)


# Neither a date nor an amount is a phone number, however many digits it has.
_DATE_OR_AMOUNT: Final = re.compile(r"\d{4}-\d\d-\d\d(?!\d)|\d+\.\d+$", re.ASCII)
_EMAIL: Final = re.compile(r"[^\s@]@[^\s@]")
_INTERNATIONAL: Final = re.compile(r"\+\d(?:[\s().-]*\d){6,14}(?!\d)", re.ASCII)
_NATIONAL: Final = re.compile(r"\(?\d(?:[\s().-]*\d){6,14}", re.ASCII)
_RAW_PERSONAL: Final = frozenset({"to", "channel_data"})
# A whole number of fewer digits is a count or a code; a phone number with its country has more.
_SHORTEST_NUMBER: Final = 10**9
_LONGEST_NUMBER: Final = 10**15


def without_personal(extra: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return ``extra`` without what may be a phone number or an e-mail address; None if all went.

    Under ``_raw``, where values stand that could not be read, ``to`` and ``channel_data`` go
    whatever they look like. A key that looks like one goes as well, with its value.
    """
    if not isinstance(extra, dict):
        return None if is_personal(extra) else extra
    kept = dict(extra)
    if isinstance(raw := kept.get("_raw"), dict):
        kept["_raw"] = {name: text for name, text in raw.items() if name not in _RAW_PERSONAL}
    return _clean(kept) or None


def is_personal(value: object) -> bool:
    """Say whether a single value looks like a phone number or holds an e-mail address."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return _SHORTEST_NUMBER <= value < _LONGEST_NUMBER
    if not isinstance(value, str):
        return False
    text = value.strip()
    if _EMAIL.search(text) or _INTERNATIONAL.search(text):
        return True
    return bool(_NATIONAL.fullmatch(text)) and not _DATE_OR_AMOUNT.match(text)


def _clean(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Leave out what is personal; a list keeps its length, a structure that emptied goes."""
    if isinstance(value, dict):
        kept = {
            key: _clean(item)
            for key, item in value.items()
            if not (is_personal(key) or is_personal(item))
        }
        return {key: item for key, item in kept.items() if item != {} or value[key] == {}}
    if isinstance(value, list):
        return [None if is_personal(item) else _clean(item) for item in value]
    return value
