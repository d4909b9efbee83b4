"""Report what became known when: the first sight of each attempt, and every change.

Together they are a ledger. Take a report of attempts, conversions or prices at two moments. The rows
seen between them add up to the difference.
"""

# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound

from typing import Final

from etl.reports.columns import BY_SLICE, CHANNEL, COUNTRY, SERVICE, SLICE_COLUMNS
from etl.reports.model import ALL_FILTERS, Column, ColumnKind, Filter, Report
from etl.sql.as_of import first_value
from etl.sql.scope import Scope, Statement

FIRST_SEEN: Final = "first_seen"
"""The `field` of an attempt's first sight: nothing changed yet."""

_ORDER: Final = (*BY_SLICE, "currency", "seen_day")


def _seen(scope: Scope, at: str) -> list[str]:
    since = [f"{at} > @seen_since@"] if scope.seen_since is not None else []
    return since + ([f"{at} <= @as_of@"] if scope.as_of is not None else [])


def _facts(scope: Scope) -> str:
    """Write the ledger: a row for each first sight and each change."""
    dialect = scope.dialect
    slice_ = (
        "a.sid, a.date_created, a.service_sid, a.channel, d.country, a.price_currency AS currency"
    )
    tables = f"FROM {scope.attempts} a\nLEFT JOIN {scope.channel_data} d ON d.attempt_sid = a.sid"
    price = dialect.millionths(f"({first_value('price_amount', 'a')})")
    status = first_value("conversion_status", "a")

    def amount(value: str) -> str:
        return f"COALESCE({dialect.millionths(f'CAST({value} AS DECIMAL(18, 6))')}, 0)"

    moved = f"{amount('c.new_value')} - {amount('c.old_value')}"
    return f"""
    SELECT {slice_}, '{FIRST_SEEN}' AS field, NULL AS old_value, NULL AS new_value,
        a.first_fetched_at AS seen_ms,
        CASE WHEN a.price_currency IS NOT NULL THEN {price} END AS millionths,
        CASE WHEN ({status}) = 'converted' THEN 1 ELSE 0 END AS converted
    {tables}
    {scope.where([*scope.rows(), *_seen(scope, "a.first_fetched_at")])}
    UNION ALL
    SELECT {slice_}, c.field, c.old_value, c.new_value,
        c.seen_at AS seen_ms,
        CASE WHEN c.field = 'price_amount' AND a.price_currency IS NOT NULL THEN {moved} END
            AS millionths,
        CASE WHEN c.field <> 'conversion_status' THEN 0
            ELSE CASE WHEN c.new_value = 'converted' THEN 1 ELSE 0 END
                - CASE WHEN c.old_value = 'converted' THEN 1 ELSE 0 END END AS converted
    {tables}
    JOIN attempt_changes c ON c.attempt_sid = a.sid
    {scope.where([*scope.rows(), *_seen(scope, "c.seen_at")])}
    """


def _changes(scope: Scope) -> Statement:
    dialect = scope.dialect
    body = f"""
    SELECT {dialect.moment("seen_ms")} AS seen_at, sid,
        {scope.day("date_created")} AS day,
        date_created, service_sid, channel, country, field, old_value, new_value, currency,
        {dialect.money("millionths")} AS price_change,
        converted AS converted_change
    FROM facts
    """
    return Statement((("facts", _facts(scope)),), body)


_CURRENCY: Final = Column(
    "currency", ColumnKind.TEXT, "Of the attempt's price, as it is known now."
)
_PRICE: Final = Column(
    "price_change", ColumnKind.MONEY, "By how much the price rose; at first sight the price."
)
_CONVERTED: Final = Column(
    "converted_change", ColumnKind.COUNT, "1: it converted; -1: it did not after all; else 0."
)

CHANGES: Final = Report(
    name="changes",
    sentence="What became known when: every change of an attempt, and the first sight of it.",
    counts=(
        "One row for each field that a fetch showed changed, and one, whose field is first_seen, "
        "for the first fetch of each attempt. price_change and converted_change of the rows seen "
        "between two moments add up to what the cost and conversion of that slice moved by. "
        "Prices are in the currency known now."
    ),
    columns=(
        Column("seen_at", ColumnKind.TIME, "When the request that showed it was sent."),
        Column("sid", ColumnKind.TEXT, "The attempt."),
        Column("day", ColumnKind.DAY, "The UTC day on which the attempt was made.", spare=1),
        Column("date_created", ColumnKind.TIME, "When the attempt was made.", spare=2),
        SERVICE, CHANNEL, COUNTRY,
        Column("field", ColumnKind.TEXT, "price_amount, conversion_status, ..., or first_seen."),
        Column("old_value", ColumnKind.TEXT, "What was known before; NULL: nothing."),
        Column("new_value", ColumnKind.TEXT, "What has been known since."),
        _CURRENCY, _PRICE, _CONVERTED,
    ),
    select=_changes,
    filters=ALL_FILTERS | {Filter.SEEN},
    order=("seen_at", "sid", "field"),
)  # fmt: skip


def _daily(scope: Scope) -> Statement:
    dialect = scope.dialect
    dated = f"""
    SELECT {scope.day("date_created")} AS day, service_sid, channel, country, currency,
        {scope.day(dialect.moment("seen_ms"))} AS seen_day,
        CASE WHEN field = '{FIRST_SEEN}' THEN 1 ELSE 0 END AS attempt,
        CASE WHEN field = 'price_amount' THEN 1 ELSE 0 END AS price,
        CASE WHEN field = 'conversion_status' THEN 1 ELSE 0 END AS conversion,
        millionths, converted
    FROM facts
    """
    measures = [
        "SUM(attempt) AS attempts",
        "COUNT(*) - SUM(attempt) AS changes",
        "SUM(price) AS price_changes",
        "SUM(conversion) AS conversion_changes",
        f"{dialect.money('SUM(millionths)')} AS price_change",
        "SUM(converted) AS converted_change",
    ]
    keys = scope.kept(_ORDER, always="currency")
    ctes = (("facts", _facts(scope)), ("dated", dated))
    return Statement(ctes, scope.select(keys, measures, "dated"))


CHANGES_DAILY: Final = Report(
    name="changes-daily",
    sentence="Why a day's figures moved: attempts that came in and changes, by the day they were seen.",
    counts=(
        "Adds up v_changes by the day on which attempts were made and the day on which it became "
        "known. A day's attempts, price_change and converted_change over all seen days are its "
        "attempts, total price and converted attempts; those seen between two moments are what "
        "these moved by."
    ),
    columns=(
        *SLICE_COLUMNS, _CURRENCY,
        Column("seen_day", ColumnKind.DAY, "The UTC day on which it became known."),
        Column("attempts", ColumnKind.COUNT, "Attempts seen for the first time."),
        Column("changes", ColumnKind.COUNT, "Changes of fields that were seen."),
        Column("price_changes", ColumnKind.COUNT, "Of them, those of a price.", spare=1),
        Column("conversion_changes", ColumnKind.COUNT, "Those of a conversion.", spare=1),
        Column("price_change", ColumnKind.MONEY, "By how much the sum of prices rose."),
        Column("converted_change", ColumnKind.COUNT, "By how many the converted attempts rose."),
    ),
    select=_daily,
    filters=ALL_FILTERS | {Filter.SEEN},
    by=(*BY_SLICE, "seen_day"),
    default_by=("day", "seen_day"),
    order=_ORDER,
)  # fmt: skip
