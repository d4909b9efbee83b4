"""Check before a run's first request that the database lets it see and write its rows."""

from typing import Final

from sqlalchemy import (
    Connection,
    false,
    select,
)

from etl.database.dialects import dialect
from etl.database.errors import GRANT, keys_taken
from etl.database.fitness import check_encoding, check_engines, check_visible
from etl.database.schema import (
    KEYED,
    VERSION_TABLE,
    api_slots,
    attempt_changes,
    attempt_channel_data,
    attempt_queue,
    attempts,
    rollup_marks,
    sweeps,
    sync_runs,
    verification_queue,
)
from etl.errors import SchemaError

WRITTEN: Final = (
    attempt_queue,
    verification_queue,
    attempts,
    attempt_channel_data,
    attempt_changes,
    api_slots,
    sweeps,
    rollup_marks,
    sync_runs,
)
"""The tables that a run writes, besides the roll-ups."""


_COUNTED: Final = (attempt_queue, attempt_changes, sweeps, rollup_marks, sync_runs)
"""Tables with an id that a run inserts rows into."""


def check_rights(connection: Connection) -> None:
    """Write no row into each table, as part of a run's start.

    A missing right then shows before any request is spent. Tables that hide rows, and those without
    locks or UTF-8, are refused, too. SQLite has no rights, only a file that can be written or not.
    There the run's own row shows it.
    """
    if dialect(connection).is_file:
        return
    check_encoding(connection)
    from etl.rollups.tables import rollups  # noqa: PLC0415 - SQLite's runs start without them

    tables = (*WRITTEN, *rollups.values())
    names = [table.name for table in tables] + [VERSION_TABLE]
    check_engines(connection, names)
    check_visible(connection, names)
    for table in tables:
        nothing = select(table).where(false())
        connection.execute(table.insert().from_select(list(table.c), nothing))
        column = list(table.c)[-1]
        connection.execute(table.update().where(false()).values({column: column}))
    for table in (rollup_marks, *rollups.values()):
        connection.execute(table.delete().where(false()))
    counted = [table.name for table in _COUNTED]
    for name in dialect(connection).unusable_sequences(connection, counted):
        msg = f"permission denied for sequence {name}."
        raise SchemaError(msg, hint=GRANT)
    check_sequences(connection)


def check_sequences(connection: Connection) -> None:
    """Raise ``StorageError`` where new rows would get keys that are taken, as after a restore."""
    kind = dialect(connection)
    for table in kind.sequences_behind(connection, KEYED):
        raise keys_taken(kind.driver, table, "looking at the keys")
