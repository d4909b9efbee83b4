"""Check before the first request that the run may write what it will write."""

from typing import Final

from sqlalchemy import (
    Connection,
    false,
    select,
)

from etl.database.dialects import dialect
from etl.database.errors import GRANT
from etl.database.schema import (
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
"""Those that a run inserts rows into which get an id."""


def check_rights(connection: Connection) -> None:
    """Write no row into each table; part of a run's start.

    A right that is missing is then known before the first request, and not after it is spent.
    SQLite has none to miss: its file can be written or not, and the run's own row shows which.
    """
    if dialect(connection).is_file:
        return
    from etl.rollups.tables import rollups  # noqa: PLC0415 - SQLite's runs start without them

    for table in (*WRITTEN, *rollups.values()):
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
