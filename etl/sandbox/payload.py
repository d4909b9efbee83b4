"""Draw an attempt's life, and show it as the API would at any age.

There are three pure steps. A verification is drawn from its hash, an attempt's life from its own.
`render` gives the payload of this life at one moment.
"""

from __future__ import annotations

import math
import time
from functools import lru_cache
from typing import Any, NamedTuple

from .countries import (
    CHANNEL_PRICES,
    CHANNEL_WEIGHTS,
    COUNTRIES,
    ERROR_CODES,
    PUMPED_COUNTRY,
    PUMPED_PREFIX,
    RESEND_WEIGHTS,
    SERVICE_WEIGHTS,
    Carrier,
    Country,
    spread,
)

Payload = dict[str, Any]
Draws = tuple[int, ...]
"""Sixteen independent numbers of sixteen bits."""

NEVER = math.inf
UNIT = 65_536
CODE_EXPIRES = 600.0
HOUR = 3600.0

_COUNTRY = spread(COUNTRIES, tuple(country.weight for country in COUNTRIES))
_CHANNEL = spread(tuple(CHANNEL_WEIGHTS), tuple(CHANNEL_WEIGHTS.values()))
_RESEND = spread(tuple(RESEND_WEIGHTS), tuple(RESEND_WEIGHTS.values()))
_SERVICE = spread(tuple(range(len(SERVICE_WEIGHTS))), SERVICE_WEIGHTS)
_OPTIONAL = ("carrier", "mnc", "mcc", "locale", "code_length")
_CALL_FAILURES = ("no-answer", "busy", "failed")


class Verification(NamedTuple):
    """Hold what all attempts of a verification share."""

    service: int
    country: Country
    carrier: Carrier
    to: str
    channel: str
    converts: bool


class Life(NamedTuple):
    """Hold the events of one attempt with their ages in seconds (NEVER: not at all)."""

    channel: str
    fallback_age: float
    sent_age: float
    done_age: float
    outcome: str
    error_code: str
    converted_age: float
    price_age: float
    price: str
    corrected_age: float
    corrected: str
    currency: str


class Subject(NamedTuple):
    """Hold an attempt's identifiers, and its time of creation in epoch seconds."""

    sid: str
    account_sid: str
    service_sid: str
    verification_sid: str
    created: float


def draw_verification(draws: Draws, *, pumped: bool) -> Verification:
    """Draw the user, the place and the channel of a code. A pumped one goes to the fraud's prefix."""
    country = PUMPED_COUNTRY if pumped else _COUNTRY[draws[0] >> 6]
    prefix = PUMPED_PREFIX if pumped else country.prefixes[draws[1] % len(country.prefixes)]
    channel = "sms" if pumped else _CHANNEL[draws[2] >> 6]
    if channel == "email":
        to = f"user{draws[1]}{draws[3] % 100:02d}@example.com"
    else:
        to = f"+{country.dialling}{prefix}55501{draws[3] % 100:02d}"
    return Verification(
        service=0 if pumped else _SERVICE[draws[4] >> 6],
        country=country,
        carrier=country.carriers[draws[5] % len(country.carriers)],
        to=to,
        channel=channel,
        converts=not pumped and draws[6] < country.converts * UNIT,
    )


def conversion_age(draws: Draws) -> float:
    """Return the user's time to enter the code: 20 s to 9 min, mostly under a minute."""
    return 20.0 + 520.0 * (draws[0] / UNIT) ** 4


def draw_life(
    verification: Verification, draws: Draws, *, position: int, last: bool, late_share: float
) -> Life:
    """Draw the life of one attempt. A verification that converts does so with its last one."""
    channel = verification.channel
    if position and channel != "email":
        channel = _RESEND[draws[1] >> 6] or channel
    converted_age = conversion_age(draws) if last and verification.converts else NEVER
    falls_back = channel == "rbm" and draws[2] < 0.3 * UNIT
    outcome, error_code = _outcome(channel, draws, converted=converted_age < NEVER)
    sent_age = 1.0 + 4.0 * draws[3] / UNIT
    price_age, price, corrected_age, corrected = _prices(
        verification.country, channel, draws, late_share, falls_back=falls_back
    )
    done_age = min(sent_age + 2.0 + 200.0 * (draws[4] / UNIT) ** 3, converted_age)
    return Life(
        channel,
        min(done_age, 45.0) if falls_back else NEVER,
        min(sent_age, done_age),
        done_age,
        outcome,
        error_code,
        converted_age,
        price_age,
        price,
        corrected_age,
        corrected,
        verification.country.currency,
    )


def _outcome(channel: str, draws: Draws, *, converted: bool) -> tuple[str, str]:
    """Draw an attempt's last delivery status, and its error code ("" for none)."""
    if channel == "call":
        lost = not converted and draws[5] < 0.5 * UNIT
        return (_CALL_FAILURES[draws[6] % len(_CALL_FAILURES)] if lost else "completed"), ""
    if converted or draws[5] >= 0.12 * UNIT:
        read = channel == "whatsapp" and draws[6] < 0.4 * UNIT
        return ("read" if read else "delivered"), ""
    code = ERROR_CODES[draws[6] % len(ERROR_CODES)]
    return ("failed" if draws[5] < 0.01 * UNIT else "undelivered"), code


