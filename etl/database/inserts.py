"""Build INSERT statements for each kind of database."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.dialects import mysql, postgresql, sqlite


from sqlalchemy import Connection, Insert, Table


def _dialect(name: Literal["mysql", "postgresql", "sqlite"]) -> Any:  # noqa: ANN401 - a module
    return import_module(f"sqlalchemy.dialects.{name}")


def mysql_insert(table: "Table") -> "mysql.Insert":
    """Begin an INSERT … ON DUPLICATE KEY UPDATE."""
    return cast("mysql.Insert", _dialect("mysql").insert(table))


def postgresql_insert(table: "Table") -> "postgresql.Insert":
    """Begin an INSERT … ON CONFLICT of PostgreSQL."""
    return cast("postgresql.Insert", _dialect("postgresql").insert(table))


def sqlite_insert(table: "Table") -> "sqlite.Insert":
    """Begin an INSERT … ON CONFLICT of SQLite."""
    return cast("sqlite.Insert", _dialect("sqlite").insert(table))


def insert_ignore(connection: Connection, table: Table, *key: str) -> Insert:
    """Build an INSERT that leaves a row alone whose ``key`` (its columns) is there already.

    Nothing else is ignored: MySQL's INSERT IGNORE would turn wrong values into warnings.
    """
    return insert_ignore_on(connection.dialect.name, table, *key)


def insert_ignore_on(dialect: str, table: Table, *key: str) -> Insert:
    """Build it for a kind of database; see ``insert_ignore``."""
    if dialect in {"mysql", "mariadb"}:
        return mysql_insert(table).on_duplicate_key_update({key[0]: table.c[key[0]]})
    if dialect == "postgresql":
        return postgresql_insert(table).on_conflict_do_nothing(index_elements=[*key])
    return sqlite_insert(table).on_conflict_do_nothing(index_elements=[*key])
