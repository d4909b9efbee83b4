"""Refuse a database that would spoil our rows, or hide them, before a run counts on it."""

from collections.abc import Sequence

from sqlalchemy import Connection

from etl.database.dialects import dialect
from etl.errors import ConfigError, SchemaError


def check_encoding(connection: Connection) -> None:
    """Raise ``ConfigError`` for a database that cannot hold UTF-8: carriers have names in any script."""
    if why := dialect(connection).misfit(connection):
        msg = f"the database cannot hold every text: {why}."
        hint = "Create one with ENCODING 'UTF8' TEMPLATE template0, and set DATABASE_URL to it."
        raise ConfigError(msg, hint=hint)


def check_engines(connection: Connection, tables: Sequence[str]) -> None:
    """Raise ``SchemaError`` for tables without transactions: what is locked there is not."""
    if found := dialect(connection).without_locks(connection, tables):
        msg = f"tables are not of the engine InnoDB, and so have no locks: {', '.join(found)}."
        raise SchemaError(msg, hint="Run: verify-etl db upgrade")


def check_visible(connection: Connection, tables: Sequence[str]) -> None:
    """Raise ``SchemaError`` when row-level security may hide rows from this user.

    A run would find nothing to do, and say so.
    """
    if found := dialect(connection).hidden(connection, tables):
        msg = f"row-level security hides rows from this user: {', '.join(found)}."
        hint = (
            "Give the user in DATABASE_URL a policy for ALL of each table with USING (true), or"
            " as a superuser: ALTER ROLE ... BYPASSRLS."
        )
        raise SchemaError(msg, hint=hint)


def mend_engines(connection: Connection, tables: Sequence[str]) -> list[str]:
    """Give every table of ours transactions; return those that had none."""
    ours = dialect(connection)
    found = [*ours.without_locks(connection, tables)]
    for table in found:
        ours.mend_storage(connection, table)
    return found
