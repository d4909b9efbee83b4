"""Keep one row in ``sync_runs`` for each run: its options, its counts, its end."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, exists, func, insert, select, update

from etl.database.schema import sync_runs
from etl.database.times import moment
from etl.errors import Exit

LATELY: Final = 100
"""More runs than begin while one is starting."""

SHORTLY: Final = 1_000
"""More runs than begin during one lease."""


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

    It can be repeated: ``worker`` names one run, whose row is found after a lost commit answer.
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
    """Say whether a worker's run ended by itself, and not by a bug. A row may have caused that.

    Only the latest runs are read: a lease outlives its run by minutes.
    """
    newest = select(func.max(sync_runs.c.id)).scalar_subquery()
    ended = (sync_runs.c.ended_at.is_not(None), sync_runs.c.exit_code != Exit.BUG)
    return exists().where(sync_runs.c.worker == worker, *ended, sync_runs.c.id > newest - SHORTLY)


def latest(connection: Connection, count: int) -> list[Row[Any]]:
    """Return the newest ``count`` runs, newest first."""
    statement = select(sync_runs).order_by(sync_runs.c.id.desc()).limit(count)
    return list(connection.execute(statement))
