"""Hold the raw rows to Twilio's own counts: each UTC day | count rows | ask for Summary | compare.

The definition is Summary's: attempts created in the window; an attempt converted or it did not.
A day is asked for as a whole first, then by group until the groups add up to it: what is left are
rows of groups that the database does not know, or of none.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import partial
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, case, func, or_, select

from etl.database.bounds import PATIENT
from etl.database.engine import any_text
from etl.database.schema import attempt_channel_data as data
from etl.database.schema import attempts
from etl.database.times import moment, within
from etl.database.transact import transact
from etl.errors import ApiUnreachable, BadBody, BodyTooLarge, NotFound, TransientFailure
from etl.job.tools import Tools
from etl.listing.requests import UNREADABLE, Requests
from etl.sql.odd import unreadable

DAY_MS: Final = 86_400_000
_SIXTH: Final = Decimal("0.000001")
_CONVERTED: Final = "converted"


class By(StrEnum):
    """Name what the counts may be grouped by."""

    SERVICE = "service"
    CHANNEL = "channel"
    COUNTRY = "country"


class Finding(StrEnum):
    """Say how a line's two sides compare."""

    EQUAL = "equal"
    # Twilio counts attempts that are not here.
    MISSING = "missing"
    # Here are attempts that Twilio does not count.
    SURPLUS = "surplus"
    # As many attempts, other conversions.
    CHANGED = "changed"
    # Older than the API remembers: not asked.
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class ReconcileOptions:
    """Say which creation times (ms) to compare, widened to whole days, and how to group them."""

    start: int
    end: int | None
    by: By | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Hold attempts, those that converted, and those that did not."""

    attempts: int = 0
    converted: int = 0
    unconverted: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.attempts + other.attempts,
            self.converted + other.converted,
            self.unconverted + other.unconverted,
        )

    def __sub__(self, other: "Totals") -> "Totals":
        return self + Totals(-other.attempts, -other.converted, -other.unconverted)

    @property
    def rate(self) -> Decimal | None:
        """Return the share that converted, a fraction of one to six decimals; None of nothing."""
        if self.attempts <= 0:
            return None
        return (Decimal(self.converted) / self.attempts).quantize(_SIXTH)


@dataclass(frozen=True, slots=True)
class Stored:
    """Hold what the database counts, and how many of its rows can still change."""

    counts: Totals = Totals()
    not_final: int = 0

    def __add__(self, other: "Stored") -> "Stored":
        return Stored(self.counts + other.counts, self.not_final + other.not_final)

    def __sub__(self, other: "Stored") -> "Stored":
        return Stored(self.counts - other.counts, self.not_final - other.not_final)


@dataclass(frozen=True, slots=True)
class DayLine:
    """Compare one day, or one group of it; ``group`` None: what is in no group that is known.

    ``end`` (ms) is when the comparison stops: the day's end, or now.
    """

    day: date
    end: int
    group: str | None
    stored: Stored
    twilio: Totals | None
    is_total: bool = True

    @property
    def difference(self) -> Totals | None:
        """Return the database's counts less Twilio's; None when Twilio was not asked."""
        return None if self.twilio is None else self.stored.counts - self.twilio

    @property
    def finding(self) -> Finding:
        """Judge the difference."""
        difference = self.difference
        if difference is None:
            return Finding.EXPIRED
        if difference.attempts:
            return Finding.MISSING if difference.attempts < 0 else Finding.SURPLUS
        return Finding.EQUAL if difference == Totals() else Finding.CHANGED

    @property
    def differs(self) -> bool:
        """Say whether Twilio was asked and counts otherwise."""
        return self.finding not in {Finding.EQUAL, Finding.EXPIRED}

    @property
    def expected(self) -> bool:
        """Say whether rows that are not final yet can account for the whole difference."""
        difference = self.difference
        return (
            difference is not None
            and self.finding is Finding.CHANGED
            and abs(difference.converted) <= self.stored.not_final
        )

    @property
    def loadable(self) -> bool:
        """Say whether listing the day again mends it."""
        return self.finding in {Finding.MISSING, Finding.CHANGED}


def commands(lines: Sequence[DayLine], by: By | None) -> list[str]:
    """Write the commands that load what is missing; days that follow each other share one."""
    spans: list[tuple[date, date, str]] = []
    for day, of_day in groupby(lines, key=lambda line: line.day):
        wanted = [line for line in of_day if line.loadable]
        if not wanted:
            continue
        groups = {line.group for line in wanted if not line.is_total}
        # One service alone is cheaper to list than the account.
        service = groups.pop() or "" if by is By.SERVICE and len(groups) == 1 else ""
        begin, until = day, day + timedelta(days=1)
        if spans and spans[-1][1:] == (day, service):
            begin = spans.pop()[0]
        spans.append((begin, until, service))
    return [
        f"verify-etl discover --since {begin} --until {until}"
        + (f" --service {service}" if service else "")
        for begin, until, service in spans
    ]


class Reconcile:
    """Compare windows for one run; ``found`` holds the lines so far, whatever ends it."""

    def __init__(self, tools: Tools, found: list[DayLine]) -> None:
        self._tools = tools
        self._requests = Requests(tools)
        self._found = found

    def run(self, asked: ReconcileOptions) -> None:
        """Compare every day of the window.

        Raises ``ApiUnreachable`` when a day cannot be asked for, and ``Interrupted``.
        """

        def begin(connection: Connection) -> tuple[int, list[str]]:
            now = self._tools.clock(connection)
            oldest = now - self._tools.policy.retention
            values = known(connection, self._tools.account, oldest, asked.by) if asked.by else []
            return now, values

        engine = self._tools.engine.execution_options(**PATIENT)
        now, values = transact(engine, begin, doing="reading what is known")
        for start, end in days(asked, now):
            if start < now - self._tools.policy.retention:
                stored = sum(self._stored(start, end, None).values(), Stored())
                self._add([DayLine(_day(start), end, None, stored, None)])
            else:
                self._add(self._compare(start, end, asked.by, values))

    def _add(self, lines: Iterable[DayLine]) -> None:
        for line in lines:
            self._found.append(line)
            self._tools.counts.differences += line.differs
            self._tools.counts.compared += line.twilio is not None

    def _compare(self, start: int, end: int, by: By | None, values: Sequence[str]) -> list[DayLine]:
        stored = self._stored(start, end, by)
        total = self._total(start, end)
        make = partial(DayLine, _day(start), end)
        here = sum(stored.values(), Stored())
        lines = [make(group=None, stored=here, twilio=total)]
        if by is None:
            return lines
        left, asked_for = here, Totals()
        # The largest first: once they add up to the day, the others are known to be empty.
        for value in sorted(values, key=lambda v: (-_attempts(stored, v), v)):
            twilio: Totals | None = Totals()
            if asked_for.attempts < total.attempts:
                twilio = self._group(start, end, by, value)
            if twilio is None:
                continue
            asked_for, mine = asked_for + twilio, stored.get(value, Stored())
            left -= mine
            if mine.counts.attempts or twilio.attempts:
                lines.append(make(group=value, stored=mine, twilio=twilio, is_total=False))
        rest = total - asked_for
        if left.counts != Totals() or rest != Totals():
            lines.append(make(group=None, stored=left, twilio=rest, is_total=False))
        return lines

    def _stored(self, start: int, end: int, by: By | None) -> dict[str | None, Stored]:
        def work(connection: Connection) -> dict[str | None, Stored]:
            return count(connection, self._tools.account, start, end, by)

        engine = self._tools.engine.execution_options(**PATIENT)
        return transact(engine, work, doing="counting attempts")

    def _total(self, start: int, end: int) -> Totals:
        try:
            return self._ask(start, end, {})
        except UNREADABLE as error:
            msg = f"Twilio's Summary of {_day(start)} could not be read."
            raise ApiUnreachable(msg, hint="What was compared stands; run it again.") from error

    def _group(self, start: int, end: int, by: By, value: str) -> Totals | None:
        """Ask for one group; None when the API knows no such value: it stays with the rest."""
        try:
            return self._ask(start, end, {_FILTERS[by]: value})
        except (BadBody, BodyTooLarge, NotFound):
            return None
        except TransientFailure as error:
            msg = f"Twilio's Summary of {_day(start)} by {by} could not be read."
            raise ApiUnreachable(msg, hint="What was compared stands; run it again.") from error

    def _ask(self, start: int, end: int, only: dict[str, str]) -> Totals:
        summary = self._requests.count(start, end, **only)
        return Totals(summary.total, summary.converted, summary.unconverted)


_FILTERS: Final = {By.SERVICE: "service_sid", By.CHANNEL: "channel", By.COUNTRY: "country"}
_COLUMNS: Final[dict[By, Column[Any]]] = {
    By.SERVICE: attempts.c.service_sid,
    By.CHANNEL: attempts.c.channel,
    By.COUNTRY: data.c.country,
}
_SPELLINGS: Final[dict[By, Callable[[str], str]]] = {
    By.SERVICE: str,
    By.CHANNEL: str.lower,
    # As Twilio writes codes; its filters do not tell the cases apart.
    By.COUNTRY: str.upper,
}


def days(asked: ReconcileOptions, now: int) -> list[tuple[int, int]]:
    """Cut the window into whole UTC days (ms, half open); today ends now, at a whole second."""
    now -= now % 1000
    last = now if asked.end is None else min(now, -(-asked.end // DAY_MS) * DAY_MS)
    first = asked.start // DAY_MS * DAY_MS
    return [(start, min(start + DAY_MS, last)) for start in range(first, last, DAY_MS)]


def known(connection: Connection, account: str, start: int, by: By) -> list[str]:
    """Name the values of a grouping among attempts created since ``start`` (ms), and now."""
    since = within(connection, attempts.c.date_created, moment(start))
    statement = _of(by, _COLUMNS[by]).where(_mine(account), since)
    with any_text(connection):
        found = connection.execute(statement.distinct()).scalars().all()
    return sorted({_SPELLINGS[by](value) for value in found if value and _is_name(value)})


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def count(
    connection: Connection, account: str, start: int, end: int, by: By | None
) -> dict[str | None, Stored]:
    """Count an account's raw rows created in a window (ms), by group; None: in no group."""
    inside = within(connection, attempts.c.date_created, moment(start), moment(end))
    columns: list[ColumnElement[Any]] = [
        func.count(),
        func.sum(case((attempts.c.conversion_status == _CONVERTED, 1), else_=0)),
        func.sum(case((attempts.c.is_final.is_(False), 1), else_=0)),
    ]
    key = None if by is None else _COLUMNS[by]
    statement = _of(by, *([key] if key is not None else []), *columns)
    statement = statement.where(inside, _mine(account))
    if key is not None:
        statement = statement.group_by(key)
    found: dict[str | None, Stored] = {}
    with any_text(connection):
        rows = connection.execute(statement).all()
    for *group, total, converted, not_final in rows:
        # SQLite keeps bytes, too: they are no name that the API could be asked for.
        value = _SPELLINGS[by](group[0]) if by and group[0] and _is_name(group[0]) else None
        counts = Totals(int(total), int(converted or 0), int(total) - int(converted or 0))
        found[value] = found.get(value, Stored()) + Stored(counts, int(not_final or 0))
    return found


def undated(connection: Connection, account: str) -> int:
    """Count the attempts whose creation time is unknown: they are in no window."""
    statement = select(func.count()).where(attempts.c.date_created.is_(None), _mine(account))
    return int(connection.execute(statement).scalar_one()) + unreadable(connection)


def _of(by: By | None, *columns: ColumnElement[Any]) -> Any:  # noqa: ANN401 - a SELECT of any columns
    if by is By.COUNTRY:
        tables = attempts.outerjoin(data, data.c.attempt_sid == attempts.c.sid)
        return select(*columns).select_from(tables)
    return select(*columns).select_from(attempts)


def _mine(account: str) -> ColumnElement[bool]:
    # Summary counts one account; the database may hold several.
    return or_(attempts.c.account_sid == account, attempts.c.account_sid.is_(None))


def _attempts(stored: dict[str | None, Stored], value: str) -> int:
    return stored.get(value, Stored()).counts.attempts


def _day(ms: int) -> date:
    return datetime.fromtimestamp(ms / 1000, UTC).date()
