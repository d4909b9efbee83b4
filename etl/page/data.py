"""Collect the page's data: the reports' own SQL, read as a stream into grids.

The database adds up. It sends one row for each day, service, channel and country. Some reports also
split by carrier, error code or number of the attempt. Each row goes into a grid of bounded size.
The most used names are kept. All others are counted together as `other`.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, cast

from sqlalchemy import Connection

from etl import privacy
from etl.page.grid import MILLION, Calendar, Fold, Grid, ladder
from etl.page.pack import packed
from etl.page.queue_days import queue_days
from etl.reports import Report, find
from etl.reports.query import Question, ask

MOST_NAMES: Final[Mapping[str, int]] = {
    "service": 24,
    "channel": 12,
    "country": 120,
    "currency": 65_535,
    "carrier": 300,
    "error": 60,
}
"""The most names of each kind; the others are added up."""

MAIN_CELLS: Final = 450_000
"""The most cells of the main grid: a busy account's year by days."""

SMALL_CELLS: Final = 300_000
"""The most cells of each other grid."""

MAIN_SIZE: Final = 3_300_000
SMALL_SIZES: Final[Mapping[str, int]] = {
    "carrier": 430_000, "error": 250_000, "step": 400_000, "success": 300_000,
}  # fmt: skip
"""The most characters of each grid. With the program, the page stays below 5 MB."""

LAST_STEP: Final = 6
"""Sixth and later attempts of a verification are counted together."""

SLICE: Final = ("service_sid", "channel", "country")
SLICE_KEYS: Final = ("service", "channel", "country")
MAIN_KEYS: Final = ("currency", *SLICE_KEYS)
MAIN_MEASURES: Final = (
    "attempts", "converted", "not_final", "priced", "conversions", "charged",
    "price", "price_units", "wasted", "wasted_units", "fee", "fee_units",
)  # fmt: skip
CARRIER_MEASURES: Final = ("attempts", "converted", "delivered", "undelivered", "not_final")
ERROR_MEASURES: Final = ("attempts", "undelivered", "converted", "not_final")
SUCCESS_MEASURES: Final = ("attempts", "verifications", "converted", "retried", "not_final")
STEP_MEASURES: Final = ("attempts", "converted", "went_on", "not_final")
PARTS: Final[Mapping[str, str]] = {
    "priced": "attempts", "conversions": "converted", "charged": "conversions",
    "undelivered": "attempts",
}  # fmt: skip
"""The count that another count is a part of, often nearly all."""
SUCCESS_PARTS: Final[Mapping[str, str]] = {
    "verifications": "attempts", "converted": "verifications",
}  # fmt: skip
AMOUNTS: Final[Mapping[str, str]] = {"price": "priced", "wasted": "priced", "fee": "charged"}
"""The count that divides an amount, to pack it."""

_COLUMNS: Final[Mapping[str, str]] = {
    "carrier": "carrier", "error": "error_code", "step": "attempt_no",
}  # fmt: skip
_EPOCH: Final = date(1970, 1, 1)


class Names:
    """Number the most used names. All others share one number.

    A name that may be a phone number or an address is among the others: pages are passed on.
    """

    def __init__(self, used: Mapping[str | None, int], most: int, column: str) -> None:
        """Keep the `most` used names of a column, in the order of use."""
        ranked = sorted(used.items(), key=lambda item: (-item[1], item[0] or ""))
        self.names = [name for name, _ in ranked if privacy.harmless(column, name)][:most]
        self.has_other = len(ranked) > len(self.names)
        self._codes = {name: code for code, name in enumerate(self.names)}

    def code(self, name: str | None) -> int:
        """Give a name's number; all others have the one after the last."""
        return self._codes.get(name, len(self.names))

    def as_json(self) -> dict[str, Any]:
        """Give the names, and whether there are others."""
        return {"names": self.names, "other": self.has_other}


@dataclass(frozen=True, slots=True)
class PageData:
    """Hold all data of the page."""

    made_at: datetime
    first_day: int
    last_day: int
    names: Mapping[str, Names]
    grids: Mapping[str, Mapping[str, Any]]
    queue: Sequence[tuple[int, str, int]]
    freshness: Sequence[Mapping[str, Any]]
    question: Question


def collect(connection: Connection, question: Question) -> PageData:
    """Read the reports into grids, in one transaction that writes nothing."""
    collector = _Collector(connection, question)
    freshness = _rows(connection, "freshness", Question(as_of=question.as_of))
    return PageData(
        made_at=datetime.fromtimestamp(time.time(), UTC),
        first_day=collector.first,
        last_day=collector.last,
        grids=collector.grids(),
        names=collector.names,
        # The queue keeps no history.
        queue=queue_days(connection) if question.as_of is None else (),
        freshness=list(freshness),
        question=question,
    )


def days(day: date) -> int:
    """Count the days since 1970."""
    return (day - _EPOCH).days


def _rows(connection: Connection, name: str, question: Question) -> Iterator[Mapping[str, Any]]:
    report = cast("Report", find(name))
    with ask(connection, report, question) as result:
        columns = [column.name for column in result.columns]
        for values in result.rows:
            yield dict(zip(columns, values, strict=True))


