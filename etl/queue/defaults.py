"""Read a NULL in the queues as the column's default: object mappers send every column."""

from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, and_, func, select, update

from etl.database.times import moment
from etl.records import State

_STEP: Final = 1_000
_DEFAULTS: Final = {"account": "", "state": State.PENDING}


def write_defaults(connection: Connection, table: Table, now: int) -> None:
    """Write the defaults of rows that no index would show otherwise. This is part of a run's start.

    Counts that are NULL are read as 0 where they stand.
    """
    pending = table.c.state == State.PENDING
    hidden: list[ColumnElement[bool]] = [table.c.state.is_(None), table.c.account.is_(None)]
    hidden += [
        and_(table.c.account.in_([""]), pending, table.c[name].is_(None))
        for name in ("due_at", "expires_at")
        if name in table.c
    ]
    values: dict[str, Any] = {
        column.name: func.coalesce(
            column,
            moment(now) if column.name == "enqueued_at" else _DEFAULTS.get(column.name, 0),
        )
        for column in table.c
        if column.server_default is not None
    }
    for where in hidden:
        while (
            ids := connection.execute(select(table.c.id).where(where).limit(_STEP)).scalars().all()
        ):
            connection.execute(update(table).where(table.c.id.in_(ids)).values(values))
