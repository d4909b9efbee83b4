"""Tell whether the database refuses single rows or every row.

Rows are written together, and after a refusal one by one, each under a savepoint. A refused row is
set aside and the rest goes on. The run stops if a constraint or trigger is to blame. Then no row is
taken, and a harmless probe is refused for the same reason, or too many rows are refused.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Table, update
from sqlalchemy.exc import DBAPIError

from etl.database.dialects import dialect
from etl.database.dialects.driver import Fault
from etl.database.engine import carefully
from etl.database.errors import MEND_REFUSALS, classify, first
from etl.database.names import names_of
from etl.database.schema import attempt_queue as q
from etl.database.times import moment
from etl.errors import WriteRefused
from etl.records import Lease, Outcome, State

T = TypeVar("T")

MOST: Final = 20
"""So many refusals in a row, with none taken, are not the rows' fault."""

PROBE_SID: Final = "VL" + "f" * 32
"""The SID of the probe, which is never committed."""

_log = logging.getLogger(__name__)


def each(  # noqa: PLR0913 - what is written, and what is known of it
    connection: Connection,
    rows: Sequence[T],
    write: Callable[[T], object],
    *,
    probe: Callable[[], object],
    before: int = 0,
    enough: int | None = None,
) -> tuple[list[T], list[tuple[T, str]]]:
    """Write rows one by one; return those taken, and those refused with the reason in names.

    Stops after ``enough`` taken rows. ``before`` counts the refusals just before these. ``probe``
    writes a row that only a general constraint refuses. Raises ``WriteRefused`` if the rows are not
    to blame.
    """
    taken: list[T] = []
    refused: list[tuple[T, str]] = []
    probed: str | None = None
    for row in _spread(rows):
        if len(taken) == enough:
            break
        why = _refused(connection, partial(write, row))
        if why is None:
            taken.append(row)
            continue
        refused.append((row, why))
        if taken:
            continue
        if len(refused) == 1:
            probed = _refused(connection, probe, keep=False)
        if probed == why or before + len(refused) >= MOST:
            msg = f"The database refuses every row that the job writes: {why}."
            raise WriteRefused(msg, hint=MEND_REFUSALS)
    return taken, refused


def update_rows(  # noqa: PLR0913 - as above
    connection: Connection,
    table: Table,
    ids: Sequence[int],
    values: Mapping[str, Any],
    *,
    aside: Callable[[str], Mapping[str, Any]],
    enough: int | None = None,
) -> list[int]:
    """Update a queue's rows by id; return those that the database took, ``enough`` at most.

    A refused row gets the values of ``aside``, or it would be refused in each run.
    """
    if not carefully(connection):
        if ids:
            connection.execute(update(table).where(table.c.id.in_(ids)).values(values))
        return [*ids]

    def one(key: int) -> None:
        connection.execute(update(table).where(table.c.id == key).values(values))

    def probe() -> None:
        connection.execute(table.insert().values(sid=PROBE_SID))
        connection.execute(update(table).where(table.c.sid == PROBE_SID).values(values))

    taken, refused = each(connection, ids, one, probe=probe, enough=enough)
    for key, why in refused:
        connection.execute(update(table).where(table.c.id == key).values(aside(why)))
        _log.warning("A row of %s was set aside: the database refused it (%s).", table.name, why)
    return taken


def at_rest(why: str, *, now: int) -> dict[str, Any]:
    """Return the values of a dead, refused row of ``attempt_queue``."""
    return {
        "state": State.DEAD, "outcome": Outcome.DB_REJECT, "due_at": 0, "leased_by": None,
        "settled_at": moment(now), "last_error": f"the database refused it: {why}"[:500],
    }  # fmt: skip


def set_aside(connection: Connection, lease: Lease, why: str, *, now: int) -> None:
    """Let a row rest whose next state the database refuses, and change nothing else of it."""
    values = {**at_rest(why, now=now), "claim_no": lease.claim_no}
    connection.execute(update(q).where(q.c.id == lease.id).values(values))


def take_back(connection: Connection, leases: Iterable[Lease]) -> int:
    """Let rows that died of refusals wait again, uncounted; return how many did."""
    taken = 0
    for lease in leases:
        mine = (q.c.sid == lease.sid, q.c.claim_no == lease.claim_no)
        dead = (q.c.state == State.DEAD, q.c.outcome == Outcome.DB_REJECT)
        values = {
            "state": State.PENDING, "attempts": lease.attempts, "outcome": lease.outcome,
            "last_error": None, "settled_at": None,
        }  # fmt: skip
        taken += connection.execute(update(q).where(*mine, *dead).values(values)).rowcount
    return taken


def _refused(
    connection: Connection, write: Callable[[], object], *, keep: bool = True
) -> str | None:
    """Write under a savepoint and check deferred constraints; return what refused it."""
    savepoint = connection.begin_nested()
    try:
        with savepoint:
            write()
            if carefully(connection):
                for check in dialect(connection).check_deferred:
                    connection.exec_driver_sql(check)
            if not keep:
                savepoint.rollback()
    except DBAPIError as error:
        # SQLite's RAISE(ROLLBACK) takes the whole transaction along.
        if classify(error) is not Fault.REFUSED or first(error) is not error:
            raise
        return names_of(error)
    return None


def _spread(rows: Sequence[T]) -> Iterable[T]:
    """Give rows from all over first, since neighbours are often refused together."""
    step = max(1, len(rows) // MOST)
    yield from rows[::step]
    yield from (row for number, row in enumerate(rows) if number % step)
