"""Build PostgreSQL's statements; the session's time zone and the database's language do not count.

A page is a thousand rows. They go as one array for each column, in one statement whose text is the
same for any number of them; ten thousand binds, or a statement for each row, cost several times as
much.
"""

# ruff: noqa: D102 - base.py says once what each method gives
# ruff: noqa: ARG002 - not every database needs all that it is given
# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

import sqlalchemy
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    CursorResult,
    Insert,
    String,
    Table,
    TableValuedAlias,
    Text,
    TypeDecorator,
    Update,
    any_,
    bindparam,
    case,
    cast,
    column,
    extract,
    func,
    literal,
    literal_column,
    select,
    text,
    update,
)

from etl.database.dialects.base import (
    MIGRATORS_WAIT_S,
    Columns,
    Dialect,
    Element,
    Rows,
    Spelling,
)
from etl.database.dialects.postgresql_driver import IS_SNAPSHOT, PostgresqlDriver
from etl.errors import SchemaError

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.types import TypeEngine

_EVERY: Final = "every_"
_YEAR_1: Final = datetime(1, 1, 1, tzinfo=UTC)
_YEAR_1970: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_9999: Final = datetime(9999, 1, 1, tzinfo=UTC)
_MIGRATION: Final = 0x76657269667965  # "verifye"

_STAGE: Final = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS verify_etl_stage"
    " (place bigint, sid text, expires_at bigint) ON COMMIT DROP"
)
_UNUSABLE: Final = text("""
SELECT name FROM (
    SELECT pg_get_serial_sequence(t, 'id') AS name FROM unnest(CAST(:tables AS text[])) t
) drawn WHERE NOT has_sequence_privilege(name, 'USAGE, UPDATE')
""")

# Row by row as the policies have it: one that is TRUE for all hides nothing.
_HIDDEN: Final = text("""
SELECT t.relname FROM pg_class t
WHERE t.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
    AND t.relname = ANY (:tables) AND row_security_active(t.oid) AND EXISTS (
        SELECT 1 FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS did (cmd)
        WHERE COALESCE((
            SELECT bool_or(p.permissive = 'PERMISSIVE' AND p.is_open)
                AND bool_and(p.permissive = 'PERMISSIVE' OR p.is_open)
            FROM (
                SELECT permissive, COALESCE(qual, 'true') = 'true'
                    AND COALESCE(with_check, 'true') = 'true' AS is_open
                FROM pg_policies
                WHERE schemaname = current_schema() AND tablename = t.relname
                    AND cmd IN (did.cmd, 'ALL')
                    AND EXISTS (
                        SELECT 1 FROM unnest(roles) AS r (name)
                        WHERE r.name = 'public' OR pg_has_role(r.name, 'USAGE')
                    )
            ) p
        ), FALSE) IS FALSE
    )
ORDER BY t.relname
""")

# One that never gave a key has no last value.
_BEHIND: Final = """
SELECT t FROM ({keys}) keys CROSS JOIN LATERAL pg_get_serial_sequence(t, 'id') AS name
WHERE has_sequence_privilege(name, 'USAGE, SELECT')
AND newest > COALESCE(pg_sequence_last_value(CAST(name AS regclass)), 0)"""


class _PostgresqlSpelling(Spelling):
    """Spell SQL for PostgreSQL."""

    def day(self, at: str, offset_s: int = 0) -> str:
        shift = f" + INTERVAL '{offset_s} seconds'" if offset_s else ""
        return f"CAST({at} AT TIME ZONE 'UTC'{shift} AS DATE)"

    def readable(self, at: str) -> str:
        return f"{at} BETWEEN '0001-01-02' AND '9999-12-30'"

    def odd(self, at: str, table: str) -> str:
        return f"({at} < '0001-01-02' OR {at} > '9999-12-30')"

    def seconds(self, at: str) -> str:
        return f"CAST(FLOOR(EXTRACT(EPOCH FROM {at})) AS BIGINT)"

    def instant(self, epoch_s: int | str) -> str:
        return f"to_timestamp({epoch_s})"

    def nested(self, table: str, alias: str, index: str, condition: str) -> str:
        # OFFSET 0 is the fence: without it, guesses about ranges lead to a scan of the whole table.
        inner = f"SELECT * FROM {table} {alias} WHERE {condition} OFFSET 0"
        return f"CROSS JOIN LATERAL ({inner}) {alias}"

    def nested_left(self, table: str, alias: str, condition: str) -> str:
        inner = f"SELECT * FROM {table} {alias} WHERE {condition} OFFSET 0"
        return f"LEFT JOIN LATERAL ({inner}) {alias} ON TRUE"

    def hour(self, hour_no: str) -> str:
        return f"TIMESTAMP '1970-01-01' + {hour_no} * INTERVAL '1 hour'"

    def moment(self, epoch_ms: str) -> str:
        # Not to_timestamp: a double loses microseconds.
        return (
            f"(TIMESTAMP '1970-01-01' + {epoch_ms} * INTERVAL '1 millisecond') AT TIME ZONE 'UTC'"
        )

    def millionths(self, amount: str) -> str:
        return f"CAST({amount} * 1000000 AS BIGINT)"

    def exact(self, column: str) -> str:
        return f'{column} COLLATE "C"'

    def channels(self, attempts: str) -> str:
        return (
            "string_agg(COALESCE(a.channel, '?'), ',' ORDER BY a.date_created NULLS LAST, "
            f"{self.exact('a.sid')})"
        )


