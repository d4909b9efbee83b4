"""Open PostgreSQL, bound its sessions, and read its errors."""

# ruff: noqa: D102 - driver.py says once what each method gives

import math
import re
import sys
import time
from collections.abc import Generator, Mapping
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from etl.database import bounds
from etl.database.dialects.driver import Driver, Fault

_FAULTS: Final = {
    "40001": Fault.BUSY, "40P01": Fault.BUSY, "55P03": Fault.BUSY, "53300": Fault.BUSY,
    "57014": Fault.BUSY, "25P02": Fault.BUSY, "25P03": Fault.LOST, "25P04": Fault.BUSY,
    "40003": Fault.LOST,
    "53100": Fault.STORAGE, "25006": Fault.STORAGE, "3F000": Fault.SCHEMA,
    "28P01": Fault.CONFIG, "28000": Fault.CONFIG, "3D000": Fault.CONFIG,
}  # fmt: skip
_CLASSES: Final = {
    "08": Fault.LOST, "40": Fault.BUSY, "42": Fault.SCHEMA, "53": Fault.BUSY, "57": Fault.LOST,
    "58": Fault.STORAGE, "72": Fault.BUSY, "XX": Fault.STORAGE,
    # Wrong values, constraints, limits, and what a trigger says: the row's own fault.
    "09": Fault.REFUSED, "22": Fault.REFUSED, "23": Fault.REFUSED, "27": Fault.REFUSED,
    "38": Fault.REFUSED, "39": Fault.REFUSED, "44": Fault.REFUSED, "54": Fault.REFUSED,
    "P0": Fault.REFUSED,
}  # fmt: skip
_CONNECTION_ERRORS: Final = {"OperationalError", "ConnectionTimeout", "InterfaceError"}
_SESSION_ENDED: Final = {"25P03", "57P05"}
_FUNCTION: Final = re.compile(r'function "?([\w$.]+)')

# A peer that vanished without a word is noticed within a minute, not after the kernel's two hours.
_KEEPALIVE: Final = {
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


class PostgresqlDriver(Driver):
    """Open PostgreSQL."""

    name = "postgresql+psycopg"
    extra = "postgres"

    def options(self) -> dict[str, Any]:
        return {
            "isolation_level": "READ COMMITTED",
            "connect_args": {"connect_timeout": 10, **_KEEPALIVE},
        }

    def connected(self, connection: Any, record: Any) -> None:  # noqa: ANN401 - the driver's
        waits = connection.wait
        connection.wait = lambda steps, *args, **options: waits(
            _answered(connection, steps, record.info), *args, **options
        )
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
            cursor.execute("SET DateStyle = 'ISO'")
            cursor.execute(f"SET lock_timeout = '{bounds.LOCK_S}s'")
            cursor.execute(_bounds(patient=False, local=False))
            # A plan that is kept was made for a table of another size, and searches arrays linearly.
            cursor.execute("SET plan_cache_mode = force_custom_plan")
            # It would compile for half a second what runs for a tenth. Forks may not have it.
            cursor.execute(
                "SELECT set_config(name, 'off', false) FROM pg_settings WHERE name = 'jit'"
            )
        connection.commit()

    def begin(self, connection: Connection) -> None:
        if bounds.is_patient(connection):
            connection.exec_driver_sql(_bounds(patient=True, local=True))

    def raised(self, cause: Any) -> bool:  # noqa: ANN401 - any driver's
        return hasattr(cause, "sqlstate")

    def fault(self, error: DBAPIError) -> Fault:
        cause: Any = error.orig
        if cause.sqlstate is None:
            # psycopg has no code for a refused password or an absent database at connect time.
            said = str(cause)
            absent = "does not exist" in said and ('database "' in said or 'role "' in said)
            if "authentication failed" in said or "no pg_hba.conf entry" in said or absent:
                return Fault.CONFIG
            return Fault.LOST if type(cause).__name__ in _CONNECTION_ERRORS else Fault.REFUSED
        fault = _FAULTS.get(cause.sqlstate) or _CLASSES.get(cause.sqlstate[:2])
        if fault in {None, Fault.SCHEMA} and self.function(cause):
            # What a user's trigger raises, or lacks.
            return Fault.REFUSED
        return fault or (Fault.LOST if error.connection_invalidated else Fault.OTHER)

    def names(self, cause: Any) -> tuple[str, Mapping[str, str | None]]:  # noqa: ANN401 - the driver's
        kind, diag = type(cause).__name__, getattr(cause, "diag", None)
        if not diag:
            return kind, {}
        names = {
            "table": diag.table_name,
            "column": diag.column_name,
            "constraint": diag.constraint_name,
            "function": self.function(cause),
        }
        return f"{kind} {diag.sqlstate}" if diag.sqlstate else kind, names

    def function(self, cause: Any) -> str | None:  # noqa: ANN401 - the driver's
        context = getattr(getattr(cause, "diag", None), "context", None)
        found = _FUNCTION.search(context or "")
        return found and found[1]

    def stood_still(self, cause: Any) -> bool:  # noqa: ANN401 - the driver's
        return cause.sqlstate in _SESSION_ENDED


def _bounds(*, patient: bool, local: bool) -> str:
    """Write the statement that bounds a session or, ``local``, a transaction; 0 is no bound."""
    idle_s = bounds.idle_s(patient=patient)
    ours = {
        "idle_in_transaction_session_timeout": idle_s * 1000,
        "statement_timeout": 0 if patient else bounds.STATEMENT_S * 1000,
        "transaction_timeout": 0 if patient else bounds.TRANSACTION_S * 1000,
        # A client that takes no more of an answer is no idle one, nor is its statement at work.
        "tcp_user_timeout": idle_s * 1000,
        "tcp_keepalives_idle": 10,
        "tcp_keepalives_interval": 5,
        "tcp_keepalives_count": 3,
    }
    rows = ", ".join(f"('{name}', {bound})" for name, bound in ours.items())
    theirs = "CAST(SUBSTRING(reset_val FROM '^[1-9][0-9]*$') AS BIGINT)"
    least = f"COALESCE(LEAST({theirs}, NULLIF(bound, 0)), 0)"
    return (
        f"SELECT set_config(name, CAST({least} AS TEXT), {str(local).lower()}) "  # noqa: S608 - ours
        f"FROM pg_settings JOIN (VALUES {rows}) AS bounds (known, bound) ON known = name"
    )


def _answered(connection: Any, steps: Any, info: dict[Any, Any]) -> Generator[Any, Any, Any]:  # noqa: ANN401 - psycopg's
    """Pass psycopg's waiting on, and give up on a peer that says nothing but keeps the line open.

    Keepalives tell of a machine that is gone, not of a proxy that has hung.
    """
    give_up = time.monotonic() + info.get(bounds.IMPATIENT, math.inf)
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > give_up:
                connection.close()
                msg = f"no answer within {info[bounds.IMPATIENT]:g} s"
                raise sys.modules["psycopg"].OperationalError(msg)
            wanted = steps.send(ready)
    except StopIteration as done:
        return done.value
