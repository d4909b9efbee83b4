"""Name what refused a statement: table, column, constraint, function.

A database quotes rows ("Failing row contains (…)", "Duplicate entry '…'"). A trigger says anything.
So only names are repeated, each from a place where only a name can stand.
"""

import re
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from etl.database.dialects import DIALECTS
from etl.database.dialects.driver import Driver, code_of

_STATEMENT: Final = re.compile(r"\s*(?:INSERT INTO|UPDATE|DELETE FROM)\s+[`\"]?(\w+)")
_SAID: Final = "verify_etl_said"
_NAMED: Final = ("table", "column", "constraint", "function")


def names_of(error: DBAPIError) -> str:
    """Name what refused a statement: ``table attempts, constraint mine (CheckViolation)``."""
    cause: Any = error.orig
    if known := getattr(cause, _SAID, None):
        return str(known)
    driver = driver_of(cause)
    kind, names = driver.names(cause) if driver else (type(cause).__name__, {})
    if not names.get("table") and (found := _STATEMENT.match(error.statement or "")):
        names = {**names, "table": found[1]}
    where = ", ".join(f"{what} {names[what]}" for what in _NAMED if names.get(what))
    return f"{where} ({kind})" if where else kind


def replace_words(error: DBAPIError, said: str) -> None:
    """Give an error and its cause these words only; ``names_of`` finds them again."""
    cause: Any = error.orig
    if cause is not None:
        code = code_of(cause)
        cause.args = (code, said) if isinstance(code, int) else (said,)
        setattr(cause, _SAID, said)
    error.args = (said,)


def driver_of(cause: Any) -> Driver | None:  # noqa: ANN401 - any driver's
    """Say which driver raised an error, if it is one of ours."""
    return next((each.driver for each in DIALECTS.values() if each.driver.raised(cause)), None)
