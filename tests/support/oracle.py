"""Compute every report from the same rows in plain Python, knowing nothing of the SQL.

Written from the reports' documentation: what each counts, whose day it takes, what is NULL.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any, Final
from zoneinfo import ZoneInfo

from etl.reports.error_codes import MEANINGS
from tests.support.report_world import Made, World

SIXTH: Final = Decimal("0.000001")
SLICE: Final = ("day", "service_sid", "channel", "country")
Answer = list[dict[str, Any]]


@dataclass(frozen=True)
class Asked:
    """Hold the question in the tests' own words."""

    since: datetime | None = None
    until: datetime | None = None
    services: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    by: tuple[str, ...] | None = None

    def day(self, at: datetime | None) -> date | None:
        """Give the day of a moment in the zone."""
        return None if at is None else at.astimezone(self.zone).date()

    def holds(self, at: datetime | None) -> bool:
        """Say whether a moment is in the window; an unknown one is in none but the whole."""
        if at is None:
            return self.since is None and self.until is None
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)

    def wants(self, row: Any) -> bool:
        """Say whether service, channel and country are asked for."""
        return (
            (not self.services or row.service_sid in self.services)
            and (not self.channels or row.channel in self.channels)
            and (not self.countries or row.country in self.countries)
        )

    def takes(self, row: Made) -> bool:
        """Say whether an attempt counts."""
        return self.holds(row.date_created) and self.wants(row)

    def kept(self, keys: Iterable[str]) -> list[str]:
        """Give the keys that the answer keeps."""
        return [key for key in keys if self.by is None or key in self.by]

    def slice(self, row: Any, at: datetime | None) -> dict[str, Any]:
        """Give the keys of a row: its day, service, channel and country."""
        every = {
            "day": self.day(at),
            "service_sid": row.service_sid,
            "channel": row.channel,
            "country": row.country,
        }
        return {key: every[key] for key in self.kept(SLICE)}


def divide(part: Decimal | int | None, whole: int) -> Decimal | None:
    """Divide to six decimals, half away from zero; None by zero or of nothing."""
    if part is None or not whole:
        return None
    with localcontext() as context:
        context.prec = 60
        return (Decimal(part) / whole).quantize(SIXTH, ROUND_HALF_UP)


