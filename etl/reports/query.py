"""Run a report: bind the values, read the rows, and give plain Python values."""

# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, text

from etl.database.dialects import dialect
from etl.reports.model import Column, ColumnKind, Report
from etl.reports.questions.fraud import TRAILING_H
from etl.sql.as_of import AsOf, looked_back
from etl.sql.odd import unreadable, without_odd
from etl.sql.scope import Scope
from etl.sql.spans import HOUR_S
from etl.sql.zones import offsets

_PLACE: Final = re.compile(r"@(\w+)@")
_NAMED: Final = re.compile(r":(\w+)")
_SIXTH: Final = Decimal("0.000001")
_BATCH: Final = 2000
_INT64: Final = 2**63

Value = str | int | Decimal | date | datetime | bool | None
Row = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """Hold what is asked of a report; moments are seconds since 1970.

    ``raw`` reads no roll-up.
    """

    since: float | None = None
    until: float | None = None
    services: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    zone: tzinfo | None = None
    by: tuple[str, ...] | None = None
    limit: int | None = None
    as_of: AsOf | None = None
    seen_since: float | None = None
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """Hold a report's columns and a stream of its rows."""

    columns: tuple[Column, ...]
    rows: Iterator[Row]


@contextmanager
def ask(connection: Connection, report: Report, question: Question) -> Iterator[Rows]:
    """Run one report, and lend its rows within the context.

    Counts are ``int``, money and quotients ``Decimal`` with six decimals, moments ``datetime`` in
    UTC, days ``date``. Rows stream from the database, so a million of them need no memory. A limit
    may take two statements. The transaction must be a snapshot for both to see the same rows.
    """
    scope = _narrowed(connection, report, scope_of(connection, question), question.limit)
    columns = report.columns_of(scope)
    sql = statement(report, scope, limit=question.limit)
    kinds = [column.kind for column in columns]
    options = {"yield_per": _BATCH}
    with connection.execute(text(sql), binds(scope, sql), execution_options=options) as result:
        yield Rows(columns, (tuple(map(_value, kinds, row)) for row in result))


def _narrowed(connection: Connection, report: Report, scope: Scope, limit: int | None) -> Scope:
    """Leave out rows that are too old for the limit."""
    sql = report.newest(scope, limit) if limit else None
    if sql is None:
        return scope
    sql = _PLACE.sub(r":\1", sql)
    found = connection.execute(text(sql), binds(scope, sql)).scalar()
    return scope if found is None else replace(scope, since=float(found))


def scope_of(connection: Connection, question: Question) -> Scope:
    """Turn a question into a scope on this database."""
    scope = Scope(
        dialect(connection),
        question.since,
        question.until,
        question.services,
        question.channels,
        question.countries,
        by=question.by,
        raw=question.raw,
    )
    if question.seen_since is not None:
        scope = replace(scope, seen_since=math.floor(question.seen_since * 1000))
    if question.as_of is not None:
        scope = looked_back(scope, question.as_of)
    if unreadable(connection):
        scope = without_odd(scope)
    if question.zone is None:
        return scope
    first, last = _bounds(connection, scope)
    return replace(scope, zone=offsets(question.zone, first, last))


def _bounds(connection: Connection, scope: Scope) -> tuple[float, float]:
    """Find the first and last moment for the zone's offsets, by the index."""
    seconds = scope.dialect.seconds
    table = f"{scope.attempts} a"
    ends = (f"SELECT {seconds(f'{end}(a.date_created)')} FROM {table}" for end in ("MIN", "MAX"))
    found = (_PLACE.sub(r":\1", sql) for sql in ends)
    low, high = (connection.execute(text(sql), binds(scope, sql)).scalar() for sql in found)
    first, last = float(low or 0), float(high or 0)
    if scope.since is not None:
        first = max(first, scope.since)
    if scope.until is not None:
        last = min(last, scope.until)
    return first, last


def statement(report: Report, scope: Scope, *, limit: int | None = None) -> str:
    """Write the report's SELECT with named parameters, sorted, NULLs last."""
    selected = report.select(scope)
    names = {column.name for column in report.columns_of(scope)}
    listed = ", ".join(column.name for column in report.columns_of(scope))
    order = ", ".join(
        _sorted(report, scope, key) for key in report.order if key.removeprefix("-") in names
    )
    sql = f"SELECT {listed} FROM (\n{selected.sql()}\n) report"
    sql += f"\nORDER BY {order}" if order else ""
    sql += f"\nLIMIT {limit}" if limit is not None else ""
    return _PLACE.sub(r":\1", sql)


