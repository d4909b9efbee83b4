"""Keep what has no column, and survive whatever is sent."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import String

from etl.database import schema
from etl.records import Attempt, Rejection
from etl.transform.attempt import transform
from etl.transform.doors import URL_LENGTH
from etl.transform.extra import EXTRA_DEPTH, RAW_LENGTH
from tests.support.harness import scaled
from tests.support.payloads import (
    EXAMPLE,
    EXAMPLE_DATA,
    NO_DATA,
    SID,
    but,
    data,
    read,
    top,
)


def test_unknown_keys() -> None:
    """Keep unknown keys of all three levels apart, and ready for JSON."""
    payload = EXAMPLE | {
        "risk": {"score": Decimal("0.25")},
        "price": {"value": "0.005", "currency": "usd", "unit": "segment"},
        "channel_data": EXAMPLE_DATA
        | {"rcs_agent": "a", "hops": [1, None, True], "_raw": "theirs"},
    }
    assert read(payload) == but(
        extra={
            "rcs_agent": "a",
            "hops": [1, None, True],
            "_attempt": {
                "risk": {"score": 0.25},
                "price": {"unit": "segment"},
                "channel_data": {"_raw": "theirs"},
            },
        },
    )


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (Decimal("0.1"), 0.1),
        (Decimal("0.12345678901234567890"), "0.12345678901234567890"),
        (Decimal("1E+400"), "1E+400"),
        (Decimal("NaN"), "NaN"),
        (math.nan, "nan"),
        (2**63 - 1, 2**63 - 1),
        (2**63, "9223372036854775808"),
        (-(10**30), "-1" + "0" * 30),
        pytest.param(10**5000, hex(10**5000), id="10**5000"),
        ("a\0b\ud800c\xe9\U0001f600", "a\\u0000b\\ud800c\xe9\U0001f600"),
        ({"\0": {"\udfff": "\0"}}, {"\\u0000": {"\\udfff": "\\u0000"}}),
        ({1: 2, None: 3}, {"1": 2, "null": 3}),
        (b"bytes", '""'),
    ],
)
def test_extra_values(sent: object, kept: object) -> None:
    """Keep unknown values exactly where JSON and the databases can, as text otherwise."""
    assert top(new=sent) == but(extra={"_attempt": {"new": kept}})
    assert data(new=sent) == but(extra={"new": kept})


def nested(depth: int) -> list[Any]:
    """Put a list into lists, so many times."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def depth_of(value: object) -> int:
    """Count the levels of objects and lists."""
    children = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(map(depth_of, children), default=0) if isinstance(children, list) else 0


def test_deep_nesting() -> None:
    """Keep deep values as text, bottomless ones as a mark, within MariaDB's 32 levels."""
    shallow, deep, bottomless = nested(EXTRA_DEPTH - 1), nested(200), nested(50_000)
    assert data(new=shallow).extra == {"new": shallow}
    kept = top(new=deep).extra
    assert EXTRA_DEPTH < depth_of(kept) < 31
    assert "[" * 181 + "]" * 181 in json.dumps(kept)
    assert "(nested too deep to keep)" in json.dumps(top(new=bottomless).extra)
    everywhere = dict.fromkeys(EXAMPLE, bottomless) | {"sid": SID}
    assert len(read(everywhere).warnings) == len(EXAMPLE) - 1
    assert data(to=bottomless) == but(
        destination=None,
        destination_prefix=None,
        extra={"_raw": {"to": "(nested too deep to keep)"}},
        warnings=("to: unreadable",),
    )


def test_unstorable_text() -> None:
    """Spell out NUL and lone surrogates in columns, silently, and keep other scripts."""
    changes = {
        "carrier": "T\0igo",
        "locale": "es\ud83d",
        "status": "\xc9\0X",
        "message_status": "\xc9",
    }
    assert data(**changes) == but(
        carrier="T\\u0000igo",
        locale="es\\ud83d",
        status="\xe9\\u0000x",
        message_status="\xe9",
    )
    assert data(carrier="Móvil \U0001f4f1").carrier == "Móvil \U0001f4f1"


