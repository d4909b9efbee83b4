"""Bound how long a session of ours may hold others up, for it may freeze, or its machine vanish.

Such a worker holds what it has locked, the allowance's gate for one, for as long as the server
keeps its session: hours, unless told otherwise. The next worker asks for 30 s, 10 s at a time; so
the server is told to end within 15 to 20 s what says nothing more. What the server's owner has set
lower stays as it is, and what a server does not know is left out.
"""

from typing import Final

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


def is_patient(connection: Connection) -> bool:
    """Say whether the connection's statements may take as long as they take."""
    return _PATIENT in connection.get_execution_options()


def idle_s(*, patient: bool) -> int:
    """Return how long a transaction may wait for its next statement."""
    return _PATIENT_IDLE_S if patient else IDLE_S
