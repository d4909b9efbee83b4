"""Lock rows, and hold named locks to the end of a transaction."""

from typing import Any

from sqlalchemy import Connection, Select, text

from etl.database.dialects import dialect
from etl.database.schema import VERSION_TABLE


def locked(statement: Select[Any], *, skip: bool = False) -> Select[Any]:
    """Add FOR UPDATE (SKIP LOCKED). It renders nothing on SQLite, where only one writes."""
    return statement.with_for_update(skip_locked=skip)


# Fair locks: who wants one alone is not passed by for ever.


def lock_shared(connection: Connection, key: int) -> None:
    """Hold a lock that others may share, to the end of the transaction.

    Take it first, or two may wait for each other. On MariaDB and MySQL all keys are one. SQLite
    needs no lock, for only one writes at a time.
    """
    _lock(connection, key, shared=True)


def lock_alone(connection: Connection, key: int) -> None:
    """Hold a lock that nobody else holds, shared or alone, to the end of the transaction."""
    _lock(connection, key, shared=False)


def _lock(connection: Connection, key: int, *, shared: bool) -> None:
    statement = dialect(connection).lock(key, VERSION_TABLE, shared=shared)
    if statement is not None:
        connection.execute(text(statement)).all()
