"""Compute the page's tables from the rows, in plain Python."""

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from etl.reports.error_codes import MEANINGS
from tests.support.report_world import Made, World

DASH: Final = "\N{EN DASH}"
NAMES: Final = {
    "US": "United States (US)", "CO": "Colombia (CO)", "BR": "Brazil (BR)",
    "GB": "United Kingdom (GB)", "sms": "SMS", "call": "Call", "whatsapp": "WhatsApp",
    "email": "E-mail", "VA" + "1" * 32: "VA111111…1111", "VA" + "2" * 32: "VA222222…2222",
}  # fmt: skip
DELIVERED: Final = {"delivered", "read", "completed"}
UNDELIVERED: Final = {
    "undelivered", "partially_delivered", "failed", "canceled", "busy", "no-answer",
}  # fmt: skip
LAST_STEP: Final = 6
Rows = list[list[str]]


@dataclass(frozen=True)
class Asked:
    """Hold the filters."""

    since: date
    until: date
    service: AbstractSet[str | None] | None = None
    channel: AbstractSet[str | None] | None = None
    country: AbstractSet[str | None] | None = None

    def takes(self, row: Made, day: date | None) -> bool:
        """Say whether an attempt counts, on the day that it is counted on."""
        return (
            day is not None
            and self.since <= day <= self.until
            and (self.service is None or row.service_sid in self.service)
            and (self.channel is None or row.channel in self.channel)
            and (self.country is None or row.country in self.country)
        )


def percent(part: int, whole: int) -> str:
    """Write a rate."""
    if not whole:
        return DASH
    tenth = (Decimal(part) * 100 / whole).quantize(Decimal("0.1"), ROUND_HALF_UP)
    return f"{tenth}%"


def amounts(values: Sequence[Decimal | None], usual: int, least: Decimal) -> list[str]:
    """Write a column of amounts: with as many decimals each, six where one needs them."""
    small = any(value and abs(value) < least for value in values)
    return [DASH if value is None else _fixed(value, 6 if small else usual) for value in values]


def each(value: Decimal | None, by: int) -> Decimal | None:
    """Divide an amount."""
    return None if value is None or not by else value / by


def _written(rows: list[list[Any]], places: Iterable[int], usual: int, least: str) -> Rows:
    """Write some columns of a table as amounts."""
    for place in places:
        column = amounts([row[place] for row in rows], usual, Decimal(least))
        for row, text in zip(rows, column, strict=True):
            row[place] = text
    return rows


def _fixed(value: Decimal, places: int) -> str:
    found = value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    return f"{found:,.{places}f}" if found else f"{abs(found):.{places}f}"


def day_of(row: Made) -> date | None:
    """Give the UTC day of an attempt."""
    return None if row.date_created is None else row.date_created.astimezone(UTC).date()


def name(kind: str, value: str | None) -> str:
    """Name a value as the page does."""
    return f"No {kind}" if value is None else NAMES.get(value, value)


def _success(verifications: Sequence[Sequence[Made]]) -> list[str]:
    count = len(verifications)
    won = sum(any(row.conversion_status == "converted" for row in rows) for rows in verifications)
    attempts = sum(map(len, verifications))
    several = sum(len(rows) > 1 for rows in verifications)
    openly = sum(any(not row.is_final for row in rows) for rows in verifications)
    each_ = (Decimal(attempts) / count).quantize(Decimal("0.01"), ROUND_HALF_UP) if count else DASH
    return [
        f"{count:,}", f"{won:,}", f"{count - won:,}", percent(won, count), str(each_),
        f"{several:,}", f"{openly:,}",
    ]  # fmt: skip


