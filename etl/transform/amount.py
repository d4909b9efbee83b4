"""Read an amount of money from its text: exact, and as long as every database holds exactly."""

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache
from typing import Final

UNREADABLE: Final = "unreadable"

# With six decimals these are the 15 digits that a float holds exactly; and as whole millionths
# thousands of such amounts add up in 64 bits.
_INTEGER_DIGITS: Final = 9
_FLOAT_SAFE_DIGITS: Final = 15  # SQLite keeps NUMERIC as REAL.
_SCALES: Final = range(-6, 1)
_MICRO: Final = Decimal("0.000001")
_ROUNDING: Final = Context(prec=40, rounding=ROUND_HALF_EVEN, traps=[])
_NUMBER: Final = re.compile(r"[+-]?(?=\.?[0-9])[0-9]{0,99}\.?[0-9]{0,99}(?:[eE][+-]?[0-9]{1,3})?")
_LONGER_THAN_ANY: Final = 250
"""Characters; more of a text need not be remembered to know that it is no number."""


def read_amount(text: str) -> tuple[Decimal | None, str]:
    """Give the amount that NUMERIC(18,6) and a float can both hold, and what is wrong, or ''.

    Of more than six decimals it is rounded, half to even; from a billion on it is None.
    """
    return _read(text[:_LONGER_THAN_ANY])


# An account pays some dozens of different prices.
@lru_cache(maxsize=256)
def _read(text: str) -> tuple[Decimal | None, str]:
    if not _NUMBER.fullmatch(text):
        return None, UNREADABLE
    exact = Decimal(text)
    amount = _fitted(exact)
    if amount == exact:
        return amount, ""
    return amount, "too many digits" if amount is None else "rounded"


def _fitted(exact: Decimal) -> Decimal | None:
    """Round to millionths (half to even) where there are more; None when it is too long."""
    if exact and exact.adjusted() >= _INTEGER_DIGITS:
        return None
    rounded = exact.quantize(_MICRO, context=_ROUNDING)
    digits = rounded.normalize(_ROUNDING).as_tuple().digits
    if len(digits) > _FLOAT_SAFE_DIGITS or rounded.adjusted() >= _INTEGER_DIGITS:
        return None
    return exact if exact.as_tuple().exponent in _SCALES else rounded
