"""Run a transaction, and repeat it when the database is busy or gone."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

import tenacity
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from etl.database import bounds
from etl.database.dialects.driver import Fault
from etl.database.engine import CAREFUL
from etl.database.errors import classify, explain
from etl.database.schema import REVISION, VERSION_TABLE
from etl.errors import DatabaseBusy, SchemaError

T = TypeVar("T")

PATIENCE_S: Final = 30.0
"""How long a transaction is repeated while the database is busy or gone."""


def check_revision(connection: Connection) -> None:
    """Raise ``SchemaError`` unless the schema is of this version. Every claim asks this."""
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all()  # noqa: S608 - a constant
    if found != [REVISION]:
        have = ", ".join(found) or "none"
        msg = f"the database's schema is at revision {have}, this program needs {REVISION}."
        raise SchemaError(msg, hint="Run: verify-etl db upgrade (with the newest program).")


def transact(
    engine: Engine,
    work: Callable[[Connection], T],
    *,
    doing: str,
    patience_s: float = PATIENCE_S,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Run ``work`` in one transaction and commit. Repeat all of it when the database is busy.

    ``work`` may run more than once, even after a commit whose answer was lost. So it must look
    before it writes. After a refusal, at the commit too, it is repeated once ``carefully``.

    Raises ``DatabaseBusy`` after ``patience_s``, or when the engine's pool has no free connection.
    Raises ``StorageError``, ``SchemaError``, ``WriteRefused`` or ``ConfigError``; ``doing`` is part
    of the words.
    """
    tries = _Tries(patience_s)
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(tries.again),
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=2),
        stop=tries.over,
        sleep=sleep,
        reraise=True,
    )

    def once() -> T:
        tries.began_at = time.monotonic()
        with engine.connect() as connection:
            info = connection.info
            info[CAREFUL] = tries.careful
            if not bounds.is_patient(connection):
                options = connection.get_execution_options()
                info[bounds.IMPATIENT] = options.get(bounds.IMPATIENT, bounds.ANSWER_S)
            try:
                with connection.begin():
                    return work(connection)
            finally:
                # A migration or a report may take long.
                info.pop(bounds.IMPATIENT, None)
                info.pop(CAREFUL, None)

    try:
        return retrying(once)
    except PoolTimeout as error:
        # Our own threads use all of the engine's connections.
        msg = f"While {doing}, no database connection came free."
        raise DatabaseBusy(msg, hint="Nothing is lost; run it again.") from error
    except DBAPIError as error:
        raise explain(error, doing) from error


class _Tries:
    """Decide after each try of a transaction whether to try again."""

    def __init__(self, patience_s: float) -> None:
        self.began_at = time.monotonic()
        self.careful = False
        self._patience_s = patience_s
        self._stood = False

    def again(self, error: BaseException) -> bool:
        """Say whether another try may help. A refusal is tried once more, carefully."""
        if not isinstance(error, DBAPIError):
            return False
        fault = classify(error)
        if fault is Fault.REFUSED:
            first_time, self.careful = not self.careful, True
            return first_time
        return fault in {Fault.BUSY, Fault.LOST}

    def over(self, state: tenacity.RetryCallState) -> bool:
        """Say whether patience has run out."""
        if (state.seconds_since_start or 0) < self._patience_s:
            return False
        # If we stood still, the server has ended the session. Try once more.
        still = time.monotonic() - self.began_at >= bounds.IDLE_S
        again = still and not self._stood and self._patience_s > 0
        self._stood = self._stood or again
        return not again
