"""Say in SQL what counts as converted, delivered, priced and final."""

from collections.abc import Sequence
from typing import Final

from etl.database.dialects import Dialect

IS_CONVERTED: Final = "CASE WHEN a.conversion_status = 'converted' THEN 1 ELSE 0 END"
IS_NOT_FINAL: Final = "CASE WHEN a.is_final THEN 0 ELSE 1 END"
IS_PRICED: Final = "a.price_amount IS NOT NULL AND a.price_currency IS NOT NULL"
"""An amount whose currency is not known is no price."""

DELIVERED: Final = ("delivered", "read", "completed")
UNDELIVERED: Final = (
    "undelivered", "partially_delivered", "failed", "canceled", "busy", "no-answer",
)  # fmt: skip
"""What says in part that it came did not come whole. All other statuses say nothing yet."""


def _has_status(statuses: Sequence[str]) -> str:
    listed = ", ".join(f"'{status}'" for status in statuses)
    status = "COALESCE(d.message_status, d.call_status)"
    return f"CASE WHEN {status} IN ({listed}) THEN 1 ELSE 0 END"


IS_DELIVERED: Final = _has_status(DELIVERED)
IS_UNDELIVERED: Final = _has_status(UNDELIVERED)

DEFINITIONS: Final = {
    "converted": "the conversion status is `converted`; any other, and an unknown one, is not",
    "priced": "amount and currency are both known",
    "unpriced": "the amount or the currency is not known, final or not",
    "delivered": f"the message's status, else the call's, is {' or '.join(DELIVERED)}",
    "undelivered": f"that status is {' or '.join(UNDELIVERED)}; any other, and none, is in neither",
    "conversion": (
        "a verification with a converted attempt; it stands where its first converted attempt "
        "stands: the earliest, then the lowest SID; an unknown time is the last"
    ),
    "fee": "0 where nothing converted, and NULL where no fee of the conversions is known",
    "not_final": "the price or the conversion can still change",
    "channels": "the channels in the order of the attempts; `?` is an unknown one",
}
"""What each word means, in every report, view, page and count."""


def earlier(dialect: Dialect, one: str, other: str) -> str:
    """Say that one attempt comes before another: by time, an unknown one last, then by SID."""
    at, than = f"{one}.date_created", f"{other}.date_created"
    sid = dialect.exact(f"{other}.sid")
    return (
        f"({at} < {than} OR ({than} IS NULL AND {at} IS NOT NULL) "
        f"OR (({at} = {than} OR ({at} IS NULL AND {than} IS NULL)) AND {one}.sid < {sid}))"
    )


def flag(condition: str) -> str:
    """Turn a condition into true or false, never NULL."""
    # Not TRUE and FALSE: DuckDB, which reads views of an SQLite file, would make both 0.
    return f"CASE WHEN {condition} THEN 1 = 1 ELSE 1 = 0 END"


def sums(*names: str) -> Sequence[str]:
    """Add up columns, each under its own name."""
    return [f"SUM({name}) AS {name}" for name in names]


def conversion(dialect: Dialect) -> Sequence[str]:
    """Add up facts with `attempts` and `converted`."""
    return [
        *sums("attempts", "converted"),
        "SUM(attempts) - SUM(converted) AS unconverted",
        f"{dialect.ratio('SUM(converted)', 'SUM(attempts)')} AS conversion_rate",
    ]


def finality() -> Sequence[str]:
    """Flag what can still change."""
    return [*sums("not_final"), f"{flag('SUM(not_final) = 0')} AS final"]
