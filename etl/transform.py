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

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StringConstraints
from pydantic import ValidationError as Refused

from etl.amount import UNREADABLE, read_amount
from etl.records import SID_PATTERN, Attempt, Rejection

# Characters that fit: the columns of etl/schema.py (a test compares them).
CODE_LENGTH: Final = 64
NETWORK_LENGTH: Final = 16
CARRIER_LENGTH: Final = 255
DESTINATION_LENGTH: Final = 320
URL_LENGTH: Final = 2000  # The column is TEXT, which holds 65,535 bytes on MariaDB.
RAW_LENGTH: Final = 2000  # of a value that could not be read
EXTRA_DEPTH: Final = 20
"""Levels kept as JSON in an unknown key: MariaDB calls JSON of 32 levels invalid."""

EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)
"""Times outside are nobody's creation time: the age of such an attempt counts as unknown."""

_INT64: Final = 2**63
# '+' and six digits, after an optional channel ("whatsapp:"); '+123456@example.com' is an address.
_PREFIX: Final = re.compile(r"(?:[A-Za-z]{1,16}:)?(\+[0-9]{6})[^@]*", re.DOTALL)
# PostgreSQL refuses NUL in text; no database takes half of a surrogate pair.
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
# What the doors let pass: codes in ASCII, so that lower case is no longer than what was sent; text
# in any script. pydantic itself refuses lone surrogates.
_ASCII: Final = r"^[\x01-\x7F]*$"
_NO_NUL: Final = r"^[^\x00]*$"


def _moment(sent: object) -> datetime:
    """Read an ISO 8601 time (naive means UTC) to the millisecond, or raise ``ValueError``."""
    if not isinstance(sent, str):
        raise ValueError  # noqa: TRY004 - pydantic reports ValueError, not TypeError
    try:
        moment = datetime.fromisoformat(sent.strip())
        if moment.tzinfo is not UTC:
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError as error:  # An offset that leads out of the years 1 to 9999.
        raise ValueError from error
    if not EARLIEST <= moment <= LATEST:
        raise ValueError
    beyond = moment.microsecond % 1000
    return moment.replace(microsecond=moment.microsecond - beyond) if beyond else moment


def _text(length: int, pattern: str, *, lower: bool = False) -> StringConstraints:
    return StringConstraints(
        strip_whitespace=True, to_lower=lower or None, max_length=length, pattern=pattern
    )


_Code = Annotated[str, _text(CODE_LENGTH, _ASCII)]
_Status = Annotated[str, _text(CODE_LENGTH, _ASCII, lower=True)]
_Network = Annotated[str, _text(NETWORK_LENGTH, _ASCII)]
_Carrier = Annotated[str, _text(CARRIER_LENGTH, _NO_NUL)]
_Destination = Annotated[str, _text(DESTINATION_LENGTH, _NO_NUL)]
_Url = Annotated[str, _text(URL_LENGTH, _NO_NUL)]
_Currency = Annotated[str, _text(3, "^[A-Za-z]{3}$")]
_Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
_Moment = Annotated[datetime, PlainValidator(_moment)]


class _Door(BaseModel):
    """Pass what is as documented; unknown keys are not the door's business but ``_extra``'s."""

    model_config = ConfigDict(defer_build=True, frozen=True, strict=True, extra="ignore")


class _TopLevel(_Door):
    sid: str
    account_sid: _Code | None = None
    service_sid: _Code | None = None
    verification_sid: _Code | None = None
    channel: _Status | None = None
    conversion_status: _Status | None = None
    date_created: _Moment | None = None
    date_updated: _Moment | None = None
    url: _Url | None = None
    price: object = None
    channel_data: object = None


class _ChannelData(_Door):
    verification_sid: _Code | None = None
    to: _Destination | None = None
    country: _Code | None = None
    # Integers are seen from live accounts, so they pass without mending.
    mcc: _Network | _Count | None = None
    mnc: _Network | _Count | None = None
    carrier: _Carrier | None = None
    locale: _Code | None = None
    status: _Status | None = None
    message_status: _Status | None = None
    call_status: _Status | None = None
    error_code: _Code | _Count | None = None
    code_length: _Count | None = None


class _Price(_Door):
    value: object = None
    currency: _Currency | None = None


# How a refused field is mended: cut to its column, in lower case, or given up if it is no text.
_LIMITS: Final = {"url": URL_LENGTH, "to": DESTINATION_LENGTH, "carrier": CARRIER_LENGTH}
_LIMITS.update(mcc=NETWORK_LENGTH, mnc=NETWORK_LENGTH)
_LOWER: Final = {"channel", "conversion_status", "status", "message_status", "call_status"}
_NO_TEXT: Final = {"date_created", "date_updated", "currency", "code_length"}

_DoorT = TypeVar("_DoorT", bound=_Door)
_TOP_KEYS: Final = frozenset(_TopLevel.model_fields)
_DATA_KEYS: Final = frozenset(_ChannelData.model_fields)
_PRICE_KEYS: Final = frozenset(_Price.model_fields)


