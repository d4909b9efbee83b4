"""Compute the reports that look at several attempts together: verifications, prefixes, countries."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import floor
from typing import Any

from tests.support.oracle import (
    Answer,
    Asked,
    add,
    conversion,
    converted,
    divide,
    finality,
    grouped,
    price,
)
from tests.support.report_world import Made, World

_END = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Verification:
    """Hold a verification's attempts in order; it is where its first attempt is."""

    steps: Sequence[Made]

    @property
    def first(self) -> Made:
        """Give the first attempt."""
        return self.steps[0]

    @property
    def first_at(self) -> datetime | None:
        """Give the time of the first attempt."""
        return self.first.date_created

    @property
    def converted(self) -> bool:
        """Say whether any attempt converted."""
        return any(map(converted, self.steps))


def verifications(world: World) -> list[Verification]:
    """Put attempts together, those of unknown time last, then by SID."""
    known = [row for row in world.rows if row.verification_sid is not None]
    return [
        Verification(sorted(rows, key=lambda row: (row.date_created or _END, row.sid)))
        for _, rows in grouped(known, lambda row: {"": row.verification_sid})
    ]


def _taken(world: World, asked: Asked) -> list[Verification]:
    return [v for v in verifications(world) if asked.holds(v.first_at) and asked.wants(v.first)]


def _seconds(at: datetime | None) -> int | None:
    return None if at is None else floor(at.timestamp())


def verification_outcome(world: World, asked: Asked) -> Answer:
    """List verifications."""
    answer = []
    for found in _taken(world, asked):
        prices = [price(row) for row in found.steps]
        currencies = {row.price_currency for row in found.steps if price(row) is not None}
        last_at = max((row.date_created for row in found.steps if row.date_created), default=None)
        first, last = _seconds(found.first_at), _seconds(last_at)
        priced = sum(amount is not None for amount in prices)
        answer.append(
            {
                "verification_sid": found.first.verification_sid,
                "day": asked.day(found.first_at),
                "first_at": found.first_at,
                "last_at": last_at,
                "seconds": None if first is None or last is None else last - first,
                "service_sid": found.first.service_sid,
                "channel": found.first.channel,
                "country": found.first.country,
                "attempts": len(found.steps),
                "channels": ",".join(row.channel or "?" for row in found.steps),
                "channels_tried": len({row.channel for row in found.steps if row.channel}),
                "converted": found.converted,
                "currency": currencies.pop() if (several := len(currencies)) == 1 else None,
                "price": add(prices) if several == 1 else None,
                "priced": priced,
                "unpriced": len(found.steps) - priced,
                "currencies": several,
            }
            | finality(found.steps)
        )
    return answer


def verification_success_daily(world: World, asked: Asked) -> Answer:
    """Count verifications by the slice of their first attempt."""
    answer = []
    for keys, group in grouped(
        _taken(world, asked), lambda found: asked.slice(found.first, found.first_at)
    ):
        good = sum(found.converted for found in group)
        total = sum(len(found.steps) for found in group)
        still = sum(any(not row.is_final for row in found.steps) for found in group)
        answer.append(
            keys
            | {
                "verifications": len(group),
                "converted": good,
                "unconverted": len(group) - good,
                "success_rate": divide(good, len(group)),
                "attempts": total,
                "attempts_per_verification": divide(total, len(group)),
                "retried": sum(len(found.steps) > 1 for found in group),
                "not_final": still,
                "final": still == 0,
            }
        )
    return answer


def retry_funnel(world: World, asked: Asked) -> Answer:
    """Count attempts by their number."""
    steps = [
        (found, number, row)
        for found in verifications(world)
        if asked.holds(found.first_at)
        for number, row in enumerate(found.steps, 1)
        if asked.wants(row)
    ]
    answer = []
    for keys, group in grouped(
        steps, lambda step: asked.slice(step[2], step[0].first_at) | {"attempt_no": step[1]}
    ):
        rows = [row for _, _, row in group]
        on = sum(not converted(row) and number < len(v.steps) for v, number, row in group)
        up = sum(not converted(row) and number == len(v.steps) for v, number, row in group)
        good = sum(map(converted, rows))
        answer.append(
            keys
            | {
                "attempts": len(rows),
                "converted": good,
                "went_on": on,
                "gave_up": up,
                "conversion_rate": divide(good, len(rows)),
                "give_up_rate": divide(up, len(rows)),
            }
            | finality(rows)
        )
    return answer


