"""Hold the columns that several reports share."""

from typing import Final

from etl.reports.model import Column, ColumnKind

DAY: Final = Column("day", ColumnKind.DAY, "The UTC day; NULL when the creation time is not known.")
SERVICE: Final = Column("service_sid", ColumnKind.TEXT, "The Verify service.", spare=2)
CHANNEL: Final = Column("channel", ColumnKind.TEXT, "sms, call, email, whatsapp, rbm, ...")
COUNTRY: Final = Column("country", ColumnKind.TEXT, "ISO code of the destination; NULL for e-mail.")
CURRENCY: Final = Column("currency", ColumnKind.TEXT, "NULL: not priced yet. Never added up.")
ATTEMPTS: Final = Column("attempts", ColumnKind.COUNT, "Verification attempts.")
CONVERTED: Final = Column(
    "converted", ColumnKind.COUNT, "Attempts whose code was entered.", spare=1
)
UNCONVERTED: Final = Column("unconverted", ColumnKind.COUNT, "All other attempts.", spare=2)
RATE: Final = Column("conversion_rate", ColumnKind.RATE, "converted / attempts.")
NOT_FINAL: Final = Column("not_final", ColumnKind.COUNT, "Of them, how many can still change.")
FINAL: Final = Column("final", ColumnKind.FLAG, "None of them can change.", spare=2)

SLICE_COLUMNS: Final = (DAY, SERVICE, CHANNEL, COUNTRY)
CONVERSION_COLUMNS: Final = (ATTEMPTS, CONVERTED, UNCONVERTED, RATE)
"""What ``expressions.conversion`` gives."""
FINALITY_COLUMNS: Final = (NOT_FINAL, FINAL)
"""What ``expressions.finality`` gives."""

BY_SLICE: Final = tuple(column.name for column in SLICE_COLUMNS)
"""The keys that `--by` can drop in most reports."""
