"""Report what looks like abuse: unconverting prefixes, repeated destinations, new countries.

SMS pumping shows as sudden traffic to one prefix, without conversions.
"""

# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound

import math
from dataclasses import replace
from typing import Final

from etl.reports.columns import CONVERSION_COLUMNS, COUNTRY, DAY, FINALITY_COLUMNS, SERVICE
from etl.reports.model import Column, ColumnKind, Report
from etl.rollups.facts import ATTEMPTS_FACTS, PREFIXES
from etl.rollups.read import newest, read, whole
from etl.sql.expressions import IS_CONVERTED, IS_NOT_FINAL, conversion, finality, flag, sums
from etl.sql.scope import Scope, Statement
from etl.sql.spans import DAY_S, HOUR_S

TRAILING_H: Final = 7 * 24
"""Compare an hour with this many hours before it."""


def _prefixes(scope: Scope) -> Statement:
    dialect = scope.dialect
    names = ("destination_prefix", "country", "attempts", "converted", "not_final")
    ctes = read(_around(scope), PREFIXES, {"hour_no": HOUR_S}, names, by_day=False)
    hours = scope.select(
        ["hour_no", "destination_prefix", "country"],
        sums("attempts", "converted", "not_final"),
        "facts",
    )
    week = (
        "OVER (PARTITION BY destination_prefix, country ORDER BY hour_no\n"
        f"            RANGE BETWEEN {TRAILING_H} PRECEDING AND 1 PRECEDING)"
    )
    compared = f"""
    SELECT hour_no, destination_prefix, country, attempts, converted, not_final,
        CASE WHEN hour_no IS NOT NULL THEN COALESCE(SUM(attempts) {week}, 0) END
            AS trailing_attempts,
        CASE WHEN hour_no IS NOT NULL THEN COALESCE(SUM(converted) {week}, 0) END
            AS trailing_converted
    FROM hours
    """
    since = ["hour_no >= @since_hour@"] if scope.since is not None else []
    until = ["hour_no < @until_hour@"] if scope.until is not None else []
    trailing_rate = dialect.ratio("trailing_converted", "trailing_attempts")
    body = f"""
    SELECT {dialect.hour("hour_no")} AS hour,
        destination_prefix, country, attempts, converted,
        attempts - converted AS unconverted,
        {dialect.ratio("converted", "attempts")} AS conversion_rate,
        trailing_attempts, trailing_converted,
        {trailing_rate} AS trailing_rate,
        {dialect.ratio("trailing_attempts", str(TRAILING_H))} AS trailing_hourly,
        {dialect.ratio(f"(attempts * {TRAILING_H})", "trailing_attempts")} AS times_usual,
        not_final,
        {flag("not_final = 0")} AS final
    FROM compared
    {scope.where([*since, *until])}
    """
    return Statement((*ctes, ("hours", hours), ("compared", compared)), body)


def _around(scope: Scope) -> Scope:
    """Widen a window to all hours that it touches, and by the week before it."""
    since, until = scope.since, scope.until
    return replace(
        scope,
        since=None if since is None else (math.floor(since / HOUR_S) - TRAILING_H) * HOUR_S,
        until=None if until is None else math.ceil(until / HOUR_S) * HOUR_S,
        names=("lookback", "until_hour_end"),
    )


FRAUD_PREFIX_HOURLY: Final = Report(
    name="fraud-prefix-hourly",
    sentence="Each destination prefix by the hour, against its own 7 days before.",
    counts=(
        "Counts attempts by UTC hour, prefix and country. A window shows all hours that it touches, "
        "each of them whole; the trailing columns count the 168 hours before that hour. trailing_hourly divides by 168 however long the prefix is known. "
        "Destinations without a prefix (e-mail) are left out."
    ),
    columns=(
        Column("hour", ColumnKind.TIME, "The beginning of the hour, UTC."),
        Column("destination_prefix", ColumnKind.TEXT, "`+` and six digits."),
        COUNTRY, *CONVERSION_COLUMNS,
        Column("trailing_attempts", ColumnKind.COUNT, "Attempts of the 168 hours before.", spare=2),
        Column("trailing_converted", ColumnKind.COUNT, "Those that converted.", spare=2),
        Column("trailing_rate", ColumnKind.RATE, "trailing_converted / trailing_attempts.", spare=1),
        Column("trailing_hourly", ColumnKind.RATIO, "trailing_attempts / 168.", spare=2),
        Column("times_usual", ColumnKind.RATIO, "attempts / trailing_hourly; NULL: never seen before."),
        *FINALITY_COLUMNS,
    ),
    select=_prefixes,
    order=("-hour", "-attempts", "destination_prefix", "country"),
    newest=lambda scope, count: newest(scope, PREFIXES.rollup, count),
)  # fmt: skip


# One number, whichever channel it was reached by: whatsapp and rcs write their name before it.
_PLAIN: Final = "REPLACE(REPLACE(d.destination, 'whatsapp:', ''), 'rcs:', '')"


def _repeats(scope: Scope) -> Statement:
    facts = scope.source(
        [
            f"{scope.day('a.date_created')} AS day",
            f"{_PLAIN} AS destination",
            "d.country",
            "a.date_created",
            "a.verification_sid",
            "a.channel",
            "a.service_sid",
            "1 AS attempts",
            f"{IS_CONVERTED} AS converted",
            f"{IS_NOT_FINAL} AS not_final",
        ],
        [*scope.rows(), "d.destination IS NOT NULL"],
    )
    measures = [
        "CASE WHEN COUNT(DISTINCT country) = 1 THEN MIN(country) END AS country",
        *conversion(scope.dialect),
        "COUNT(DISTINCT verification_sid) AS verifications",
        "COUNT(DISTINCT channel) AS channels",
        "COUNT(DISTINCT service_sid) AS services",
        "MIN(date_created) AS first_at",
        "MAX(date_created) AS last_at",
        *finality(),
    ]
    keys = [*scope.kept(["day"]), "destination"]
    body = scope.select(keys, measures, "facts") + "\nHAVING COUNT(*) > 1"
    return Statement((("facts", facts),), body)


