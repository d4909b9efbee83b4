"""Hold the transform to Twilio's example, to what live accounts send, and to anything at all."""

import math
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.records import Attempt, Rejection
from etl.transform.attempt import transform
from tests.support.payloads import (
    EXAMPLE,
    EXAMPLE_DATA,
    EXPECTED,
    NO_DATA,
    OTHER_SID,
    SECOND,
    SID,
    but,
    data,
    read,
    top,
)


def test_example() -> None:
    """Read Twilio's own example into exactly the expected record."""
    assert transform(EXAMPLE, sid=SID) == EXPECTED
    assert transform(EXAMPLE, sid=None) == EXPECTED
    assert transform(MappingProxyType(EXAMPLE), sid=SID) == EXPECTED


def test_live_spelling() -> None:
    """Read the case, blanks and integers of live accounts as the documented spelling."""
    live = EXAMPLE | {
        "channel": " SMS ",
        "conversion_status": "UNCONVERTED",
        "price": {"value": "0.005", "currency": "USD"},
        "channel_data": EXAMPLE_DATA
        | {
            "status": "UNCONFIRMED",
            "message_status": "Undelivered\n",
            "error_code": 30008,
            "country": "co",
            "mcc": 732,
            "mnc": 103,
            "code_length": "6",
        },
    }
    assert read(live) == EXPECTED


@pytest.mark.parametrize("channel_data", [None, {}])
def test_without_channel_data(channel_data: object) -> None:
    """Leave the columns of absent channel data empty and the rest as it is."""
    expected = but(**NO_DATA)
    assert top(channel_data=channel_data) == expected
    absent = {key: value for key, value in EXAMPLE.items() if key != "channel_data"}
    assert read(absent) == expected


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_all_blank(blank: str | None) -> None:
    """Read nulls and blanks in every field as unknown, without a warning."""
    payload = {key: blank for key in EXAMPLE if key not in {"sid", "channel_data", "price"}}
    payload |= {"sid": SID}
    nothing: dict[str, Any] = dict.fromkeys(Attempt._fields)
    expected = Attempt(**nothing | {"sid": SID, "warnings": ()})
    both: dict[str, object] = {
        "channel_data": dict.fromkeys(EXAMPLE_DATA, blank) | {"call_status": blank},
        "price": {"value": blank, "currency": blank},
    }
    assert read(payload | both) == expected
    assert read({"sid": SID, "price": blank}) == expected


def test_call() -> None:
    """Keep the call status of a call beside an empty message status."""
    payload = {key: value for key, value in EXAMPLE_DATA.items() if key != "message_status"}
    actual = top(channel="call", channel_data=payload | {"call_status": "NO-ANSWER"})
    expected = but(channel="call", message_status=None, call_status="no-answer")
    assert actual == expected


def test_email() -> None:
    """Keep an e-mail address as the destination, without a prefix or a network."""
    address = {"to": "someone@example.com", "status": "confirmed"}
    columns = NO_DATA | {"destination": "someone@example.com", "status": "confirmed"}
    assert top(channel="email", channel_data=address) == but(channel="email", **columns)


@pytest.mark.parametrize("channel", ["rbm", "whatsapp", "sna", "carrier-pigeon"])
def test_any_channel(channel: str) -> None:
    """Take channels of today, of yesterday and of tomorrow."""
    assert top(channel=channel.upper()) == but(channel=channel)


@pytest.mark.parametrize(
    ("to", "prefix"),
    [
        ("+15550100", "+155501"),
        ("+155501", "+155501"),
        ("whatsapp:+15550100", "+155501"),
        ("+15550", None),
        ("15550100", None),
        ("+1 555 0100", None),
        ("+15550100@example.com", None),
        ("someone+15550100@example.com", None),
        ("+\u0661\u0662\u0663\u0664\u0665\u0666", None),
    ],
)
def test_prefix(to: str, prefix: str | None) -> None:
    """Give the prefix of phone numbers only, the destination always."""
    assert data(to=to) == but(destination=to, destination_prefix=prefix)


@pytest.mark.parametrize("zero", [0, "0", "", "00", " 0 ", Decimal("0.0")])
def test_no_error(zero: object) -> None:
    """Read every spelling of zero as no error."""
    assert data(error_code=zero) == but(error_code=None)


@pytest.mark.parametrize(
    ("sent", "stored"),
    [("mx", "MX"), ("Colombia", "Colombia"), ("c0", "c0"), ("\xe9\xe9", "\xe9\xe9")],
)
def test_country(sent: str, stored: str) -> None:
    """Upper-case two letters of ASCII and nothing else."""
    assert data(country=sent).country == stored


