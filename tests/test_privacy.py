"""Keep what is known to be harmless, and nothing else."""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from etl import privacy
from etl.database.schema import TRACKED, attempt_channel_data, attempts
from tests.support.hiding import SECRETS, leaks
from tests.support.payloads import SID, URL

SIDS: list[object] = ["VE" + "0" * 32, "AC0123456789abcdefABCDEF0123456789"]
HARMLESS: dict[str, list[object]] = {
    "account_sid": SIDS,
    "service_sid": SIDS,
    "verification_sid": SIDS,
    "channel": ["sms", "call", "email", "whatsapp", "rbm", "sna", "carrier-pigeon"],
    "conversion_status": ["converted", "unconverted"],
    "status": ["confirmed", "unconfirmed", "expired"],
    "message_status": ["delivered", "partially_delivered", "read", "canceled"],
    "call_status": ["in-progress", "no-answer", "busy"],
    "price_amount": [
        Decimal("0.0075"), Decimal("-0.000001"), Decimal("99999.999999"), Decimal(0), "12.500000",
    ],
    "price_currency": ["USD", "COP"],
    "country": ["CO", "US"],
    "mcc": ["732", "310"],
    "mnc": ["3", "03", "103"],
    "carrier": [
        "Colombia Movil (Tigo)", "O2", "3", "T-Mobile", "AT&T", "1&1", "Movistar+", "Móvil",
        "एयरटेल", "中国移动", "Vodafone Idea Ltd. (Formerly Idea)", "MTS/Vodafone: Kyiv", "4ka",
    ],
    "locale": ["es", "pt-BR", "zh-Hans-CN", "es-419", "en_US"],
    "error_code": ["30008", "60410", "404"],
    "code_length": [4, 6, 10],
}  # fmt: skip
PERSONAL: dict[str, list[object]] = {
    "verification_sid": ["VE1", "+14155550100", "VE" + "0" * 31 + "\n"],
    "channel": ["whatsapp:+14155550100", "sms 4155550100", "jane doe", "sms\n"],
    "message_status": ["sent to +14155550100", "a@b.example", "x" * 40],
    "price_amount": [Decimal(100000), Decimal(4155550100), Decimal("NaN"), "4155550100.000000"],
    "price_currency": ["usd", "+14"],
    "country": ["co", "Colombia", "+1", 57],
    "mcc": ["7321", "73"],
    "mnc": ["1034", ""],
    "carrier": [
        "+1 (415) 555-0100", "Tigo 41555", "a@b.example", "a%40b.example", "a\N{FULLWIDTH COMMERCIAL AT}b.example",
        "٤١٥٥٥٥٠١٠٠", "四一五五五五〇一〇〇", "Tigo\nTigo", "x" * 81, b"Tigo", 3,
    ],
    "locale": ["es-4155550100", "spanish", "es 41"],
    "error_code": ["4155550", "+1", "30008 ", ""],
    "code_length": [21, -1, True, 4155550, "6"],
}  # fmt: skip


def test_every_column_is_decided_on() -> None:
    """Each column of an attempt has a shape, is decided on by its neighbours, or is no text."""
    columns = {*attempts.c.keys(), *attempt_channel_data.c.keys()}
    told = {*privacy.SHAPES, "destination", "destination_prefix", "url", "extra"}
    times = {"date_created", "date_updated", "first_fetched_at", "fetched_at", "is_final"}
    assert columns == {*told, *times, "sid", "attempt_sid"}
    assert {*HARMLESS} == {*privacy.SHAPES}
    assert {*TRACKED} <= {*privacy.SHAPES}


def test_harmless_values_stay() -> None:
    """The values that the API is known to send stay, in columns and in the record of changes."""
    for name, values in HARMLESS.items():
        for value in (None, *values):
            assert privacy.harmless(name, value), (name, value)
    for name in TRACKED:
        row = {"field": name, "old_value": HARMLESS[name][-1], "new_value": None}
        row["old_value"] = str(row["old_value"])
        assert privacy.change(row) == {"old_value": row["old_value"], "new_value": None}


def test_other_values_go() -> None:
    """A value without the shape of its column goes, from the record of changes as well."""
    for name, values in PERSONAL.items():
        for value in values:
            assert not privacy.harmless(name, value), (name, value)
    gone = {"old_value": None, "new_value": None}
    row = {"field": "channel", "old_value": "tel:+14155550100", "new_value": "jane doe"}
    assert privacy.change(row) == gone
    assert privacy.change(row | {"field": "nickname", "old_value": "sms"}) == gone


