"""Read what a report adds up: from current roll-ups, and raw rows for the rest.

::

    window   |since          whole stretches                    until|
             [ raw | roll-up | roll-up | marked: raw | roll-up | raw ]

A stretch is a UTC day, or a quarter of an hour if the days are another zone's. One statement reads
the marks, the roll-ups and the raw rows. So the answer is that of the raw rows at one moment.
``newest`` is another statement, and needs a snapshot around both.
"""

# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Protocol

from etl.database.schema import IX_CREATED
from etl.rollups.cubes import UNKNOWN, Rollup
from etl.sql.scope import UTC, Scope
from etl.sql.spans import DAY_S, QUARTER_S

Times = Mapping[str, Callable[[str], str] | int]
"""Maps a name to what is made of a row's moment.

A callable writes an expression. An int counts whole stretches of that many seconds since 1970.
"""

MARKS: Final = "rollup_marks"
SLICE: Final = ("service_sid", "channel", "country")


class Which(Enum):
    """Say which moments of raw rows are read."""

    WINDOW = "those of the scope's window"
    SPANS = "those in the spans of the table expression `spans`"
    UNKNOWN = "the unknown one"


@dataclass(frozen=True, slots=True)
class Over:
    """Say which moments of raw rows are read. Spans are parts of stretches of a length."""

    which: Which
    length: int = 0


WINDOW: Final = Over(Which.WINDOW)
UNKNOWN_TIME: Final = Over(Which.UNKNOWN)


class Raw(Protocol):
    """Write the SELECT over raw rows: one row for each counted thing."""

    def __call__(self, scope: Scope, over: Over, times: Times, names: Sequence[str]) -> str:
        """Write the times, then the keys and measures of these names."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Pair a roll-up with the SELECT that says the same of the raw rows."""

    rollup: Rollup
    raw: Raw


def read(
    scope: Scope, facts: Facts, times: Times, names: Sequence[str], *, by_day: bool = True
) -> tuple[tuple[str, str], ...]:
    """Write the table expressions that end with `facts`: the times, keys and measures.

    With ``by_day`` the times hold the scope's day, so that its zone matters.
    """
    length = _length(scope, facts.rollup, by_day=by_day)
    first, end = _whole(scope, length)
    if length is None or (first is not None and end is not None and first >= end):
        return (("facts", facts.raw(scope, WINDOW, times, names)),)
    parts = [
        _rolled(scope, facts.rollup, length, times, names),
        facts.raw(scope, Over(Which.SPANS, length), times, names),
    ]
    if scope.since is None and scope.until is None:
        parts.append(facts.raw(scope, UNKNOWN_TIME, times, names))
    spans = _spans(scope, length, first, end)
    return (("spans", spans), ("facts", "\nUNION ALL\n".join(parts)))


def newest(scope: Scope, rollup: Rollup, count: int) -> str | None:
    """Write the SELECT of the second at which the stretch of the ``count``-th newest row begins.

    It finds nothing if there are fewer rows. None means that the scope is read raw.
    """
    length = _length(scope, rollup, by_day=False)
    first, end = _whole(scope, length)
    if length is None or (first is not None and end is not None and first >= end):
        return None
    rows = _rolled(scope, rollup, length, {}, ["start"])
    later = f"{rows}\n  AND r.start > {UNKNOWN}"
    return f"SELECT start FROM (\n{later}\n) r ORDER BY start DESC LIMIT 1 OFFSET {count - 1}"


def _length(scope: Scope, rollup: Rollup, *, by_day: bool) -> int | None:
    """Choose the longest stretches that fit the answer. None means raw rows."""
    asked = dict(zip(SLICE, (scope.services, scope.channels, scope.countries), strict=True))
    if scope.raw or any(values and key not in rollup.keys for key, values in asked.items()):
        return None
    if not by_day or scope.zone == UTC or "day" not in scope.kept(["day"]):
        return rollup.lengths[-1]
    if rollup.lengths[0] != QUARTER_S:
        return None
    edges = [moment for o in scope.zone for moment in (o.seconds, o.until or 0)]
    return QUARTER_S if all(edge % QUARTER_S == 0 for edge in edges) else None


