"""Build SQLite's statements: moments are text, amounts REAL, and a column keeps what others write."""

# ruff: noqa: D102 - base.py says once what each method gives
# ruff: noqa: ARG002 - not every database needs all that it is given
# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy
from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Insert,
    Integer,
    Numeric,
    String,
    Table,
    Text,
    Update,
    and_,
    case,
    cast,
    func,
    inspect,
    literal,
    select,
    type_coerce,
)

from etl.database.dialects.base import CHUNK, Columns, Dialect, Element, Rows, Spelling
from etl.database.dialects.sqlite_driver import SqliteDriver
from etl.errors import DatabaseBusy, SchemaError

if TYPE_CHECKING:
    from sqlalchemy.dialects import sqlite


class _SqliteSpelling(Spelling):
    """Spell SQL for SQLite; all sums are of integers."""

    def day(self, at: str, offset_s: int = 0) -> str:
        if offset_s:
            # Without the fraction: SQLite would round 23 h 59 min 59.9996 s into the next day.
            return f"date(substr({at}, 1, 19), '{offset_s} seconds')"
        return f"substr({at}, 1, 10)"

    def readable(self, at: str) -> str:
        # date() reads much as a date, and mends 31 February: only a date remains as it was.
        known = f"date(substr({at}, 1, 19), '+0 days')"
        return f"({known} = substr({at}, 1, 10) AND substr({at}, 1, 4) > '0000')"

    def odd(self, at: str, table: str) -> str:
        # From day to day by the index: of what is between the hours of a day, the first is looked at.
        day, next_ = "substr(w.at, 1, 10)", f"SELECT MIN({at}) FROM {table} WHERE {at} >"
        passed = (
            f"CASE WHEN NOT {self.readable('w.at')} IS TRUE THEN w.at WHEN w.at < {day} || ' 24' "
            f"THEN {day} || ' 24' WHEN w.at < {day} || 'T24' THEN {day} || 'T24' ELSE w.at END"
        )
        return (
            f"{at} IN (WITH RECURSIVE w(at) AS (SELECT MIN({at}) FROM {table} UNION ALL "
            f"SELECT ({next_} {passed}) FROM w WHERE w.at IS NOT NULL) "
            f"SELECT w.at FROM w WHERE w.at IS NOT NULL AND NOT {self.readable('w.at')} IS TRUE)"
        )

    def seconds(self, at: str) -> str:
        return f"CAST(strftime('%s', substr({at}, 1, 19)) AS INTEGER)"

    def instant(self, epoch_s: int | str) -> str:
        return f"datetime({epoch_s}, 'unixepoch')"

    def nested(self, table: str, alias: str, index: str, condition: str) -> str:
        # Its CROSS JOIN keeps the order.
        return f"CROSS JOIN {table} {alias} ON {condition}"

    def hour(self, hour_no: str) -> str:
        return f"datetime({hour_no} * 3600, 'unixepoch') || '.000'"

    def moment(self, epoch_ms: str) -> str:
        return f"datetime({epoch_ms} / 1000, 'unixepoch') || printf('.%03d', {epoch_ms} % 1000)"

    def millionths(self, amount: str) -> str:
        # Others may write text, which compares as more than any number, or infinity.
        return (
            f"CASE WHEN {amount} BETWEEN -1e9 AND 1e9 "
            f"THEN CAST(ROUND({amount} * 1000000) AS INTEGER) END"
        )

    def money(self, millionths: str) -> str:
        return f"{millionths} / 1000000.0"

    def money_ratio(self, millionths: str, count: str) -> str:
        half = f"CASE WHEN {millionths} < 0 THEN -{count} ELSE {count} END"
        return f"((2 * {millionths} + {half}) / (2 * NULLIF({count}, 0))) / 1000000.0"

    def ratio(self, part: str, whole: str) -> str:
        return f"((2000000 * {part} + {whole}) / (2 * NULLIF({whole}, 0))) / 1000000.0"

    def channels(self, attempts: str) -> str:
        # Before 3.44 only the order of a subquery orders group_concat.
        return (
            "(SELECT group_concat(c.channel, ',') FROM (SELECT COALESCE(s.channel, '?') AS channel "
            f"FROM {attempts} s WHERE s.verification_sid = f.verification_sid "
            "ORDER BY s.date_created IS NULL, s.date_created, s.sid) c)"
        )


def _spell(value: datetime | None) -> str | None:
    """Spell a time in UTC, without an offset, in milliseconds.

    Java's driver reads any fraction as milliseconds, however many digits it has.
    """
    return None if value is None else value.isoformat(" ", "milliseconds")[:23]


def _read(value: Any) -> datetime | None:  # noqa: ANN401 - as the driver gives it
    """Read as unknown what others wrote that is no time."""
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None