TEXT_FIELDS = {
    "account_sid": (top, "account_sid"),
    "service_sid": (top, "service_sid"),
    "channel": (top, "channel"),
    "conversion_status": (top, "conversion_status"),
    "url": (top, "url"),
    "to": (data, "destination"),
    "country": (data, "country"),
    "mcc": (data, "mcc"),
    "mnc": (data, "mnc"),
    "carrier": (data, "carrier"),
    "locale": (data, "locale"),
    "status": (data, "status"),
    "message_status": (data, "message_status"),
    "call_status": (data, "call_status"),
    "error_code": (data, "error_code"),
}


def column_length(column: str) -> int:
    """Give the characters that a column holds, ours for TEXT."""
    table = schema.attempts if column in schema.attempts.c else schema.attempt_channel_data
    kind = table.c[column].type
    assert isinstance(kind, String)
    return URL_LENGTH if kind.length is None else kind.length


@pytest.mark.parametrize("name", TEXT_FIELDS)
@pytest.mark.parametrize("letter", ["x", "\xe9"])
def test_text_fits_its_column(name: str, letter: str) -> None:
    """Fill a column to the last character, cut what is longer and keep it in full."""
    with_field, column = TEXT_FIELDS[name]
    length = column_length(column)
    plain = {"destination_prefix": None} if name == "to" else {}
    full = but(**{column: letter * length}, **plain)
    assert with_field(**{name: letter * length}) == full
    assert with_field(**{name: f" {letter * (length + 1)} "}) == full._replace(
        extra={"_raw": {name: f" {letter * (length + 1)} "[:RAW_LENGTH]}},
        warnings=(f"{name}: cut",),
    )


@pytest.mark.parametrize("name", TEXT_FIELDS)
@pytest.mark.parametrize(
    ("sent", "raw"), [(True, "true"), ([1], "[1]"), ({"a": Decimal("0.5")}, '{"a": "0.5"}')]
)
def test_wrong_types(name: str, sent: object, raw: str) -> None:
    """Empty the column of a value that is no text or number, and keep its JSON."""
    with_field, column = TEXT_FIELDS[name]
    plain = {"destination_prefix": None} if name == "to" else {}
    assert with_field(**{name: sent}) == but(
        **{column: None},
        **plain,
        extra={"_raw": {name: raw}},
        warnings=(f"{name}: unreadable",),
    )


@pytest.mark.parametrize("name", TEXT_FIELDS)
def test_numbers_for_text(name: str) -> None:
    """Store the text of a number where text is expected."""
    with_field, column = TEXT_FIELDS[name]
    assert getattr(with_field(**{name: 12345}), column) == "12345"
    assert getattr(with_field(**{name: Decimal("1.50")}), column) == "1.50"
    assert with_field(**{name: 10**5000}).warnings == (f"{name}: cut",)


@pytest.mark.parametrize(
    ("sent", "raw"), [(True, "true"), (-1, "-1"), (2**31, "2147483648"), ("six", "six")]
)
def test_code_length(sent: object, raw: str) -> None:
    """Store a count that the column holds, nothing else."""
    assert data(code_length=2**31 - 1).code_length == 2**31 - 1
    assert data(code_length=sent) == but(
        code_length=None,
        extra={"_raw": {"code_length": raw}},
        warnings=("code_length: unreadable",),
    )


@pytest.mark.parametrize("sent", ["text", [1, 2], True, 0])
def test_channel_data_of_another_shape(sent: object) -> None:
    """Keep channel data that is no object as text, and the rest of the row."""
    raw = sent if isinstance(sent, str) else json.dumps(sent)
    assert top(channel_data=sent) == but(
        **NO_DATA,
        extra={"_raw": {"channel_data": raw}},
        warnings=("channel_data: not an object",),
    )


def test_two_unreadable_verifications() -> None:
    """Keep both verifications where neither can be read, under names of their own."""
    payload = EXAMPLE | {"verification_sid": [1], "channel_data": {"verification_sid": [2]}}
    actual = read(payload)
    assert actual.verification_sid is None
    assert actual.extra == {
        "_raw": {"verification_sid": "[1]", "channel_data.verification_sid": "[2]"}
    }


