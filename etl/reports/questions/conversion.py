"""Report attempts: one by one, and their conversion by day."""

from typing import Final

from etl.reports.columns import (
    ATTEMPTS,
    BY_SLICE,
    CHANNEL,
    CONVERTED,
    COUNTRY,
    DAY,
    FINAL,
    NOT_FINAL,
    RATE,
    SERVICE,
    UNCONVERTED,
)
from etl.reports.model import Column, ColumnKind, Report
from etl.rollups.facts import ATTEMPTS_FACTS
from etl.rollups.read import SLICE, read
from etl.sql.expressions import conversion, finality, flag
from etl.sql.scope import Scope, Statement

_CONVERTED: Final = "a.conversion_status = 'converted'"


def _attempts(scope: Scope) -> Statement:
    dialect = scope.dialect
    columns = [
        "a.sid",
        f"{scope.day('a.date_created')} AS day",
        "a.date_created",
        "a.date_updated",
        "a.account_sid",
        "a.service_sid",
        "a.verification_sid",
        "a.channel",
        "a.conversion_status",
        f"{flag(_CONVERTED)} AS converted",
        "a.price_amount",
        "a.price_currency",
        "d.destination",
        "d.destination_prefix",
        "d.country",
        "d.mcc",
        "d.mnc",
        "d.carrier",
        "d.locale",
        "d.status",
        "d.message_status",
        "d.call_status",
        "d.error_code",
        "d.code_length",
        f"{flag('a.is_final')} AS final",
        f"{dialect.moment('a.first_fetched_at')} AS first_fetched_at",
        f"{dialect.moment('a.fetched_at')} AS fetched_at",
        "d.extra",
        "a.url",
    ]
    return Statement(scope.ctes, scope.source(columns, scope.rows()))


ATTEMPTS_REPORT: Final = Report(
    name="attempts",
    sentence="Every attempt, with its channel data, in one row.",
    counts="One row for each attempt. Filter by date_created, which is indexed, not by day.",
    columns=(
        Column("sid", ColumnKind.TEXT, "The attempt."),
        Column("day", ColumnKind.DAY, "The UTC day of date_created.", spare=2),
        Column("date_created", ColumnKind.TIME, "When the attempt was made."),
        Column("date_updated", ColumnKind.TIME, "When Twilio last changed it.", spare=2),
        Column("account_sid", ColumnKind.TEXT, "The Twilio account.", spare=2),
        SERVICE,
        Column("verification_sid", ColumnKind.TEXT, "The verification it belongs to.", spare=2),
        CHANNEL,
        Column("conversion_status", ColumnKind.TEXT, "As the API says it, lower case.", spare=2),
        Column("converted", ColumnKind.FLAG, "The status is converted."),
        Column("price_amount", ColumnKind.MONEY, "Without the fee for a successful verification."),
        Column("price_currency", ColumnKind.TEXT, "The currency of price_amount."),
        Column("destination", ColumnKind.TEXT, "Number or address: personal data.", spare=2),
        Column("destination_prefix", ColumnKind.TEXT, "`+` and six digits.", spare=2),
        Column("country", ColumnKind.TEXT, "ISO code of the destination.", spare=1),
        Column("mcc", ColumnKind.TEXT, "Mobile country code.", spare=2),
        Column("mnc", ColumnKind.TEXT, "Mobile network code.", spare=2),
        Column("carrier", ColumnKind.TEXT, "The carrier's name.", spare=2),
        Column("locale", ColumnKind.TEXT, "The language of the message.", spare=2),
        Column("status", ColumnKind.TEXT, "confirmed, unconfirmed, expired.", spare=2),
        Column("message_status", ColumnKind.TEXT, "delivered, undelivered, sent, ...", spare=1),
        Column("call_status", ColumnKind.TEXT, "completed, busy, no-answer, ...", spare=2),
        Column("error_code", ColumnKind.TEXT, "Twilio's code; NULL: no error.", spare=1),
        Column("code_length", ColumnKind.COUNT, "Digits of the code.", spare=2),
        Column("final", ColumnKind.FLAG, "Neither price nor conversion can change."),
        Column("first_fetched_at", ColumnKind.TIME, "When it was first asked for.", spare=2),
        Column("fetched_at", ColumnKind.TIME, "When it was last asked for.", spare=2),
        Column("extra", ColumnKind.TEXT, "What the API sent beyond these, as JSON.", spare=2),
        Column("url", ColumnKind.TEXT, "The attempt's address in the API.", spare=2),
    ),
    select=_attempts,
    order=("date_created", "sid"),
    currency="price_currency",
)


def _daily(scope: Scope) -> Statement:
    names = (*SLICE, "attempts", "converted", "not_final")
    ctes = read(scope, ATTEMPTS_FACTS, {"day": scope.day}, names)
    body = scope.select(scope.kept(BY_SLICE), [*conversion(scope.dialect), *finality()], "facts")
    return Statement(ctes, body)


CONVERSION_DAILY: Final = Report(
    name="conversion-daily",
    sentence="How many attempts converted, by day, service, channel and country.",
    counts=(
        "Counts attempts by the day they were made, as Twilio's Summary does. An attempt converted "
        "or it did not; one whose status is not known did not."
    ),
    columns=(
        DAY, SERVICE, CHANNEL, COUNTRY, ATTEMPTS, CONVERTED, UNCONVERTED, RATE, NOT_FINAL, FINAL,
    ),
    select=_daily,
    by=BY_SLICE,
    default_by=BY_SLICE,
    order=BY_SLICE,
)  # fmt: skip