def test_verification_fallback() -> None:
    """Take the verification of the channel data where the top level has none."""
    assert top(verification_sid=None) == EXPECTED
    assert top(verification_sid="") == EXPECTED


def test_two_verifications() -> None:
    """Keep the verification that only the channel data names beside the attempt's own."""
    expected = but(extra={"verification_sid": SECOND})
    assert data(verification_sid=SECOND) == expected
    assert data(verification_sid="") == EXPECTED


@pytest.mark.parametrize(
    ("sent", "amount"),
    [
        (None, None),
        ("", None),
        ("-0.0075", Decimal("-0.0075")),
        ("0.00500", Decimal("0.005")),
        ("5E-3", Decimal("0.005")),
        (" 0.005 ", Decimal("0.005")),
        (".5", Decimal("0.5")),
        (Decimal("0.005"), Decimal("0.005")),
        (0.005, Decimal("0.005")),
        (3, Decimal(3)),
        ("0E+400", Decimal(0)),
        ("1E3", Decimal(1000)),
        ("0.0050000000", Decimal("0.005")),
        ("999999999.999999", Decimal("999999999.999999")),
        ("999999999", Decimal(999999999)),
        ("100000000.000000", Decimal(100000000)),
    ],
)
def test_exact_price(sent: object, amount: Decimal | None) -> None:
    """Store the exact decimal that was sent, in an object or bare, without a warning."""
    assert top(price={"value": sent, "currency": "usd"}) == but(price_amount=amount)
    assert top(price=sent) == but(price_amount=amount, price_currency=None)


@pytest.mark.parametrize(
    ("sent", "raw", "reason"),
    [
        ("1e400", "1e400", "too many digits"),
        (Decimal("1E+400"), "1E+400", "too many digits"),
        ("0,005", "0,005", "unreadable"),
        ("NaN", "NaN", "unreadable"),
        (Decimal("NaN"), "NaN", "unreadable"),
        ("Infinity", "Infinity", "unreadable"),
        (math.inf, "inf", "unreadable"),
        ("1_000", "1_000", "unreadable"),
        ("\u0661", "\u0661", "unreadable"),
        (".", ".", "unreadable"),
        ("$5", "$5", "unreadable"),
        (True, "true", "unreadable"),
        ([1, "2"], '[1, "2"]', "unreadable"),
        ({"a": None}, '{"a": null}', "unreadable"),
        ("1000000000", "1000000000", "too many digits"),
        ("999999999.9999999", "999999999.9999999", "too many digits"),
        ("1234567890.123456", "1234567890.123456", "too many digits"),
    ],
)
def test_unreadable_price(sent: object, raw: str, reason: str) -> None:
    """Give up an amount that cannot be stored; keep its text, name the field, store the row."""
    expected = but(
        price_amount=None,
        extra={"_raw": {"price": raw}},
        warnings=(f"price: {reason}",),
    )
    assert top(price={"value": sent, "currency": "usd"}) == expected
    if not isinstance(sent, dict):
        assert top(price=sent) == expected._replace(price_currency=None)


@pytest.mark.parametrize(
    ("sent", "amount"),
    [
        ("0.0000005", Decimal(0)),
        ("0.0000015", Decimal("0.000002")),
        ("-0.00500051", Decimal("-0.005001")),
        ("1e-400", Decimal(0)),
        ("0." + "3" * 60, Decimal("0.333333")),
        ("99999999.9999999", Decimal(100000000)),
    ],
)
def test_rounded_price(sent: str, amount: Decimal) -> None:
    """Round to millionths, half to even, and keep what was sent."""
    assert top(price={"value": sent, "currency": "usd"}) == but(
        price_amount=amount,
        extra={"_raw": {"price": sent}},
        warnings=("price: rounded",),
    )


@pytest.mark.parametrize("sent", ["dollars", "u$", "\xe9ur", "US1"])
def test_odd_currency(sent: str) -> None:
    """Store three letters as a currency, keep the text of anything else."""
    assert top(price={"value": "0.005", "currency": " eur "}).price_currency == "EUR"
    assert top(price={"value": "0.005", "currency": sent}) == but(
        price_currency=None,
        extra={"_raw": {"currency": sent}},
        warnings=("currency: unreadable",),
    )


