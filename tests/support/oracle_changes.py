"""Compute what became known when in plain Python: the ledger of first sights and changes."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.support.oracle import SIXTH, SLICE, Answer, Asked, add, grouped
from tests.support.report_world import Change, Made, World


def changes(world: World, asked: Asked) -> Answer:
    """List first sights and changes."""
    return [
        {
            "seen_at": seen_at,
            "sid": row.sid,
            "day": asked.day(row.date_created),
            "date_created": row.date_created,
            "service_sid": row.service_sid,
            "channel": row.channel,
            "country": row.country,
            "field": field,
            "old_value": old,
            "new_value": new,
            "currency": row.price_currency,
            "price_change": price,
            "converted_change": converted,
        }
        for row, field, old, new, seen_at, price, converted in _ledger(world, asked)
    ]


def changes_daily(world: World, asked: Asked) -> Answer:
    """Add the ledger up by the attempt's day and the day it was seen."""

    def key(line: tuple[Any, ...]) -> dict[str, Any]:
        row, seen_at = line[0], line[4]
        keys = {name: value for name, value in asked.slice(row, row.date_created).items()
                if name in SLICE} | {"currency": row.price_currency}  # fmt: skip
        return keys | ({"seen_day": asked.day(seen_at)} if asked.kept(["seen_day"]) else {})

    return [
        keys
        | {
            "attempts": sum(line[1] == "first_seen" for line in lines),
            "changes": sum(line[1] != "first_seen" for line in lines),
            "price_changes": sum(line[1] == "price_amount" for line in lines),
            "conversion_changes": sum(line[1] == "conversion_status" for line in lines),
            "price_change": add(line[5] for line in lines),
            "converted_change": sum(line[6] for line in lines),
        }
        for keys, lines in grouped(_ledger(world, asked), key)
    ]


def _ledger(world: World, asked: Asked) -> Iterator[tuple[Any, ...]]:
    by_sid: dict[str, list[Change]] = defaultdict(list)
    for change in sorted(world.changes, key=lambda change: change.seen_at):
        by_sid[change.attempt_sid].append(change)
    for row in filter(asked.takes, world.rows):
        lines = by_sid[row.sid]
        price = _first(lines, "price_amount", row.price_amount)
        status = _first(lines, "conversion_status", row.conversion_status)
        yield (
            row, "first_seen", None, None, _at(row.first_fetched_at),
            _money(row, None if price is None else Decimal(price)), int(status == "converted"),
        )  # fmt: skip
        for line in lines:
            moved, turned = None, 0
            if line.field == "price_amount":
                moved = Decimal(line.new_value or 0) - Decimal(line.old_value or 0)
            if line.field == "conversion_status":
                turned = (line.new_value == "converted") - (line.old_value == "converted")
            yield (
                row, line.field, line.old_value, line.new_value, _at(line.seen_at),
                _money(row, moved), turned,
            )  # fmt: skip


def _first(lines: list[Change], field: str, today: Any) -> Any:
    return next((line.old_value for line in lines if line.field == field), today)


def _money(row: Made, amount: Decimal | None) -> Decimal | None:
    return None if amount is None or row.price_currency is None else amount.quantize(SIXTH)


def _at(epoch_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=epoch_ms)