class Truth:
    """Know what every table reads."""

    def __init__(self, world: World, asked: Asked) -> None:
        self._world = world
        self._asked = asked
        self._rows = [row for row in world.rows if asked.takes(row, day_of(row))]
        self._paid = self._conversions()

    def tables(self) -> dict[str, Rows]:
        """Give every table; rows in any order but their first cells."""
        return {
            "conversion": self._by_day(self._conversion),
            "success": self._success_by_day(),
            "success-channel": self._success_by_channel(),
            "cost": self._cost_by_day(),
            "channel": self._split("channel", lambda row: row.channel),
            "country": self._split("country", lambda row: row.country),
            "service": self._split("service", lambda row: row.service_sid),
            "each-channel": self._each("channel", lambda row: row.channel),
            "each-country": self._each("country", lambda row: row.country),
            "carriers": self._carriers(),
            "errors": self._errors(),
            "funnel": self._funnel(),
            "freshness": self._by_day(self._freshness),
        }

    def _conversions(self) -> set[str]:
        """Find the attempts that are paid for: of one verification, the first converted one."""
        paid: dict[str, tuple[bool, datetime | None, str]] = {}
        for row in self._world.rows:
            if row.conversion_status == "converted":
                key = row.verification_sid or row.sid
                at = row.date_created
                place = (at is None, at, row.sid)
                paid[key] = min(paid.get(key, place), place)
        return {sid for _, _, sid in paid.values()}

    def _days(self) -> list[date]:
        first, last = self._asked.since.toordinal(), self._asked.until.toordinal()
        return [date.fromordinal(number) for number in range(first, last + 1)]

    def _by_day(self, cells: Callable[[Sequence[Made]], list[str]]) -> Rows:
        return [
            [day.isoformat(), *cells([row for row in self._rows if day_of(row) == day])]
            for day in self._days()
        ]

    @staticmethod
    def _conversion(rows: Sequence[Made]) -> list[str]:
        converted = sum(row.conversion_status == "converted" for row in rows)
        return [
            f"{len(rows):,}", f"{converted:,}", f"{len(rows) - converted:,}",
            percent(converted, len(rows)), f"{sum(not row.is_final for row in rows):,}",
        ]  # fmt: skip

    @staticmethod
    def _freshness(rows: Sequence[Made]) -> list[str]:
        late = sum(not row.is_final for row in rows)
        unpriced = sum(row.price_amount is None or row.price_currency is None for row in rows)
        return [
            f"{len(rows):,}", f"{late:,}", percent(late, len(rows)), f"{unpriced:,}",
            percent(unpriced, len(rows)),
        ]  # fmt: skip

    def _split(self, kind: str, key: Callable[[Made], str | None]) -> Rows:
        return [
            [name(kind, value), *self._conversion([row for row in self._rows if key(row) == value])]
            for value in {key(row) for row in self._rows}
        ]

    def _fee(self, row: Made) -> Decimal | None:
        day = day_of(row)
        fitting = [
            fee
            for fee in self._world.fees
            if day is not None
            and fee.currency == row.price_currency
            and fee.valid_from <= day
            and fee.channel in {"", row.channel}
            and fee.country in {"", row.country}
        ]
        best = max(
            fitting, key=lambda f: (f.channel != "", f.country != "", f.valid_from), default=None
        )
        return None if best is None else best.amount

    def _costs(self, rows: Iterable[Made]) -> dict[str, Any] | None:
        """Add up the cost of attempts of one currency; None where there is nothing to say."""
        rows = list(rows)
        prices = [row.price_amount for row in rows if row.price_amount is not None]
        paid = [row for row in rows if row.sid in self._paid]
        if not prices and not paid:
            return None
        fees = [fee for fee in map(self._fee, paid) if fee is not None]
        price, fee = sum(prices, Decimal()), sum(fees, Decimal())
        lost = (
            row.price_amount or Decimal() for row in rows if row.conversion_status != "converted"
        )
        return {
            "priced": len(prices), "paid": len(paid), "charged": len(fees), "price": price,
            "wasted": sum(lost, Decimal()),
            "fee": fee if fees or not paid else None,
            "both": price + fee if len(fees) == len(paid) else None,
        }  # fmt: skip

    def _cost_by_day(self) -> Rows:
        found: list[list[Any]] = []
        for day in self._days():
            for currency in ("USD", "EUR"):
                cost = self._costs(
                    r for r in self._rows if day_of(r) == day and r.price_currency == currency
                )
                if cost:
                    values = [cost["price"], cost["wasted"], cost["fee"], cost["both"]]
                    if self._fees_unknown(currency):
                        values[2:] = None, None
                    found.append([day.isoformat(), currency, f"{cost['priced']:,}", *values])
        return _written(found, range(3, 7), 2, "1")

    def _fees_unknown(self, currency: str) -> bool:
        """Say whether no fee of the selection is known, and one would be due."""
        cost = self._costs(row for row in self._rows if row.price_currency == currency)
        return bool(cost and cost["paid"] and not cost["charged"])

    def _each(self, kind: str, key: Callable[[Made], str | None]) -> Rows:
        found: list[list[Any]] = []
        for currency in ("USD", "EUR"):
            for value in {key(row) for row in self._rows}:
                here = [row for row in self._rows if key(row) == value]
                cost = self._costs(row for row in here if row.price_currency == currency)
                if cost:
                    found.append([
                        currency, name(kind, value), f"{cost['paid']:,}",
                        each(cost["price"], cost["paid"]), each(cost["fee"], cost["charged"]),
                        each(cost["both"], cost["paid"]),
                        percent(sum(not row.is_final for row in here), len(here)),
                    ])  # fmt: skip
        return _written(found, range(3, 6), 4, "0.01")

    def _carriers(self) -> Rows:
        found = []
        for carrier, country in {(row.carrier, row.country) for row in self._rows}:
            rows = [r for r in self._rows if (r.carrier, r.country) == (carrier, country)]
            counts = self._conversion(rows)
            ends = [row.message_status or row.call_status for row in rows]
            won = sum(end in DELIVERED for end in ends)
            lost = sum(end in UNDELIVERED for end in ends)
            found.append([
                name("carrier", carrier), country or DASH, counts[0], counts[1], counts[3],
                f"{won:,}", f"{lost:,}", percent(won, won + lost), counts[4],
            ])  # fmt: skip
        return found

    def _errors(self) -> Rows:
        def failed(row: Made) -> bool:
            return (row.message_status or row.call_status) in UNDELIVERED

        failures = [row for row in self._rows if row.error_code is not None or failed(row)]
        found = []
        for code in {row.error_code for row in failures}:
            rows = [row for row in failures if row.error_code == code]
            won = sum(row.conversion_status == "converted" for row in rows)
            found.append([
                name("code", code), MEANINGS.get(code or "", DASH), f"{len(rows):,}",
                percent(len(rows), len(self._rows)), f"{sum(map(failed, rows)):,}", f"{won:,}",
                f"{sum(not row.is_final for row in rows):,}",
            ])  # fmt: skip
        return found

    def _verifications(self) -> list[list[Made]]:
        """Give the attempts of each verification, in order."""
        whole: dict[str, list[Made]] = {}
        for row in self._world.rows:
            if row.verification_sid:
                whole.setdefault(row.verification_sid, []).append(row)
        for rows in whole.values():
            rows.sort(key=lambda r: (r.date_created is None, r.date_created or 0, r.sid))
        return list(whole.values())

    def _begun(self) -> list[list[Made]]:
        """Give the verifications whose first attempt is asked for."""
        return [
            rows for rows in self._verifications() if self._asked.takes(rows[0], day_of(rows[0]))
        ]

    def _success_by_day(self) -> Rows:
        begun = self._begun()
        return [
            [day.isoformat(), *_success([rows for rows in begun if day_of(rows[0]) == day])]
            for day in self._days()
        ] if begun else []  # fmt: skip

    def _success_by_channel(self) -> Rows:
        begun = self._begun()
        return [
            [
                name("channel", channel),
                *_success([rows for rows in begun if rows[0].channel == channel]),
            ]
            for channel in {rows[0].channel for rows in begun}
        ]

    def _funnel(self) -> Rows:
        steps: dict[int, list[tuple[Made, bool]]] = {}
        for rows in self._verifications():
            first = min((day for row in rows if (day := day_of(row))), default=None)
            for number, row in enumerate(rows, 1):
                if self._asked.takes(row, first):
                    steps.setdefault(min(number, LAST_STEP), []).append((row, number == len(rows)))
        return [self._step(number, taken) for number, taken in steps.items()]

    @staticmethod
    def _step(number: int, taken: Sequence[tuple[Made, bool]]) -> list[str]:
        count = len(taken)
        won = sum(row.conversion_status == "converted" for row, _ in taken)
        left = sum(row.conversion_status != "converted" and last for row, last in taken)
        label = f"Attempt {number}" if number < LAST_STEP else f"Attempt {LAST_STEP} and later"
        return [
            label, f"{count:,}", f"{won:,}", f"{count - won - left:,}", f"{left:,}",
            percent(won, count), percent(left, count),
            f"{sum(not row.is_final for row, _ in taken):,}",
        ]  # fmt: skip
