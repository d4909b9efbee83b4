"""Build the statements of MariaDB and MySQL; no function here reads the session's time zone."""

# ruff: noqa: D102 - base.py says once what each method gives
# ruff: noqa: ARG002 - not every database needs all that it is given
# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Table,
    bindparam,
    func,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from etl.database.dialects.base import CHUNK, MIGRATORS_WAIT_S, Dialect, Element, Rows, Spelling
from etl.database.dialects.driver import Driver
from etl.database.dialects.mysql_driver import MariadbDriver, MysqlDriver
from etl.errors import DatabaseBusy

if TYPE_CHECKING:
    from sqlalchemy.dialects import mysql

_FILL: Final = 100
_MIGRATION: Final = "CONCAT('verify_etl:', LEFT(SHA2(DATABASE(), 256), 40))"
_TRY_S: Final = 30
"""How long one statement waits for a named lock: less than the driver waits for an answer."""

_NOT_INNODB: Final = text("""
SELECT table_name FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_name IN :tables AND engine <> 'InnoDB'
ORDER BY table_name
""").bindparams(bindparam("tables", expanding=True))


class _MysqlSpelling(Spelling):
    """Spell SQL for MariaDB and MySQL."""

    def day(self, at: str, offset_s: int = 0) -> str:
        shift = f" + INTERVAL {offset_s} SECOND" if offset_s else ""
        return f"CAST({at}{shift} AS DATE)"

    def readable(self, at: str) -> str:
        return f"({self.seconds(at)} IS NOT NULL AND {at} >= '0001-01-01')"

    def odd(self, at: str, table: str) -> str:
        return f"{at} < '1000-01-01' AND ({self.seconds(at)} IS NULL OR {at} < '0001-01-01')"

    def seconds(self, at: str) -> str:
        return f"TIMESTAMPDIFF(SECOND, '1970-01-01', {at})"

    def instant(self, epoch_s: int | str) -> str:
        return f"TIMESTAMPADD(SECOND, {epoch_s}, '1970-01-01')"

    def number(self, seconds: str, length_s: int) -> str:
        return f"{seconds} DIV {length_s}"

    def bound(self, moment: str) -> str:
        return f"CAST({moment} AS DATETIME(6))"

    def nested(self, table: str, alias: str, index: str, condition: str) -> str:
        # Without FORCE it reads the whole table for each row where no other column is asked for.
        return f"STRAIGHT_JOIN {table} {alias} FORCE INDEX FOR JOIN ({index}) ON {condition}"

    def hour(self, hour_no: str) -> str:
        return f"CAST(TIMESTAMPADD(HOUR, {hour_no}, '1970-01-01') AS DATETIME)"

    def moment(self, epoch_ms: str) -> str:
        return f"CAST(TIMESTAMPADD(MICROSECOND, {epoch_ms} * 1000, '1970-01-01') AS DATETIME(3))"

    def millionths(self, amount: str) -> str:
        return f"CAST({amount} * 1000000 AS SIGNED)"

    # `exact` is the column itself: the tables' own collation is exact.

    def channels(self, attempts: str) -> str:
        return (
            "GROUP_CONCAT(COALESCE(a.channel, '?') "
            "ORDER BY a.date_created IS NULL, a.date_created, a.sid SEPARATOR ',')"
        )


