"""Report attempts: one by one, and their conversion by day."""

from collections.abc import Iterator
from typing import Final

from etl.database.schema import attempts
from etl.reports.columns import (
    BY_SLICE,
    CONVERSION_COLUMNS,
    FINALITY_COLUMNS,
    SLICE_COLUMNS,
)
from etl.reports.model import Column, ColumnKind, Report
from etl.rollups.facts import ATTEMPTS_FACTS
from etl.rollups.read import SLICE, read
from etl.sql.expressions import conversion, finality, flag
from etl.sql.scope import Scope, Statement
from etl.sql.wide import WIDE, Shown

_KINDS: Final = {"json": "text", "epoch": "time", "converted": "flag"}
_SPARE: Final = {"country": 1, "message_status": 1, "error_code": 1} | dict.fromkeys(
    ("sid", "date_created", "channel", "converted", "price_amount", "price_currency", "final"), 0
)


def _attempts(scope: Scope) -> Statement:
    columns = [_spelled(scope, shown) for shown in WIDE]
    columns.insert(1, f"{scope.day('a.date_created')} AS day")
    return Statement((), scope.source(columns, scope.rows()))


def _spelled(scope: Scope, shown: Shown) -> str:
    name, column, kind = shown
    found = f"{'a' if column.table is attempts else 'd'}.{column.name}"
    if kind == "epoch":
        return f"{scope.dialect.moment(found)} AS {name}"
    if kind == "converted":
        found = f"{found} = 'converted'"
    return f"{flag(found)} AS {name}" if kind in {"flag", "converted"} else found


def _described() -> Iterator[Column]:
    for name, column, kind in WIDE:
        meaning = "The status is converted." if kind == "converted" else str(column.doc)
        yield Column(name, ColumnKind(_KINDS.get(kind, kind)), meaning, _SPARE.get(name, 2))
        if name == "sid":
            yield Column("day", ColumnKind.DAY, "The UTC day of date_created.", spare=2)


ATTEMPTS_REPORT: Final = Report(
    name="attempts",
    sentence="Every attempt, with its channel data, in one row.",
    counts="One row for each attempt. Filter by date_created, which is indexed, not by day.",
    columns=tuple(_described()),
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
    columns=(*SLICE_COLUMNS, *CONVERSION_COLUMNS, *FINALITY_COLUMNS),
    select=_daily,
    by=BY_SLICE,
    default_by=BY_SLICE,
    order=BY_SLICE,
)
