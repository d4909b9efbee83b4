"""Turn what the API sent for one SID into an ``Attempt``, or say why it is not that attempt.

::

    payload | is it the attempt asked for?  -> Rejection
            | doors: types, lengths, case   -> what does not fit is mended, noted, kept in `_raw`
            | price, times, extra           -> Attempt

Pure: values in, values out. The doors are pydantic models, which pass a clean payload in a few
microseconds; only the fields that a door refuses are looked at one by one. Every field is nullable
and no value, however odd, costs the row: the column is NULL (or cut, or rounded), the text stays
under ``extra["_raw"]``, and a warning names the field, never the value.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from pydantic import ValidationError as Refused

from etl.records import SID_PATTERN, Attempt, Rejection
from etl.transform.amount import UNREADABLE, read_amount
from etl.transform.doors import (
    DATA_KEYS,
    PRICE_KEYS,
    TEXTS,
    TOP_KEYS,
    ChannelData,
    DoorT,
    Price,
    TopLevel,
)
from etl.transform.extra import escaped, raw_text, scalar_text, storable, storable_key, unknown_keys

# '+' and six digits, after an optional channel ("whatsapp:"); '+123456@example.com' is an address.
_PREFIX: Final = re.compile(r"(?:[A-Za-z]{1,16}:)?(\+[0-9]{6})[^@]*", re.DOTALL)


@dataclass(slots=True)
class _Doubts:
    """Collect what could not be stored as sent: its text for ``_raw``, its name for a warning."""

    raw: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def note(self, name: str, sent: object, reason: str) -> None:
        # Only `verification_sid` stands in two places.
        name = f"channel_data.{name}" if name in self.raw else name
        self.raw[name] = raw_text(sent)
        self.warnings.append(f"{name}: {reason}")


def transform(payload: object, *, sid: str | None) -> Attempt | Rejection:
    """Normalize the parsed JSON of one attempt, whatever it is; never raise.

    ``payload`` holds fractions as ``Decimal`` and NaN as its name. ``sid`` is the attempt asked
    for, compared exactly; None (an item of a list page) takes the payload's own. Either way it
    must have the shape of a SID. Prices are exact decimals of at most 15 digits, 6 of them
    fractional; times are UTC, to the millisecond, between 2000 and 2100. A ``Rejection`` quotes
    nothing from the payload but a well-formed SID.

    Fields, and how live values differ from them in case and type: Twilio's OpenAPI document for
    Verify v2 and reports from live accounts.
    """
    if not isinstance(payload, Mapping):
        return Rejection("the answer is not a JSON object")
    refusal = _refusal(payload.get("sid"), sid)
    if refusal is not None:
        return Rejection(refusal)
    return _attempt(payload if isinstance(payload, dict) else dict(payload))


def _refusal(own: object, asked: str | None) -> str | None:
    """Say why a payload with this SID is not the attempt asked for, None when it is."""
    if own is None:
        return "the answer carries no sid"
    if not isinstance(own, str):
        return "the answer's sid is not text"
    if SID_PATTERN.fullmatch(own) is None:
        return "the answer's sid is not that of a verification attempt"
    if asked is not None and own != asked:
        return f"the answer is another attempt: {own}"
    return None


def _attempt(payload: dict[str, Any]) -> Attempt:
    """Read the three parts of a payload through their doors and lay them out as columns."""
    doubts = _Doubts()
    top = _admit(TopLevel, payload, doubts)
    channel_data = top.channel_data if isinstance(top.channel_data, dict) else {}
    if top.channel_data is not None and channel_data is not top.channel_data:
        doubts.note("channel_data", top.channel_data, "not an object")
    data = _admit(ChannelData, channel_data, doubts)
    amount, currency = _price(top.price, doubts)
    verification_sid = top.verification_sid or data.verification_sid or None
    other = data.verification_sid if data.verification_sid != verification_sid else None
    return Attempt(
        sid=top.sid,
        account_sid=top.account_sid or None,
        service_sid=top.service_sid or None,
        verification_sid=verification_sid,
        channel=top.channel or None,
        conversion_status=top.conversion_status or None,
        price_amount=amount,
        price_currency=currency,
        date_created=top.date_created,
        date_updated=top.date_updated,
        url=top.url or None,
        destination=data.to or None,
        destination_prefix=_prefix(data.to),
        country=_country(data.country),
        mcc=_number_text(data.mcc),
        mnc=_number_text(data.mnc),
        carrier=data.carrier or None,
        locale=data.locale or None,
        status=data.status or None,
        message_status=data.message_status or None,
        call_status=data.call_status or None,
        error_code=_error_code(data.error_code),
        code_length=data.code_length,
        extra=_extra(payload, channel_data, other, doubts),
        warnings=tuple(doubts.warnings),
    )


def _admit(door: type[DoorT], sent: dict[str, Any], doubts: _Doubts) -> DoorT:
    """Validate one part of a payload; mend the fields that the door refuses and take the rest."""
    try:
        return door.model_validate(sent)
    except Refused as refusal:
        errors = refusal.errors(include_url=False, include_context=False, include_input=False)
    wrong = dict.fromkeys(str(error["loc"][0]) for error in errors)
    sound = {key: value for key, value in sent.items() if key not in wrong}
    mended = {name: _mended(name, sent[name], doubts) for name in wrong}
    return door.model_validate(sound).model_copy(update=mended)


def _mended(name: str, sent: object, doubts: _Doubts) -> str | int | None:
    """Make a refused value fit its column, or give it up; note what is lost by it."""
    text = scalar_text(sent)
    if text is not None and not text.strip():
        return None
    rules = TEXTS.get(name)
    if text is None or rules is None:
        if name == "code_length" and text is not None and re.fullmatch("[0-9]{1,9}", text):
            return int(text)
        doubts.note(name, sent, "unreadable")
        return None
    fit = escaped(text).strip()
    fit = fit.lower() if rules.to_lower else fit
    cut = fit[: rules.max_length]
    if cut != fit:
        doubts.note(name, sent, "cut")
    return cut


def _price(sent: object, doubts: _Doubts) -> tuple[Decimal | None, str | None]:
    """Read amount and currency of a price: an object, or a bare number or text."""
    if not isinstance(sent, dict):
        return _amount(sent, doubts), None
    price = _admit(Price, sent, doubts)
    return _amount(price.value, doubts), price.currency and price.currency.upper()


def _amount(sent: object, doubts: _Doubts) -> Decimal | None:
    """Give the exact amount that NUMERIC(18,6) and a float can both hold, else None and a note."""
    text = "" if sent is None else scalar_text(sent)
    if text is not None and not text.strip():
        return None
    amount, doubt = (None, UNREADABLE) if text is None else read_amount(text.strip())
    if doubt:
        doubts.note("price", sent, doubt)
    return amount


def _prefix(destination: str | None) -> str | None:
    """Give '+' and the first six digits of a phone number, None for anything else."""
    match = None if destination is None else _PREFIX.fullmatch(destination)
    return None if match is None else match[1]


def _country(sent: str | None) -> str | None:
    """Upper-case an ISO 3166 code of two letters and leave any other name as it is."""
    if sent and len(sent) == len("CO") and sent.isascii() and sent.isalpha():
        return sent.upper()
    return sent or None


def _number_text(sent: str | int | None) -> str | None:
    """Give the text of a code that may have come as a number."""
    return None if sent is None else str(sent) or None


def _error_code(sent: str | int | None) -> str | None:
    """Give the text of an error code; zero, in any of its spellings, is no error."""
    text = _number_text(sent)
    return None if text is None or text.strip("0") in {"", "."} else text


def _extra(
    payload: dict[str, Any], channel_data: dict[str, Any], other: str | None, doubts: _Doubts
) -> dict[str, Any] | None:
    """Gather, ready for JSON, what has no column; None when everything has one.

    ``other`` is the verification that ``channel_data`` names, where it is not the attempt's.
    """
    beside = unknown_keys(channel_data, DATA_KEYS) | ({"verification_sid": other} if other else {})
    above = unknown_keys(payload, TOP_KEYS)
    price = payload.get("price")
    if isinstance(price, dict) and (unknown := unknown_keys(price, PRICE_KEYS)):
        above["price"] = unknown
    # Our own two names must stay ours, should the API ever use them.
    if taken := {key: beside.pop(key) for key in ("_attempt", "_raw") if key in beside}:
        above["channel_data"] = taken
    if not (beside or above or doubts.raw):
        return None
    extra: dict[str, Any] = {storable_key(key): storable(value) for key, value in beside.items()}
    if above:
        extra["_attempt"] = {storable_key(key): storable(value) for key, value in above.items()}
    if doubts.raw:
        extra["_raw"] = doubts.raw
    return extra
