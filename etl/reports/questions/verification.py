"""Report verifications: the outcome of each, their success by day, and the funnel of retries.

A verification is all attempts of one verification_sid, in order of creation. Unknown times come
last, equal times go by SID. The first attempt gives its day, service, channel and country. Attempts
without a verification_sid are not here; `freshness` counts them.
"""

# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound

from typing import Final

from etl.reports.columns import (
    ATTEMPTS,
    BY_SLICE,
    CHANNEL,
    CONVERTED,
    COUNTRY,
    DAY,
    FINALITY_COLUMNS,
    RATE,
    SERVICE,
)
from etl.reports.model import Column, ColumnKind, Report
from etl.rollups.facts import STEPS
from etl.rollups.read import SLICE, read
from etl.sql.expressions import IS_CONVERTED, IS_NOT_FINAL, IS_PRICED, earlier, finality, flag, sums
from etl.sql.scope import Scope, Statement


def _outcome(scope: Scope) -> Statement:
    dialect = scope.dialect
    first = f"""NOT EXISTS (
        SELECT 1 FROM {scope.attempts} e
        WHERE e.verification_sid = f.verification_sid
          AND {earlier(dialect, "e", "f")})"""
    where = [
        "f.verification_sid IS NOT NULL",
        first,
        *scope.window("f.date_created"),
        *scope.only("f.service_sid", "f.channel", "d.country"),
    ]
    currency = f"CASE WHEN {IS_PRICED} THEN a.price_currency END"
    millionths = f"CASE WHEN {IS_PRICED} THEN {dialect.millionths('a.price_amount')} END"
    grouped = f"""
    SELECT f.verification_sid, f.service_sid, f.channel, d.country, f.date_created AS first_at,
        MAX(a.date_created) AS last_at,
        COUNT(*) AS attempts,
        {dialect.channels(scope.attempts)} AS channels,
        COUNT(DISTINCT a.channel) AS channels_tried,
        MAX({IS_CONVERTED}) AS converted,
        COUNT({currency}) AS priced,
        COUNT(DISTINCT {currency}) AS currencies,
        MIN({currency}) AS currency,
        SUM({millionths}) AS millionths,
        SUM({IS_NOT_FINAL}) AS not_final
    FROM {scope.attempts} f
    LEFT JOIN {scope.channel_data} d ON d.attempt_sid = f.sid
    JOIN {scope.attempts} a ON a.verification_sid = f.verification_sid
    {scope.where(where)}
    GROUP BY f.sid, f.verification_sid, f.service_sid, f.channel, d.country, f.date_created
    """
    body = f"""
    SELECT verification_sid,
        {scope.day("first_at")} AS day,
        first_at, last_at,
        {dialect.seconds("last_at")} - {dialect.seconds("first_at")} AS seconds,
        service_sid, channel, country, attempts, channels, channels_tried,
        {flag("converted = 1")} AS converted,
        CASE WHEN currencies = 1 THEN currency END AS currency,
        CASE WHEN currencies = 1 THEN {dialect.money("millionths")} END AS price,
        priced,
        attempts - priced AS unpriced,
        currencies,
        not_final,
        {flag("not_final = 0")} AS final
    FROM verifications
    """
    return Statement((("verifications", grouped),), body)


VERIFICATION_OUTCOME: Final = Report(
    name="verification-outcome",
    sentence="Every verification in one row: attempts, channels tried, converted, price, duration.",
    counts=(
        "One row for each verification, on the day of its first attempt. Prices in several currencies are not added up: price is "
        "then NULL, and currencies says how many. Filter by first_at, which is indexed."
    ),
    columns=(
        Column("verification_sid", ColumnKind.TEXT, "The verification."),
        Column("day", ColumnKind.DAY, "The UTC day of first_at.", spare=2),
        Column("first_at", ColumnKind.TIME, "When the first attempt was made."),
        Column("last_at", ColumnKind.TIME, "When the last attempt was made.", spare=2),
        Column("seconds", ColumnKind.SECONDS, "From the first attempt to the last.", spare=1),
        SERVICE,
        Column("channel", ColumnKind.TEXT, "The channel tried first.", spare=2),
        COUNTRY,
        ATTEMPTS,
        Column(
            "channels",
            ColumnKind.TEXT,
            "The channels in the order they were tried; `?` is an unknown one.",
        ),
        Column("channels_tried", ColumnKind.COUNT, "How many different channels.", spare=2),
        Column("converted", ColumnKind.FLAG, "An attempt of it converted."),
        Column("currency", ColumnKind.TEXT, "NULL when there is none, or more than one."),
        Column("price", ColumnKind.MONEY, "What its attempts cost together, fee not included."),
        Column("priced", ColumnKind.COUNT, "Attempts with a price.", spare=2),
        Column("unpriced", ColumnKind.COUNT, "Attempts without.", spare=2),
        Column("currencies", ColumnKind.COUNT, "How many currencies its prices are in.", spare=2),
        *FINALITY_COLUMNS,
    ),
    select=_outcome,
    order=("first_at", "verification_sid"),
)


