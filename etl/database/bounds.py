"""Bound how long a session of ours may hold others up, for it may freeze, or its machine vanish.

Such a worker holds what it has locked, the allowance's gate for one, for as long as the server
keeps its session: hours, unless told otherwise. The next worker asks for 30 s, 10 s at a time; so
the server is told to end within 15 to 20 s what says nothing more. What the server's owner has set
lower stays as it is, and what a server does not know is left out.
"""

import math
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection

LOCK_S: Final = 10
"""How long a statement waits for a lock."""

IDLE_S: Final = 15
"""How long a transaction may wait for its next statement; SQLite knows no such bound."""

STATEMENT_S: Final = 20
"""How long one statement may take."""

TRANSACTION_S: Final = 25
"""How long a transaction may take: the only bound, of PostgreSQL 17, for a statement that came in
part. Before, one stays until its connection ends."""

ANSWER_S: Final = 25.0
"""How long we wait for the server's answer to one statement, which it bounds itself."""

IMPATIENT: Final = "verify_etl_answer_s"
"""Where a connection's ``info`` says for how long an answer is waited for; else without end."""

PATIENT: Final = {"verify_etl_patient": True}
"""Execution options of transactions for which nobody waits, or everybody has to: reports, exports,
sums and migrations. Their statements may take as long as they take; only pauses are bounded."""

_PATIENT: Final = "verify_etl_patient"
_PATIENT_IDLE_S: Final = 60
"""The page is packed between two statements, and a migration waits for other migrators."""
_PATIENT_ANSWER_S: Final = 86_400
_THEIRS: Final = "verify_etl_server_settings"


def is_patient(connection: Connection) -> bool:
    """Say whether the connection's statements may take as long as they take."""
    return _PATIENT in connection.get_execution_options()


def postgresql(*, patient: bool, local: bool) -> str:
    """Write the statement that bounds a session or, ``local``, a transaction; 0 is no bound."""
    idle_s = _PATIENT_IDLE_S if patient else IDLE_S
    bounds = {
        "idle_in_transaction_session_timeout": idle_s * 1000,
        "statement_timeout": 0 if patient else STATEMENT_S * 1000,
        "transaction_timeout": 0 if patient else TRANSACTION_S * 1000,
        # A client that takes no more of an answer is no idle one, nor is its statement at work.
        "tcp_user_timeout": idle_s * 1000,
        "tcp_keepalives_idle": 10,
        "tcp_keepalives_interval": 5,
        "tcp_keepalives_count": 3,
    }
    rows = ", ".join(f"('{name}', {bound})" for name, bound in bounds.items())
    theirs = "CAST(SUBSTRING(reset_val FROM '^[1-9][0-9]*$') AS BIGINT)"
    least = f"COALESCE(LEAST({theirs}, NULLIF(bound, 0)), 0)"
    return (
        f"SELECT set_config(name, CAST({least} AS TEXT), {str(local).lower()}) "  # noqa: S608 - ours
        f"FROM pg_settings JOIN (VALUES {rows}) AS bounds (known, bound) ON known = name"
    )


# In seconds. MySQL has the last two in place of MariaDB's, and bounds no statement but a SELECT.
def _mysql(*, patient: bool) -> dict[str, float]:
    idle_s = _PATIENT_IDLE_S if patient else IDLE_S
    statement_s = 0 if patient else STATEMENT_S
    return {
        "idle_transaction_timeout": idle_s,
        "idle_write_transaction_timeout": idle_s,
        "idle_readonly_transaction_timeout": idle_s,
        "max_statement_time": statement_s,
        "net_read_timeout": idle_s,
        "net_write_timeout": idle_s,
        "max_execution_time": statement_s * 1000,
        "wait_timeout": idle_s,
    }


MYSQL_LOOK: Final = "SHOW SESSION VARIABLES WHERE Variable_name IN ({})".format(
    ", ".join(f"'{name}'" for name in _mysql(patient=True))
)
"""The statement that reads, in a new session, what ``mysql`` changes."""


def mysql(info: dict[Any, Any], rows: Iterable[Sequence[str]] = (), *, patient: bool) -> str:
    """Write the statement that bounds a session; ``rows`` are what ``MYSQL_LOOK`` found in it."""
    theirs: dict[str, float] = info.setdefault(_THEIRS, {n: float(value) for n, value in rows})
    bounds = _mysql(patient=patient)
    if "idle_transaction_timeout" in theirs and not patient:
        # It would end pooled sessions, too. A migration's lock is held between its transactions.
        bounds["wait_timeout"] = 0
    settings = {
        name: min(filter(None, (theirs[name], bound)), default=0)
        for name, bound in bounds.items()
        if name in theirs
    }
    settings["innodb_lock_wait_timeout"] = LOCK_S
    return "SET SESSION " + ", ".join(f"{name} = {value:.15g}" for name, value in settings.items())


def begin(connection: Connection) -> None:
    """Give a transaction its bounds where they are not those of its session."""
    patient = is_patient(connection)
    if connection.dialect.name == "postgresql":
        if patient:
            connection.exec_driver_sql(postgresql(patient=True, local=True))
        return
    # It knows no bounds of one transaction. A pool hands a session out for the one and the other.
    info = connection.info
    if info.get(_PATIENT, False) != patient:
        connection.exec_driver_sql(mysql(info, patient=patient))
        driver: Any = connection.connection.driver_connection
        answer_s = _PATIENT_ANSWER_S if patient else ANSWER_S
        driver._read_timeout = answer_s  # noqa: SLF001 - PyMySQL has no other way to change it
        info[_PATIENT] = patient


def answered(connection: Any, steps: Any, info: dict[Any, Any]) -> Generator[Any, Any, Any]:  # noqa: ANN401 - psycopg's
    """Pass psycopg's waiting on, and give up on a peer that says nothing but keeps the line open.

    Keepalives tell of a machine that is gone, not of a proxy that has hung.
    """
    give_up = time.monotonic() + info.get(IMPATIENT, math.inf)
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > give_up:
                connection.close()
                msg = f"no answer within {info[IMPATIENT]:g} s"
                raise sys.modules["psycopg"].OperationalError(msg)
            wanted = steps.send(ready)
    except StopIteration as done:
        return done.value
