"""Count the queue by the day on which SIDs came in, in the freshness report's words."""

# ruff: noqa: S608 - the SQL is put together from this package's own text

from datetime import date
from typing import Final

from sqlalchemy import Connection, text

from etl.database.dialects import dialect

_LOST: Final = ("expired", "not_found")
_EPOCH: Final = date(1970, 1, 1)


def measure(state: str, outcome: str | None) -> str | None:
    """Name the measure that a queued SID is counted in; None: it needs nothing."""
    if state == "dead":
        return "lost" if outcome in _LOST else "dead"
    if state == "settled":
        return "last_known" if outcome == "last_known" else None
    return {
        "pending": "waiting", "leased": "waiting", "retry": "to_retry", "refresh": "to_refresh",
    }.get(state)  # fmt: skip


def _date(raw: object) -> date | None:
    try:
        return raw if isinstance(raw, date) else date.fromisoformat(str(raw))
    except ValueError:
        return None


def queue_days(connection: Connection) -> list[tuple[int, str, int]]:
    """Give (days since 1970, measure, SIDs) for all that is not settled and final."""
    day = dialect(connection).day("q.enqueued_at")
    found = connection.execute(
        text(
            f"SELECT {day} AS day, q.state, q.outcome, COUNT(*) FROM attempt_queue q "
            "WHERE q.state <> 'settled' OR q.outcome = 'last_known' "
            f"GROUP BY {day}, q.state, q.outcome"
        )
    )
    sums: dict[tuple[int, str], int] = {}
    for raw, state, outcome, number in found:
        name = measure(state, outcome)
        if name is None:
            continue
        when = _date(raw)
        if when is None:
            # Others wrote it, and no day of ours.
            continue
        key = ((when - _EPOCH).days, name)
        sums[key] = sums.get(key, 0) + number
    return [(at, name, number) for (at, name), number in sorted(sums.items())]
