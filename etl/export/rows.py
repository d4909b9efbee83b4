"""Read attempts as Arrow tables, with the columns of the view ``v_attempts`` but ``day``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import reduce
from operator import add
from types import NoneType
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
)

from etl import privacy
from etl.database.dialects import dialect
from etl.database.schema import attempt_channel_data as data
from etl.database.schema import attempts
from etl.database.times import within
from etl.errors import ConfigError
from etl.sql.wide import WIDE

_RULES: Final = 2
"""Raised when an export without destinations leaves out more: it is then written anew."""

_SINCE_MS: Final = 1_700_000_000_000
"""Subtracted from each ``fetched_at`` before the sum: 64 bits then hold 90 million rows a day."""

_INT32: Final = range(-(2**31), 2**31)
_LATEST_MS: Final = 253_402_300_799_999
"""The end of the year 9999."""

_COLUMNS: Final[dict[str, tuple[ColumnElement[Any], str]]] = {
    name: (cast(column, Text) if kind == "json" else column, kind) for name, column, kind in WIDE
}
_PERSONAL: Final = "destination"

Columns: TypeAlias = Mapping[str, Sequence[Any]]
"""Rows by column, in the order of ``_COLUMNS``; all have the same length."""


@dataclass(frozen=True, slots=True)
class FetchedWindow:
    """Bound creation times, half open; no bounds mean attempts of unknown time.

    An unreadable time counts as unknown, too.
    """

    start: datetime | None
    end: datetime | None


@dataclass(frozen=True, slots=True)
class Mark:
    """Mark a day: a fetch of any row changes it. ``fetched_at`` is the newest (ms)."""

    fetched_at: int
    text: str


Position = tuple[Any, str]
"""Where a read ended: the last row's creation time, as the driver gives it, and SID."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Carry rows as an Arrow table, and the position of the last; None at the end."""

    table: Any
    last: Position | None


def arrow() -> Any:  # noqa: ANN401 - pyarrow has no types
    """Import pyarrow, or raise ``ConfigError`` with the command to install it."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        msg = "Parquet needs pyarrow, which is not installed."
        raise ConfigError(msg, hint="Run: pip install pyarrow") from error
    return pa


def layout(*, destination: bool) -> dict[str, Any]:
    """Name the columns of an export and their kinds; a folder has one layout."""
    columns = [f"{name} {kind}" for name, (_, kind) in _COLUMNS.items()]
    return {"columns": columns, "destination": destination}


def schema(*, destination: bool) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return the Arrow schema of every file."""
    pa = arrow()
    moment = pa.timestamp("ms", tz="UTC")
    kinds = {
        "text": pa.string(), "json": pa.string(), "time": moment, "epoch": moment,
        "flag": pa.bool_(), "converted": pa.bool_(), "count": pa.int32(),
        "money": pa.decimal128(18, 6),
    }  # fmt: skip
    return pa.schema(
        [
            (name, kinds[kind])
            for name, (_, kind) in _COLUMNS.items()
            if destination or name != _PERSONAL
        ]
    )


def marks(
    connection: Connection, window: FetchedWindow, *, destination: bool
) -> dict[str | None, Mark]:
    """Mark each UTC day with attempts; None is the day of unknown times.

    The newest ``fetched_at`` alone would miss a row with a slow answer, so the mark also has their
    sum. ``redact`` changes no ``fetched_at``. An export with destinations therefore counts the
    values that ``redact`` can remove. An export without them holds no such values.
    """
    spelled = dialect(connection)
    day: ColumnElement[Any] = case(
        (_readable(connection), literal_column(spelled.day("attempts.date_created")))
    )
    fetched_at = spelled.whole(attempts.c.fetched_at, _LATEST_MS)
    newest = func.max(fetched_at)
    signs: list[ColumnElement[Any]] = [func.count(), func.sum(fetched_at - _SINCE_MS)]
    tables: Any = attempts
    rules = f"r{_RULES}"
    if destination:
        rules = ""
        tables = attempts.outerjoin(data, data.c.attempt_sid == attempts.c.sid)
        there = [func.count(_COLUMNS[name][0]) for name in privacy.CLEANED]
        signs += [reduce(add, there), func.sum(func.length(cast(data.c.extra, Text)))]
    statement = select(day, newest, *signs).select_from(tables).group_by(day)
    inside = within(connection, attempts.c.date_created, window.start, window.end)
    statement = statement.where(inside)
    return {
        None if found is None else str(found): Mark(
            int(fetched_at), "-".join(str(int(sign or 0)) for sign in (fetched_at, *rest)) + rules
        )
        for found, fetched_at, *rest in connection.execute(statement)
    }


