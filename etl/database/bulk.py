"""Hand many values to a database at once: an array of each column on PostgreSQL, else rows.

A page is a thousand rows. PostgreSQL takes them as arrays, in one statement whose text is the same
for any number of them; ten thousand binds, or a statement for each row, cost several times as much.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
    TypeDecorator,
    Update,
    any_,
    bindparam,
    cast,
    column,
    func,
    literal,
    select,
)

from etl.database.inserts import postgresql_insert

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.types import TypeEngine

Columns: TypeAlias = Mapping[str, Sequence[Any]]
"""Rows by column; all columns are equally long."""

_ARRAY: Final = "every_"


class Array(TypeDecorator[Sequence[Any]]):
    """Send values of a type to PostgreSQL as an array, given as its text.

    The driver spells arrays in Python, with a look at each element for its type: that took a
    fifth of the time of loading. Here each goes as ``str`` of it, so they must be what PostgreSQL
    reads as that type: text, numbers, booleans, times, JSON's text, None.
    """

    impl = ARRAY
    cache_ok = True

    def __init__(self, element: "TypeEngine[Any]") -> None:
        # Texts go without a length: a cast to VARCHAR(64) would cut what the column has to refuse.
        # By this name, which is the parameter's, SQLAlchemy tells the types of cached statements apart.
        self.element: TypeEngine[Any] = Text() if isinstance(element, String | JSON) else element
        super().__init__(self.element)

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], str]:
        """Spell them; PostgreSQL reads each by the cast that stands behind the bind."""
        del dialect
        return _spell


def _spell(values: Sequence[Any]) -> str:
    """Spell an array of one dimension (source: PostgreSQL's manual, "Array Input")."""
    quoted = [
        "NULL" if value is None else '"' + str(value).replace("\\", r"\\").replace('"', r"\"") + '"'
        for value in values
    ]
    return "{" + ",".join(quoted) + "}"


def among(
    connection: Connection, column: ColumnElement[Any], values: Collection[Any]
) -> ColumnElement[bool]:
    """Say that a column's value is one of these, in one parameter wherever that can be.

    Else the last one fills up to the next hundred: drivers keep what they prepared for a text, and
    would keep one for each number of values.
    """
    listed = [*values]
    if connection.dialect.name == "postgresql":
        return column == any_(literal(listed, Array(column.type)))
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
    connection: Connection, statement: Insert | Update, columns: Columns
) -> CursorResult[Any]:
    """Run one statement for many rows, given by column.

    On PostgreSQL the statement is one that reads ``rows_of``; elsewhere it has a bind for each
    key. Build a statement once and keep it: what it becomes on SQLite is kept with it.
    """
    if connection.dialect.name == "postgresql":
        return connection.execute(statement, _arrays(columns))
    if connection.dialect.name != "sqlite":
        rows = zip(*columns.values(), strict=True)
        return connection.execute(statement, [dict(zip(columns, row, strict=True)) for row in rows])
    text, binds = _sqlite(statement, connection.dialect, tuple(columns))
    size = len(next(iter(columns.values())))
    sent: list[Iterable[Any]] = []
    for name, value, convert in binds:
        if name not in columns:
            sent.append(repeat(value, size))
        elif convert is None:
            sent.append(columns[name])
        else:
            sent.append([convert(each) for each in columns[name]])
    return connection.exec_driver_sql(text, list(zip(*sent, strict=True)))


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
    """
    kinds = {c.name: Array(c.type) for c in columns}
    sent = [bindparam(array(prefix + name), type_=kind) for name, kind in kinds.items()]
    names = [column(name, kind.element) for name, kind in kinds.items()]
    return func.unnest(*sent).table_valued(*names, name="sent").render_derived()


def insert_rows(table: Table, columns: Sequence[Column[Any]] = ()) -> "postgresql.Insert":
    """Insert any number of rows, handed over by ``execute``; on PostgreSQL alone."""
    columns = columns or list(table.c)
    sent = rows_of(columns)
    values = [
        cast(sent.c[c.name], JSON) if isinstance(c.type, JSON) else sent.c[c.name] for c in columns
    ]
    return postgresql_insert(table).from_select(columns, select(*values))


def _arrays(columns: Columns) -> dict[str, Sequence[Any]]:
    """Name columns as ``rows_of`` reads them."""
    sent = {array(name): values for name, values in columns.items()}
    if extras := sent.get(array("extra")):
        sent[array("extra")] = [None if extra is None else json.dumps(extra) for extra in extras]
    return sent


def array(name: str) -> str:
    """Name the bind that holds a column's array."""
    return f"{_ARRAY}{name}"
