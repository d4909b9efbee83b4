"""Bring the roll-ups up to date: wait for writers | take a day's marks | sum anew | forget them.

Each day is a transaction, and is summed once it is quiet. A crash loses nothing: marks go in the
transaction of the sums. A writer that commits meanwhile has its own marks, and they stay.
"""

# ruff: noqa: S608 - the SQL is put together from our own names and numbers

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from sqlalchemy import Connection, Engine, delete, func, insert, select, text

from etl.database.bounds import PATIENT
from etl.database.dialects import dialect
from etl.database.dialects.base import FIRST_YEAR_S
from etl.database.locks import locked
from etl.database.schema import attempts, rollup_marks
from etl.database.times import Clock, clock
from etl.database.transact import transact
from etl.final import Policy
from etl.rollups import marks
from etl.rollups.cubes import UNKNOWN
from etl.rollups.facts import FACTS
from etl.rollups.read import UNKNOWN_TIME, Facts, Over, Which, made, marked, summed
from etl.rollups.tables import rollups
from etl.sql.scope import Scope
from etl.sql.spans import DAY_S, QUARTER_S

_DOING: Final = "bringing the roll-ups up to date"
_FOREVER: Final = 1 << 60

_log = logging.getLogger(__name__)


def refresh(  # noqa: PLR0913 - by whose policy and clock, and how long
    engine: Engine,
    *,
    policy: Policy,
    clock: Clock = clock,
    everything: bool = False,
    patience_s: float = 30,
    stop: Callable[[int], bool] = lambda _done: False,
) -> int:
    """Sum the quiet days that are marked; return how many were summed.

    With ``everything`` the newest days, too. ``stop`` is asked between two days, with the number
    done. The marks left wait for the next time. Raises ``DatabaseBusy`` if writers do not end
    within ``patience_s``.
    """

    def due(connection: Connection) -> int | None:
        end = _FOREVER if everything else marks.quiet_before(policy, clock(connection))
        return end if marks.any_before(connection, end) else None

    end = transact(engine, due, doing=_DOING, patience_s=patience_s)
    if end is None:
        return 0
    newest = transact(engine, marks.wait_for_writers, doing=_DOING, patience_s=patience_s)
    # A day of a million attempts takes long, but no loader waits for it.
    engine = engine.execution_options(**PATIENT)
    transact(engine, partial(_thin, newest=newest), doing=_DOING, patience_s=patience_s)
    found = partial(_days, newest=newest, end=end)
    days = transact(engine, found, doing=_DOING, patience_s=patience_s)
    done = 0
    for day, taken in days.items():
        if stop(done):
            _log.debug(
                "%d days summed; what is left is read raw by reports until later runs, or"
                " verify-etl db rollups, have summed it.",
                done,
            )
            break
        step = partial(_sum, day=day, ids=taken)
        done += transact(engine, step, doing=_DOING, patience_s=patience_s)
    return done


def _days(connection: Connection, newest: int, end: int) -> dict[int, list[int]]:
    """Give the days that have marks, the oldest first, and each one's marks by their ids."""
    m = rollup_marks.c
    due = select(m.start, m.id).where(m.id <= newest, m.start < end).order_by(m.start)
    days: dict[int, list[int]] = {}
    for start, key in connection.execute(due):
        day = (int(start) + FIRST_YEAR_S) // DAY_S * DAY_S - FIRST_YEAR_S
        days.setdefault(day, []).append(key)
    return days


def _thin(connection: Connection, newest: int) -> None:
    """Forget all but the newest mark of each quarter. One says as much as a hundred."""
    m = rollup_marks.c
    kept = select(func.max(m.id).label("id")).where(m.id <= newest).group_by(m.start).subquery()
    again = select(kept.c.id)
    connection.execute(delete(rollup_marks).where(m.id <= newest, m.id.not_in(again)))


def mark_everything(connection: Connection) -> None:
    """Mark every stretch that raw rows or roll-ups have: someone changed the rows past us."""
    spelled = dialect(connection)
    start = spelled.start(spelled.seconds("date_created"), QUARTER_S)
    connection.execute(
        text(
            f"INSERT INTO rollup_marks (start) SELECT DISTINCT COALESCE({start}, {UNKNOWN}) "
            f"FROM {attempts.name}"
        )
    )
    for table in rollups.values():
        rows = select(table.c.start).distinct()
        connection.execute(insert(rollup_marks).from_select(["start"], rows))


def _sum(connection: Connection, day: int, ids: Sequence[int]) -> bool:
    """Sum one day's marked stretches anew; say whether there were any left."""
    m = rollup_marks.c
    # A second worker on the same day waits here, then finds the marks gone.
    taken = connection.execute(locked(select(m.id, m.start).where(m.id.in_(ids)))).all()
    if not taken:
        return False
    for facts in FACTS:
        _sum_facts(connection, facts, day, {mark.id: mark.start for mark in taken})
    connection.execute(delete(rollup_marks).where(m.id.in_(ids)))
    return True


def _sum_facts(connection: Connection, facts: Facts, day: int, quarters: Mapping[int, int]) -> None:
    """Sum the stretches of a day that hold these quarters, given by the ids of their marks."""
    scope = Scope(dialect(connection))
    rollup, table = facts.rollup, facts.rollup.table
    names = ", ".join(rollups[rollup.name].c.keys())
    insert_into = f"INSERT INTO {table} ({names})"
    length = rollup.lengths[0]
    # Name marks and stretches one by one: a look at all of them takes MariaDB long.
    starts = _listed({(start - day) // length * length + day for start in quarters.values()})
    if day == UNKNOWN:
        source = made(scope, facts, UNKNOWN_TIME)
    else:
        spans = marked(scope, length, [f"m.id IN ({_listed(quarters)})"])
        over = Over(Which.SPANS, length)
        source = f"WITH spans AS (\n{spans}\n)\n{made(scope, facts, over)}"
    _run(connection, f"DELETE FROM {table} WHERE length_s = {length} AND start IN ({starts})")
    _run(connection, f"{insert_into}\n{source}")
    for longer in rollup.lengths[1:]:
        _run(
            connection,
            f"DELETE FROM {table} WHERE length_s = {longer} AND start >= {day} "
            f"AND start < {day + DAY_S}",
        )
        _run(connection, f"{insert_into}\n{summed(scope, rollup, longer, day)}")


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _run(connection: Connection, statement: str) -> None:
    # Each text is used once: to compile it would take longer than to run it.
    connection.exec_driver_sql(statement)