def _success(scope: Scope) -> Statement:
    dialect = scope.dialect
    names = (*SLICE, "attempt_no", "attempts", "succeeded", "tries", "retried", "unsettled")
    ctes = read(scope, STEPS, {"day": scope.day}, names)
    firsts = """
    SELECT day, service_sid, channel, country, attempts AS verifications, succeeded AS converted,
        tries AS attempts, retried, unsettled AS not_final
    FROM facts
    WHERE attempt_no = 1
    """
    measures = [
        *sums("verifications", "converted"),
        "SUM(verifications) - SUM(converted) AS unconverted",
        f"{dialect.ratio('SUM(converted)', 'SUM(verifications)')} AS success_rate",
        *sums("attempts"),
        f"{dialect.ratio('SUM(attempts)', 'SUM(verifications)')} AS attempts_per_verification",
        *sums("retried"),
        *finality(),
    ]
    selected = scope.select(scope.kept(BY_SLICE), measures, "firsts")
    return Statement((*ctes, ("firsts", firsts)), selected)


VERIFICATION_SUCCESS_DAILY: Final = Report(
    name="verification-success-daily",
    sentence="How many verifications succeeded, which is more than attempts converted, by day.",
    counts=(
        "Counts verifications by the day, service, channel and country of their first attempt. "
        "One succeeded when any of its attempts converted, on whatever channel."
    ),
    columns=(
        DAY, SERVICE,
        Column("channel", ColumnKind.TEXT, "The channel tried first."),
        COUNTRY,
        Column("verifications", ColumnKind.COUNT, "Verifications that began."),
        Column("converted", ColumnKind.COUNT, "Those with a converted attempt.", spare=1),
        Column("unconverted", ColumnKind.COUNT, "All others.", spare=2),
        Column("success_rate", ColumnKind.RATE, "converted / verifications."),
        Column("attempts", ColumnKind.COUNT, "The attempts of them all.", spare=2),
        Column("attempts_per_verification", ColumnKind.RATIO, "attempts / verifications.", spare=1),
        Column("retried", ColumnKind.COUNT, "Verifications of two attempts or more.", spare=1),
        *FINALITY_COLUMNS,
    ),
    select=_success,
    by=BY_SLICE,
    default_by=BY_SLICE,
    order=BY_SLICE,
)  # fmt: skip


_FUNNEL_KEYS: Final = ("day", "service_sid", "attempt_no", "channel", "country")


def _funnel(scope: Scope) -> Statement:
    dialect = scope.dialect
    names = (*SLICE, "attempt_no", "attempts", "converted", "went_on", "gave_up", "not_final")
    ctes = read(scope, STEPS, {"day": scope.day}, names)
    keys = scope.kept(_FUNNEL_KEYS, always="attempt_no")
    measures = [
        *sums("attempts", "converted", "went_on", "gave_up"),
        f"{dialect.ratio('SUM(converted)', 'SUM(attempts)')} AS conversion_rate",
        f"{dialect.ratio('SUM(gave_up)', 'SUM(attempts)')} AS give_up_rate",
        *finality(),
    ]
    return Statement(ctes, scope.select(keys, measures, "facts"))


RETRY_FUNNEL: Final = Report(
    name="retry-funnel",
    sentence="How first, second and later attempts fare, by channel: converted, went on, gave up.",
    counts=(
        "Counts attempts by their number within the verification; the day is that of its first "
        "attempt, service, channel and country are the attempt's own."
    ),
    columns=(
        DAY, SERVICE,
        Column("attempt_no", ColumnKind.COUNT, "1 is the first attempt of its verification."),
        CHANNEL, COUNTRY, ATTEMPTS, CONVERTED,
        Column("went_on", ColumnKind.COUNT, "Did not convert, and another attempt followed."),
        Column("gave_up", ColumnKind.COUNT, "Did not convert, and none followed."),
        RATE,
        Column("give_up_rate", ColumnKind.RATE, "gave_up / attempts.", spare=1),
        *FINALITY_COLUMNS,
    ),
    select=_funnel,
    by=BY_SLICE,
    default_by=("channel",),
    order=_FUNNEL_KEYS,
)  # fmt: skip
