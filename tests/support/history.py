"""Make up the history of attempts: what each fetch of each of them showed, and load it in turn.

What is known at a moment is what the fetches sent until then loaded, and nothing else: a second
database that was given only those is the oracle of every question about the past.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from random import Random
from typing import Any, Final

from sqlalchemy import Connection

from etl.final import Policy, is_final
from etl.load import upsert
from etl.records import Attempt, Fetched

HOUR_MS: Final = 3_600_000
POLICY: Final = Policy(24 * HOUR_MS, 72 * HOUR_MS, HOUR_MS, 30 * 24 * HOUR_MS)
START: Final = datetime(2026, 3, 20, tzinfo=UTC)
DAYS: Final = 10
MOMENTS: Final = tuple(
    START + timedelta(hours=hours) for hours in (1, 30.5, 75, 130, 201.25, 24 * DAYS + 150)
)
SERVICES: Final = ("VA" + "1" * 32, "VA" + "2" * 32, None)
PLACES: Final = {"US": "+155501", "CO": "+573003", "BR": "+551199", None: None}
AMOUNTS: Final = ("0.005", "0.0725", "0.000001", "-0.0075", "123456.789012", "0", "0.333333", "7")


@dataclass(frozen=True, slots=True)
class Fetch:
    """Hold what one request, sent at a moment (epoch milliseconds), showed of one attempt."""

    sent_at: int
    attempt: Attempt


def make(seed: int, attempts: int = 160, *, again: bool, whims: bool = True) -> list[Fetch]:
    """Make the fetches of all attempts in the order in which they were sent.

    ``again``: some are fetched after they were final, as `discover` does. ``whims``: channels
    and currencies change too.
    """
    random = Random(seed)
    found = [
        fetch
        for number in range(attempts)
        for fetch in _life(random, _attempt(random, number), again=again, whims=whims)
    ]
    return sorted(found, key=lambda fetch: (fetch.sent_at, fetch.attempt.sid))


def _attempt(random: Random, number: int) -> Attempt:
    country = random.choice(tuple(PLACES))
    created = START + timedelta(milliseconds=random.randrange(DAYS * 24 * HOUR_MS))
    if random.random() < 0.2:
        created = created.replace(microsecond=0)
    prefix = PLACES[country]
    return Attempt(
        sid="VL" + random.choice("aAbB") + f"{random.getrandbits(64):016x}{number:015x}",
        account_sid="AC" + "0" * 32,
        service_sid=random.choice(SERVICES),
        verification_sid=f"VE{number // 2:032x}" if random.random() < 0.95 else None,
        channel=random.choice(("sms", "call", "email", None)),
        conversion_status=None,
        price_amount=None,
        price_currency=None,
        date_created=None if random.random() < 0.05 else created,
        date_updated=created,
        url=None,
        destination=prefix and f"{prefix}{number % 9:04d}",
        destination_prefix=prefix,
        country=country,
        mcc="732" if country == "CO" else None,
        mnc=None,
        carrier=random.choice(("Claro", None)),
        locale="es",
        status=None,
        message_status=None,
        call_status=None,
        error_code=None,
        code_length=6,
        extra=None,
    )


def _life(random: Random, attempt: Attempt, *, again: bool, whims: bool) -> Iterator[Fetch]:
    """Fetch an attempt until it is final, and perhaps once more; each time it may have moved."""
    created = attempt.date_updated or START
    age = timedelta(milliseconds=random.choice((5000, HOUR_MS, 20 * HOUR_MS, 24 * HOUR_MS)))
    home = random.choice(("USD", "USD", "EUR"))
    more = random.choice((0, 0, 1, 2)) if again else 0
    price = None
    while True:
        attempt = _moved(random, attempt, home, whims=whims)
        # A null never wipes a known price.
        price = attempt.price_amount if attempt.price_amount is not None else price
        sent_at = round((created + age).timestamp() * 1000) + random.randrange(1, 999)
        yield Fetch(sent_at, attempt)
        known_from = _ms(attempt.date_created or created)
        if final(attempt._replace(price_amount=price), sent_at, known_from):
            if not more:
                return
            more -= 1
        age += timedelta(milliseconds=random.randrange(HOUR_MS, 36 * HOUR_MS))


def _moved(random: Random, attempt: Attempt, home: str, *, whims: bool) -> Attempt:
    changes: dict[str, Any] = {}

    def perhaps(name: str, chance: float, *values: str | None) -> None:
        if random.random() < chance:
            changes[name] = random.choice(values)

    perhaps("conversion_status", 0.6, "converted", "unconverted", None)
    perhaps("status", 0.3, "confirmed", "unconfirmed", "expired", None)
    perhaps("message_status", 0.5, "sent", "delivered", "undelivered", None)
    perhaps("call_status", 0.1, "completed", "busy", None)
    perhaps("error_code", 0.2, "30003", "60410", None)
    if random.random() < 0.5 and not (attempt.price_amount is not None and random.random() < 0.6):
        changes |= {"price_amount": Decimal(random.choice(AMOUNTS)), "price_currency": home}
    elif attempt.price_amount is not None and whims and random.random() < 0.1:
        # A null, which must not wipe the price.
        return attempt._replace(**changes, price_amount=None, price_currency=None)
    if whims:
        perhaps("channel", 0.1, "sms", "whatsapp", None)
        perhaps("price_currency", 0.1, "USD", "GBP", None)
    return attempt._replace(**changes)


def final(attempt: Attempt, sent_at: int, known_from: int) -> bool:
    """Say whether a fetch settles an attempt, as the job judges it."""
    has_price = attempt.price_amount is not None
    return is_final(POLICY, sent_at=sent_at, known_from=known_from, has_price=has_price)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def store(connection: Connection, fetches: Iterable[Fetch]) -> None:
    """Load fetches as the job does, those of one moment together."""
    for sent_at, group in groupby(fetches, key=lambda fetch: fetch.sent_at // HOUR_MS):
        del sent_at
        for batch in _batches(list(group)):
            known = upsert.known(connection, [fetch.attempt.sid for fetch in batch])
            rows = [
                upsert.merge(Fetched(fetch.attempt, fetch.sent_at), known.get(fetch.attempt.sid))
                for fetch in batch
            ]
            upsert.write(
                connection,
                [
                    (row, final(row.attempt, row.sent_at, _ms(_known_from(row.attempt))))
                    for row in rows
                ],
            )


def _known_from(attempt: Attempt) -> datetime:
    # Where the creation time is not known, the queue's word counts; here it is as good.
    return attempt.date_created or attempt.date_updated or START


def _batches(fetches: Sequence[Fetch]) -> Iterator[list[Fetch]]:
    """Split so that no attempt is twice in a batch."""
    batch: list[Fetch] = []
    for fetch in fetches:
        if any(other.attempt.sid == fetch.attempt.sid for other in batch):
            yield batch
            batch = []
        batch.append(fetch)
    yield batch


def until(fetches: Iterable[Fetch], moment: datetime) -> list[Fetch]:
    """Give the fetches that were sent by a moment."""
    return [fetch for fetch in fetches if fetch.sent_at <= _ms(moment)]


def settled(fetches: Iterable[Fetch], sid: str, moment: datetime) -> bool:
    """Say whether an attempt was final at a moment, from its fetches until then."""
    price, found = None, False
    for fetch in until(fetches, moment):
        if fetch.attempt.sid == sid:
            price = fetch.attempt.price_amount if fetch.attempt.price_amount is not None else price
            attempt = fetch.attempt._replace(price_amount=price)
            found = final(attempt, fetch.sent_at, _ms(_known_from(attempt)))
    return found
