"""Say what every kind of database has to answer; each answers in a file of its own."""

# ruff: noqa: ARG002 - not every database needs all that it is given

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any, ClassVar, Final, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    DateTime,
    Insert,
    Numeric,
    Table,
    Update,
    bindparam,
    insert,
    update,
)
from sqlalchemy.types import TypeEngine

from etl.database.dialects.driver import Driver

FIRST_YEAR_S: Final = 62_135_596_800
"""Seconds from the year 1 to 1970, whole days: what is added before a moment is rounded down."""

MIGRATORS_WAIT_S: Final = 300
"""How long a migration waits for another one."""

Columns: TypeAlias = Mapping[str, Sequence[Any]]
"""Rows by column; all columns are equally long."""

Rows: TypeAlias = Sequence[tuple[str, int]]
"""A file's SIDs, and when the API forgets each."""

CHUNK: Final = 10_000
"""Rows of a file in one statement."""

Element: TypeAlias = ColumnElement[Any]


class Spelling(ABC):
    """Spell SQL. Every method takes SQL and returns SQL.

    No text holds a colon before a word or a percent sign: drivers read those as parameters.
    """

    @abstractmethod
    def day(self, at: str, offset_s: int = 0) -> str:
        """Give the calendar day of a moment, in UTC or so many seconds east of it."""

    @abstractmethod
    def readable(self, at: str) -> str:
        """Say whether a moment is one: others may have written what is none, or no year of ours."""

    @abstractmethod
    def odd(self, at: str, table: str) -> str:
        """Say of an indexed column of moments which are none, NULL left out, and read few rows."""

    @abstractmethod
    def seconds(self, at: str) -> str:
        """Give the whole seconds from 1970 to a moment."""

    @abstractmethod
    def instant(self, epoch_s: int | str) -> str:
        """Give the moment so many seconds after 1970, to compare a stored one with."""

    def number(self, seconds: str, length_s: int) -> str:
        """Give how many whole stretches of a length fit into seconds since 1970."""
        return f"{seconds} / {length_s}"

    def start(self, seconds: str, length_s: int) -> str:
        """Round seconds since 1970 down to the beginning of a stretch of so many."""
        # Before 1970 a division would round up.
        whole = self.number(f"({seconds} + {FIRST_YEAR_S})", length_s)
        return f"({whole} * {length_s} - {FIRST_YEAR_S})"

    def bound(self, moment: str) -> str:
        """Make of a moment that is written or bound what a stored one is compared with quickly."""
        return moment

    @abstractmethod
    def nested(self, table: str, alias: str, index: str, condition: str) -> str:
        """Join a table by this index, row by row of what stands before, and in no other way."""

    def nested_left(self, table: str, alias: str, condition: str) -> str:
        """Do the same, keeping rows that find nothing; what is found is one row at most."""
        return f"LEFT JOIN {table} {alias} ON {condition}"

    @abstractmethod
    def hour(self, hour_no: str) -> str:
        """Give the beginning of an hour, UTC, from the hours since 1970."""

    @abstractmethod
    def moment(self, epoch_ms: str) -> str:
        """Give the moment so many milliseconds after 1970."""

    @abstractmethod
    def millionths(self, amount: str) -> str:
        """Give an amount as an integer of millionths."""

    # Where decimals divide, 12 digits go in, so that rounding once is exact.

    def money(self, millionths: str) -> str:
        """Give the amount back, exact to six decimals."""
        return f"{millionths} * 0.000001"

    def money_ratio(self, millionths: str, count: str) -> str:
        """Divide an amount, rounded half away from zero to six decimals; NULL without a count."""
        return f"ROUND(CAST({millionths} AS DECIMAL(38, 12)) / NULLIF({count}, 0)) * 0.000001"

    def ratio(self, part: str, whole: str) -> str:
        """Divide two counts, rounded half up to six decimals; NULL when the whole is zero."""
        return f"ROUND(CAST({part} AS DECIMAL(38, 12)) / NULLIF({whole}, 0), 6)"

    def exact(self, column: str) -> str:
        """Compare and sort a text by its code points, whatever the database's language."""
        return column

    @abstractmethod
    def channels(self, attempts: str) -> str:
        """List the channels of a verification `f` in order, from its attempts `a`."""


