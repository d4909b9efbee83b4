"""Say in SQL what counts as converted, delivered, priced and final."""

from collections.abc import Sequence
from typing import Final

from etl.database.dialects import Dialect

IS_CONVERTED: Final = "CASE WHEN a.conversion_status = 'converted' THEN 1 ELSE 0 END"
IS_NOT_FINAL: Final = "CASE WHEN a.is_final THEN 0 ELSE 1 END"
IS_PRICED: Final = "a.price_amount IS NOT NULL AND a.price_currency IS NOT NULL"
"""An amount whose currency is not known is no price."""

_STATUS: Final = "COALESCE(d.message_status, d.call_status)"
IS_DELIVERED: Final = (
    f"CASE WHEN {_STATUS} IN ('delivered', 'read', 'received', 'completed') THEN 1 ELSE 0 END"
)
IS_UNDELIVERED: Final = (
    f"CASE WHEN {_STATUS} IN ('undelivered', 'failed', 'canceled', 'busy', 'no-answer') "
    "THEN 1 ELSE 0 END"
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