class Sqlite(_SqliteSpelling, Dialect):
    """Build SQLite's statements."""

    driver = SqliteDriver()
    keeps_any_text = True
    writes_alone = True
    is_file = True
    # Its transactions are so by themselves.
    snapshot: ClassVar[Mapping[str, Any]] = {}
    standing = "SELECT lower(name), type = 'view' FROM sqlite_master WHERE type <> 'trigger'"
    # As times are spelled; CURRENT_TIMESTAMP has no fraction.
    now = "(strftime('%Y-%m-%d %H:%M:%f', 'now'))"
    # Its driver knows no decimals.
    amount_type = Numeric(18, 6, asdecimal=False)

    def moment_speller(self) -> Callable[[Any], Any] | None:
        return _spell

    def moment_reader(self) -> Callable[[Any], Any] | None:
        return _read

    def lock(self, key: int, table: str, *, shared: bool) -> str | None:
        return None

    def as_bound(self, at: datetime) -> Any:  # noqa: ANN401 - as the driver takes it
        # Cut to what both ways of writing a fraction, and none, compare rightly with.
        found = at.strftime("%Y-%m-%d %H:%M:%S")
        return found + f".{at.microsecond:06d}".rstrip("0") if at.microsecond else found

    def as_stored(self, at: Element) -> Element:
        return type_coerce(at, String)

    def whole(self, number: Element, most: int) -> Element:
        sound = and_(func.typeof(number) == "integer", number.between(0, most))
        return case((sound, number), else_=0)

    def epoch_s(self, at: Element) -> Element:
        return cast(func.strftime("%s", at), Integer)

    def rounded(self, at: Element, length_s: int) -> Element:
        return func.substr(at, 1, 16)

    @contextmanager
    def any_text(self, connection: Connection, errors: str) -> Iterator[None]:
        driver = connection.connection.driver_connection
        if driver is None:
            yield
            return
        usual = driver.text_factory
        driver.text_factory = lambda sent: sent.decode("utf-8", errors)
        try:
            yield
        finally:
            driver.text_factory = usual

    def among(self, column: Element, listed: list[Any]) -> ColumnElement[bool]:
        sent = func.json_each(literal(json.dumps(listed), Text())).table_valued("value")
        return column.in_(select(sent.c.value))

    def insert_ignore(self, table: Table, *key: str) -> Insert:
        return _insert(table).on_conflict_do_nothing(index_elements=[*key])

    def upsert(self, table: Table, names: Sequence[str], newer: str | None = None) -> Insert:
        statement = _insert(table)
        sent = statement.excluded
        return statement.on_conflict_do_update(
            index_elements=[*table.primary_key],
            set_={name: sent[name] for name in names},
            # Text that others wrote is more than any number, unless it is made one.
            where=None if newer is None else sent[newer] > cast(table.c[newer], Integer),
        )

    def execute(
        self, connection: Connection, statement: Insert | Update, columns: Columns
    ) -> CursorResult[Any]:
        text, binds = _compiled(statement, connection.dialect, tuple(columns))
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

    def enqueue(
        self, connection: Connection, queue: Table, rows: Rows, account: str, source: str
    ) -> int:
        # One statement for a batch: AUTOINCREMENT's counter is then written once and not with each row.
        statement = f"""
INSERT INTO {queue.name} (sid, expires_at, account, source)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), ?, ?
FROM json_each(?) WHERE true ORDER BY key
ON CONFLICT (sid) DO NOTHING"""
        new = 0
        for start in range(0, len(rows), CHUNK):
            parameters = (account, source, json.dumps(rows[start : start + CHUNK]))
            new += connection.exec_driver_sql(statement, parameters).rowcount
        return new

    def overwrite_deleted(self, connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA secure_delete = ON")

    @contextmanager
    def small_cache(self, connection: Connection) -> Iterator[None]:
        # Unless a reader is in the way: the commit waits for it.
        patience = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
        connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        connection.exec_driver_sql("PRAGMA cache_size = 1")
        try:
            yield
        finally:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {patience}")

    @contextmanager
    def migrating(self, connection: Connection, tables: Collection[str]) -> Iterator[None]:
        raw = connection.connection.driver_connection
        if raw is None:
            msg = "the connection to the database was lost."
            raise DatabaseBusy(msg, hint="Run it again.")
        # Before BEGIN, or it is ignored: copying `attempts` to alter it would otherwise cascade into
        # `attempt_channel_data`. The old ALTER leaves alone other people's views on a copied table.
        raw.execute("PRAGMA foreign_keys = OFF")
        raw.execute("PRAGMA legacy_alter_table = ON")
        try:
            # BEGIN IMMEDIATE: the file's only writer, until the end.
            with connection.begin():
                before = _orphans(connection, tables)
                yield
                if _orphans(connection, tables) > before:
                    msg = "the migration would leave rows without the attempt they belong to."
                    raise SchemaError(msg, hint="Nothing was changed; please report this.")
        finally:
            raw.execute("PRAGMA legacy_alter_table = OFF")
            raw.execute("PRAGMA foreign_keys = ON")


def _insert(table: Table) -> "sqlite.Insert":
    from sqlalchemy.dialects.sqlite import insert  # noqa: PLC0415 - other databases do without

    return insert(table)


@lru_cache(maxsize=32)
def _compiled(
    statement: Insert | Update, dialect: sqlalchemy.Dialect, names: tuple[str, ...]
) -> tuple[str, list[tuple[str, Any, Callable[[Any], Any] | None]]]:
    """Compile a statement for tuples: text, and of each bind its name, value and conversion.

    SQLAlchemy's own way makes two dictionaries of each row, half as dear as all that SQLite does.
    """
    compiled = statement.compile(dialect=dialect, column_keys=list(names))
    values = compiled.params
    constants: list[tuple[str, Any, Callable[[Any], Any] | None]] = []
    for name in compiled.positiontup or ():
        kind, value = compiled.binds[name].type, values[name]
        convert = kind.dialect_impl(dialect).bind_processor(dialect)
        constant = name not in names and convert is not None
        constants.append((name, convert(value) if constant and convert else value, convert))
    return str(compiled), constants


def _orphans(connection: Connection, tables: Collection[str]) -> int:
    """Count rows of our tables whose parent is missing; someone with keys off may have made some."""
    present = inspect(connection).get_table_names()
    return sum(
        len(connection.exec_driver_sql(f"PRAGMA foreign_key_check({name})").all())
        for name in tables
        if name in present
    )
