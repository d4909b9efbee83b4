"""Try what runs and reports do, and take it back: the list that ``doctor`` goes through.

To check one more thing, write a function that raises what is wrong, and give it a line in
``CHECKS``.
"""

import secrets
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Date,
    Engine,
    Integer,
    Numeric,
    String,
    Table,
    delete,
    insert,
    select,
    update,
)

from etl import __version__
from etl.database.dialects import dialect
from etl.database.engine import READ_ONLY
from etl.database.schema import attempt_queue, rollup_marks
from etl.database.times import clock, moment_ms
from etl.database.transact import transact
from etl.database.types import Moment
from etl.errors import ConfigError, OptionError, SchemaError
from etl.migrate import views
from etl.queue import runs
from etl.rollups.tables import metadata, rollups
from etl.run.rights import WRITTEN, check_rights
from etl.sql.zones import zone_named

ROOM: Final = 1 << 18
"""Bytes that must fit on the disk."""

PREPARED_AFTER: Final = 6
"""A driver prepares a statement once it has run it a few times: psycopg after five."""


class Check(NamedTuple):
    """Name one thing that is tried, and what to say if it works; ``act`` raises what is wrong.

    Without what it ``needs``, another check, it would say the same thing again.
    """

    name: str
    act: Callable[[Engine], object]
    good: str
    needs: str = ""


def write_much(connection: Connection) -> None:
    """Write as many bytes as a batch of rows, and take them back before the commit.

    A transaction that is rolled back whole may never touch the disk, so this one commits. Servers
    make room in the file for each row at once. SQLite writes what its cache cannot hold.
    """
    check_rights(connection)
    with dialect(connection).small_cache(connection), connection.begin_nested() as taken_back:
        runs.begin(
            connection, command="doctor", account="", version=__version__, worker="doctor",
            # At random, for it is compressed.
            asked={"room": secrets.token_hex(ROOM // 2)}, now=clock(connection),
        )  # fmt: skip
        taken_back.rollback()


def write_each_table(connection: Connection) -> None:
    """Write, read and change a row of each table that a run writes, and take all of it back.

    A row has no more than it must. What is read back must be what was written.
    """
    removed = {rollup_marks, *rollups.values()}
    written = {*WRITTEN, *rollups.values()}
    sid = f"VL{secrets.token_hex(16)}"
    with connection.begin_nested() as taken_back:
        for table in metadata.sorted_tables:
            if table in written:
                _write_row(connection, table, sid, removes=table in removed)
            else:
                connection.execute(select(table).limit(0))
        taken_back.rollback()


def _write_row(connection: Connection, table: Table, sid: str, *, removes: bool) -> None:
    row = {column.name: _value(column, sid) for column in table.c if _is_needed(column)}
    key = connection.execute(insert(table).values(row)).inserted_primary_key
    assert key is not None  # noqa: S101 - one row was inserted
    which = [column == value for column, value in zip(table.primary_key, key, strict=True)]
    names = list(row)
    kept = select(*(table.c[name] for name in names)).where(*which)
    found = connection.execute(kept).mappings().one()
    wrong = [name for name in names if _plain(found[name]) != _plain(row[name])]
    if wrong:
        msg = f"{table.name}.{wrong[0]} does not keep what is written to it."
        raise SchemaError(msg, hint="Look for a trigger or a rule on the table.")
    connection.execute(update(table).where(*which).values(row))
    if removes:
        connection.execute(delete(table).where(*which))


def _plain(value: object) -> object:
    # Not every driver gives times their zone.
    return moment_ms(value) if isinstance(value, datetime) else value


def _is_needed(column: Column[Any]) -> bool:
    given = column.server_default is not None or column.table.autoincrement_column is column
    return not given and (column.primary_key or not column.nullable)


def _value(column: Column[Any], sid: str) -> object:
    if isinstance(column.type, String):
        # Of texts the key is the attempt's, in each table.
        return sid[: column.type.length]
    kinds: tuple[tuple[type, object], ...] = (
        (Moment, datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        (Boolean, False),
        (Integer, 1),
        (Numeric, 1),
        (Date, date(2026, 3, 1)),
        (JSON, {}),
    )
    return next(value for kind, value in kinds if isinstance(column.type, kind))


def prepare_statements(engine: Engine) -> None:
    """Run one statement on two connections until the driver prepares it, in two transactions each.

    A pooler in between gives a transaction another session, in which the statement is unknown, or
    known already.
    """
    reading = engine.execution_options(**READ_ONLY)
    statement = select(attempt_queue.c.id).where(attempt_queue.c.sid == "")

    def often(connection: Connection) -> None:
        for _ in range(PREPARED_AFTER):
            connection.execute(statement)

    def beside(connection: Connection) -> None:
        often(connection)
        transact(reading, often, doing="preparing a statement", patience_s=0)

    for _ in range(2):
        transact(reading, beside, doing="preparing a statement", patience_s=0)


def know_zones(_engine: Engine) -> None:
    """Look a time zone up, as ``report --timezone`` does."""
    try:
        zone_named("Europe/Berlin")
    except OptionError as error:
        msg = "no time zone is known here but UTC."
        raise ConfigError(msg, hint="Run: pip install tzdata") from error


def _once(
    work: Callable[[Connection], object], doing: str, **options: object
) -> Callable[[Engine], object]:
    """Run a transaction once. A busy database is a finding."""

    def act(engine: Engine) -> object:
        return transact(engine.execution_options(**options), work, doing=doing, patience_s=0)

    return act


CHECKS: Final = (
    Check("writing", _once(write_much, "writing a row"), "rows can be written."),
    Check(
        "tables",
        _once(write_each_table, "writing a row of each table"),
        "each keeps a row.",
        "writing",
    ),
    Check("statements", prepare_statements, "they can be prepared."),
    Check("views", _once(views.check, "reading the views", **READ_ONLY), "all can be read."),
    Check("time zones", know_zones, "they are known."),
)
"""What is tried once the schema is known to be ours, in this order."""
