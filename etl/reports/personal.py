"""Leave personal data out of a report's rows, by the rules of ``redact`` and the export."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from etl import privacy
from etl.reports.query import Row, Rows, Value

PERSONAL: Final = "destination"
"""The column of numbers and addresses."""


def impersonal(answer: Rows) -> Rows:
    """Leave out the destination, and each value in which one may stand.

    A report without destinations stays as it is.
    """
    names = [column.name for column in answer.columns]
    if PERSONAL not in names:
        return answer
    kept = tuple(column for column in answer.columns if column.name != PERSONAL)

    def without(row: Row) -> Row:
        found = dict(zip(names, row, strict=True))
        return tuple(_kept(column.name, found) for column in kept)

    return replace(answer, columns=kept, rows=map(without, answer.rows))


def _kept(name: str, row: Mapping[str, Value]) -> Value:
    value = row[name]
    if name in privacy.SHAPES:
        return value if privacy.harmless(name, value) else None
    if name == "destination_prefix":
        return value if privacy.prefix(value, row[PERSONAL]) else None
    if name == "url":
        return value if privacy.url(value, str(row["sid"])) else None
    if name == "extra":
        return privacy.extra_text(value)
    return value
