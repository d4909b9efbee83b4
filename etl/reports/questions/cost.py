"""Report what attempts and conversions cost: the API's price, the fee, and their sum.

Currencies are never added up: each has its own row. Attempts without a price have the currency
NULL.
"""

# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound

from collections.abc import Sequence
from typing import Final

from etl.reports.columns import (
    ATTEMPTS,
    BY_SLICE,
    CONVERTED,
    CURRENCY,
    FINALITY_COLUMNS,
    SLICE_COLUMNS,
)
from etl.reports.model import Column, ColumnKind, Report
from etl.rollups.facts import ATTEMPTS_FACTS
from etl.rollups.read import SLICE, read
from etl.sql.expressions import flag, sums
from etl.sql.scope import Scope, Statement

_KEYS: Final = (*BY_SLICE, "currency")
_SUMS: Final = (
    "attempts", "converted", "priced", "millionths", "unconverted_millionths", "conversions",
    "not_final",
)  # fmt: skip


_SUMMED: Final = f"""
SELECT day, utc_day, service_sid, channel, country, currency,
    {", ".join(sums(*_SUMS))}
FROM facts
GROUP BY day, utc_day, service_sid, channel, country, currency
"""


def _fees(scope: Scope) -> str:
    """Find each sum's fee, valid on its UTC day: the most specific, then the newest.

    Without a day the oldest counts: a fee that is known must not hide the sum of all.
    """
    amount = scope.dialect.millionths("f.amount")

    def best(where: str, order: str) -> str:
        return f"""(SELECT {amount} FROM verification_fees f
            WHERE f.currency = s.currency{where}
              AND f.channel IN (s.channel, '') AND f.country IN (s.country, '')
            ORDER BY f.channel = '', f.country = '', f.valid_from{order}
            LIMIT 1)"""

    dated = best(" AND f.valid_from <= s.utc_day", " DESC")
    return f"""
    SELECT s.*,
        CASE WHEN s.utc_day IS NULL THEN {best("", "")}
            ELSE {dated} END AS fee_millionths
    FROM sums s
    """


def _priced(scope: Scope) -> str:
    """Charge the fees. Conversions without a known fee are counted apart, not free."""
    charged = "CASE WHEN conversions = 0 THEN 0 ELSE conversions * fee_millionths END"
    return scope.select(
        scope.kept(_KEYS, always="currency"),
        [
            *sums(*_SUMS),
            f"SUM({charged}) AS fee_millionths",
            "SUM(CASE WHEN fee_millionths IS NULL THEN conversions ELSE 0 END) AS without_fee",
        ],
        "fees",
    )


def _statement(scope: Scope, measures: Sequence[str]) -> Statement:
    keys = scope.kept(_KEYS, always="currency")
    lines = ",\n    ".join([*keys, *measures, "not_final", f"{flag('not_final = 0')} AS final"])
    # Fees go by the UTC day, also in a report of another zone.
    times = {"day": scope.day, "utc_day": scope.dialect.day}
    return Statement(
        (
            *read(scope, ATTEMPTS_FACTS, times, (*SLICE, "currency", *_SUMS)),
            ("sums", _SUMMED),
            ("fees", _fees(scope)),
            ("costs", _priced(scope)),
        ),
        f"SELECT\n    {lines}\nFROM costs",
    )


# Without conversions the fee is 0. Without any known fee it is NULL.
_FEE_KNOWN: Final = "(conversions = 0 OR without_fee < conversions)"
_ALL_KNOWN: Final = "without_fee = 0"
_BOTH: Final = "(millionths + fee_millionths)"


def _daily(scope: Scope) -> Statement:
    dialect = scope.dialect
    return _statement(
        scope,
        [
            "attempts",
            "priced",
            "attempts - priced AS unpriced",
            f"{dialect.money('millionths')} AS total",
            f"{dialect.money_ratio('millionths', 'priced')} AS average",
            f"{dialect.money('unconverted_millionths')} AS spent_on_unconverted",
            "conversions",
            "without_fee",
            f"CASE WHEN {_FEE_KNOWN} THEN {dialect.money('fee_millionths')} END AS fee",
            f"CASE WHEN {_ALL_KNOWN} THEN {dialect.money(_BOTH)} END AS total_with_fee",
        ],
    )


