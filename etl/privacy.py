"""Decide what may stay where no number, address or name may be.

A number can be spelled in endless ways, and the API may put one into any text. So nothing looks for
numbers here. A value stays if its column, or its key in ``extra``, is known to be harmless and it
has the usual shape. Everything else goes.

This file is pure and the only one that decides. ``redact``, an export without destinations and the
page ask here. A value that stayed once stays again.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, TypeAlias

from etl.records import State

Shape: TypeAlias = Callable[[Any], bool]

URL: Final = "https://verify.twilio.com/v2/Attempts/"
REDACTED: Final = "redacted-"
"""Stands, with 32 hex digits, in place of a text that was no SID."""

_MOST_DIGITS: Final = 4
"""Digits in a name, or in a number without a meaning of its own: too few to call anybody."""

_LONGEST_CODE: Final = 20
_LONGEST_CARRIER: Final = 80
_NAME_MARKS: Final = frozenset(" \xa0&'\u2019().,/+*!:;_-\u2013\u2014|#\u2122\xae")
_DEPTH: Final = 4
"""Levels of ``extra`` that are read: keys, ``_attempt``, and an object in each."""


def _like(pattern: str) -> Shape:
    compiled = re.compile(pattern, re.ASCII)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


_word = _like(r"[A-Za-z]{1,24}(?:[-_][A-Za-z]{1,24}){0,3}")
_sid = _like(r"[A-Z]{2}[0-9a-fA-F]{32}")
_country = _like(r"[A-Z]{2}")
_currency = _like(r"[A-Z]{3}")
_locale = _like(r"[A-Za-z]{2,3}(?:[-_][A-Za-z]{4})?(?:[-_](?:[A-Za-z]{2}|[0-9]{3}))?")
_price_text = _like(r"-?[0-9]{1,5}(?:\.[0-9]{1,6})?")
_code_text = _like(r"[0-9]{1,5}")
_prefix = _like(r"\+[0-9]{6}")
_placeholder = _like(f"{REDACTED}[0-9a-f]{{32}}")
_moment = _like(
    r"20[0-9]{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,3})?Z"
)
_DATE: Final = re.compile(
    r"(?<![0-9])20[0-9]{2}-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12][0-9]|3[01]))?(?![0-9])"
)


def _price(value: object) -> bool:
    """Accept amounts below 100,000, as text, too. Nothing is sent at such a price."""
    return _price_text(f"{value:.6f}" if isinstance(value, Decimal) else value)


def _name(value: object) -> bool:
    """Accept a name in letters of any script, with a few digits as in `O2` or `3`."""
    if not isinstance(value, str) or len(value) > _LONGEST_CARRIER:
        return False
    # Some letters are numerals, too, and could spell any number.
    digits = sum(char.isnumeric() for char in value)
    return digits <= _MOST_DIGITS and all(
        char in _NAME_MARKS or char.isnumeric() or unicodedata.category(char)[0] in "LM"
        for char in value
    )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _code_length(value: Any) -> bool:  # noqa: ANN401 - SQLite keeps anything in a column
    return _whole(value) and 0 <= value <= _LONGEST_CODE


def _code(value: object) -> bool:
    return _code_text(str(value)) if _whole(value) else _code_text(value)


def _few_digits(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    text = str(value)
    plain = re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?", text, re.ASCII) is not None
    return plain and sum(char.isdigit() for char in text) <= _MOST_DIGITS


def _flag(value: object) -> bool:
    return isinstance(value, bool)


SHAPES: Final[Mapping[str, Shape]] = {
    **dict.fromkeys(("account_sid", "service_sid", "verification_sid"), _sid),
    **dict.fromkeys(("channel", "conversion_status"), _word),
    **dict.fromkeys(("status", "message_status", "call_status"), _word),
    "price_amount": _price,
    "price_currency": _currency,
    "country": _country,
    "mcc": _like("[0-9]{3}"),
    "mnc": _like("[0-9]{1,3}"),
    "carrier": _name,
    "locale": _locale,
    "error_code": _code_text,
    "code_length": _code_length,
}
"""The columns of an attempt that hold values of a known shape."""

CLEANED: Final = (*SHAPES, "destination", "destination_prefix", "url")
"""The columns that may lose a value, besides ``extra``."""

_KEYS: Final[Mapping[str, Shape]] = {
    **dict.fromkeys(
        (
            "answered_by", "arm", "call_status", "channel", "conversion_status", "delivery_status",
            "direction", "email_status", "event", "fraud_guard", "line_type", "message_status",
            "rbm_status", "rcs_status", "risk", "risk_check", "sms_status", "sna_status", "status",
            "type", "unit", "whatsapp_status",
        ),
        _word,
    ),
    **dict.fromkeys(
        (
            "code", "error_code", "mcc", "mnc", "mobile_country_code", "mobile_network_code",
            "sip_code", "sip_response_code",
        ),
        _code,
    ),
    **dict.fromkeys(("country", "country_code", "iso_country"), _country),
    **dict.fromkeys(
        (
            "billed", "converted", "fallback", "fell_back", "final", "ported", "roaming", "test",
            "valid",
        ),
        _flag,
    ),
    **dict.fromkeys(
        (
            "attempt", "attempt_number", "call_duration", "code_length", "duration", "num_segments",
            "queue_time", "resends", "retries", "score", "segments", "since", "version",
        ),
        _few_digits,
    ),
    **dict.fromkeys(
        (
            "account_sid", "call_sid", "message_sid", "messaging_service_sid", "service_sid",
            "template_sid", "verification_sid",
        ),
        _sid,
    ),
    **dict.fromkeys(("date_delivered", "date_expires", "date_read", "date_sent"), _moment),
    **dict.fromkeys(("currency", "price_unit"), _currency),
    "locale": _locale,
}  # fmt: skip
_OBJECTS: Final = frozenset(
    {"_attempt", "channel_data", "experiment", "lookup", "network", "price"}
)


# Most values repeat. Typed, for True is 1.
@lru_cache(maxsize=4096, typed=True)
def harmless(name: str, value: object) -> bool:
    """Say whether a value may stay in a column of ``SHAPES``. NULL may."""
    return value is None or SHAPES[name](value)


def attempt(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may stay of an attempt: the columns of ``SHAPES``, and those below.

    ``row`` has all of them, ``extra`` as its JSON text, and ``sid``.
    """
    kept = {name: row[name] if harmless(name, row[name]) else None for name in SHAPES}
    return kept | {
        "destination": None,
        "destination_prefix": prefix(row["destination_prefix"], row["destination"]),
        "url": url(row["url"], row["sid"]),
        "extra": kept_extra(parsed(row["extra"])),
    }


