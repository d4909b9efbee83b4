"""Keep what the payload says beyond our columns, ready to be stored as JSON."""

import json
import math
import re
from decimal import Decimal
from typing import Any, Final

RAW_LENGTH: Final = 2000  # of a value that could not be read
EXTRA_DEPTH: Final = 20
"""Levels kept as JSON in an unknown key: MariaDB calls JSON of 32 levels invalid."""

_INT64: Final = 2**63
# PostgreSQL refuses NUL in text; no database takes half of a surrogate pair.
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def unknown_keys(sent: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Give the keys that no door knows, as sent."""
    if known.issuperset(sent):
        return {}
    return {key: value for key, value in sent.items() if key not in known}


def storable(value: object, depth: int = EXTRA_DEPTH) -> Any:  # noqa: ANN401 - any JSON
    """Make a value fit for every database's JSON: no NUL, no NaN, no huge or deep thing."""
    if isinstance(value, (dict, list, tuple)):
        if depth <= 0:
            return _json_text(value)
        if isinstance(value, dict):
            return {storable_key(key): storable(item, depth - 1) for key, item in value.items()}
        return [storable(item, depth - 1) for item in value]
    if isinstance(value, Decimal) and value.is_finite():
        near = float(value)
        return near if Decimal(repr(near)) == value else str(value)
    plain = isinstance(value, bool) or (isinstance(value, int) and -_INT64 <= value < _INT64)
    plain = plain or (isinstance(value, float) and math.isfinite(value))
    return value if plain or value is None else storable_key(value)


def storable_key(key: object) -> str:
    """Turn any key into text that JSON and every database can hold."""
    text = scalar_text(key)
    return _json_text(key) if text is None else escaped(text)


def raw_text(value: object) -> str:
    """Give the text of a value as sent (JSON, where it is a structure), cut and storable."""
    text = scalar_text(value)
    return escaped(_json_text(value) if text is None else text[:RAW_LENGTH])[:RAW_LENGTH]


def scalar_text(value: object) -> str | None:
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
        return json.dumps(value, default=lambda odd: scalar_text(odd) or "", skipkeys=True)
    except (RecursionError, ValueError):
        return "(nested too deep to keep)"


def escaped(text: str) -> str:
    r"""Spell out what no database stores: NUL as ``\u0000``, half a surrogate pair likewise."""
    if text.isascii() and "\0" not in text:
        return text
    return _UNSTORABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
