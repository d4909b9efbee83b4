"""Lay an attempt out in one row, as ``v_attempts`` and the export show it."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sqlalchemy import JSON, BigInteger, Boolean, Column, Integer, String, Text

from etl.database.schema import attempt_channel_data, attempts
from etl.database.types import Moment, Money

_FIRST: Final = ("sid", "date_created", "date_updated")
_LAST: Final = ("is_final", "first_fetched_at", "fetched_at", "extra", "url")
_KINDS: Final = {
    String: "text", Text: "text", JSON: "json", Moment: "time", Money: "money", Boolean: "flag",
    Integer: "count", BigInteger: "epoch",
}  # fmt: skip


class Shown(NamedTuple):
    """Name a value of the row, the column it comes from, and its kind.

    ``epoch`` is a time in milliseconds; ``converted`` is a flag made of the status.
    """

    name: str
    column: Column[Any]
    kind: str


def _wide() -> Iterator[Shown]:
    found = {**attempts.c, **attempt_channel_data.c}
    del found["attempt_sid"]
    middle = [name for name in found if name not in {*_FIRST, *_LAST}]
    for name in (*_FIRST, *middle, *_LAST):
        column = found[name]
        yield Shown(name.removeprefix("is_"), column, _KINDS[type(column.type)])
        if name == "conversion_status":
            yield Shown("converted", column, "converted")


WIDE: Final = tuple(_wide())
"""Every column of an attempt, in order; those that the schema gains come before ``final``."""