def _hour(at: datetime | None) -> datetime | None:
    return None if at is None else at.replace(minute=0, second=0, microsecond=0)


def _touched(asked: Asked, hour: datetime | None) -> bool:
    """Say whether a part of an hour is in the window; it is then shown whole."""
    if hour is None:
        return asked.since is None and asked.until is None
    return (asked.since is None or hour + timedelta(hours=1) > asked.since) and (
        asked.until is None or hour < asked.until
    )


def fraud_prefix_hourly(world: World, asked: Asked) -> Answer:
    """Compare each prefix's hours with the 168 before."""
    known = [row for row in world.rows if row.destination_prefix and asked.wants(row)]
    answer = []
    for keys, rows in grouped(
        known,
        lambda row: {
            "hour": _hour(row.date_created),
            "destination_prefix": row.destination_prefix,
            "country": row.country,
        },
    ):
        hour = keys["hour"]
        if not _touched(asked, hour):
            continue
        before = [
            row
            for row in known
            if hour is not None
            and row.date_created is not None
            and (row.destination_prefix, row.country)
            == (keys["destination_prefix"], keys["country"])
            and hour - timedelta(hours=168) <= row.date_created < hour
        ]
        count, good = len(before), sum(map(converted, before))
        unknown = hour is None
        answer.append(
            keys
            | conversion(rows)
            | {
                "trailing_attempts": None if unknown else count,
                "trailing_converted": None if unknown else good,
                "trailing_rate": divide(good, count),
                "trailing_hourly": None if unknown else divide(count, 168),
                "times_usual": divide(len(rows) * 168, count),
            }
            | finality(rows)
        )
    return answer


def repeat_destinations(world: World, asked: Asked) -> Answer:
    """List destinations of several attempts."""
    known = [row for row in world.rows if asked.takes(row) and row.destination is not None]

    def key(row: Made) -> dict[str, Any]:
        day = {"day": asked.day(row.date_created)} if asked.kept(["day"]) else {}
        number = str(row.destination).replace("whatsapp:", "").replace("rcs:", "")
        return day | {"destination": number}

    return [
        keys
        | conversion(rows)
        | {
            "country": _only({row.country for row in rows} - {None}),
            "verifications": _different(row.verification_sid for row in rows),
            "channels": _different(row.channel for row in rows),
            "services": _different(row.service_sid for row in rows),
            "first_at": min((r.date_created for r in rows if r.date_created), default=None),
            "last_at": max((r.date_created for r in rows if r.date_created), default=None),
        }
        | finality(rows)
        for keys, rows in grouped(known, key)
        if len(rows) > 1
    ]


def _only(values: set[str | None]) -> str | None:
    return values.pop() if len(values) == 1 else None


def _different(values: Iterable[str | None]) -> int:
    return len({value for value in values if value is not None})


def _first(rows: Iterable[Made]) -> datetime | None:
    return min((row.date_created for row in rows if row.date_created), default=None)


def new_countries(world: World, asked: Asked) -> Answer:
    """Find when each service first sent to each country."""
    known = [row for row in world.rows if row.country is not None and asked.wants(row)]
    anywhere = {
        keys["country"]: _first(rows)
        for keys, rows in grouped(known, lambda row: {"country": row.country})
    }
    answer = []
    for keys, rows in grouped(
        known, lambda row: {"service_sid": row.service_sid, "country": row.country}
    ):
        first = _first(rows)
        if not asked.holds(first):
            continue
        week = [
            row
            for row in rows
            if row.date_created
            and first
            and (row.date_created.astimezone(UTC).date() - first.astimezone(UTC).date()).days < 7
        ]
        good = sum(map(converted, week))
        answer.append(
            keys
            | conversion(rows)
            | {
                "day": asked.day(first),
                "first_at": first,
                "new_everywhere": first is not None and first == anywhere[keys["country"]],
                "attempts_7d": len(week),
                "converted_7d": good,
                "conversion_rate_7d": divide(good, len(week)),
                "last_at": max((r.date_created for r in rows if r.date_created), default=None),
            }
            | finality(rows)
        )
    return answer