def read(
    connection: Connection,
    window: FetchedWindow,
    after: Position | None,
    *,
    destination: bool,
    limit: int,
) -> Batch:
    """Read the next rows of a window by creation time and SID: at most ``limit``."""
    names = [*_COLUMNS]
    created = dialect(connection).as_stored(attempts.c.date_created)
    place = [case((_readable(connection), created)), attempts.c.sid]
    selected = [_selected(connection, name) for name in names]
    asked = _after(connection, select(*place, *selected), window, after)
    found = connection.execute(asked.limit(limit)).all()
    last: Position | None = None
    if len(found) == limit:
        last = (found[-1][0], found[-1][1])
    values = list(zip(*found, strict=True)) or [()] * (len(place) + len(names))
    columns = dict(zip(names, values[len(place) :], strict=True))
    table = _table(columns if destination else _impersonal(columns), destination=destination)
    return Batch(table, last)


def _after(
    connection: Connection, statement: Select[Any], window: FetchedWindow, after: Position | None
) -> Select[Any]:
    created, sid = attempts.c.date_created, attempts.c.sid
    statement = statement.select_from(attempts.outerjoin(data, data.c.attempt_sid == sid))
    known = _readable(connection)
    if window.start is None and window.end is None:
        unknown = case((known, False), else_=True)
        statement = statement.where(unknown, sid > (after[1] if after else ""))
        return statement.order_by(sid)
    where = [known, within(connection, created, window.start, window.end)]
    if after is not None:
        written = dialect(connection).as_stored(created)
        where += [written >= after[0], or_(written > after[0], sid > after[1])]
    return statement.where(and_(*where)).order_by(created, sid)


def _readable(connection: Connection) -> ColumnElement[bool]:
    known = dialect(connection).readable("attempts.date_created")
    return literal_column(f"({known})", Boolean)


def _selected(connection: Connection, name: str) -> ColumnElement[Any]:
    column, kind = _COLUMNS[name]
    if kind == "money":
        # Whole millionths, exact on every database, and an array of them costs no Decimal each.
        spelled = dialect(connection).millionths("attempts.price_amount")
        return literal_column(spelled, BigInteger)
    if kind == "epoch":
        return dialect(connection).whole(column, _LATEST_MS)
    if kind == "time":
        return dialect(connection).if_readable(column, f"attempts.{name}")
    return column


def _table(columns: Columns, *, destination: bool) -> Any:  # noqa: ANN401 - pyarrow has no types
    pa, wanted = arrow(), schema(destination=destination)
    arrays = []
    for field in wanted:
        column = columns[field.name]
        kind = _COLUMNS[field.name][1]
        if kind == "money":
            arrays.append(_money(column))
        elif kind == "epoch":
            arrays.append(pa.array(column, pa.int64()).cast(field.type))
        else:
            made = _MADE.get(kind)
            found = column if made is None else [made(value) for value in column]
            arrays.append(_array(pa, kind, found, field.type))
    return pa.table(arrays, schema=wanted)


def _array(pa: Any, kind: str, values: Sequence[Any], asked: Any) -> Any:  # noqa: ANN401 - as above
    """Make an array; a value of a wrong type, possible in SQLite, counts as unknown."""
    wanted = _TYPES[kind]
    if not {*map(type, values)} <= {wanted, NoneType}:
        values = [_fitting(value, wanted) for value in values]
    return pa.array(values, asked)


_TYPES: Final = {
    "text": str, "json": str, "time": datetime, "count": int, "flag": bool, "converted": bool,
}  # fmt: skip


def _fitting(value: Any, wanted: type) -> Any:  # noqa: ANN401 - as above
    if value is None or type(value) is wanted:
        return value
    if wanted is not str:
        return None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


_MADE: Final[dict[str, Callable[[Any], Any]]] = {
    "converted": lambda status: status == "converted",
    "count": lambda count: count if type(count) is int and count in _INT32 else None,
    "flag": bool,
}


def _money(millionths: Sequence[int | None]) -> Any:  # noqa: ANN401 - pyarrow has no types
    pa = arrow()
    import pyarrow.compute as pc  # noqa: PLC0415 - as above

    whole = pa.array(millionths, pa.int64()).cast(pa.decimal128(19, 0))
    millionth = pa.scalar(Decimal("0.000001"), pa.decimal128(6, 6))
    return pc.multiply(whole, millionth).cast(pa.decimal128(18, 6))


def _impersonal(columns: Columns) -> Columns:
    """Keep only harmless values, by the rules of ``redact``."""
    kept = dict(columns)
    for name in privacy.SHAPES:
        # Check each distinct value once.
        harmless = {value: _is_harmless(name, value) for value in set(columns[name])}
        kept[name] = [value if harmless[value] else None for value in columns[name]]
    pairs = zip(columns["destination_prefix"], columns["destination"], strict=True)
    kept["destination_prefix"] = [privacy.prefix(*pair) for pair in pairs]
    kept["url"] = [privacy.url(*pair) for pair in zip(columns["url"], columns["sid"], strict=True)]
    kept["extra"] = [privacy.extra_text(text) for text in columns["extra"]]
    return kept


def _is_harmless(name: str, value: object) -> bool:
    if name == "price_amount" and isinstance(value, int):
        value = Decimal(value).scaleb(-6)
    return privacy.harmless(name, value)


def joined(tables: Sequence[Any]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Join tables into one row group."""
    return arrow().concat_tables(tables).combine_chunks()