class Dialect(Spelling):
    """Build the statements that databases spell differently, and say what a database can do."""

    driver: ClassVar[Driver]

    keeps_any_text: ClassVar[bool] = False
    """Whether a column keeps what others write, whatever its type."""

    writes_alone: ClassVar[bool] = False
    """Whether one transaction writes at a time."""

    is_file: ClassVar[bool] = False
    """Whether the database is a file: opening makes it, and nobody holds rights in it."""

    counts_inserts: ClassVar[bool] = True
    """Whether a batch says how many of its rows were new."""

    views_by_name: ClassVar[bool] = True
    """Whether others' views and grants name our views, and so outlive a DROP."""

    create_view: ClassVar[str] = "CREATE VIEW"
    """How a view is created that asks for its reader's rights, or for its owner's if that is all."""

    comments_on_views: ClassVar[bool] = False
    """Whether a view's comment is a statement of its own."""

    ddl_in_transactions: ClassVar[bool] = True
    """Whether DDL waits for the commit, and can be rolled back."""

    snapshot: ClassVar[Mapping[str, Any]] = {"isolation_level": "REPEATABLE READ"}
    """Options of connections whose transactions see the database of one moment."""

    check_deferred: ClassVar[Sequence[str]] = ()
    """Statements that check now what is deferred to the commit."""

    standing: ClassVar[str]
    """A SELECT of what stands under each name, and whether that is a plain view."""

    clock: ClassVar[str | None] = None
    """A SELECT of the milliseconds since 1970; None: the clock is this machine's."""

    now: ClassVar[str] = "CURRENT_TIMESTAMP"
    """The time of a statement, as the default of a column."""

    amount_type: ClassVar[TypeEngine[Any]] = Numeric(18, 6)
    """How an amount is stored."""

    def moment_type(self) -> TypeEngine[Any]:
        """Say how a time for people is stored."""
        return DateTime(timezone=True)

    def moment_speller(self) -> Callable[[Any], Any] | None:
        """Give what spells a time to be sent; None: the driver does."""
        return None

    def moment_reader(self) -> Callable[[Any], Any] | None:
        """Give what reads a stored time; None: the driver does."""
        return None

    def now_ms(self, connection: Connection) -> int:
        """Read the clock."""
        if self.clock is None:
            return time.time_ns() // 1_000_000
        return int(connection.exec_driver_sql(self.clock).scalar_one())

    @abstractmethod
    def lock(self, key: int, table: str, *, shared: bool) -> str | None:
        """Lock a key, else all rows of a table, to the transaction's end; None: needs no lock."""

    # Times, texts and numbers, as others may have written them.

    def as_bound(self, at: datetime) -> Any:  # noqa: ANN401 - as the driver takes it
        """Give a moment as a parameter that stored ones are compared with."""
        return at

    def as_stored(self, at: Element) -> Element:
        """Read a moment to compare it with stored ones."""
        return at

    def as_written(self, at: Element) -> Element:
        """Read a moment that others wrote, and do not judge it: the driver could not read all."""
        return self.as_stored(at)

    def if_readable(self, at: Element, name: str) -> Element:
        """Read a moment (``name`` in SQL), or NULL where the driver could not read it."""
        return at

    def whole(self, number: Element, most: int) -> Element:
        """Read a whole number up to ``most``; 0 for what is none."""
        return number

    @abstractmethod
    def epoch_s(self, at: Element) -> Element:
        """Turn a moment into whole seconds since 1970; NULL for what is no real time."""

    @abstractmethod
    def rounded(self, at: Element, length_s: int) -> Element:
        """Round a moment down, to ``length_s`` if one function does it, else to the minute."""

    def any_text(self, connection: Connection, errors: str) -> AbstractContextManager[None]:
        """Read text as it was written, be it UTF-8 or not."""
        return nullcontext()

    # Many rows at once: build a statement once, keep it, and run it with `execute`.

    @abstractmethod
    def among(self, column: Element, listed: list[Any]) -> ColumnElement[bool]:
        """Say that a column's value is one of these, in one parameter wherever that can be."""

    def insert(self, table: Table, names: Iterable[str]) -> Insert:
        """Insert rows of these columns."""
        return insert(table)

    @abstractmethod
    def insert_ignore(self, table: Table, *key: str) -> Insert:
        """Insert row by row; leave a row alone whose ``key`` (its columns) is there already.

        Nothing else is ignored: MySQL's INSERT IGNORE would turn wrong values into warnings.
        """

    def insert_new(self, table: Table, key: str, names: Iterable[str]) -> Insert:
        """Insert rows of these columns but those whose ``key`` is there already."""
        return self.insert_ignore(table, key)

    @abstractmethod
    def upsert(self, table: Table, names: Sequence[str], newer: str | None = None) -> Insert:
        """Insert whole rows; where the key is there, set the columns ``names``.

        With ``newer``, the last of them, only where the row sent has more of it. The result then
        has the keys of what was written, where the database returns rows.
        """

    def update(
        self, table: Table, names: Iterable[str], prefix: str, values: Mapping[str, Any]
    ) -> Update:
        """Update rows by their key: columns ``names`` from what is sent, others from ``values``.

        What is sent has the columns' names with a ``prefix``.
        """
        key = next(iter(table.primary_key))
        sent: dict[str, Any] = {name: bindparam(f"{prefix}{name}") for name in names}
        which = key == bindparam(f"{prefix}{key.name}")
        return update(table).where(which).values({**values, **sent})

    def execute(
        self, connection: Connection, statement: Insert | Update, columns: Columns
    ) -> CursorResult[Any]:
        """Run one statement for many rows, given by column."""
        rows = zip(*columns.values(), strict=True)
        return connection.execute(statement, [dict(zip(columns, row, strict=True)) for row in rows])

    @abstractmethod
    def enqueue(
        self, connection: Connection, queue: Table, rows: Rows, account: str, source: str
    ) -> int:
        """Insert a file's rows in their order, but those that are there; return how many are new."""

    # What only some have.

    def overwrite_deleted(self, connection: Connection) -> None:
        """Leave nothing of what this connection deletes in free space."""
        del connection

    def small_cache(self, connection: Connection) -> AbstractContextManager[None]:
        """Write to the disk in mid-transaction."""
        return nullcontext()

    def unusable_sequences(self, connection: Connection, tables: Sequence[str]) -> Sequence[str]:
        """Name the sequences of tables that this user may not draw ids from."""
        return ()

    def schema(self, connection: Connection) -> str | None:
        """Name the schema that holds our tables; None: the only one."""
        return None

    def misfit(self, connection: Connection) -> str | None:
        """Say why this database cannot keep our texts."""
        return None

    def hidden(self, connection: Connection, tables: Sequence[str]) -> Sequence[str]:
        """Name the tables of ours of which this user may not see or write every row."""
        return ()

    def without_locks(self, connection: Connection, tables: Sequence[str]) -> Sequence[str]:
        """Name the tables of ours whose storage has no transactions."""
        return ()

    def mend_storage(self, connection: Connection, table: str) -> None:
        """Give a table of ours storage that has transactions."""

    def sequences_behind(self, connection: Connection, tables: Sequence[str]) -> Sequence[str]:
        """Name the tables whose sequences give keys that are taken, as after a restore."""
        return ()

    @abstractmethod
    def migrating(
        self, connection: Connection, tables: Collection[str]
    ) -> AbstractContextManager[None]:
        """Hold a transaction on our tables that no other migrator can have at the same time."""