@dataclass(slots=True)
class _Doubts:
    """Collect what could not be stored as sent: its text for ``_raw``, its name for a warning."""

    raw: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def note(self, name: str, sent: object, reason: str) -> None:
        # Only `verification_sid` stands in two places.
        name = f"channel_data.{name}" if name in self.raw else name
        self.raw[name] = _raw_text(sent)
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
    top = _admit(_TopLevel, payload, doubts)
    channel_data = top.channel_data if isinstance(top.channel_data, dict) else {}
    if top.channel_data is not None and channel_data is not top.channel_data:
        doubts.note("channel_data", top.channel_data, "not an object")
    data = _admit(_ChannelData, channel_data, doubts)
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


def _admit(door: type[_DoorT], sent: dict[str, Any], doubts: _Doubts) -> _DoorT:
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
    text = _scalar_text(sent)
    if text is not None and not text.strip():
        return None
    if text is None or name in _NO_TEXT:
        if name == "code_length" and text is not None and re.fullmatch("[0-9]{1,9}", text):
            return int(text)
        doubts.note(name, sent, "unreadable")
        return None
    fit = _escaped(text).strip()
    fit = fit.lower() if name in _LOWER else fit
    limit = _LIMITS.get(name, CODE_LENGTH)
    if len(fit) > limit:
        doubts.note(name, sent, "cut")
    return fit[:limit]


def _price(sent: object, doubts: _Doubts) -> tuple[Decimal | None, str | None]:
    """Read amount and currency of a price: an object, or a bare number or text."""
    if not isinstance(sent, dict):
        return _amount(sent, doubts), None
    price = _admit(_Price, sent, doubts)
    return _amount(price.value, doubts), price.currency and price.currency.upper()


def _amount(sent: object, doubts: _Doubts) -> Decimal | None:
    """Give the exact amount that NUMERIC(18,6) and a float can both hold, else None and a note."""
    text = "" if sent is None else _scalar_text(sent)
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
    beside = _unknown(channel_data, _DATA_KEYS) | ({"verification_sid": other} if other else {})
    above = _unknown(payload, _TOP_KEYS)
    price = payload.get("price")
    if isinstance(price, dict) and (unknown := _unknown(price, _PRICE_KEYS)):
        above["price"] = unknown
    # Our own two names must stay ours, should the API ever use them.
    if taken := {key: beside.pop(key) for key in ("_attempt", "_raw") if key in beside}:
        above["channel_data"] = taken
    if not (beside or above or doubts.raw):
        return None
    extra: dict[str, Any] = {_key(key): _ready(value) for key, value in beside.items()}
    if above:
        extra["_attempt"] = {_key(key): _ready(value) for key, value in above.items()}
    if doubts.raw:
        extra["_raw"] = doubts.raw
    return extra


def _unknown(sent: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Give the keys that no door knows, as sent."""
    if known.issuperset(sent):
        return {}
    return {key: value for key, value in sent.items() if key not in known}


def _ready(value: object, depth: int = EXTRA_DEPTH) -> Any:  # noqa: ANN401 - any JSON
    """Make a value fit for every database's JSON: no NUL, no NaN, no huge or deep thing."""
    if isinstance(value, (dict, list, tuple)):
        if depth <= 0:
            return _json_text(value)
        if isinstance(value, dict):
            return {_key(key): _ready(item, depth - 1) for key, item in value.items()}
        return [_ready(item, depth - 1) for item in value]
    if isinstance(value, Decimal) and value.is_finite():
        near = float(value)
        return near if Decimal(repr(near)) == value else str(value)
    plain = isinstance(value, bool) or (isinstance(value, int) and -_INT64 <= value < _INT64)
    plain = plain or (isinstance(value, float) and math.isfinite(value))
    return value if plain or value is None else _key(value)


def _key(key: object) -> str:
    text = _scalar_text(key)
    return _json_text(key) if text is None else _escaped(text)


def _raw_text(value: object) -> str:
    """Give the text of a value as sent (JSON, where it is a structure), cut and storable."""
    text = _scalar_text(value)
    return _escaped(_json_text(value) if text is None else text[:RAW_LENGTH])[:RAW_LENGTH]


def _scalar_text(value: object) -> str | None:
    """Give the text of a string or number, None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    try:
        return str(value)
    except ValueError:  # Python refuses to write integers of thousands of digits in decimal.
        return hex(int(value))


def _json_text(value: object) -> str:
    try:
        return json.dumps(value, default=lambda odd: _scalar_text(odd) or "", skipkeys=True)
    except (RecursionError, ValueError):
        return "(nested too deep to keep)"


def _escaped(text: str) -> str:
    r"""Spell out what no database stores: NUL as ``\u0000``, half a surrogate pair likewise."""
    if text.isascii() and "\0" not in text:
        return text
    return _UNSTORABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
