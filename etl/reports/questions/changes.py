"""Report what became known when: the first sight of each attempt, and every change.

Together they are a ledger. Take a report of attempts, conversions or prices at two moments. The rows
seen between them add up to the difference.
"""

# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from etl.reports.columns import BY_SLICE, CHANNEL, COUNTRY, DAY, SERVICE
from etl.reports.model import ALL_FILTERS, Column, ColumnKind, Filter, Report
from etl.sql.as_of import first_value, value_after, value_before
from etl.sql.scope import Scope, Statement

FIRST_SEEN: Final = "first_seen"
"""The `field` of an attempt's first sight: nothing changed yet."""

LEFT: Final = "left"
ENTERED: Final = "entered"
"""The `field` of a move from one channel or currency to another: out of the one, into the other."""

_ORDER: Final = (*BY_SLICE, "currency", "seen_day")


def _seen(scope: Scope, at: str) -> list[str]:
    since = [f"{at} > @seen_since@"] if scope.seen_since is not None else []
    return since + ([f"{at} <= @as_of@"] if scope.as_of is not None else [])


def _known(scope: Scope, value: Callable[[str], str], sign: str = "") -> str:
    """Write what an attempt adds to its slice, or takes from it, with its values of one moment."""
    currency, status = value("price_currency"), value("conversion_status")
    price = scope.dialect.millionths(f"({value('price_amount')})")
    return f"""CASE WHEN ({currency}) IS NOT NULL THEN {sign}{price} END AS millionths,
        CASE WHEN ({status}) = 'converted' THEN {sign}1 ELSE 0 END AS converted,
        {sign}1 AS attempt"""


def _ledger(scope: Scope) -> str:
    """Write the ledger: each first sight, each change, and each move from slice to slice.

    A change stands in the slice that the attempt has been in since. An attempt that moves takes
    along what was known of it until then.
    """
    tables = f"FROM {scope.attempts} a\nLEFT JOIN {scope.channel_data} d ON d.attempt_sid = a.sid"
    changes = f"{tables}\nJOIN attempt_changes c ON c.attempt_sid = a.sid"
    rows = [*scope.window("a.date_created"), *scope.only_fixed("a.service_sid", "d.country")]
    seen = [*rows, *_seen(scope, "c.seen_at")]
    also = "c.field = 'price_currency' AND NOT EXISTS (SELECT 1 FROM attempt_changes m WHERE "
    also += "m.attempt_sid = a.sid AND m.seen_at = c.seen_at AND m.field = 'channel')"
    moved = [*seen, f"(c.field = 'channel' OR ({also}))"]
    first = partial(first_value, row="a")
    before, after = (partial(value, row="a", change="c") for value in (value_before, value_after))

    def slice_(value: Callable[[str], str]) -> str:
        return (
            f"a.sid, a.date_created, a.service_sid, {value('channel')} AS channel, d.country, "
            f"{value('price_currency')} AS currency"
        )

    def amount(value: str) -> str:
        return f"COALESCE({scope.dialect.millionths(f'CAST({value} AS DECIMAL(18, 6))')}, 0)"

    def taken(name: str) -> str:
        # The slice is the new one, the values are the old ones.
        return after(name) if name == "price_currency" else before(name)

    risen = f"{amount('c.new_value')} - {amount('c.old_value')}"
    return f"""
    SELECT {slice_(first)}, '{FIRST_SEEN}' AS field, NULL AS old_value, NULL AS new_value,
        a.first_fetched_at AS seen_ms,
        {_known(scope, first)}
    {tables}
    {scope.where([*rows, *_seen(scope, "a.first_fetched_at")])}
    UNION ALL
    SELECT {slice_(after)}, c.field, c.old_value, c.new_value,
        c.seen_at AS seen_ms,
        CASE WHEN c.field = 'price_amount' AND ({after("price_currency")}) IS NOT NULL
            THEN {risen} END AS millionths,
        CASE WHEN c.field <> 'conversion_status' THEN 0
            ELSE CASE WHEN c.new_value = 'converted' THEN 1 ELSE 0 END
                - CASE WHEN c.old_value = 'converted' THEN 1 ELSE 0 END END AS converted,
        0 AS attempt
    {changes}
    {scope.where(seen)}
    UNION ALL
    SELECT {slice_(before)}, '{LEFT}' AS field, NULL AS old_value, NULL AS new_value,
        c.seen_at AS seen_ms,
        {_known(scope, before, "-")}
    {changes}
    {scope.where(moved)}
    UNION ALL
    SELECT {slice_(after)}, '{ENTERED}' AS field, NULL AS old_value, NULL AS new_value,
        c.seen_at AS seen_ms,
        {_known(scope, taken)}
    {changes}
    {scope.where(moved)}
    """


