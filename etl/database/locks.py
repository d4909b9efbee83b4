"""Lock rows, and hold named locks to the end of a transaction."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Select, text

from etl.database.schema import VERSION_TABLE


def locked(statement: Select[Any], *, skip: bool = False) -> Select[Any]:
    """Add FOR UPDATE (SKIP LOCKED); SQLite, whose writers are alone, renders nothing."""
    return statement.with_for_update(skip_locked=skip)


# Fair locks: who wants one alone is not passed by for ever. MariaDB has no shared lock but a row's.
_SHARED: Final = {
    "postgresql": "SELECT pg_advisory_xact_lock_shared({key})",
    "mysql": f"SELECT version_num FROM {VERSION_TABLE} LOCK IN SHARE MODE",  # noqa: S608 - a constant
}
_ALONE: Final = {
    "postgresql": "SELECT pg_advisory_xact_lock({key})",
    "mysql": f"SELECT version_num FROM {VERSION_TABLE} FOR UPDATE",  # noqa: S608 - a constant
}


def lock_shared(connection: Connection, key: int) -> None:
    """Hold a lock that others may hold as well, to the end of the transaction.

    Take it before any other, or two may wait for each other. On MariaDB and MySQL all keys are one;
    SQLite's writers are alone anyway.
    """
    _lock(connection, _SHARED, key)


def lock_alone(connection: Connection, key: int) -> None:
    """Hold a lock that nobody else holds, shared or alone, to the end of the transaction."""
    _lock(connection, _ALONE, key)


def _lock(connection: Connection, statements: Mapping[str, str], key: int) -> None:
    name = connection.dialect.name
    statement = statements.get("mysql" if name == "mariadb" else name)
    if statement is not None:
        connection.execute(text(statement.format(key=key))).all()
