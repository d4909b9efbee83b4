"""Report delivery: by carrier, and by the error that prevented it."""

from typing import Final

from etl.reports.columns import (
    ATTEMPTS,
    BY_SLICE,
    CONVERSION_COLUMNS,
    FINALITY_COLUMNS,
    SLICE_COLUMNS,
)
from etl.reports.error_codes import meaning
from etl.reports.model import Column, ColumnKind, Report
from etl.rollups.facts import CARRIERS, ERRORS
from etl.rollups.read import read
from etl.sql.expressions import DELIVERED, UNDELIVERED, conversion, finality, sums
from etl.sql.scope import Scope, Statement

_KNOWN: Final = "(SUM(delivered) + SUM(undelivered))"
_DELIVERED: Final = Column(
    "delivered", ColumnKind.COUNT, f"Its status is {' or '.join(DELIVERED)}.", spare=1
)
_UNDELIVERED: Final = Column(
    "undelivered", ColumnKind.COUNT, f"Its status is {' or '.join(UNDELIVERED)}.", spare=1
)


def _carriers(scope: Scope) -> Statement:
    dialect = scope.dialect
    names = (*CARRIERS.rollup.keys, *CARRIERS.rollup.measures)
    ctes = read(scope, CARRIERS, {"day": scope.day}, names)
    measures = [
        *conversion(dialect),
        *sums("delivered", "undelivered"),
        f"{dialect.ratio('SUM(delivered)', _KNOWN)} AS delivery_rate",
        *finality(),
    ]
    keys = [*scope.kept(BY_SLICE), "mcc", "mnc", "carrier"]
    return Statement(ctes, scope.select(keys, measures, "facts"))


CARRIER_PERFORMANCE: Final = Report(
    name="carrier-performance",
    sentence="How well each carrier delivers, and how many of its attempts convert.",
    counts=(
        "Counts attempts by carrier and the day they were made. Attempts whose delivery is not "
        "known are in neither delivered nor undelivered; e-mail has no carrier and is the row "
        "where it is NULL."
    ),
    columns=(
        *SLICE_COLUMNS,
        Column("mcc", ColumnKind.TEXT, "Mobile country code.", spare=2),
        Column("mnc", ColumnKind.TEXT, "Mobile network code.", spare=2),
        Column("carrier", ColumnKind.TEXT, "The carrier's name."),
        *CONVERSION_COLUMNS, _DELIVERED, _UNDELIVERED,
        Column("delivery_rate", ColumnKind.RATE, "delivered / (delivered + undelivered)."),
        *FINALITY_COLUMNS,
    ),
    select=_carriers,
    by=BY_SLICE,
    default_by=("country",),
    order=(*BY_SLICE, "-attempts", "carrier", "mcc", "mnc"),
)  # fmt: skip


def _errors(scope: Scope) -> Statement:
    names = (*ERRORS.rollup.keys, *ERRORS.rollup.measures)
    ctes = read(scope, ERRORS, {"day": scope.day}, names)
    kept = scope.kept(BY_SLICE)
    counted = scope.select(
        [*kept, "error_code"],
        [*sums("attempts", "undelivered", "converted"), *finality()],
        "facts",
    )
    columns = [
        *kept,
        "error_code",
        f"{meaning('error_code')} AS meaning",
        "attempts",
        "undelivered",
        "converted",
        "not_final",
        "final",
    ]
    body = "SELECT\n    " + ",\n    ".join(columns) + "\nFROM counted"
    return Statement((*ctes, ("counted", counted)), body)


DELIVERY_ERRORS: Final = Report(
    name="delivery-errors",
    sentence="Why attempts were not delivered: Twilio's error codes, with their meaning.",
    counts=(
        "Counts attempts with an error code, and those undelivered without one (error_code NULL), "
        "by the day they were made."
    ),
    columns=(
        *SLICE_COLUMNS,
        Column("error_code", ColumnKind.TEXT, "Twilio's code; NULL: undelivered without one."),
        Column("meaning", ColumnKind.TEXT, "What it means; NULL: not in our list."),
        ATTEMPTS, _UNDELIVERED,
        Column("converted", ColumnKind.COUNT, "Those that converted all the same.", spare=1),
        *FINALITY_COLUMNS,
    ),
    select=_errors,
    by=BY_SLICE,
    default_by=("channel",),
    order=(*BY_SLICE, "-attempts", "error_code"),
)  # fmt: skip
