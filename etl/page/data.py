"""Collect what the page shows: the reports' own SQL, read as a stream into cubes.

The database adds up; what comes here is a row for each day, service, channel and country (and
carrier, error code, or number of the attempt), and each is added to a cube of bounded size. Of
names, the most used are kept and the others are counted together, as `other`.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from etl.reports.query import Question, Rows, ask

MOST_NAMES: Final[Mapping[str, int]] = {
    "service": 24,
    "channel": 12,
    "country": 120,
    "currency": 65_535,
    "carrier": 300,
    "error": 60,
}
"""How many names of each kind are shown apart; the others are added up."""

MAIN_CELLS: Final = 450_000
"""What the cube of conversion and cost may hold: a busy account's year by days."""

SMALL_CELLS: Final = 300_000
"""What the cubes of verifications, carriers, errors and retries may hold each."""

MAIN_SIZE: Final = 3_300_000
SMALL_SIZES: Final[Mapping[str, int]] = {
    "carrier": 430_000, "error": 250_000, "step": 400_000, "success": 300_000,
}  # fmt: skip
"""Characters that they may fill: with the program, less than 5 MB together."""

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
"""The count that a count is nearly all of, or a part of."""
SUCCESS_PARTS: Final[Mapping[str, str]] = {
    "verifications": "attempts", "converted": "verifications",
}  # fmt: skip
AMOUNTS: Final[Mapping[str, str]] = {"price": "priced", "wasted": "priced", "fee": "charged"}
"""The count that an amount is divided by, to pack it."""

_COLUMNS: Final[Mapping[str, str]] = {
    "carrier": "carrier", "error": "error_code", "step": "attempt_no",
}  # fmt: skip
_EPOCH: Final = date(1970, 1, 1)


class Names:
    """Give each name a number: the most used their own, the others one together.

    What may be somebody's number or address is among the others: pages are passed on.
    """

    def __init__(self, used: Mapping[str | None, int], most: int, column: str) -> None:
        """Keep the `most` used names of a column, in the order of use."""
        ranked = sorted(used.items(), key=lambda item: (-item[1], item[0] or ""))
        self.names = [name for name, _ in ranked if privacy.harmless(column, name)][:most]
        self.has_other = len(ranked) > len(self.names)
        self._codes = {name: code for code, name in enumerate(self.names)}

    def code(self, name: str | None) -> int:
        """Give a name's number; the one past the last is that of all others."""
        return self._codes.get(name, len(self.names))

    def as_json(self) -> dict[str, Any]:
        """Give the list, and whether one more number stands for all others."""
        return {"names": self.names, "other": self.has_other}


@dataclass(frozen=True, slots=True)
class PageData:
    """Hold everything that the page shows."""

    made_at: datetime
    first_day: int
    last_day: int
    names: Mapping[str, Names]
    cubes: Mapping[str, Mapping[str, Any]]
    queue: Sequence[tuple[int, str, int]]
    freshness: Sequence[Mapping[str, Any]]
    question: Question


def collect(connection: Connection, question: Question | None = None) -> PageData:
    """Read the reports into cubes, within one transaction that writes nothing."""
    question = question or Question()
    collector = _Collector(connection, question)
    with _rows(connection, "freshness", Question(as_of=question.as_of)) as (columns, answer):
        freshness = [dict(zip(columns, row, strict=True)) for row in answer.rows]
    return PageData(
        made_at=datetime.fromtimestamp(time.time(), UTC),
        first_day=collector.first,
        last_day=collector.last,
        cubes=collector.cubes(),
        names=collector.names,
        # It keeps no history.
        queue=queue_days(connection) if question.as_of is None else (),
        freshness=freshness,
        question=question,
    )


def days(day: date) -> int:
    """Count the days since 1970."""
    return (day - _EPOCH).days


@contextmanager
def _rows(
    connection: Connection, name: str, question: Question
) -> Iterator[tuple[list[str], Rows]]:
    report = cast("Report", find(name))
    with ask(connection, report, question) as answer:
        yield [column.name for column in answer.columns], answer


