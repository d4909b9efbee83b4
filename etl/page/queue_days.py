"""Count the queue by day of arrival, with the freshness report's measures."""

# ruff: noqa: S608 - the SQL is put together from this package's own text

from collections import Counter
from datetime import date
from typing import Final

from sqlalchemy import Connection, text

from etl.database.dialects import dialect
from etl.reports.questions.freshness import QUEUE

_EPOCH: Final = date(1970, 1, 1)


def queue_days(connection: Connection) -> list[tuple[int, str, int]]:
    """Give (days since 1970, measure, SIDs) for all that is not settled and final."""
    day = dialect(connection).day("q.enqueued_at")
    cases = " ".join(f"WHEN {condition} THEN '{name}'" for name, (_, condition) in QUEUE.items())
    found = connection.execute(
        text(
            f"SELECT {day} AS day, CASE {cases} END AS measure, COUNT(*) FROM attempt_queue q "
            "WHERE q.state <> 'settled' OR q.outcome = 'last_known' GROUP BY day, measure"
        )
    )
    sums: Counter[tuple[int, str]] = Counter()
    for raw, measure, number in found:
        when = _date(raw)
        if measure is not None and when is not None:
            sums[(when - _EPOCH).days, measure] += number
    return [(at, measure, number) for (at, measure), number in sorted(sums.items())]


def _date(raw: object) -> date | None:
    try:
        return raw if isinstance(raw, date) else date.fromisoformat(str(raw))
    except ValueError:
        # Another program wrote it.
        return None