@pytest.mark.parametrize(
    ("found", "destination", "kept"),
    [
        ("+141555", "+14155550100", "+141555"),
        ("+141555", "whatsapp:+14155550100", "+141555"),
        ("+141555", None, "+141555"),
        # A short number is all but told by it.
        ("+155501", "+15550100", None),
        ("+155501", "+155501", None),
        ("+14155", "+14155550100", None),
        ("4155550", None, None),
        (None, None, None),
    ],
)
def test_prefix(found: str | None, destination: str | None, kept: str | None) -> None:
    """A prefix stays when it has its shape and three digits more are missing to the number."""
    assert privacy.prefix(found, destination) == kept


@pytest.mark.parametrize(
    "found",
    [f"{URL}?to=1", URL.replace("0", "1"), URL.replace("verify", "other"), f"{URL}\n", "", None],
)
def test_url(found: str | None) -> None:
    """Only the documented address of the attempt itself stays."""
    assert privacy.url(found, SID) is None
    assert privacy.url(URL, SID) == URL


KNOWN: dict[str, Any] = {
    "risk_check": "enable",
    "delivery_status": "DELIVERED",
    "error_code": 30008,
    "mobile_country_code": "732",
    "country": "CO",
    "ported": False,
    "segments": 2,
    "score": 0.25,
    "message_sid": "SM" + "0" * 32,
    "date_sent": "2026-11-01T10:00:00.123Z",
    "locale": None,
    "price": {"unit": "segment"},
    "_attempt": {"experiment": {"arm": "b", "since": 2026}, "price": {"currency": "USD"}},
}


def test_harmless_extra_stays() -> None:
    """Known keys whose values have their shape stay as they are, a level or two down as well."""
    assert privacy.kept_extra(KNOWN) == KNOWN


@pytest.mark.parametrize(
    "gone",
    [
        {"note": "a"}, {"risk_check": "call 4155550100"}, {"segments": 41555}, {"segments": True},
        {"score": 0.41555}, {"segments": [2]}, {"segments": {"segments": 2}}, {"country": "+1"},
        {"_raw": {"price": "0,005"}}, {"+14155550100": 1}, {"price": {"a@b.example": 1}},
        {"date_sent": "yesterday"}, {"error_code": 415555}, {"message_sid": "SM1"},
    ],
)  # fmt: skip
def test_other_extra_goes(gone: dict[str, Any]) -> None:
    """Unknown keys go with their values, known ones when the value has another shape."""
    assert privacy.kept_extra(gone) is None
    assert privacy.kept_extra({"code": 1, **gone}) == {"code": 1}
    assert privacy.kept_extra({"_attempt": {**gone, "code": 1}}) == {"_attempt": {"code": 1}}


def test_extra_that_is_no_object_goes() -> None:
    """Lists, texts, what is no JSON at all, and what is nested without end are not kept."""
    for sent in ('"4155550100"', "[1]", "null", "{", "[" * 100_000, "1" * 5000):
        assert privacy.kept_extra(privacy.parsed(sent)) is None
    assert privacy.kept_extra({"price": {"price": {"price": {"price": {"code": 1}}}}}) is None


def test_the_document_names_them() -> None:
    """Every column that is decided on, and every key of `extra` that may stay, is documented."""
    text = (Path(__file__).parents[1] / "docs" / "redact.md").read_text(encoding="utf-8")
    above, _, keys = text.partition("### Keys of extra")
    keys = keys.partition("\n## ")[0]
    documented = {*re.findall("`([a-z_]+)`", keys)}
    assert documented - {"_raw"} == {*privacy._KEYS, *privacy._OBJECTS}
    assert {*privacy.SHAPES} <= {*re.findall("`([a-z_]+)`", above)}


@given(SECRETS)
def test_no_secret_stays(secret: object) -> None:
    """Whatever a secret looks like, and whichever key holds it, nothing of it is kept."""
    for key in privacy._KEYS:
        found = privacy.kept_extra({key: secret, "price": {key: secret}, "new": secret})
        assert leaks([json.dumps(found)]) == []
        assert privacy.kept_extra(found) == found


LABELS = ["discover", "signups.csv", "2026-11-23 signups.csv.gz", "stdin", "Müller & Co", None]


@pytest.mark.parametrize("label", LABELS)
def test_labels_stay(label: str | None) -> None:
    """What a file or a program is called stays, with a date in it."""
    row = {"sid": SID, "source": label}
    assert privacy.verification(row) == row


@pytest.mark.parametrize("label", ["for +1 415-555-0100", "a@b.example", "20261123.csv", b"x"])
def test_odd_labels_go(label: object) -> None:
    """A label with an address or more than four digits goes."""
    assert privacy.verification({"sid": SID, "source": label}) == {"sid": SID, "source": None}
