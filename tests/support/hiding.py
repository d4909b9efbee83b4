"""Hide a number, an address and a name in payloads, in any spelling and anywhere, and search for them."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from urllib.parse import quote, unquote

from hypothesis import strategies as st
from sqlalchemy import Engine, text

from etl import privacy
from etl.rollups.tables import metadata
from tests.support.payloads import EXAMPLE, EXAMPLE_DATA

NUMBER: Final = ("1", "415", "555", "0147")
ADDRESS: Final = "jane.q@example.com"
NAME: Final = "Jane Quillfeather"
_DIGITS: Final = "5550147"
_WORDS: Final = ("jane.q", "quillfeather")

_SEPARATORS: Final = ("", " ", "-", ".", "\xa0", "\u202f", "\u2011", "/", ") (", "_")
_SCHEMES: Final = ("", "tel:", "sip:", "whatsapp:", "TEL:", "call me at ", "to=", "<")
_ENDINGS: Final = ("", " ext 5", ";ext=5", "@example.com", ", please", ">", " ")
_ZEROS: Final = ("0", "\N{FULLWIDTH DIGIT ZERO}", "\N{ARABIC-INDIC DIGIT ZERO}")


def _escaped(found: str) -> str:
    return "".join(f"\\u{ord(char):04x}" for char in found)


_WRAPS: Final[tuple[Callable[[str], str], ...]] = (
    str, lambda found: quote(found, safe=""), json.dumps, lambda found: json.dumps({"to": found}),
    lambda found: json.dumps(json.dumps([found])), _escaped, lambda found: f"Dear {found}!",
)  # fmt: skip


@st.composite
def _numbers(draw: st.DrawFn) -> str:
    groups = NUMBER if draw(st.booleans()) else NUMBER[1:]
    plain = draw(st.sampled_from(("", "+", "00"))) + draw(st.sampled_from(_SEPARATORS)).join(groups)
    zero = ord(draw(st.sampled_from(_ZEROS)))
    found = draw(st.sampled_from(_SCHEMES)) + plain + draw(st.sampled_from(_ENDINGS))
    return found.translate({ord("0") + digit: zero + digit for digit in range(10)})


_ADDRESSES: Final = st.sampled_from(
    (
        ADDRESS,
        ADDRESS.upper(),
        f"mailto:{ADDRESS}",
        ADDRESS.replace("@", "\N{FULLWIDTH COMMERCIAL AT}"),
        f"<{ADDRESS}>",
    )
)
_NAMES: Final = st.sampled_from((NAME, NAME.upper(), "Quillfeather, Jane", "Jane.Quillfeather"))
TEXTS: Final = st.builds(
    lambda found, wrap: wrap(found), _numbers() | _ADDRESSES | _NAMES, st.sampled_from(_WRAPS)
)
_PLAIN_NUMBERS: Final = st.sampled_from((14155550147, 4155550147, 5550147, 4155550147.0))


def _around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    words = st.sampled_from(("new", "status", "price", "experiment", "to", "_raw", "_attempt"))
    return (
        st.lists(inner, min_size=1, max_size=2)
        | st.dictionaries(words, inner, min_size=1, max_size=2)
        | st.builds(lambda key, value: {key: value}, TEXTS, st.just(1) | inner)
    )


SECRETS: Final = st.recursive(TEXTS | _PLAIN_NUMBERS, _around, max_leaves=3)

_TOP: Final = sorted({*EXAMPLE, "new", "experiment", "note"} - {"sid"})
# A carrier's name stays, and a person's is spelled with the same letters.
_DATA: Final = sorted({*EXAMPLE_DATA, "call_status", "new", *privacy._KEYS} - {"carrier"})


@st.composite
def payloads(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a payload that holds a secret, in a value or as a key; it has no SID yet."""
    where = draw(st.sampled_from(("top", "data", "price", "carrier", "key", "data key")))
    secret = draw(SECRETS)
    if where == "top":
        return {**EXAMPLE, draw(st.sampled_from(_TOP)): secret}
    if where == "key":
        return {**EXAMPLE, draw(TEXTS): draw(st.just("x") | st.just(1) | SECRETS)}
    if where == "price":
        key = draw(st.sampled_from(("value", "currency", "unit", "new")))
        return {**EXAMPLE, "price": {"value": "0.005", "currency": "usd", key: secret}}
    if where == "carrier":
        found = draw(_numbers() | _ADDRESSES)
        return {**EXAMPLE, "channel_data": {**EXAMPLE_DATA, "carrier": found}}
    key = draw(st.sampled_from(_DATA) if where == "data" else TEXTS)
    return {**EXAMPLE, "channel_data": {**EXAMPLE_DATA, key: secret}}


def leaks(cells: Iterable[object]) -> list[str]:
    """Return the cells in which a secret can still be read, however it is spelled."""
    return [str(cell) for cell in cells if any(map(_tells, _readings(str(cell))))]


def _readings(cell: str) -> Iterator[str]:
    for _ in range(3):
        yield cell
        cell = unquote(cell)
        # The backslashes of JSON in JSON in JSON.
        cell = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), cell)


def _tells(reading: str) -> bool:
    plain = unicodedata.normalize("NFKC", reading).casefold()
    digits = "".join(str(unicodedata.digit(char)) for char in plain if char.isdigit())
    return _DIGITS in digits or any(word in plain for word in _WORDS)


def cells(engine: Engine) -> list[object]:
    """Return what every column of every row of every table holds."""
    with engine.connect() as connection:
        return [
            json.dumps(cell, ensure_ascii=False) if isinstance(cell, dict | list) else cell
            for table in metadata.sorted_tables
            for row in connection.execute(text(f"SELECT * FROM {table.name}"))
            for cell in row
        ]