def test_raw_text_is_capped() -> None:
    """Keep no more of an unreadable value than a screenful."""
    extra = data(to=["\0" * 5000], carrier="\0" * 5000).extra
    assert extra is not None
    assert [len(text) for text in extra["_raw"].values()] == [RAW_LENGTH, RAW_LENGTH]


def test_warnings_hold_no_values() -> None:
    """Name fields in warnings and never what was in them."""
    secret = "+15550123"
    payload = {key: [secret] for key in EXAMPLE} | {
        "sid": SID,
        "channel_data": {key: [secret] for key in EXAMPLE_DATA},
        "price": {"value": secret + "x", "currency": [secret]},
    }
    warnings = read(payload).warnings
    assert len(warnings) == len(EXAMPLE) - 3 + len(EXAMPLE_DATA) + 2
    assert not any(secret in warning for warning in warnings)


NUMBERS = (
    st.integers()
    | st.sampled_from([10**4000, 2**63, -(2**63), 2**31])
    | st.decimals(allow_nan=True, allow_infinity=True)
    | st.floats()
)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=400) | st.sampled_from(
    ["NaN", "Infinity", "1e400", "\u0130" * 64, "\0" * 64, "\ud800" * 16, "2020-08-11\ud80018:36"]
)
SCALARS = st.none() | st.booleans() | NUMBERS | ANY_TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=8,
)
ODD_DATA = st.fixed_dictionaries(
    {}, optional=dict.fromkeys([*EXAMPLE_DATA, "call_status", "_attempt", "_raw", "new"], JSON)
)
ODD_PRICE = st.fixed_dictionaries({}, optional={"value": JSON, "currency": JSON, "new": JSON})
ODD = st.fixed_dictionaries(
    {"sid": st.just(SID)},
    optional={key: JSON for key in [*EXAMPLE, "new"] if key not in {"sid", "price", "channel_data"}}
    | {"price": ODD_PRICE | JSON, "channel_data": ODD_DATA | JSON},
)


def strings_in(value: object) -> Iterator[str]:
    """Walk all strings in a value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for pair in value.items() for item in pair for text in strings_in(item))
    elif isinstance(value, (list, tuple)):
        yield from (text for item in value for text in strings_in(item))


def assert_storable(attempt: Attempt) -> None:
    """Check what every database asks of a row."""
    values = attempt._asdict()
    for text in strings_in(values):
        assert "\0" not in text
        assert text.encode("utf-8").decode("utf-8") == text
    for column in [c for t in (schema.attempts, schema.attempt_channel_data) for c in t.c]:
        value = values.get(column.name)
        if isinstance(column.type, String) and value is not None:
            assert 0 < len(value) <= column_length(column.name)
    assert json.loads(json.dumps(attempt.extra, allow_nan=False)) == attempt.extra
    assert depth_of(attempt.extra) < 31
    amount = attempt.price_amount
    assert amount is None or amount == Decimal(repr(float(amount))) == round(amount, 6)
    for moment in (attempt.date_created, attempt.date_updated):
        assert moment is None or (moment.tzinfo is UTC and moment.microsecond % 1000 == 0)


@given(ODD)
@settings(max_examples=scaled(300))
def test_any_payload_is_storable(payload: dict[str, Any]) -> None:
    """Make of any values in any known key an attempt that every database takes."""
    attempt = transform(payload, sid=SID)
    assert isinstance(attempt, Attempt)
    assert_storable(attempt)


@given(JSON, st.none() | ANY_TEXT)
def test_any_json_never_raises(payload: object, sid: str | None) -> None:
    """Answer any JSON with a value, whatever was asked for."""
    result = transform(payload, sid=sid)
    assert isinstance(result, Rejection)
    assert result.reason.isascii()


def test_imports_nothing_heavy() -> None:
    """Stay pure: no HTTP, no SQL, no command line behind the transform."""
    code = "import sys, etl.transform.attempt; print({'requests', 'sqlalchemy', 'click'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "set()"
