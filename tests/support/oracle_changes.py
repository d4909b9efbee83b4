"""Compute what became known when in plain Python: the ledger of first sights and changes."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from tests.support.oracle import SIXTH, SLICE, Answer, Asked, add, grouped
from tests.support.report_world import Change, Made, World


@dataclass(frozen=True)
class Line:
    """Hold one line of the ledger, and the slice that it belongs to."""

    row: Made
    channel: str | None
    currency: str | None
    seen_ms: int
    field: str
    old: str | None = None
    new: str | None = None
    attempts: int = 0
    price: Decimal | None = None
    converted: int = 0

    @property
    def service_sid(self) -> str | None:
        """Give what no attempt changes."""
        return self.row.service_sid

    @property
    def country(self) -> str | None:
        """Give what no attempt changes."""
        return self.row.country

    @property
    def seen_at(self) -> datetime:
        """Give the moment at which it was seen."""
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self.seen_ms)


def changes(world: World, asked: Asked) -> Answer:
    """List first sights, changes and moves."""
    return [
        {
            "seen_at": line.seen_at,
            "sid": line.row.sid,
            "day": asked.day(line.row.date_created),
            "date_created": line.row.date_created,
            "service_sid": line.row.service_sid,
            "channel": line.channel,
            "country": line.row.country,
            "field": line.field,
            "old_value": line.old,
            "new_value": line.new,
            "currency": line.currency,
            "price_change": line.price,
            "converted_change": line.converted,
            "attempts_change": line.attempts,
        }
        for line in ledger(world, asked)
    ]


def changes_daily(world: World, asked: Asked) -> Answer:
    """Add the ledger up by the attempt's day and the day it was seen."""

    def key(line: Line) -> dict[str, Any]:
        keys = {name: value for name, value in asked.slice(line, line.row.date_created).items()
                if name in SLICE} | {"currency": line.currency}  # fmt: skip
        return keys | ({"seen_day": asked.day(line.seen_at)} if asked.kept(["seen_day"]) else {})

    return [
        keys
        | {
            "attempts": sum(line.attempts for line in lines),
            "changes": sum(line.field not in _MADE for line in lines),
            "price_changes": sum(line.field == "price_amount" for line in lines),
            "conversion_changes": sum(line.field == "conversion_status" for line in lines),
            "price_change": add(line.price for line in lines),
            "converted_change": sum(line.converted for line in lines),
        }
        for keys, lines in grouped(ledger(world, asked), key)
    ]


_MADE: Final = {"first_seen", "left", "entered"}
_TOLD: Final = ("channel", "price_currency", "price_amount", "conversion_status")


def ledger(world: World, asked: Asked) -> list[Line]:
    """Live through every attempt's past: what it adds to which slice, and when."""
    by_sid: dict[str, list[Change]] = defaultdict(list)
    for change in sorted(world.changes, key=lambda change: change.seen_at):
        by_sid[change.attempt_sid].append(change)
    lines = (
        line
        for row in world.rows
        if asked.holds(row.date_created)
        for line in _lived(row, by_sid[row.sid])
    )
    return [line for line in lines if asked.wants(line)]


def _lived(row: Made, seen: list[Change]) -> Iterator[Line]:
    known = {name: _first(seen, name, getattr(row, name)) for name in _TOLD}
    yield Line(
        row, known["channel"], known["price_currency"], row.first_fetched_at, "first_seen",
        attempts=1, price=_money(known["price_currency"], known["price_amount"]),
        converted=int(known["conversion_status"] == "converted"),
    )  # fmt: skip
    for at in sorted({change.seen_at for change in seen}):
        news = {change.field: change for change in seen if change.seen_at == at}
        old = dict(known)
        known |= {name: change.new_value for name, change in news.items() if name in _TOLD}
        channel, currency = known["channel"], known["price_currency"]
        if {"channel", "price_currency"} & news.keys():
            price, won = old["price_amount"], int(old["conversion_status"] == "converted")
            yield Line(
                row, old["channel"], old["price_currency"], at, "left", attempts=-1,
                price=_money(old["price_currency"], price, -1), converted=-won,
            )  # fmt: skip
            yield Line(
                row, channel, currency, at, "entered", attempts=1,
                price=_money(currency, price), converted=won,
            )  # fmt: skip
        for name, change in news.items():
            moved, turned = None, 0
            if name == "price_amount" and currency is not None:
                moved = (Decimal(change.new_value or 0) - Decimal(change.old_value or 0)).quantize(
                    SIXTH
                )
            if name == "conversion_status":
                turned = (change.new_value == "converted") - (change.old_value == "converted")
            yield Line(
                row, channel, currency, at, name, change.old_value, change.new_value,
                price=moved, converted=turned,
            )  # fmt: skip


def _first(lines: list[Change], field: str, today: Any) -> Any:
    return next((line.old_value for line in lines if line.field == field), today)


def _money(currency: str | None, amount: Any, sign: int = 1) -> Decimal | None:
    if amount is None or currency is None:
        return None
    return sign * Decimal(amount).quantize(SIXTH)