def _sorted(report: Report, scope: Scope, key: str) -> str:
    name = key.removeprefix("-")
    kind = next(column.kind for column in report.columns if column.name == name)
    by = scope.dialect.exact(name) if kind is ColumnKind.TEXT else name
    last = f"CASE WHEN {name} IS NULL THEN 1 ELSE 0 END"
    return f"{last}, {by}{' DESC' if key.startswith('-') else ''}"


def binds(scope: Scope, sql: str) -> dict[str, Any]:
    """Give the values of the parameters in a statement."""
    values: dict[str, Any] = {"as_of": scope.as_of, "seen_since": scope.seen_since}
    for name, asked in (
        ("service", scope.services),
        ("channel", scope.channels),
        ("country", scope.countries),
    ):
        values |= {f"{name}_{number}": value for number, value in enumerate(asked)}
    if scope.since is not None:
        hour = math.floor(scope.since / HOUR_S)
        values["since"] = _moment(scope, scope.since)
        values["since_hour"] = hour
        values["lookback"] = _moment(scope, (hour - TRAILING_H) * HOUR_S)
    if scope.until is not None:
        hour = math.ceil(scope.until / HOUR_S)
        values["until"] = _moment(scope, scope.until)
        values["until_hour"] = hour
        values["until_hour_end"] = _moment(scope, hour * HOUR_S)
    named = set(_NAMED.findall(sql))
    return {name: value for name, value in values.items() if name in named}


def _moment(scope: Scope, epoch_s: float) -> Any:  # noqa: ANN401 - as the database compares it
    return scope.dialect.as_bound(datetime.fromtimestamp(epoch_s, UTC))


def _value(kind: ColumnKind, raw: Any) -> Value:  # noqa: ANN401 - as the driver gives it
    if raw is None:
        return None
    try:
        return _READERS[kind](raw)
    except (TypeError, ValueError, ArithmeticError):
        # SQLite keeps any value in any column. A wrong one counts as unknown.
        return None


def _text(raw: Any) -> str:  # noqa: ANN401 - as the driver gives it
    if isinstance(raw, bytes):
        return raw.decode("utf-8", "replace")
    # PostgreSQL gives JSON parsed.
    return raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False)


def _whole(raw: Any) -> int | None:  # noqa: ANN401 - as the driver gives it
    number = int(raw)
    return number if -_INT64 <= number < _INT64 else None


def _exact(raw: Any) -> Decimal:  # noqa: ANN401 - as the driver gives it
    # A REAL of SQLite: its shortest decimal is the amount.
    amount = raw if isinstance(raw, Decimal) else Decimal(repr(raw))
    return amount.quantize(_SIXTH)


def _time(raw: Any) -> datetime:  # noqa: ANN401 - as the driver gives it
    found = raw if isinstance(raw, datetime) else datetime.fromisoformat(raw)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _day(raw: Any) -> date:  # noqa: ANN401 - as the driver gives it
    return raw if isinstance(raw, date) else date.fromisoformat(raw)


_READERS: Final[Mapping[ColumnKind, Callable[[Any], Value]]] = {
    ColumnKind.TEXT: _text,
    ColumnKind.COUNT: _whole,
    ColumnKind.SECONDS: _whole,
    ColumnKind.RATE: _exact,
    ColumnKind.RATIO: _exact,
    ColumnKind.MONEY: _exact,
    ColumnKind.TIME: _time,
    ColumnKind.DAY: _day,
    ColumnKind.FLAG: bool,
}


def undated(connection: Connection, as_of: AsOf | None = None) -> int:
    """Count the attempts with an unknown or unreadable creation time."""
    known: dict[str, object] = {} if as_of is None else {"as_of": as_of.at_ms}
    where = " AND first_fetched_at <= :as_of" if known else ""
    sql = f"SELECT COUNT(*) FROM attempts WHERE date_created IS NULL{where}"
    missing = int(connection.execute(text(sql), known).scalar_one())
    return missing + unreadable(connection, where, **known)