def _whole(scope: Scope, length: int | None) -> tuple[int | None, int | None]:
    """Find the first and the end of the whole stretches in the window."""
    if length is None:
        return None, None
    first = None if scope.since is None else math.ceil(scope.since / length) * length
    return first, None if scope.until is None else math.floor(scope.until / length) * length


def _rolled(scope: Scope, rollup: Rollup, length: int, times: Times, names: Sequence[str]) -> str:
    first, end = _whole(scope, length)
    windowed = first is not None or end is not None

    def known(text: str) -> str:
        return text if windowed else f"CASE WHEN r.start > {UNKNOWN} THEN {text} END"

    at, number = known(scope.dialect.instant("r.start")), scope.dialect.number
    columns = [
        f"{known(number('r.start', how)) if isinstance(how, int) else how(at)} AS {name}"
        for name, how in times.items()
    ]
    columns += [f"r.{name}" for name in names]
    where = [f"r.length_s = {length}"]
    if windowed:
        where.append(f"r.start >= {UNKNOWN + DAY_S if first is None else first}")
    if end is not None:
        where.append(f"r.start < {end}")
    marked = scope.dialect.start("m.start", length)
    where.append(f"r.start NOT IN (SELECT {marked} FROM {MARKS} m)")
    where += scope.only("r.service_sid", "r.channel", "r.country")
    return f"SELECT {', '.join(columns)}\nFROM {rollup.table} r\n{scope.where(where)}"


def _spans(scope: Scope, length: int, first: int | None, end: int | None) -> str:
    """Write the spans to read raw: marked stretches, and the window's ends."""
    dialect = scope.dialect
    since, until = (f"@{name}@" for name in scope.names)
    conditions = [f"m.start > {UNKNOWN}" if first is None else f"m.start >= {first}"]
    conditions += [f"m.start < {end}"] if end is not None else []
    parts = [marked(scope, length, conditions)]
    if first is not None and first != scope.since:
        parts.append(_span(scope, str(first - length), since, dialect.instant(first)))
    if end is not None and end != scope.until:
        parts.append(_span(scope, str(end), dialect.instant(end), until))
    return "\nUNION ALL\n".join(parts)


def marked(scope: Scope, length: int, conditions: Sequence[str]) -> str:
    """Write the SELECT of the stretches that have such marks `m`."""
    dialect = scope.dialect
    starts = f"SELECT DISTINCT {dialect.start('m.start', length)} AS start FROM {MARKS} m"
    ends = dialect.instant(f"(s.start + {length})")
    span = _span(scope, "s.start", dialect.instant("s.start"), ends)
    return f"{span}\nFROM ({starts} {scope.where(conditions)}) s"


def _span(scope: Scope, start: str, low: str, high: str) -> str:
    bound = scope.dialect.bound
    return f"SELECT {start} AS start, {bound(low)} AS lo, {bound(high)} AS hi"


def timed(scope: Scope, times: Times, at: str) -> list[str]:
    """Write what is made of a raw row's moment."""
    seconds = scope.dialect.seconds(at)
    return [
        f"{scope.dialect.number(seconds, how) if isinstance(how, int) else how(at)} AS {name}"
        for name, how in times.items()
    ]


def attempts(
    expressions: Callable[[Scope], Mapping[str, str]],
    where: Sequence[str] = (),
    *,
    channel_data: bool = True,
) -> Raw:
    """Write the SELECT that counts attempts `a`, with their channel data `d` if needed."""

    def raw(scope: Scope, over: Over, times: Times, names: Sequence[str]) -> str:
        known = expressions(scope)
        columns = timed(scope, times, "a.date_created")
        columns += [f"{known[name]} AS {name}" for name in names]
        only = [*scope.only("a.service_sid", "a.channel", hidden("d.country")), *where]
        return f"SELECT\n    {_lines(columns)}\n{_source(scope, over, only, channel_data)}"

    return raw


