"""Write a report's rows as CSV, JSON or Parquet.

CSV is RFC 4180 in UTF-8. Text that looks like a formula gets an apostrophe, unless it is
a plain number.
JSON is a list of objects. Money is a string, because JSON numbers are not exact. Counts, rates and
ratios are numbers.
In every format moments are ISO 8601 with their offset, days are ISO, and rates are fractions of
one. An unknown value is an empty cell or null.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from typing import IO, Any, Final

from etl.reports.model import Column, ColumnKind
from etl.reports.query import Rows, Value

_FORMULA: Final = frozenset("=+-@\u2010\u2012\u2013\u2014\u2015\u2212")
"""Signs that begin a formula, and dashes that a spreadsheet may read as a minus."""
_INDENT: Final = ("\t", "\r", "\n")
_UNSEEN: Final = frozenset(("Cc", "Cf", "Cn", "Co", "Cs", "Me", "Mn", "Zl", "Zp", "Zs"))
"""Categories of characters that are invisible by themselves."""
_BLANK: Final = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and a symbol that look blank."""
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)
_BATCH: Final = 10_000


def write_csv(result: Rows, stream: IO[bytes]) -> None:
    """Write a header and the rows, lines ending in CR LF."""
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(column.name for column in result.columns)
    for row in result.rows:
        writer.writerow([_cell(value) for value in row])
    text.detach()


def _cell(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return safe(value)
    return _iso(value) if isinstance(value, date) else str(value)


def safe(text: str) -> str:
    """Keep a spreadsheet from reading a text as a formula.

    A spreadsheet may skip invisible characters before the sign. It may also read a full-width,
    small or raised sign as the plain one (Unicode's NFKC).
    """
    if text[:1].isalnum() and text[0].isascii():
        return text
    sign = unicodedata.normalize("NFKC", _first_seen(text))[:1]
    if (sign in _FORMULA or text.startswith(_INDENT)) and not _NUMBER.fullmatch(text):
        return "'" + text
    return text


def _first_seen(text: str) -> str:
    for char in text:
        if unicodedata.category(char) not in _UNSEEN and char not in _BLANK:
            return char
    return ""


def _iso(value: date) -> str:
    text = value.isoformat()
    return text.replace("+00:00", "Z") if isinstance(value, datetime) else text


def write_json(result: Rows, stream: IO[bytes]) -> None:
    """Write a list of objects, one a line."""
    names = [column.name for column in result.columns]
    kinds = [column.kind for column in result.columns]
    opening = "["
    for row in result.rows:
        found = dict(zip(names, map(_json, kinds, row), strict=True))
        stream.write(f"{opening}\n{json.dumps(found, ensure_ascii=False)}".encode())
        opening = ","
    stream.write(b"[]\n" if opening == "[" else b"\n]\n")


def _json(kind: ColumnKind, value: Value) -> Any:  # noqa: ANN401 - what json takes
    if isinstance(value, Decimal):
        return str(value) if kind is ColumnKind.MONEY else float(value)
    return _iso(value) if isinstance(value, date) else value


def write_parquet(result: Rows, stream: IO[bytes]) -> None:
    """Write Parquet with exact types: decimals of six places, UTC timestamps, dates.

    Raises ``ConfigError`` when pyarrow is not installed.
    """
    from etl.export.rows import arrow  # noqa: PLC0415 - other formats need none of it

    pa = arrow()
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    schema = pa.schema([(column.name, _arrow(pa, column)) for column in result.columns])
    with parquet.ParquetWriter(stream, schema) as writer:
        while batch := list(islice(result.rows, _BATCH)):
            arrays = [
                pa.array(values, type=field.type)
                for values, field in zip(zip(*batch, strict=True), schema, strict=True)
            ]
            writer.write_table(pa.table(arrays, schema=schema))


def _arrow(pa: Any, column: Column) -> Any:  # noqa: ANN401 - pyarrow has no types
    return {
        ColumnKind.TEXT: pa.string(),
        ColumnKind.COUNT: pa.int64(),
        ColumnKind.SECONDS: pa.int64(),
        ColumnKind.RATE: pa.decimal128(38, 6),
        ColumnKind.RATIO: pa.decimal128(38, 6),
        ColumnKind.MONEY: pa.decimal128(38, 6),
        ColumnKind.TIME: pa.timestamp("us", tz="UTC"),
        ColumnKind.DAY: pa.date32(),
        ColumnKind.FLAG: pa.bool_(),
    }[column.kind]


WRITERS: Final[dict[str, Callable[[Rows, IO[bytes]], None]]] = {
    "csv": write_csv,
    "json": write_json,
    "parquet": write_parquet,
}
"""The formats for files and programs; a table is for people."""