REPEAT_DESTINATIONS: Final = Report(
    name="repeat-destinations",
    sentence="Numbers and addresses that were sent more than one attempt in a day.",
    counts=(
        "Counts attempts by the UTC day on which they were made and by destination, and shows those "
        "of two or more. A number counts once, with and without whatsapp or rcs before it, whatever "
        "country its attempts name. Redacted destinations are left out. Personal data."
    ),
    columns=(
        DAY,
        Column("destination", ColumnKind.TEXT, "Number or address: personal data."),
        Column("country", ColumnKind.TEXT, "ISO code; NULL for e-mail, or for several countries."), *CONVERSION_COLUMNS,
        Column("verifications", ColumnKind.COUNT, "How many verifications they belong to.", spare=1),
        Column("channels", ColumnKind.COUNT, "How many channels were used.", spare=2),
        Column("services", ColumnKind.COUNT, "How many services sent them.", spare=2),
        Column("first_at", ColumnKind.TIME, "The first of them.", spare=2),
        Column("last_at", ColumnKind.TIME, "The last of them.", spare=2),
        *FINALITY_COLUMNS,
    ),
    select=_repeats,
    by=("day",),
    default_by=("day",),
    order=("day", "-attempts", "destination", "country"),
)  # fmt: skip


def _since_first(scope: Scope) -> tuple[tuple[str, str], ...]:
    """Add to each day's sums the first attempt to its country: by its service, and by any.

    No window functions: on MariaDB their time grows with the square of the rows.
    """
    firsts = scope.select(["service_sid", "country"], ["MIN(first_at) AS began_at"], "daily")
    anywhere = scope.select(["country"], ["MIN(began_at) AS first_anywhere"], "firsts")
    dated = f"""
    SELECT f.*, g.began_at, w.first_anywhere
    FROM daily f
    JOIN firsts g ON g.country = f.country
      AND (g.service_sid = f.service_sid OR (g.service_sid IS NULL AND f.service_sid IS NULL))
    JOIN anywhere w ON w.country = f.country
    {scope.where(scope.window("g.began_at"))}
    """
    return (("firsts", firsts), ("anywhere", anywhere), ("dated", dated))


def _new_countries(scope: Scope) -> Statement:
    dialect = scope.dialect
    names = ("service_sid", "country", "attempts", "converted", "not_final", "first_at", "last_at")
    ctes = read(whole(scope), ATTEMPTS_FACTS, {"day_no": DAY_S}, names, by_day=False)
    # Sum by day first: far fewer rows to join.
    measures = [
        *sums("attempts", "converted", "not_final"),
        "MIN(first_at) AS first_at",
        "MAX(last_at) AS last_at",
    ]
    daily = scope.select(["service_sid", "country", "day_no"], measures, "facts")
    began_no = dialect.number(dialect.seconds("began_at"), DAY_S)
    week = f"CASE WHEN day_no - {began_no} < 7 THEN"
    measures = [
        *conversion(dialect),
        f"SUM({week} attempts ELSE 0 END) AS attempts_7d",
        f"SUM({week} converted ELSE 0 END) AS converted_7d",
        "MAX(last_at) AS last_at",
        *finality(),
    ]
    countries = scope.select(
        ["service_sid", "country", "began_at", "first_anywhere"], measures, "dated"
    )
    body = f"""
    SELECT {scope.day("began_at")} AS day,
        began_at AS first_at, service_sid, country,
        {flag("began_at = first_anywhere")} AS new_everywhere,
        attempts_7d, converted_7d,
        {dialect.ratio("converted_7d", "attempts_7d")} AS conversion_rate_7d,
        attempts, converted, unconverted, conversion_rate, last_at, not_final, final
    FROM countries
    """
    later = (("daily", daily), *_since_first(scope), ("countries", countries))
    return Statement((*ctes, *later), body)


NEW_COUNTRIES: Final = Report(
    name="new-countries",
    sentence="When each country was first sent to by each service, and how its first week went.",
    counts=(
        "One row for each service and country, with its first attempt ever, the UTC day of it and "
        "the six that follow, and the whole until now. Attempts without a country (e-mail) are "
        "left out."
    ),
    columns=(
        Column("day", ColumnKind.DAY, "The UTC day of first_at.", spare=2),
        Column("first_at", ColumnKind.TIME, "The first attempt of the service to the country."),
        SERVICE, COUNTRY,
        Column("new_everywhere", ColumnKind.FLAG, "No service had sent there before.", spare=1),
        Column("attempts_7d", ColumnKind.COUNT, "Attempts of the first 7 UTC days."),
        Column("converted_7d", ColumnKind.COUNT, "Those that converted.", spare=2),
        Column("conversion_rate_7d", ColumnKind.RATE, "converted_7d / attempts_7d."),
        *CONVERSION_COLUMNS,
        Column("last_at", ColumnKind.TIME, "The newest attempt.", spare=2),
        *FINALITY_COLUMNS,
    ),
    select=_new_countries,
    order=("-first_at", "country", "service_sid"),
)  # fmt: skip
