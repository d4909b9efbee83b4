"""Give what only one database's dialect has, importing that dialect and no other.

All three cost as much time to import as the rest of SQLAlchemy's engine, at every start; a command
talks to one database, whose dialect its engine has imported already.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.dialects import mysql, postgresql, sqlite


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