@given(st.integers(-(10**15) + 1, 10**15 - 1), st.integers(0, 6), st.booleans())
def test_price_round_trip(digits: int, scale: int, as_text: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    """Carry every amount below a billion, of up to six decimals, through unchanged."""
    amount = Decimal(digits).scaleb(-scale)
    if abs(amount) >= 10**9:
        amount = Decimal(digits).scaleb(-6)
    actual = top(price={"value": str(amount) if as_text else amount, "currency": "usd"})
    assert actual == but(price_amount=amount)


@pytest.mark.parametrize(
    ("sent", "read_as"),
    [
        ("2020-08-11T18:36:59.123Z", datetime(2020, 8, 11, 18, 36, 59, 123_000, tzinfo=UTC)),
        ("2020-08-11T18:36:59.9999Z", datetime(2020, 8, 11, 18, 36, 59, 999_000, tzinfo=UTC)),
        ("2020-08-11T18:36:59.123456789Z", datetime(2020, 8, 11, 18, 36, 59, 123_000, tzinfo=UTC)),
        ("2020-08-11T13:36:59-05:00", datetime(2020, 8, 11, 18, 36, 59, tzinfo=UTC)),
        ("2020-08-11T18:36:59", datetime(2020, 8, 11, 18, 36, 59, tzinfo=UTC)),
        (" 2020-08-11 18:36:59 ", datetime(2020, 8, 11, 18, 36, 59, tzinfo=UTC)),
        ("2000-01-01T00:00:00Z", datetime(2000, 1, 1, tzinfo=UTC)),
        ("2099-12-31T23:59:59Z", datetime(2099, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_dates(sent: str, read_as: datetime) -> None:
    """Read ISO 8601 in any precision and zone, in the future too, as UTC milliseconds."""
    actual = top(date_created=sent)
    assert actual == but(date_created=read_as)
    assert actual.date_created is not None
    assert actual.date_created.tzinfo is UTC


@pytest.mark.parametrize(
    ("sent", "raw"),
    [
        ("yesterday", "yesterday"),
        ("2020-02-30T00:00:00Z", "2020-02-30T00:00:00Z"),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00"),
        ("9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59-14:00"),
        ("1999-12-31T23:59:59Z", "1999-12-31T23:59:59Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        ("2020-08-11T18:36:60\ud800", "2020-08-11T18:36:60\\ud800"),
        (1597170999, "1597170999"),
        (False, "false"),
        ([], "[]"),
    ],
)
def test_unreadable_dates(sent: object, raw: str) -> None:
    """Treat a time that cannot be one as unknown, and keep its text."""
    assert top(date_created=sent, date_updated=sent) == but(
        date_created=None,
        date_updated=None,
        extra={"_raw": {"date_created": raw, "date_updated": raw}},
        warnings=("date_created: unreadable", "date_updated: unreadable"),
    )


def test_missing_dates() -> None:
    """Leave missing times empty without a warning."""
    payload = {key: value for key, value in EXAMPLE.items() if not key.startswith("date_")}
    assert read(payload) == but(date_created=None, date_updated=None)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ([EXAMPLE], "the answer is not a JSON object"),
        (None, "the answer is not a JSON object"),
        ("NaN", "the answer is not a JSON object"),
        (Decimal(1), "the answer is not a JSON object"),
        ({}, "the answer carries no sid"),
        (EXAMPLE | {"sid": None}, "the answer carries no sid"),
        (EXAMPLE | {"sid": 7}, "the answer's sid is not text"),
        (EXAMPLE | {"sid": [SID]}, "the answer's sid is not text"),
        (
            EXAMPLE | {"sid": "+573003003030"},
            "the answer's sid is not that of a verification attempt",
        ),
        (EXAMPLE | {"sid": SID + "\n"}, "the answer's sid is not that of a verification attempt"),
        (EXAMPLE | {"sid": OTHER_SID}, f"the answer is another attempt: {OTHER_SID}"),
        (EXAMPLE | {"sid": SID.upper()}, f"the answer is another attempt: {SID.upper()}"),
    ],
)
def test_rejected(payload: object, reason: str) -> None:
    """Refuse what is not the attempt asked for, without quoting more than another SID."""
    assert transform(payload, sid=SID) == Rejection(reason)


def test_listed_attempt_needs_a_sid() -> None:
    """Take a listed attempt by its own SID, if that is one."""
    listed = transform(EXAMPLE | {"sid": OTHER_SID}, sid=None)
    assert listed == but(sid=OTHER_SID)
    assert isinstance(transform(EXAMPLE | {"sid": "VE" + "0" * 32}, sid=None), Rejection)