class Postgresql(_PostgresqlSpelling, Dialect):
    """Build PostgreSQL's statements."""

    driver = PostgresqlDriver()
    views_by_name = False
    comments_on_views = True
    snapshot: ClassVar[Mapping[str, Any]] = {IS_SNAPSHOT: True}
    # What was deferred may wait for what the next row's second statement writes: deferred again.
    check_deferred = ("SET CONSTRAINTS ALL IMMEDIATE", "SET CONSTRAINTS ALL DEFERRED")
    standing = (
        "SELECT relname, relkind = 'v' FROM pg_class WHERE relnamespace ="
        " (SELECT oid FROM pg_namespace WHERE nspname = current_schema())"
    )
    clock = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"

    def lock(self, key: int, table: str, *, shared: bool) -> str | None:
        return f"SELECT pg_advisory_xact_lock{'_shared' if shared else ''}({key})"

    # Its infinity and its years beyond 9999 are no datetime: its driver would raise.

    def as_written(self, at: Element) -> Element:
        return cast(at, Text)

    def if_readable(self, at: Element, name: str) -> Element:
        return case((literal_column(f"({self.readable(name)})", Boolean), at))

    def epoch_s(self, at: Element) -> Element:
        real = case((at.between(_YEAR_1970, _YEAR_9999), at))
        return cast(func.floor(extract("epoch", real)), BigInteger)

    def rounded(self, at: Element, length_s: int) -> Element:
        return func.date_bin(literal(timedelta(seconds=length_s)), at, literal(_YEAR_1))

    def among(self, column: Element, listed: list[Any]) -> ColumnElement[bool]:
        return column == any_(literal(listed, Array(column.type)))

    def insert(self, table: Table, names: Iterable[str]) -> "postgresql.Insert":
        columns = [table.c[name] for name in names]
        sent = _rows_of(columns)
        values = [
            cast(sent.c[c.name], JSON) if isinstance(c.type, JSON) else sent.c[c.name]
            for c in columns
        ]
        return _insert(table).from_select(columns, select(*values))

    def insert_ignore(self, table: Table, *key: str) -> Insert:
        return _insert(table).on_conflict_do_nothing(index_elements=[*key])

    def insert_new(self, table: Table, key: str, names: Iterable[str]) -> Insert:
        insertion = self.insert(table, names).on_conflict_do_nothing(index_elements=[key])
        return insertion.execution_options(preserve_rowcount=True)

    def upsert(self, table: Table, names: Sequence[str], newer: str | None = None) -> Insert:
        insertion = self.insert(table, table.c.keys())
        sent, key = insertion.excluded, [*table.primary_key]
        values = {name: sent[name] for name in names}
        if newer is None:
            return insertion.on_conflict_do_update(index_elements=key, set_=values)
        return insertion.on_conflict_do_update(
            index_elements=key, set_=values, where=sent[newer] > table.c[newer]
        ).returning(*key)

    def update(
        self, table: Table, names: Iterable[str], prefix: str, values: Mapping[str, Any]
    ) -> Update:
        key = next(iter(table.primary_key))
        columns = [table.c[name] for name in names]
        sent = _rows_of([key, *columns], prefix=prefix)
        # Both conditions: the first finds the rows by their key, however large the table is.
        keys = bindparam(f"{_EVERY}{prefix}{key.name}", type_=Array(key.type))
        return (
            update(table)
            .where(key == any_(keys), key == sent.c[key.name])
            .values({**values, **{each.name: sent.c[each.name] for each in columns}})
        )

    def execute(
        self, connection: Connection, statement: Insert | Update, columns: Columns
    ) -> CursorResult[Any]:
        sent = {f"{_EVERY}{name}": values for name, values in columns.items()}
        if extras := sent.get(f"{_EVERY}extra"):
            extras = [None if extra is None else json.dumps(extra) for extra in extras]
            sent[f"{_EVERY}extra"] = extras
        return connection.execute(statement, sent)

    def enqueue(
        self, connection: Connection, queue: Table, rows: Rows, account: str, source: str
    ) -> int:
        connection.exec_driver_sql(_STAGE)
        driver: Any = connection.connection.driver_connection
        with (
            driver.cursor() as cursor,
            cursor.copy("COPY pg_temp.verify_etl_stage FROM STDIN") as copy,
        ):
            for place, (sid, expires_at) in enumerate(rows):
                copy.write_row((place, sid, expires_at))
        # ORDER BY comes before the defaults are worked out, so ids follow the file.
        statement = f"""
INSERT INTO {queue.name} (sid, expires_at, account, source)
SELECT sid, expires_at, %s::text, %s::text FROM pg_temp.verify_etl_stage ORDER BY place
ON CONFLICT (sid) DO NOTHING"""
        return connection.exec_driver_sql(statement, (account, source)).rowcount

    def unusable_sequences(self, connection: Connection, tables: Sequence[str]) -> Sequence[str]:
        return connection.execute(_UNUSABLE, {"tables": [*tables]}).scalars().all()

    def schema(self, connection: Connection) -> str | None:
        found: str | None = connection.exec_driver_sql("SELECT current_schema()").scalar()
        if found is None:
            msg = "this user may create tables in no schema of its search path."
            raise SchemaError(
                msg, hint="As the database's owner: GRANT CREATE, USAGE ON SCHEMA ..."
            )
        return found

    def misfit(self, connection: Connection) -> str | None:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        return None if encoding == "UTF8" else f"its encoding is {encoding}"

    def hidden(self, connection: Connection, tables: Sequence[str]) -> Sequence[str]:
        return connection.execute(_HIDDEN, {"tables": [*tables]}).scalars().all()

    def sequences_behind(self, connection: Connection, tables: Sequence[str]) -> Sequence[str]:
        # The newest key is read first: meanwhile others draw more, and insert them later.
        each = " UNION ALL ".join(f"SELECT '{t}' AS t, MAX(id) AS newest FROM {t}" for t in tables)
        return connection.execute(text(_BEHIND.format(keys=each))).scalars().all()

    @contextmanager
    def migrating(self, connection: Connection, tables: Collection[str]) -> Iterator[None]:
        with connection.begin():
            # Patient for the other migrator, but not for table locks: those would hold up everyone.
            connection.execute(text(f"SET LOCAL lock_timeout = '{MIGRATORS_WAIT_S}s'"))
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION})"))
            connection.execute(text("SET LOCAL lock_timeout = '10s'"))
            yield