def add(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """Add the amounts that are known; None when none is."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal(0)).quantize(SIXTH) if known else None


def price(row: Made) -> Decimal | None:
    """Give an attempt's price, if both amount and currency are known."""
    return row.price_amount if row.price_currency is not None else None


def converted(row: Made) -> bool:
    """Say whether an attempt converted."""
    return row.conversion_status == "converted"


def grouped(
    rows: Iterable[Any], key: Callable[[Any], dict[str, Any]]
) -> list[tuple[dict[str, Any], list[Any]]]:
    """Group rows by a key of several names."""
    groups: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
    names: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        keys = key(row)
        groups[tuple(keys.values())].append(row)
        names[tuple(keys.values())] = keys
    return [(names[place], group) for place, group in groups.items()]


def finality(rows: Sequence[Made]) -> dict[str, Any]:
    """Count what is not final."""
    count = sum(not row.is_final for row in rows)
    return {"not_final": count, "final": count == 0}


def conversion(rows: Sequence[Made]) -> dict[str, Any]:
    """Count what converted."""
    count = sum(map(converted, rows))
    return {
        "attempts": len(rows),
        "converted": count,
        "unconverted": len(rows) - count,
        "conversion_rate": divide(count, len(rows)),
    }


def conversion_daily(world: World, asked: Asked) -> Answer:
    """Count attempts by slice."""
    return [
        keys | conversion(rows) | finality(rows)
        for keys, rows in grouped(
            filter(asked.takes, world.rows), lambda row: asked.slice(row, row.date_created)
        )
    ]


def attempts(world: World, asked: Asked) -> Answer:
    """List attempts."""
    names = [name for name in Made.__slots__ if name not in {"is_final", "first_fetched_at"}]
    return [
        {name: getattr(row, name) for name in names}
        | {
            "day": asked.day(row.date_created),
            "converted": converted(row),
            "final": row.is_final,
            "first_fetched_at": _from_ms(row.first_fetched_at),
            "fetched_at": _from_ms(row.fetched_at),
            "extra": None if row.extra is None else '{"new": 1}',
        }
        for row in world.rows
        if asked.takes(row)
    ]


def _from_ms(epoch_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=epoch_ms)


# --- cost ---------------------------------------------------------------------------------------


def _credited(world: World) -> set[str]:
    """Give the SIDs of the converted attempts that stand for a successful verification."""
    first: dict[str, tuple[datetime, str]] = {}
    for row in filter(converted, world.rows):
        verification = row.verification_sid or row.sid
        place = (row.date_created or datetime.max.replace(tzinfo=UTC), row.sid)
        first[verification] = min(place, first.get(verification, place))
    return {sid for _, sid in first.values()}


def _fee(world: World, row: Made) -> Decimal | None:
    day = row.date_created.astimezone(UTC).date() if row.date_created else date.max
    fitting = [
        fee
        for fee in world.fees
        if fee.currency == row.price_currency
        and fee.valid_from <= day
        and fee.channel in {row.channel, ""}
        and fee.country in {row.country, ""}
    ]
    # The newest counts, and the oldest where the day is not known.
    order = 1 if row.date_created else -1
    best = max(
        fitting,
        key=lambda f: (f.channel != "", f.country != "", order * f.valid_from.toordinal()),
        default=None,
    )
    return best.amount if best else None


def _costs(world: World, asked: Asked) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    credited = _credited(world)
    answer = []
    for keys, rows in grouped(
        filter(asked.takes, world.rows),
        lambda row: asked.slice(row, row.date_created) | {"currency": row.price_currency},
    ):
        conversions = [row for row in rows if row.sid in credited]
        fees = [_fee(world, row) for row in conversions]
        known = [fee for fee in fees if fee is not None]
        total = add(map(price, rows))
        fee = add(known)
        if not conversions:
            fee = Decimal(0).quantize(SIXTH)
        both = None if total is None or fee is None or len(known) < len(fees) else total + fee
        if total is not None and not conversions:
            both = total
        answer.append(
            (
                keys,
                {
                    "rows": rows,
                    "priced": sum(price(row) is not None for row in rows),
                    "total": total,
                    "conversions": len(conversions),
                    "without_fee": len(fees) - len(known),
                    "fee": fee,
                    "both": both,
                },
            )
        )
    return answer


def cost_daily(world: World, asked: Asked) -> Answer:
    """Add up prices and fees by slice and currency."""
    answer = []
    for keys, found in _costs(world, asked):
        rows = found["rows"]
        wasted = None
        if found["total"] is not None:
            wasted = add([Decimal(0), *(price(row) for row in rows if not converted(row))])
        answer.append(
            keys
            | {
                "attempts": len(rows),
                "priced": found["priced"],
                "unpriced": len(rows) - found["priced"],
                "total": found["total"],
                "average": divide(found["total"], found["priced"]),
                "spent_on_unconverted": wasted,
                "conversions": found["conversions"],
                "without_fee": found["without_fee"],
                "fee": found["fee"],
                "total_with_fee": found["both"],
            }
            | finality(rows)
        )
    return answer


def cost_per_conversion(world: World, asked: Asked) -> Answer:
    """Divide prices and fees by conversions."""
    costs = _costs(world, asked)

    def awaiting(keys: dict[str, Any]) -> int:
        wanted = keys | {"currency": None}
        return sum(found["conversions"] for other, found in costs if other == wanted)

    return [
        keys
        | {
            "attempts": len(found["rows"]),
            "awaiting_price": awaiting(keys),
            "unpriced": len(found["rows"]) - found["priced"],
            "converted": sum(map(converted, found["rows"])),
            "conversions": found["conversions"],
            "without_fee": found["without_fee"],
            "price": found["total"],
            "fee": found["fee"],
            "price_and_fee": found["both"],
            "price_per_conversion": divide(found["total"], found["conversions"]),
            "fee_per_conversion": divide(found["fee"], found["conversions"] - found["without_fee"]),
            "cost_per_conversion": divide(found["both"], found["conversions"]),
        }
        | finality(found["rows"])
        for keys, found in costs
    ]


# --- delivery -----------------------------------------------------------------------------------


def _delivered(row: Made) -> bool | None:
    status = row.message_status or row.call_status
    if status in {"delivered", "read", "completed"}:
        return True
    undelivered = {"undelivered", "failed", "canceled", "busy", "no-answer", "partially_delivered"}
    if status in undelivered:
        return False
    return None


def carrier_performance(world: World, asked: Asked) -> Answer:
    """Count deliveries by slice and carrier."""
    answer = []
    for keys, rows in grouped(
        filter(asked.takes, world.rows),
        lambda row: (
            asked.slice(row, row.date_created)
            | {"mcc": row.mcc, "mnc": row.mnc, "carrier": row.carrier}
        ),
    ):
        good = sum(_delivered(row) is True for row in rows)
        bad = sum(_delivered(row) is False for row in rows)
        delivery = {
            "delivered": good,
            "undelivered": bad,
            "delivery_rate": divide(good, good + bad),
        }
        answer.append(keys | conversion(rows) | delivery | finality(rows))
    return answer


def delivery_errors(world: World, asked: Asked) -> Answer:
    """Count errors by slice and code."""
    failed = [
        row
        for row in world.rows
        if asked.takes(row) and (row.error_code is not None or _delivered(row) is False)
    ]
    return [
        keys
        | {
            "meaning": MEANINGS.get(keys["error_code"] or ""),
            "attempts": len(rows),
            "undelivered": sum(_delivered(row) is False for row in rows),
            "converted": sum(map(converted, rows)),
        }
        | finality(rows)
        for keys, rows in grouped(
            failed,
            lambda row: asked.slice(row, row.date_created) | {"error_code": row.error_code},
        )
    ]


# --- freshness ----------------------------------------------------------------------------------


def freshness(world: World, asked: Asked) -> Answer:
    """Count what is not complete."""
    del asked
    rows, queue = world.rows, world.queue
    gone = {"expired", "not_found"}
    found: list[tuple[str, list[datetime | None]]] = [
        ("attempts", [r.date_created for r in rows]),
        ("final", [r.date_created for r in rows if r.is_final]),
        ("not_final", [r.date_created for r in rows if not r.is_final]),
        ("unpriced", [r.date_created for r in rows if price(r) is None]),
        ("unpriced_final", [r.date_created for r in rows if price(r) is None and r.is_final]),
        ("no_date", [None for r in rows if r.date_created is None]),
        ("no_verification", [r.date_created for r in rows if r.verification_sid is None]),
        ("waiting", [q.enqueued_at for q in queue if q.state in {"pending", "leased"}]),
        ("to_retry", [q.enqueued_at for q in queue if q.state == "retry"]),
        ("to_refresh", [q.enqueued_at for q in queue if q.state == "refresh"]),
        ("last_known", [q.enqueued_at for q in queue if q.outcome == "last_known"]),
        ("lost", [q.enqueued_at for q in queue if q.state == "dead" and q.outcome in gone]),
        ("dead", [q.enqueued_at for q in queue if q.state == "dead" and q.outcome not in gone]),
    ]
    return [
        {
            "place": place,
            "measure": name,
            "number": len(times),
            "oldest": min((t for t in times if t), default=None),
            "newest": max((t for t in times if t), default=None),
        }
        for place, (name, times) in enumerate(found, 1)
    ]
