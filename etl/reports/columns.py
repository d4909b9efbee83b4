"""Hold the columns and expressions that several reports share."""

from collections.abc import Sequence
from typing import Final

from etl.reports.dialects import Dialect
from etl.reports.model import Column, Kind

DAY: Final = Column("day", Kind.DAY, "The UTC day; NULL when the creation time is not known.")
SERVICE: Final = Column("service_sid", Kind.TEXT, "The Verify service.", spare=2)
CHANNEL: Final = Column("channel", Kind.TEXT, "sms, call, email, whatsapp, rbm, ...")
COUNTRY: Final = Column("country", Kind.TEXT, "ISO code of the destination; NULL for e-mail.")
CURRENCY: Final = Column("currency", Kind.TEXT, "NULL: not priced yet. Never added up.")
ATTEMPTS: Final = Column("attempts", Kind.COUNT, "Verification attempts.")
CONVERTED: Final = Column("converted", Kind.COUNT, "Attempts whose code was entered.", spare=1)
UNCONVERTED: Final = Column("unconverted", Kind.COUNT, "All other attempts.", spare=2)
RATE: Final = Column("conversion_rate", Kind.RATE, "converted / attempts.")
NOT_FINAL: Final = Column("not_final", Kind.COUNT, "Of them, how many can still change.")
FINAL: Final = Column("final", Kind.FLAG, "None of them can change.", spare=2)

BY_SLICE: Final = ("day", "service_sid", "channel", "country")
"""The keys that most reports can drop."""

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
    return f"CASE WHEN {condition} THEN TRUE ELSE FALSE END"


def conversion(dialect: Dialect) -> Sequence[str]:
    """Add up facts with `attempts` and `converted`."""
    return [
        "SUM(attempts) AS attempts",
        "SUM(converted) AS converted",
        "SUM(attempts) - SUM(converted) AS unconverted",
        f"{dialect.ratio('SUM(converted)', 'SUM(attempts)')} AS conversion_rate",
    ]


def finality() -> Sequence[str]:
    """Flag what can still change."""
    return ["SUM(not_final) AS not_final", f"{flag('SUM(not_final) = 0')} AS final"]