def prefix(found: object, destination: object) -> object:
    """Keep `+` and six digits, unless the whole number has few more.

    ``destination`` is None if it was removed before.
    """
    if not _prefix(found):
        return None
    longer = destination is None or re.search(
        rf"{re.escape(str(found))}[0-9]{{3}}", f"{destination}"
    )
    return found if longer else None


def url(found: object, sid: str) -> object:
    """Keep the documented address of this attempt, and no other."""
    return found if found == f"{URL}{sid}" else None


def parsed(text: object) -> object:
    """Read JSON's text, None if unreadable: other programs write it, too."""
    try:
        return json.loads(text) if isinstance(text, str | bytes) else None
    except (ValueError, RecursionError):
        return None


def kept_extra(found: object) -> dict[str, Any] | None:
    """Keep the known keys of ``extra`` whose values have their shape, None if there are none.

    ``_raw`` always goes: it holds what could not be read.
    """
    return _kept(found, _DEPTH) or None


def extra_text(text: object) -> str | None:
    """Give as JSON's text what may stay of ``extra``'s text, None if nothing may."""
    kept = kept_extra(parsed(text))
    return None if kept is None else json.dumps(kept, ensure_ascii=False)


def _kept(found: object, depth: int) -> dict[str, Any]:
    if not isinstance(found, dict) or not depth:
        return {}
    kept: dict[str, Any] = {}
    for key, value in found.items():
        if key in _KEYS and (value is None or _KEYS[key](value)):
            kept[key] = value
        elif key in _OBJECTS and (inner := _kept(value, depth - 1)):
            kept[key] = inner
    return kept


def change(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may stay of a row of ``attempt_changes``."""
    known = row["field"] in SHAPES
    return {
        name: row[name] if known and harmless(row["field"], row[name]) else None
        for name in ("old_value", "new_value")
    }


def queued(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may stay of a queued attempt. Its error may quote anything, its outcome not.

    A leased row belongs to its worker.
    """
    if row["state"] == State.LEASED:
        return {}
    outcome = row["outcome"] if _word(row["outcome"]) else None
    return verification(row) | {"outcome": outcome, "last_error": None}


def verification(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may stay of a queued Verification: a SID, and a label with few digits.

    Others write any text into both. The SID is None if it is none.
    """
    is_sid = _sid(row["sid"]) or _placeholder(row["sid"])
    source = row["source"]
    return {
        "sid": row["sid"] if is_sid else None,
        "source": source if isinstance(source, str) and _name(_DATE.sub("", source)) else None,
    }


def run(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may stay of a run: numbers, words and SIDs. An error may quote anything."""
    did = parsed(row["did"])
    return {
        "asked": _options(parsed(row["asked"])),
        "did": _options(did) if isinstance(did, dict) else None,
        "error": None,
    }


def _options(found: object) -> dict[str, Any]:
    pairs = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in pairs if _word(key) and _option(value)}


def _option(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_option, value))
    known = value is None or value == "" or isinstance(value, bool | int | float)
    return known or _word(value) or _sid(value) or _moment(value)


def window(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may stay of a listed window. Its next page's address is of no use any more."""
    return {"next_page": row["next_page"] if row["state"] == "listing" else None}