def _per_conversion(scope: Scope) -> Statement:
    dialect = scope.dialect
    per_fee = dialect.money_ratio("fee_millionths", "(conversions - without_fee)")
    per_both = dialect.money_ratio(_BOTH, "conversions")
    return _statement(
        scope,
        [
            "attempts",
            "attempts - priced AS unpriced",
            "converted",
            "conversions",
            _awaiting(scope),
            "without_fee",
            f"{dialect.money('millionths')} AS price",
            f"CASE WHEN {_FEE_KNOWN} THEN {dialect.money('fee_millionths')} END AS fee",
            f"CASE WHEN {_ALL_KNOWN} THEN {dialect.money(_BOTH)} END AS price_and_fee",
            f"{dialect.money_ratio('millionths', 'conversions')} AS price_per_conversion",
            f"CASE WHEN {_FEE_KNOWN} THEN {per_fee} END AS fee_per_conversion",
            f"CASE WHEN {_ALL_KNOWN} THEN {per_both} END AS cost_per_conversion",
        ],
    )


def _awaiting(scope: Scope) -> str:
    """Count the conversions of the same keys whose price, and so whose currency, is not known."""
    keys = ", ".join(scope.kept(BY_SLICE))
    over = f"OVER ({f'PARTITION BY {keys}' if keys else ''})"
    return f"SUM(CASE WHEN currency IS NULL THEN conversions ELSE 0 END) {over} AS awaiting_price"


_UNPRICED: Final = Column("unpriced", ColumnKind.COUNT, "Attempts whose price is not known.")
_CONVERSIONS: Final = Column(
    "conversions",
    ColumnKind.COUNT,
    "Successful verifications, each counted once; Twilio's fee is due.",
    spare=1,
)
_WITHOUT_FEE: Final = Column(
    "without_fee", ColumnKind.COUNT, "Conversions that no row of verification_fees covers.", spare=2
)

COST_DAILY: Final = Report(
    name="cost-daily",
    sentence="What attempts cost, by day and currency, and what went on unconverted ones.",
    counts=(
        "Sums the API's prices of attempts by the day they were made. Attempts without a price "
        "are counted in unpriced, and where no currency is known in a row of their own; the fee "
        "for each successful verification comes from verification_fees, in the same currency. "
        "A verification's conversion counts on the day of its first converted attempt."
    ),
    columns=(
        *SLICE_COLUMNS, CURRENCY, ATTEMPTS,
        Column("priced", ColumnKind.COUNT, "Attempts with a price.", spare=2),
        _UNPRICED,
        Column("total", ColumnKind.MONEY, "The sum of the prices, fees not included."),
        Column("average", ColumnKind.MONEY, "total / priced, rounded to six decimals.", spare=1),
        Column("spent_on_unconverted", ColumnKind.MONEY, "The part of total that did not convert.", spare=1),
        _CONVERSIONS,
        _WITHOUT_FEE,
        Column("fee", ColumnKind.MONEY, "The fees that are known; NULL: none is.", spare=1),
        Column("total_with_fee", ColumnKind.MONEY, "total + fee; NULL while a fee is not known.", spare=1),
        *FINALITY_COLUMNS,
    ),
    select=_daily,
    by=BY_SLICE,
    default_by=BY_SLICE,
    order=_KEYS,
)  # fmt: skip

COST_PER_CONVERSION: Final = Report(
    name="cost-per-conversion",
    sentence="What a successful verification cost: the API's price, the fee, and both.",
    counts=(
        "Divides what all attempts cost, unconverted ones too, by the successful verifications "
        "among them. A verification counts once, on the day of its first converted attempt. Those "
        "in the row without a currency wait for a price; awaiting_price repeats them beside each."
    ),
    columns=(
        *SLICE_COLUMNS, CURRENCY, ATTEMPTS, _UNPRICED, CONVERTED, _CONVERSIONS,
        Column("awaiting_price", ColumnKind.COUNT, "Conversions of the same keys that wait for a price: those of the row without a currency."),
        _WITHOUT_FEE,
        Column("price", ColumnKind.MONEY, "The sum of the prices, fees not included.", spare=2),
        Column("fee", ColumnKind.MONEY, "The fees that are known; NULL: none is.", spare=2),
        Column("price_and_fee", ColumnKind.MONEY, "NULL while a fee is not known.", spare=2),
        Column("price_per_conversion", ColumnKind.MONEY, "price / conversions.", spare=1),
        Column("fee_per_conversion", ColumnKind.MONEY, "fee / (conversions - without_fee).", spare=1),
        Column("cost_per_conversion", ColumnKind.MONEY, "price_and_fee / conversions."),
        *FINALITY_COLUMNS,
    ),
    select=_per_conversion,
    by=BY_SLICE,
    default_by=("channel", "country"),
    order=_KEYS,
)  # fmt: skip