def _prices(
    country: Country, channel: str, draws: Draws, late_share: float, *, falls_back: bool
) -> tuple[float, str, float, str]:
    """Draw when the price is known, and when a final one replaces it: ages and decimal strings.

    It is known after 5 min to 22 h, and corrected by 23.5 h in 4 % of cases. For 1 % it stays
    unknown. For `late_share` it comes after 24 to 70 h. A fallback is first priced as RBM, then as
    an SMS.
    """
    price = _decimal(country.price * CHANNEL_PRICES[channel] // 100)
    chance = draws[7] / UNIT
    if chance < late_share:
        return 24 * HOUR + 46 * HOUR * draws[8] / UNIT, price, NEVER, price
    if chance > 0.99:  # noqa: PLR2004 - the one per cent of the docstring
        return NEVER, price, NEVER, price
    age = 300.0 * 264.0 ** (draws[8] / UNIT)
    if falls_back:
        sms = _decimal(country.price * CHANNEL_PRICES["sms"] // 100)
        return 300.0, price, 600.0 + age, sms
    if draws[9] < 0.04 * UNIT:
        final = _decimal(country.price * CHANNEL_PRICES[channel] // 90)
        return age, price, (22.0 + 1.5 * draws[10] / UNIT) * HOUR, final
    return age, price, NEVER, price


def render(
    subject: Subject, verification: Verification, life: Life, quirks: Draws, at: float
) -> Payload:
    """Return the API's payload at `at` (epoch seconds), in the key order of the spec.

    `quirks` are the attempt's draws 11 to 15. They choose among deviations from the spec seen live.
    """
    age = max(0.0, at - subject.created)
    price = None
    if age >= life.price_age:
        value = life.corrected if age >= life.corrected_age else life.price
        price = {"value": value, "currency": life.currency}
        if quirks[11] < 0.1 * UNIT:
            price["currency"] = life.currency.upper()
    # date_updated follows delivery and conversion. A price alone does not move it.
    changed = 0.0
    for event in (life.sent_age, life.done_age, life.fallback_age, life.converted_age):
        if changed < event <= age:
            changed = event
    exact = quirks[12] < 0.03 * UNIT
    payload: Payload = {
        "sid": subject.sid,
        "account_sid": subject.account_sid,
        "service_sid": subject.service_sid,
        "verification_sid": subject.verification_sid,
        "date_created": timestamp(subject.created, exact=exact),
        "date_updated": timestamp(subject.created + changed, exact=exact),
        "conversion_status": "converted" if age >= life.converted_age else "unconverted",
        "channel": "sms" if age >= life.fallback_age else life.channel,
        "price": price,
        "channel_data": _channel_data(subject, verification, life, quirks, age),
        "url": f"https://verify.twilio.com/v2/Attempts/{subject.sid}",
    }
    if quirks[13] < 0.003 * UNIT:
        payload["channel_data"] = None
    elif quirks[13] > 0.99 * UNIT:
        payload["experiment"] = {"arm": "b", "since": 2026}
    return payload


def _channel_data(
    subject: Subject, verification: Verification, life: Life, quirks: Draws, age: float
) -> Payload:
    """Return the channel's part of the payload, with keys missing or of another type."""
    status = "unconfirmed"
    if age >= life.converted_age:
        status = "confirmed"
    elif age >= CODE_EXPIRES:
        status = "expired"
    data: Payload = {
        "verification_sid": subject.verification_sid,
        "to": verification.to,
        "status": status,
    }
    delivery = "call_status" if life.channel == "call" else "message_status"
    data[delivery] = _delivery(life, age)
    _add_error(data, life, quirks, age)
    if verification.channel != "email":
        data["country"] = verification.country.iso
        data["mcc"] = verification.country.mcc
        data["mnc"] = verification.carrier.mnc
        data["carrier"] = verification.carrier.name
    data["code_length"] = 4 if verification.service == 1 else 6
    data["locale"] = verification.country.locale
    oddity = quirks[14]
    if oddity < 0.06 * UNIT:
        data["status"] = status.upper()
        data[delivery] = data[delivery].upper()
    elif oddity < 0.10 * UNIT:
        data.pop(_OPTIONAL[oddity % len(_OPTIONAL)], None)
    elif oddity > 0.98 * UNIT:
        data["risk_check"] = "enable"
    return data


def _delivery(life: Life, age: float) -> str:
    if age >= life.done_age:
        return life.outcome
    if life.channel == "call":
        return "queued" if age < life.sent_age else "ringing"
    return "queued" if age < life.sent_age else "sent"


def _add_error(data: Payload, life: Life, quirks: Draws, age: float) -> None:
    # Live answers give no error as 0, as null or as no key.
    if life.error_code and age >= life.done_age:
        data["error_code"] = life.error_code
    elif quirks[15] < 0.3 * UNIT:
        data["error_code"] = 0
    elif quirks[15] < 0.6 * UNIT:
        data["error_code"] = None


@lru_cache(maxsize=64)
def _day(number: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(number * 86_400))


def timestamp(moment: float, *, exact: bool = False) -> str:
    """Format epoch seconds as the API does: cut to the second, or three decimals if exact."""
    millis = math.floor(moment * 1000 + 0.5)
    seconds, fraction = divmod(millis, 1000)
    days, rest = divmod(seconds, 86_400)
    text = f"{_day(days)}T{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{text}.{fraction:03d}Z" if exact else f"{text}Z"


def _decimal(ten_thousandths: int) -> str:
    return f"{ten_thousandths // 10_000}.{ten_thousandths % 10_000:04d}"