class Mysql(_MysqlSpelling, Dialect):
    """Build MySQL's statements."""

    driver: ClassVar[Driver] = MysqlDriver()
    counts_inserts = False
    # With its maker's rights it would break with the maker's account (error 1449).
    create_view = "CREATE SQL SECURITY INVOKER VIEW"
    ddl_in_transactions = False
    # The server decides whether names differ by case.
    standing = (
        "SELECT table_name, table_type = 'VIEW' FROM information_schema.tables"
        " WHERE table_schema = DATABASE()"
    )
    clock = "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)"

    def moment_type(self) -> TypeEngine[Any]:
        from sqlalchemy.dialects.mysql import DATETIME  # noqa: PLC0415 - others do without

        return DATETIME(fsp=3)

    def lock(self, key: int, table: str, *, shared: bool) -> str | None:
        # It has no shared lock but a row's, so that all keys are one.
        return f"SELECT version_num FROM {table} {'LOCK IN SHARE MODE' if shared else 'FOR UPDATE'}"

    def as_bound(self, at: datetime) -> Any:  # noqa: ANN401 - as the driver takes it
        return at.replace(tzinfo=None)

    def epoch_s(self, at: Element) -> Element:
        return func.timestampdiff(text("SECOND"), "1970-01-01", at)

    def rounded(self, at: Element, length_s: int) -> Element:
        return func.date_format(at, "%Y-%m-%d %H:%i")

    def among(self, column: Element, listed: list[Any]) -> ColumnElement[bool]:
        # The last one fills up to the next hundred: drivers keep what they prepared for a text, and
        # would keep one for each number of values.
        return column.in_([*listed, *listed[-1:] * (-len(listed) % _FILL)])

    def insert_ignore(self, table: Table, *key: str) -> Insert:
        return _insert(table).on_duplicate_key_update({key[0]: table.c[key[0]]})

    def upsert(self, table: Table, names: Sequence[str], newer: str | None = None) -> Insert:
        statement = _insert(table)
        sent: dict[str, Element] = {name: statement.inserted[name] for name in names}
        if newer is not None:
            # It assigns from left to right: what decides comes last.
            is_newer = sent[newer] > table.c[newer]
            sent = {name: func.if_(is_newer, value, table.c[name]) for name, value in sent.items()}
        return statement.on_duplicate_key_update([*sent.items()])

    def enqueue(
        self, connection: Connection, queue: Table, rows: Rows, account: str, source: str
    ) -> int:
        # Look first: it counts and locks the rows that it leaves alone like those it inserts.
        statement = self.insert_ignore(queue, "sid")
        new = 0
        for start in range(0, len(rows), CHUNK):
            wanted: dict[str, int] = {}
            for sid, expires_at in rows[start : start + CHUNK]:
                wanted.setdefault(sid, expires_at)
            there = set(connection.scalars(select(queue.c.sid).where(queue.c.sid.in_(wanted))))
            missing = [
                {"sid": sid, "expires_at": expires_at, "account": account, "source": source}
                for sid, expires_at in wanted.items()
                if sid not in there
            ]
            if missing:
                connection.execute(statement, missing)
            new += len(missing)
        return new

    def without_locks(self, connection: Connection, tables: Sequence[str]) -> Sequence[str]:
        return connection.execute(_NOT_INNODB, {"tables": [*tables]}).scalars().all()

    def mend_storage(self, connection: Connection, table: str) -> None:
        connection.exec_driver_sql(f"ALTER TABLE {table} ENGINE = InnoDB")

    @contextmanager
    def migrating(self, connection: Connection, tables: Collection[str]) -> Iterator[None]:
        with connection.begin():
            for _ in range(MIGRATORS_WAIT_S // _TRY_S):
                asked = f"SELECT GET_LOCK({_MIGRATION}, {_TRY_S})"
                if connection.execute(text(asked)).scalar() == 1:
                    break
            else:
                msg = "another process has been upgrading the schema for five minutes."
                raise DatabaseBusy(msg, hint="Nothing is lost; run it again.")
        try:
            with connection.begin():
                yield
        finally:
            # The lock is the connection's, and the connection goes back to the pool.
            with suppress(DBAPIError), connection.begin():
                connection.execute(text(f"SELECT RELEASE_LOCK({_MIGRATION})"))


class Mariadb(Mysql):
    """Build MariaDB's statements."""

    driver = MariadbDriver()


def _insert(table: Table) -> "mysql.Insert":
    from sqlalchemy.dialects.mysql import insert  # noqa: PLC0415 - other databases do without

    return insert(table)