class _Collector:
    """Read one report after the other."""

    def __init__(self, connection: Connection, question: Question) -> None:
        self._connection = connection
        self._question = question
        self.first, self.last = self._bounds()
        self._calendars: list[Calendar] = ladder(self.first, self.last)
        self.names = {
            **self._rank("conversion-daily", dict(zip(SLICE_KEYS, SLICE, strict=True))),
            **self._rank("cost-daily", {"currency": "currency"}),
            **self._rank("carrier-performance", {"carrier": "carrier"}),
            **self._rank("delivery-errors", {"error": "error_code"}),
        }

    def grids(self) -> dict[str, dict[str, Any]]:
        """Give the packed grids by name, with one at a time in memory."""
        return {
            "main": self._main(),
            "success": self._success(),
            "carriers": self._small("carrier-performance", "carrier", CARRIER_MEASURES),
            "errors": self._small("delivery-errors", "error", ERROR_MEASURES),
            "funnel": self._small("retry-funnel", "step", STEP_MEASURES),
        }

    def _bounds(self) -> tuple[int, int]:
        """Find the first and the last day."""
        known = [row["day"] for row in self._each("conversion-daily", ("day",)) if row["day"]]
        today = datetime.now(UTC).date()
        return days(min(known, default=today)), days(max(known, default=today))

    def _each(self, name: str, by: tuple[str, ...] | None = None) -> Iterator[Mapping[str, Any]]:
        return _rows(self._connection, name, replace(self._question, by=by))

    def _rank(self, report: str, kinds: Mapping[str, str]) -> dict[str, Names]:
        """Rank the values of some columns by their attempts."""
        used: dict[str, Counter[str | None]] = {kind: Counter() for kind in kinds}
        keys = tuple(column for column in kinds.values() if column in SLICE)
        for row in self._each(report, keys):
            for kind, column in kinds.items():
                used[kind][row[column]] += row["attempts"]
        return {
            kind: Names(
                used[kind], MOST_NAMES[kind], "price_currency" if kind == "currency" else column
            )
            for kind, column in kinds.items()
        }

    def _grid(
        self, keys: Sequence[str], measures: Sequence[str], limit: int, fold: Fold | None = None
    ) -> Grid:
        return Grid(keys, measures, calendars=self._calendars, limit=limit, fold=fold)

    def _fold(self, name: str) -> Fold:
        """Fold late attempts into "and later", rare carriers and errors into "other"."""
        if name == "step":
            return Fold(LAST_STEP)
        count = len(self.names[name].names)
        return Fold(count, into=count)

    def _dated(self, name: str) -> Iterator[tuple[int, tuple[int, ...], Mapping[str, Any]]]:
        """Give a report's rows, each with its day and its slice's numbers.

        Attempts of unknown time have no day; `freshness` counts them.
        """
        names = [(column, self.names[kind]) for kind, column in zip(SLICE_KEYS, SLICE, strict=True)]
        for row in self._each(name):
            if row["day"] is not None:
                keys = tuple(known.code(row[column]) for column, known in names)
                yield days(row["day"]), keys, row

    def _main(self) -> dict[str, Any]:
        """Hold conversion and cost in one grid: most cells have one currency.

        Attempts, conversions and `not_final` go to the most used currency. The page reads them
        only over all currencies.
        """
        grid = self._grid(MAIN_KEYS, MAIN_MEASURES, MAIN_CELLS)
        nothing = (0,) * (len(MAIN_MEASURES) - 3)
        for day, keys, row in self._dated("conversion-daily"):
            counts = (row["attempts"], row["converted"], row["not_final"])
            grid.add(day, (0, *keys), (*counts, *nothing))
        for day, keys, row in self._dated("cost-daily"):
            if row["currency"] is None and not row["conversions"]:
                continue
            counts = (row["priced"], row["conversions"], row["conversions"] - row["without_fee"])
            amounts = (row["total"], row["spent_on_unconverted"], row["fee"])
            money = (number for amount in amounts for number in _split(amount))
            code = self.names["currency"].code(row["currency"])
            grid.add(day, (code, *keys), (0, 0, 0, *counts, *money))
        return packed(grid, most=MAIN_SIZE, parts=PARTS, amounts=AMOUNTS)

    def _success(self) -> dict[str, Any]:
        """Count verifications in the slice of their first attempt."""
        grid = self._grid(SLICE_KEYS, SUCCESS_MEASURES, SMALL_CELLS)
        for day, keys, row in self._dated("verification-success-daily"):
            grid.add(day, keys, [row[measure] for measure in SUCCESS_MEASURES])
        return packed(grid, most=SMALL_SIZES["success"], parts=SUCCESS_PARTS)

    def _small(self, report: str, name: str, measures: Sequence[str]) -> dict[str, Any]:
        grid = self._grid((name, *SLICE_KEYS), measures, SMALL_CELLS, self._fold(name))
        column = _COLUMNS[name]
        for day, slice_, row in self._dated(report):
            code = row[column] if name == "step" else self.names[name].code(row[column])
            grid.add(day, (code, *slice_), [row[measure] for measure in measures])
        return packed(grid, most=SMALL_SIZES[name], parts=PARTS)


def _split(amount: Decimal | None) -> tuple[int, int]:
    """Split an amount into millionths and whole units: each sums safely."""
    units, millionths = divmod(int((amount or Decimal(0)) * MILLION), MILLION)
    return millionths, units