def _source(scope: Scope, over: Over, where: Sequence[str], channel_data: bool) -> str:  # noqa: FBT001 - passed on
    dialect = scope.dialect
    table, also = scope.attempts, "d.attempt_sid = a.sid"
    if over.which is Which.SPANS:
        inside = "a.date_created >= s.lo AND a.date_created < s.hi"
        if dialect.keeps_any_text:
            # Beside a day's moments there may stand text that is none.
            where = [f"{dialect.seconds('a.date_created')} IS NOT NULL", *where]
        found = f"FROM spans s\n{dialect.nested(table, 'a', IX_CREATED, inside)}"
        found += f"\n{dialect.nested_left(scope.channel_data, 'd', also)}" if channel_data else ""
        return f"{found}\n{scope.where(where)}"
    found = f"FROM {table} a"
    if over.which is Which.UNKNOWN:
        where = ["a.date_created IS NULL", IS_UNKNOWN_MARKED, *where]
        found += f"\n{dialect.nested_left(scope.channel_data, 'd', also)}" if channel_data else ""
    else:
        where = [*scope.window("a.date_created"), *where]
        found += f"\nLEFT JOIN {scope.channel_data} d ON {also}" if channel_data else ""
    return f"{found}\n{scope.where(where)}"


def hidden(column: str) -> str:
    """Hide from a planner that `d` must have a row, or SQLite reads all of them first."""
    return f"COALESCE({column}, NULL)"


IS_UNKNOWN_MARKED: Final = f"EXISTS (SELECT 1 FROM {MARKS} m WHERE m.start = {UNKNOWN})"


def _lines(columns: Sequence[str]) -> str:
    return ",\n    ".join(columns)


def made(scope: Scope, facts: Facts, over: Over) -> str:
    """Write the SELECT that makes a roll-up's rows from raw rows, in its columns' order.

    Over spans, the caller writes the table expression `spans` before it.
    """
    rollup, dialect = facts.rollup, scope.dialect

    def start(at: str) -> str:
        if over.which is Which.UNKNOWN:
            return str(UNKNOWN)
        return dialect.start(dialect.seconds(at), rollup.lengths[0])

    raw = facts.raw(scope, over, {"start": start}, [*rollup.keys, *rollup.measures])
    return _added(rollup, rollup.lengths[0], raw)


def summed(scope: Scope, rollup: Rollup, length: int, day: int) -> str:
    """Write the SELECT that makes a day's rows of a longer length from the shortest ones."""
    start = scope.dialect.start("r.start", length)
    names = ", ".join(f"r.{name}" for name in (*rollup.keys, *rollup.measures))
    return _added(
        rollup,
        length,
        f"SELECT {start} AS start, {names} FROM {rollup.table} r WHERE r.length_s = "
        f"{rollup.lengths[0]} AND r.start >= {day} AND r.start < {day + DAY_S}",
    )


def _added(rollup: Rollup, length: int, source: str) -> str:
    columns = [
        f"{length} AS length_s",
        "start",
        # Any order will do. It tells the rows of a stretch apart.
        "ROW_NUMBER() OVER (ORDER BY start) AS place",
        *rollup.keys,
        *(f"{add}({name}) AS {name}" for name, add in rollup.measures.items()),
    ]
    keys = ", ".join(["start", *rollup.keys])
    return f"SELECT\n    {_lines(columns)}\nFROM (\n{source}\n) f\nGROUP BY {keys}"


def whole(scope: Scope) -> Scope:
    """Widen a scope to every moment. Its services, channels and countries stay."""
    return replace(scope, since=None, until=None)
