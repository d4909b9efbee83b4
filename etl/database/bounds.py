"""Bound how long one of our transactions may hold others up.

A worker can freeze, or its machine vanish. Its locks, such as the allowance's gate, then last as
long as the server keeps the session: hours by default. The next worker asks for 30 s, 10 s at a
time. So the server ends a silent session within 15 to 20 s. PostgreSQL has the bounds of each
transaction, MariaDB and MySQL of each session. Lower settings of the server's owner stay. Settings
that a server does not know are left out.
"""

from typing import Final

from sqlalchemy import Connection

LOCK_S: Final = 10
"""How long a statement waits for a lock."""

IDLE_S: Final = 15
"""How long a transaction may wait for its next statement. SQLite has no such bound."""

STATEMENT_S: Final = 20
"""How long one statement may take."""

TRANSACTION_S: Final = 25
"""How long a transaction may take. PostgreSQL 17 has it.

Only this ends a statement that came in part. Older servers keep one until its connection ends.
"""

ANSWER_S: Final = 25.0
"""How long we wait for the answer to one statement. The server bounds it itself."""

IMPATIENT: Final = "verify_etl_answer_s"
"""The key in a connection's ``info`` for how long to wait for an answer; without it, forever."""

PATIENT: Final = {"verify_etl_patient": True}
"""Execution options of a transaction that may take long.

Reports, exports, sums and migrations have it. Their statements are unbounded, their pauses not.
"""

_PATIENT: Final = "verify_etl_patient"
_PATIENT_IDLE_S: Final = 60
"""The page is packed between two statements, and a migration waits for other migrators."""


def is_patient(connection: Connection) -> bool:
    """Say whether the connection's statements may take long."""
    return _PATIENT in connection.get_execution_options()


def idle_s(*, patient: bool) -> int:
    """Return how long a transaction may wait for its next statement."""
    return _PATIENT_IDLE_S if patient else IDLE_S
