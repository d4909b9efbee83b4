"""Keep one row in ``sync_runs`` for each run: what it was asked, what it did, how it ended."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    exists,
    false,
    func,
    insert,
    select,
    text,
    update,
)

from etl.database import moment
from etl.database_errors import GRANT
from etl.errors import Exit, SchemaError
from etl.schema import (
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

_UNUSABLE: Final = text("""
SELECT name FROM (
    SELECT pg_get_serial_sequence(t, 'id') AS name FROM unnest(CAST(:tables AS text[])) t
) drawn WHERE NOT has_sequence_privilege(name, 'USAGE, UPDATE')
""")

LATELY: Final = 100
"""More runs than begin while one is trying to."""

SHORTLY: Final = 1_000
"""More runs than begin while a lease lasts."""


def check_rights(connection: Connection) -> None:
    """Write no row into each table; part of a run's start.

    A right that is missing is then known before the first request, and not after it is spent.
    SQLite has none to miss: its file can be written or not, and the run's own row shows which.
    """
    if connection.dialect.name == "sqlite":
        return
    from etl.schema_rollups import rollups  # noqa: PLC0415 - SQLite's runs start without them

    for table in (*WRITTEN, *rollups.values()):
        nothing = select(table).where(false())
        connection.execute(table.insert().from_select(list(table.c), nothing))
        column = list(table.c)[-1]
        connection.execute(table.update().where(false()).values({column: column}))
    for table in (rollup_marks, *rollups.values()):
        connection.execute(table.delete().where(false()))
    if connection.dialect.name == "postgresql":
        _check_sequences(connection)


def _check_sequences(connection: Connection) -> None:
    """Raise ``SchemaError`` for a sequence that a run could not draw an id from."""
    names = {"tables": [table.name for table in _COUNTED]}
    for name in connection.execute(_UNUSABLE, names).scalars():
        msg = f"permission denied for sequence {name}."
        raise SchemaError(msg, hint=GRANT)


def begin(  # noqa: PLR0913 - a run's row is these facts
    connection: Connection,
    *,
    command: str,
    account: str,
    version: str,
    worker: str,
    asked: Mapping[str, Any],
    now: int,
) -> int:
    """Insert the row of a run that starts now; return its id.

    Idempotent, for ``worker`` names one run: after a commit whose answer was lost the row is there.
    """
    newest = select(sync_runs.c.id, sync_runs.c.worker).order_by(sync_runs.c.id.desc())
    for there in connection.execute(newest.limit(LATELY)):
        if there.worker == worker:
            return int(there.id)
    row = {
        "command": command, "account": account, "version": version, "worker": worker,
        "asked": dict(asked), "started_at": moment(now),
    }  # fmt: skip
    key = connection.execute(insert(sync_runs).values(row)).inserted_primary_key
    assert key is not None  # noqa: S101 - one row was inserted
    return int(key[0])


def end(  # noqa: PLR0913 - as above
    connection: Connection,
    run_id: int,
    *,
    did: Mapping[str, Any],
    exit_code: int,
    error: str | None,
    now: int,
) -> None:
    """Complete the row of a run that ends now."""
    values = {
        "did": dict(did), "exit_code": exit_code, "error": error and error[:500],
        "ended_at": moment(now),
    }  # fmt: skip
    connection.execute(update(sync_runs).where(sync_runs.c.id == run_id).values(values))


def ended_well(worker: ColumnElement[str]) -> ColumnElement[bool]:
    """Say of a worker whether its run ended by itself, and by no bug, which a row may have caused.

    Of the latest runs alone: a lease outlives its run by minutes.
    """
    newest = select(func.max(sync_runs.c.id)).scalar_subquery()
    ended = (sync_runs.c.ended_at.is_not(None), sync_runs.c.exit_code != Exit.BUG)
    return exists().where(sync_runs.c.worker == worker, *ended, sync_runs.c.id > newest - SHORTLY)


def latest(connection: Connection, count: int) -> list[Row[Any]]:
    """Return the newest ``count`` runs, newest first."""
    statement = select(sync_runs).order_by(sync_runs.c.id.desc()).limit(count)
    return list(connection.execute(statement))