class _Collector:
    """Read one report after the other."""

    def __init__(self, connection: Connection, question: Question) -> None:
        self._connection = connection
        self._question = question
        self.first, self.last = self._bounds()
        self._calendars: list[Calendar] = ladder(self.first, self.last)
        self.names = {
            **self._rank(
                "conversion-daily", dict(zip(("service", "channel", "country"), SLICE, strict=True))
            ),
            **self._rank("cost-daily", {"currency": "currency"}),
            **self._rank("carrier-performance", {"carrier": "carrier"}),
            **self._rank("delivery-errors", {"error": "error_code"}),
        }

    def cubes(self) -> dict[str, dict[str, Any]]:
        """Give the cubes, packed, by the page's names of them; one at a time is in memory."""
        return {
            "main": self._main(),
            "success": self._success(),
            "carriers": self._small("carrier-performance", "carrier", CARRIER_MEASURES),
            "errors": self._small("delivery-errors", "error", ERROR_MEASURES),
            "funnel": self._small("retry-funnel", "step", STEP_MEASURES),
        }

    def _bounds(self) -> tuple[int, int]:
        """Find the first and the last day; both come from a report of days only."""
        first = last = None
        with self._each("conversion-daily", ("day",)) as (columns, answer):
            at = columns.index("day")
            for row in answer.rows:
                if row[at] is not None:
                    day = days(cast("date", row[at]))
                    first = day if first is None else min(first, day)
                    last = day if last is None else max(last, day)
        today = days(datetime.now(UTC).date())
        return (today if first is None else first), (today if last is None else last)

    @contextmanager
    def _each(
        self, name: str, by: tuple[str, ...] | None = None
    ) -> Iterator[tuple[list[str], Rows]]:
        asked = self._question
        with _rows(self._connection, name, replace(asked, by=by)) as found:
            yield found

    def _rank(self, report: str, kinds: Mapping[str, str]) -> dict[str, Names]:
        """Rank the values of some columns by the attempts that have them."""
        used: dict[str, Counter[str | None]] = {kind: Counter() for kind in kinds}
        keys = tuple(column for column in kinds.values() if column in SLICE)
        with self._each(report, keys) as (columns, answer):
            places = {kind: columns.index(column) for kind, column in kinds.items()}
            count = columns.index("attempts")
            for row in answer.rows:
                for kind, place in places.items():
                    used[kind][cast("str | None", row[place])] += cast("int", row[count])
        return {
            kind: Names(
                used[kind], MOST_NAMES[kind], "price_currency" if kind == "currency" else column
            )
            for kind, column in kinds.items()
        }

    def _cube(
        self, keys: Sequence[str], measures: Sequence[str], limit: int, fold: Fold | None = None
    ) -> Grid:
        return Grid(keys, measures, calendars=self._calendars, limit=limit, fold=fold)

    def _fold(self, name: str) -> Fold:
        """Fold late attempts into "and later", rare carriers and errors into "other"."""
        if name == "step":
            return Fold(LAST_STEP)
        count = len(self.names[name].names)
        return Fold(count, into=count)

    def _dated(self, name: str) -> Iterator[tuple[int, tuple[int, ...], dict[str, Any]]]:
        """Give each row of a report: its day, the numbers of its slice, and all of it by name.

        Attempts of unknown time are on no day; `freshness` counts them.
        """
        with self._each(name) as (columns, answer):
            for values in answer.rows:
                row: dict[str, Any] = dict(zip(columns, values, strict=True))
                if row["day"] is not None:
                    keys = tuple(
                        self.names[kind].code(row[column])
                        for kind, column in zip(
                            ("service", "channel", "country"), SLICE, strict=True
                        )
                    )
                    yield days(row["day"]), keys, row

    def _main(self) -> dict[str, Any]:
        """Hold conversion and cost in one cube, since most cells have one currency.

        Attempts, conversions and what is not final stand with the most used currency, whatever
        theirs is: they are only ever read over all currencies.
        """
        cube = self._cube(MAIN_KEYS, MAIN_MEASURES, MAIN_CELLS)
        nothing = (0,) * (len(MAIN_MEASURES) - 3)
        for day, keys, row in self._dated("conversion-daily"):
            counts = (row["attempts"], row["converted"], row["not_final"])
            cube.add(day, (0, *keys), (*counts, *nothing))
        for day, keys, row in self._dated("cost-daily"):
            if row["currency"] is None and not row["conversions"]:
                continue
            counts = (row["priced"], row["conversions"], row["conversions"] - row["without_fee"])
            amounts = (row["total"], row["spent_on_unconverted"], row["fee"])
            money = (number for amount in amounts for number in _split(amount))
            code = self.names["currency"].code(row["currency"])
            cube.add(day, (code, *keys), (0, 0, 0, *counts, *money))
        return packed(cube, most=MAIN_SIZE, parts=PARTS, amounts=AMOUNTS)

    def _success(self) -> dict[str, Any]:
        """Count verifications where their first attempts are."""
        cube = self._cube(SLICE_KEYS, SUCCESS_MEASURES, SMALL_CELLS)
        for day, keys, row in self._dated("verification-success-daily"):
            cube.add(day, keys, [row[measure] for measure in SUCCESS_MEASURES])
        return packed(cube, most=SMALL_SIZES["success"], parts=SUCCESS_PARTS)

    def _small(self, report: str, name: str, measures: Sequence[str]) -> dict[str, Any]:
        keys = (name, "service", "channel", "country")
        cube = self._cube(keys, measures, SMALL_CELLS, self._fold(name))
        column = _COLUMNS[name]
        for day, slice_, row in self._dated(report):
            code = row[column] if name == "step" else self.names[name].code(row[column])
            cube.add(day, (code, *slice_), [row[measure] for measure in measures])
        return packed(cube, most=SMALL_SIZES[name], parts=PARTS)


def _split(amount: Decimal | None) -> tuple[int, int]:
    """Give an amount's millionths beside its whole units, and those units: each sums safely."""
    units, millionths = divmod(int((amount or Decimal(0)) * MILLION), MILLION)
    return millionths, units
