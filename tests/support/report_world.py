"""Make up rows that have every oddity the tables can hold, the same for the same seed."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, Final

from sqlalchemy import Connection, insert

from etl.database.schema import attempt_changes, attempt_channel_data, attempt_queue, attempts
from etl.reports.fees import Fee, replace
from etl.rollups.refresh import mark_everything

NOW: Final = datetime(2026, 4, 8, tzinfo=UTC)
SERVICES: Final = ("VA" + "1" * 32, "VA" + "2" * 32, None)
CHANNELS: Final = ("sms", "sms", "sms", "call", "whatsapp", "email", "carrier-pigeon", None)
COUNTRIES: Final = {"US": "+155501", "CO": "+573003", "BR": "+15550", "GB": "+155501"}
AMOUNTS: Final = ("0.005", "0.0725", "0.000001", "-0.0075", "123456.789012", "0", "0.333333")
STATUSES: Final = (
    "delivered", "read", "undelivered", "failed", "sent", "canceled", "received",
    "partially_delivered", None,
)  # fmt: skip
CALLS: Final = ("completed", "busy", "no-answer", "in-progress", None)
ERRORS: Final = ("30003", "30008", "60410", "99999", None, None, None)


@dataclass(frozen=True, slots=True)
class Made:
    """Hold one attempt with its channel data, as the tables do."""

    sid: str
    account_sid: str | None
    service_sid: str | None
    verification_sid: str | None
    channel: str | None
    conversion_status: str | None
    price_amount: Decimal | None
    price_currency: str | None
    date_created: datetime | None
    date_updated: datetime | None
    url: str | None
    first_fetched_at: int
    fetched_at: int
    is_final: bool
    destination: str | None
    destination_prefix: str | None
    country: str | None
    mcc: str | None
    mnc: str | None
    carrier: str | None
    locale: str | None
    status: str | None
    message_status: str | None
    call_status: str | None
    error_code: str | None
    code_length: int | None
    extra: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Queued:
    """Hold one queued SID, as far as reports look at it."""

    sid: str
    state: str
    outcome: str | None
    enqueued_at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """Hold one observed change, as the table does."""

    attempt_sid: str
    field: str
    old_value: str | None
    new_value: str | None
    seen_at: int


@dataclass(frozen=True, slots=True)
class World:
    """Hold all rows of one database."""

    rows: Sequence[Made]
    queue: Sequence[Queued]
    fees: Sequence[Fee]
    changes: Sequence[Change]


FEES: Final = (
    Fee("", "", "USD", date(1970, 1, 1), Decimal("0.050000")),
    Fee("", "CO", "USD", date(1970, 1, 1), Decimal("0.030000")),
    Fee("sms", "", "USD", date(2026, 3, 25), Decimal("0.045001")),
    Fee("sms", "BR", "USD", date(2026, 3, 20), Decimal("0.040000")),
    Fee("sms", "BR", "USD", date(2026, 3, 30), Decimal("0.041000")),
    Fee("call", "", "EUR", date(2026, 3, 28), Decimal("0.060000")),
)


def make(seed: int, verifications: int = 150) -> World:
    """Make a world of about twice as many attempts as verifications."""
    random = Random(seed)
    rows = [row for number in range(verifications) for row in _verification(random, number)]
    random.shuffle(rows)
    return World(rows, _queue(random), FEES, list(_changes(random, rows)))


def _changes(random: Random, rows: Sequence[Made]) -> Iterator[Change]:
    """Give some fields of some attempts a past, each change leading to the next and to today."""
    values: dict[str, Sequence[Any]] = {
        "price_amount": (*(f"{Decimal(amount):.6f}" for amount in AMOUNTS), None),
        "conversion_status": ("converted", "unconverted", None),
        "message_status": STATUSES,
        "channel": ("sms", "rcs", "whatsapp", None),
        "price_currency": ("USD", "EUR", None),
    }
    for row in rows:
        for name, before in values.items():
            moments = sorted(random.sample(range(1, 8), random.choice((0, 0, 0, 1, 2))))
            today = getattr(row, name)
            new = f"{today:.6f}" if isinstance(today, Decimal) else today
            for back in reversed(moments):
                old = random.choice([value for value in before if value != new])
                yield Change(row.sid, name, old, new, row.first_fetched_at + back)
                new = old


def _verification(random: Random, number: int) -> list[Made]:
    sid = f"VE{number:032x}" if random.random() < 0.95 else None
    service = random.choice(SERVICES)
    country = random.choice([*COUNTRIES, "BR", None])
    begun = _moment(random)
    made = []
    for step in range(random.choice((1, 1, 1, 2, 2, 3, 5))):
        if begun is not None:
            # Sometimes at the very same moment, sometimes over midnight.
            begun += timedelta(seconds=random.choice((0, 30.25, 75, 3600)))
        created = None if random.random() < 0.04 else begun
        made.append(_attempt(random, f"{number:x}.{step}", sid, service, country, created))
    return made


def _moment(random: Random) -> datetime | None:
    """Give a moment around the changes of clocks in Berlin and Lord Howe, often near midnight."""
    if random.random() < 0.04:
        return None
    day = datetime(2026, 3, 22, tzinfo=UTC) + timedelta(days=random.randrange(16))
    if random.random() < 0.4:
        edge = random.choice((0, 1, 2, 13, 13.5, 15, 15.5, 22, 23)) * 3600
        return day + timedelta(seconds=edge + random.choice((-1, -0.001, 0, 1, 1799)))
    return day + timedelta(milliseconds=random.randrange(86_400_000))


def _attempt(
    random: Random,
    number: str,
    verification: str | None,
    service: str | None,
    country: str | None,
    created: datetime | None,
) -> Made:
    channel = random.choice(CHANNELS)
    if channel == "email":
        country = None
    priced = random.random() < 0.75
    fetched = int(NOW.timestamp() * 1000) + random.randrange(10**6)
    prefix = COUNTRIES.get(country or "")
    telephone = channel in {"sms", "call", "whatsapp"}
    return Made(
        # Upper and lower case: sorted by code points on every database.
        sid="VL" + random.choice("aAbB") + f"{random.getrandbits(40):010x}-{number}",
        account_sid="AC" + "0" * 32,
        service_sid=service,
        verification_sid=verification,
        channel=channel,
        conversion_status=random.choice(("converted", "unconverted", "unconverted", None)),
        price_amount=Decimal(random.choice(AMOUNTS)) if priced else None,
        price_currency=random.choice(("USD", "USD", "USD", "EUR", None)),
        date_created=created,
        date_updated=created,
        url=None,
        first_fetched_at=fetched - 7,
        fetched_at=fetched,
        is_final=random.random() < 0.8,
        destination=_destination(random, channel),
        destination_prefix=prefix if channel != "email" else None,
        country=country,
        mcc="732" if telephone and country == "CO" else None,
        mnc=random.choice(("103", "101")) if telephone and country == "CO" else None,
        carrier=random.choice(("Colombia Movil (Tigo)", "Claro", None)) if telephone else None,
        locale=random.choice(("es", "en", None)),
        status=random.choice(("confirmed", "unconfirmed", "expired", None)),
        message_status=random.choice(STATUSES) if channel != "call" else None,
        call_status=random.choice(CALLS) if channel == "call" else None,
        error_code=random.choice(ERRORS),
        code_length=random.choice((4, 6, None)),
        extra=random.choice((None, {"new": 1})),
    )


def _destination(random: Random, channel: str | None) -> str | None:
    if random.random() < 0.1:
        return None
    if channel == "email":
        return f"user{random.randrange(9)}@example.com"
    scheme = random.choice(("", "", "whatsapp:", "rcs:")) if channel != "call" else ""
    return scheme + random.choice((f"+155501{random.randrange(40):02d}", "+573003003030"))


def _queue(random: Random) -> list[Queued]:
    states = ("pending", "leased", "retry", "refresh", "settled", "dead")
    outcomes = {
        "settled": ("final", "last_known"),
        "dead": ("expired", "not_found", "bad_body", None),
    }
    return [
        Queued(
            f"VL{number:032x}",
            state := random.choice(states),
            random.choice(outcomes.get(state, (None,))),
            NOW - timedelta(seconds=random.randrange(10**6)),
        )
        for number in range(60)
    ]


def store(connection: Connection, world: World) -> None:
    """Write a world into the tables."""
    ours = {field.name for field in fields(Made)}
    for table in (attempts, attempt_channel_data):
        columns = ours & set(table.c.keys())
        rows = [
            {name: value for name, value in asdict(row).items() if name in columns}
            | ({"attempt_sid": row.sid} if "attempt_sid" in table.c else {})
            for row in world.rows
        ]
        if rows:
            connection.execute(insert(table), rows)
    mark_everything(connection)
    if world.queue:
        connection.execute(insert(attempt_queue), [asdict(row) for row in world.queue])
    if world.changes:
        connection.execute(insert(attempt_changes), [asdict(row) for row in world.changes])
    if world.fees:
        replace(connection, world.fees)
