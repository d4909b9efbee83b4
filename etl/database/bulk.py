"""Hand many values to a database at once: arrays on PostgreSQL, else rows."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, CursorResult, Insert, Update

from etl.database.dialects import Columns, dialect


def among(
    connection: Connection, column: ColumnElement[Any], values: Collection[Any]
) -> ColumnElement[bool]:
    """Say that a column's value is one of these, in one parameter wherever that can be."""
    return dialect(connection).among(column, [*values])


def unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Hide a text column from its index, so that the database chooses another.

    Just filled tables have no statistics. PostgreSQL then guesses that few rows have any one state.
    To find a thousand SIDs it would read all waiting rows.
    """
    return column.concat("")


def execute(
    connection: Connection, statement: Insert | Update, columns: Columns
) -> CursorResult[Any]:
    """Run one of the dialect's statements for many rows, given by column.

    Build a statement once and keep it: what it becomes on SQLite is kept with it.
    """
    return dialect(connection).execute(connection, statement, columns)
