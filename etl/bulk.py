"""Hand many values to a database at once: one array on PostgreSQL, one bind for each elsewhere.

A page is a thousand rows. PostgreSQL takes them as arrays, in one statement whose text is the same
for any number of them; ten thousand binds, or a statement for each row, cost several times as much.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import (
    ARRAY,
    JSON,
    Column,
    ColumnElement,
    Connection,
    CursorResult,
    Dialect,
    Insert,
    String,
    Table,
    TableValuedAlias,
    Text,
    Update,
    any_,
    bindparam,
    cast,
    column,
    func,
    literal,
    select,
)

from etl.dialects import postgresql_insert

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.types import TypeEngine

Row: TypeAlias = Mapping[str, Any]

_ARRAY: Final = "every_"


def among(
    connection: Connection, column: ColumnElement[Any], values: Collection[Any]
) -> ColumnElement[bool]:
    """Say that a column's value is one of these, in one parameter wherever that can be.

    Else the last one fills up to the next hundred: drivers keep what they prepared for a text, and
    would keep one for each number of values.
    """
    listed = [*values]
    if connection.dialect.name == "postgresql":
        return column == any_(literal(listed, ARRAY(_sent_as(column.type))))
    if connection.dialect.name == "sqlite":
        sent = func.json_each(literal(json.dumps(listed), Text())).table_valued("value")
        return column.in_(select(sent.c.value))
    return column.in_(listed + listed[-1:] * (-len(listed) % 100))


def unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Give a text column's value in a form that no index serves, so that another one is chosen.

    Without statistics, as a table just filled is, PostgreSQL guesses that few rows are in any
    state and reads all that wait to find the thousand that were named.
    """
    return column.concat("")


def execute(
    connection: Connection, statement: Insert | Update, rows: Sequence[Row]
) -> CursorResult[Any]:
    """Run one statement for many rows, which all have the same keys.

    On PostgreSQL the statement is one that reads ``rows_of``; elsewhere it has a bind for each
    key. Build a statement once and keep it: what it becomes on SQLite is kept with it.
    """
    if connection.dialect.name == "postgresql":
        return connection.execute(statement, _arrays(rows))
    if connection.dialect.name != "sqlite":
        return connection.execute(statement, rows)
    text, binds = _sqlite(statement, connection.dialect, tuple(rows[0]))
    columns: list[Iterable[Any]] = []
    for name, value, convert in binds:
        if name not in rows[0]:
            columns.append(repeat(value, len(rows)))
        elif convert is None:
            columns.append([row[name] for row in rows])
        else:
            columns.append([convert(row[name]) for row in rows])
    return connection.exec_driver_sql(text, list(zip(*columns, strict=True)))


@lru_cache(maxsize=32)
def _sqlite(
    statement: Insert | Update, dialect: Dialect, names: tuple[str, ...]
) -> tuple[str, list[tuple[str, Any, Any]]]:
    """Compile a statement for tuples: text, and of each bind its name, value and conversion.

    SQLAlchemy's own way makes two dictionaries of each row, half as dear as all that SQLite does.
    """
    compiled = statement.compile(dialect=dialect, column_keys=list(names))
    values = compiled.params
    binds = [
        (
            name,
            values[name],
            compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect),
        )
        for name in compiled.positiontup or ()
    ]
    constants = [
        (name, value if name in names or convert is None else convert(value), convert)
        for name, value, convert in binds
    ]
    return str(compiled), constants


def rows_of(columns: Iterable[Column[Any]], *, prefix: str = "") -> TableValuedAlias:
    """Read rows that ``execute`` hands over as a table; on PostgreSQL alone.

    ``prefix``: what their keys have before the columns' names.

    Texts are sent without a length: a cast to VARCHAR(64) would cut what the column has to refuse.
    """
    kinds = {c.name: _sent_as(c.type) for c in columns}
    sent = [bindparam(array(prefix + name), type_=ARRAY(kind)) for name, kind in kinds.items()]
    names = [column(name, kind) for name, kind in kinds.items()]
    return func.unnest(*sent).table_valued(*names, name="sent").render_derived()


def insert_rows(table: Table, columns: Sequence[Column[Any]] = ()) -> "postgresql.Insert":
    """Insert any number of rows, handed over by ``execute``; on PostgreSQL alone."""
    columns = columns or list(table.c)
    sent = rows_of(columns)
    values = [
        cast(sent.c[c.name], JSON) if isinstance(c.type, JSON) else sent.c[c.name] for c in columns
    ]
    return postgresql_insert(table).from_select(columns, select(*values))


def _arrays(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Turn rows into the arrays that ``rows_of`` reads, one for each column."""
    sent = {array(name): [row[name] for row in rows] for name in rows[0]}
    if extras := sent.get(array("extra")):
        sent[array("extra")] = [None if extra is None else json.dumps(extra) for extra in extras]
    return sent


def array(name: str) -> str:
    """Name the bind that holds a column's array."""
    return f"{_ARRAY}{name}"


def _sent_as(kind: "TypeEngine[Any]") -> "TypeEngine[Any]":
    return Text() if isinstance(kind, String | JSON) else kind