class Array(TypeDecorator[Sequence[Any]]):
    """Send values of a type as an array, given as its text.

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

    def bind_processor(self, dialect: sqlalchemy.Dialect) -> Callable[[Any], str]:
        """Spell them; PostgreSQL reads each by the cast that stands behind the bind."""
        return _spell


def _spell(values: Sequence[Any]) -> str:
    """Spell an array of one dimension (source: PostgreSQL's manual, "Array Input")."""
    quoted = [
        "NULL" if value is None else '"' + str(value).replace("\\", r"\\").replace('"', r"\"") + '"'
        for value in values
    ]
    return "{" + ",".join(quoted) + "}"


def _rows_of(columns: Iterable[sqlalchemy.Column[Any]], *, prefix: str = "") -> TableValuedAlias:
    """Read rows that ``execute`` hands over as a table.

    ``prefix``: what their keys have before the columns' names.
    """
    kinds = {each.name: Array(each.type) for each in columns}
    sent = [bindparam(f"{_EVERY}{prefix}{name}", type_=kind) for name, kind in kinds.items()]
    names = [column(name, kind.element) for name, kind in kinds.items()]
    return func.unnest(*sent).table_valued(*names, name="sent").render_derived()


def _insert(table: Table) -> "postgresql.Insert":
    from sqlalchemy.dialects.postgresql import insert  # noqa: PLC0415 - other databases do without

    return insert(table)