def _facts(scope: Scope) -> tuple[tuple[str, str], ...]:
    wanted = scope.where(scope.only_channels("channel"))
    return (("ledger", _ledger(scope)), ("facts", f"SELECT * FROM ledger\n{wanted}"))


def _changes(scope: Scope) -> Statement:
    dialect = scope.dialect
    body = f"""
    SELECT {dialect.moment("seen_ms")} AS seen_at, sid,
        {scope.day("date_created")} AS day,
        date_created, service_sid, channel, country, field, old_value, new_value, currency,
        {dialect.money("millionths")} AS price_change,
        converted AS converted_change, attempt AS attempts_change
    FROM facts
    """
    return Statement(_facts(scope), body)


_CHANNEL: Final = replace(CHANNEL, meaning="The attempt's channel, as it was known since.")
_CURRENCY: Final = Column(
    "currency", ColumnKind.TEXT, "Of the attempt's price, as it was known since."
)
_PRICE: Final = Column(
    "price_change",
    ColumnKind.MONEY,
    "By how much the sum of prices rose; at first sight the price.",
)
_CONVERTED: Final = Column(
    "converted_change", ColumnKind.COUNT, "1: one more converted; -1: one less; else 0."
)

CHANGES: Final = Report(
    name="changes",
    sentence="What became known when: every change of an attempt, and the first sight of it.",
    counts=(
        "One row for each field that a fetch showed changed, and one, whose field is first_seen, "
        "for the first fetch of each attempt. Where the channel or the currency changed, two more: "
        "left takes from the old slice what was known until then, entered adds it to the new one. "
        "attempts_change, price_change and converted_change of the rows seen between two moments "
        "add up, for every slice, to what its attempts, cost and conversion moved by. The day is "
        "that on which the attempt was made."
    ),
    columns=(
        Column("seen_at", ColumnKind.TIME, "When the request that showed it was sent."),
        Column("sid", ColumnKind.TEXT, "The attempt."),
        Column("day", ColumnKind.DAY, "The UTC day on which the attempt was made.", spare=1),
        Column("date_created", ColumnKind.TIME, "When the attempt was made.", spare=2),
        SERVICE, _CHANNEL, COUNTRY,
        Column("field", ColumnKind.TEXT, "price_amount, conversion_status, ..., or first_seen, left, entered."),
        Column("old_value", ColumnKind.TEXT, "What was known before; NULL: nothing."),
        Column("new_value", ColumnKind.TEXT, "What has been known since."),
        _CURRENCY, _PRICE, _CONVERTED,
        Column("attempts_change", ColumnKind.COUNT, "1: first seen, or entered; -1: left; else 0.", spare=2),
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
        attempt,
        CASE WHEN field IN ('{FIRST_SEEN}', '{LEFT}', '{ENTERED}') THEN 0 ELSE 1 END AS change_,
        CASE WHEN field = 'price_amount' THEN 1 ELSE 0 END AS price,
        CASE WHEN field = 'conversion_status' THEN 1 ELSE 0 END AS conversion,
        millionths, converted
    FROM facts
    """
    measures = [
        "SUM(attempt) AS attempts",
        "SUM(change_) AS changes",
        "SUM(price) AS price_changes",
        "SUM(conversion) AS conversion_changes",
        f"{dialect.money('SUM(millionths)')} AS price_change",
        "SUM(converted) AS converted_change",
    ]
    keys = scope.kept(_ORDER, always="currency")
    ctes = (*_facts(scope), ("dated", dated))
    return Statement(ctes, scope.select(keys, measures, "dated"))


CHANGES_DAILY: Final = Report(
    name="changes-daily",
    sentence="Why a day's figures moved: attempts that came in and changes, by the day they were seen.",
    counts=(
        "Adds up v_changes by the day on which attempts were made and the day on which it became "
        "known. A slice's attempts, price_change and converted_change over all seen days are its "
        "attempts, total price and converted attempts; those seen between two moments are what "
        "these moved by. An attempt whose channel or currency changed leaves one slice and enters "
        "another."
    ),
    columns=(
        DAY, SERVICE, _CHANNEL, COUNTRY, _CURRENCY,
        Column("seen_day", ColumnKind.DAY, "The UTC day on which it became known."),
        Column("attempts", ColumnKind.COUNT, "Attempts seen for the first time, or entered from another slice, less those that left."),
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
