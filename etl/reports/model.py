"""Describe a report: its name, its columns and its SELECT."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from etl.sql.scope import Scope, Statement


class ColumnKind(StrEnum):
    """Say what a column holds."""

    TEXT = "text"
    COUNT = "count"
    # A fraction of one, six decimals; NULL for a division by zero.
    RATE = "rate"
    # Any other quotient, six decimals; NULL likewise.
    RATIO = "ratio"
    # An exact amount, six decimals, in the currency of the row's `currency` column.
    MONEY = "money"
    # A moment, UTC.
    TIME = "time"
    # A calendar day, of UTC in the views.
    DAY = "day"
    FLAG = "flag"
    SECONDS = "seconds"


class Filter(StrEnum):
    """Name the options that narrow a report."""

    WINDOW = "window"
    SERVICE = "service"
    CHANNEL = "channel"
    COUNTRY = "country"
    # When something became known, not when the attempt was made.
    SEEN = "seen"


ALL_FILTERS: Final = frozenset(Filter) - {Filter.SEEN}
"""The window, the service, the channel and the country."""


@dataclass(frozen=True, slots=True)
class Column:
    """Name a column, its kind and its meaning.

    A narrow terminal leaves out the highest ``spare`` first, 0 never. A text or a day that tells
    two rows apart stays.
    """

    name: str
    kind: ColumnKind
    meaning: str
    spare: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """Describe one view and the report of the same name.

    ``by``: the keys for `--by`, in the order of the columns; the view keeps them all.
    ``default_by``: the keys that the command keeps by default.
    ``order``: how the command sorts. A leading `-` means descending.
    ``newest``: for a limit, the SELECT of the moment (seconds since 1970) from which on there are
    that many rows. A report sorted newest first then reads nothing older. None: not known.
    """

    name: str
    sentence: str
    counts: str
    columns: tuple[Column, ...]
    select: Callable[[Scope], Statement]
    filters: frozenset[Filter] = ALL_FILTERS
    by: tuple[str, ...] = ()
    default_by: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    newest: Callable[[Scope, int], str | None] = lambda _scope, _count: None
    currency: str = "currency"

    @property
    def view(self) -> str:
        """Give the name of the view."""
        return "v_" + self.name.replace("-", "_")

    def columns_of(self, scope: Scope) -> tuple[Column, ...]:
        """Give the columns without the keys that ``scope`` drops."""
        dropped = set(self.by) - set(scope.kept(self.by))
        return tuple(column for column in self.columns if column.name not in dropped)
