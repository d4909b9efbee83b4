"""Read the fees for successful verifications from a file, and store them.

Twilio charges for each successful verification. The API's price leaves this fee out.
`verification_fees` holds it by channel, country, currency and first day (UTC). An empty channel or
country means any. The most specific valid row wins: channel and country, channel, country, neither.
"""

import csv
import io
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, delete, insert

from etl.database.schema import verification_fees
from etl.errors import ConfigError

COLUMNS: Final = ("channel", "country", "currency", "valid_from", "amount")

_ALWAYS: Final = date(1970, 1, 1)
# The most wrong entries in one message.
_SHOWN: Final = 5
_MOST: Final = Decimal(10) ** 9
_CURRENCY_LETTERS: Final = 3


@dataclass(frozen=True, slots=True)
class Fee:
    """Hold the fee for one successful verification; '' is any channel or country."""

    channel: str
    country: str
    currency: str
    valid_from: date
    amount: Decimal


def read(path: Path) -> list[Fee]:
    """Read fees from a TOML or CSV file.

    TOML has tables ``[[fee]]``, CSV a header with the same names. ``currency`` and ``amount`` are
    required. ``channel``, ``country`` and ``valid_from`` may be missing or empty.
    Raises ``ConfigError``, which names the wrong entries.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = _toml(text) if path.suffix.lower() == ".toml" else _csv(text)
    except OSError as error:
        msg = f"the file of fees {path} cannot be read: {error.strerror}."
        raise ConfigError(msg, hint="Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, csv.Error, ValueError) as error:
        msg = f"the file of fees {path} cannot be read: {error}."
        raise ConfigError(msg, hint="Run: verify-etl config example fees") from error
    return _checked(found, path)


def _toml(text: str) -> list[Mapping[str, Any]]:
    document = tomllib.loads(text, parse_float=Decimal)
    if set(document) - {"fee"}:
        msg = "it may hold no table but [[fee]]"
        raise ValueError(msg)
    entries = document.get("fee", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        msg = "fees are written as [[fee]]"
        raise ValueError(msg)
    return entries


def _csv(text: str) -> list[Mapping[str, Any]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    if set(map(str.strip, reader.fieldnames or ())) - set(COLUMNS):
        # The line is not quoted: in a wrong file it may hold a phone number.
        msg = f"its first line must name columns, all of them from: {', '.join(COLUMNS)}"
        raise ValueError(msg)
    return [{(name or "").strip(): value for name, value in row.items()} for row in reader]


def _checked(entries: Sequence[Mapping[str, Any]], path: Path) -> list[Fee]:
    fees: dict[tuple[Any, ...], Fee] = {}
    problems: list[str] = []
    for number, entry in enumerate(entries, 1):
        try:
            fee = _fee(entry)
            key = (fee.channel, fee.country, fee.currency, fee.valid_from)
            if key in fees:
                problems.append(f"entry {number}: it is there twice")
            fees[key] = fee
        except ValueError as error:
            problems.append(f"entry {number}: {error}")
    if problems or not fees:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        said = "; ".join(problems[:_SHOWN] + more) or "it holds no fee"
        msg = f"the file of fees {path} is not usable: {said}."
        raise ConfigError(msg, hint="Run: verify-etl config example fees")
    return list(fees.values())


def _fee(entry: Mapping[str, Any]) -> Fee:
    if set(entry) - set(COLUMNS):
        msg = f"it may hold no keys but {', '.join(COLUMNS)}"
        raise ValueError(msg)
    currency = str(entry.get("currency") or "").strip().upper()
    if len(currency) != _CURRENCY_LETTERS or not (currency.isascii() and currency.isalpha()):
        msg = "currency must be three letters"
        raise ValueError(msg)
    return Fee(
        channel=str(entry.get("channel") or "").strip().lower(),
        country=str(entry.get("country") or "").strip().upper(),
        currency=currency,
        valid_from=_day(entry.get("valid_from")),
        amount=_amount(entry.get("amount")),
    )


def _day(value: object) -> date:
    if value is None or value == "":
        return _ALWAYS
    try:
        return date.fromisoformat(str(value).strip())
    except ValueError:
        msg = "valid_from must be a day such as 2026-03-01"
        raise ValueError(msg) from None


def _amount(value: object) -> Decimal:
    msg = "amount must be a number with at most six decimals, such as 0.05"
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError(msg)  # noqa: TRY004 - every wrong entry raises the same kind
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError(msg) from None
    if not amount.is_finite() or not 0 <= amount < _MOST:
        raise ValueError(msg)
    if amount != (exact := amount.quantize(Decimal("0.000001"))):
        raise ValueError(msg)
    return exact


def replace(connection: Connection, fees: Sequence[Fee]) -> int:
    """Replace all stored fees; return how many there are now."""
    connection.execute(delete(verification_fees))
    rows = [{name: getattr(fee, name) for name in COLUMNS} for fee in fees]
    connection.execute(insert(verification_fees), rows)
    return len(rows)
