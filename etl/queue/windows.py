"""Keep the windows that are being listed in ``sweeps``, leased and fenced like rows of the queue.

Two workers never list one window. After a crash the next worker resumes at the same page.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, func, insert, or_, select, update

from etl.database.engine import as_text
from etl.database.locks import lock_alone, locked
from etl.database.schema import sweeps as s
from etl.database.times import moment

LEASE_MS: Final = 120_000
"""How long a page may take, its wait for the allowance included, before others take over."""

LARGEST_PAGE: Final = 1_000
"""The most attempts that the API shows on a page."""

_MOST: Final = 2**53
_MOST_COUNT: Final = 2**31 - 1

_KEY: Final = 0x737765657073  # "sweeps"

LISTING: Final = "listing"
DONE: Final = "done"
ABANDONED: Final = "abandoned"


@dataclass(frozen=True, slots=True)
class Listing:
    """Own a window of creation times (ms, half open) as long as ``claim_no`` holds."""

    id: int
    claim_no: int
    start: int
    end: int
    scope: str
    purpose: str
    page_size: int
    next_page: str | None
    pages: int
    seen: int
    matched: int
    whole: bool = False

    def restarted(self, page_size: int) -> "Listing":
        """Put it back to its first page, in pages of a size."""
        return replace(self, page_size=page_size, next_page=None, pages=0, seen=0)


def begin(  # noqa: PLR0913 - a window is these facts
    connection: Connection,
    *,
    account: str,
    worker: str,
    start: int,
    end: int,
    scope: str,
    purpose: str,
    page_size: int,
    now: int,
) -> Listing | None:
    """Insert a window and lease it; None if another worker is listing part of it.

    A window that this worker has begun is taken up again. The insert's commit may have succeeded
    and its answer been lost. Otherwise the window would wait for its lease to end, and be listed
    twice.
    """
    # Crons begin together at the full hour, and would not see each other's insert.
    lock_alone(connection, _KEY)
    others = live(connection, account=account, now=now, scope=scope, but=worker)
    if any(first < end and start < last for first, last in others):
        return None
    begun = locked(
        select(s)
        .where(s.c.account == account, s.c.state == LISTING, s.c.leased_by == worker)
        .where(s.c.window_from == start, s.c.window_to == end)
        .where(s.c.scope == scope, s.c.purpose == purpose)
        .limit(1)
    )
    if (there := _first(connection, begun)) is not None:
        return _take_over(connection, there, worker, now)
    row = {
        "account": account, "window_from": start, "window_to": end, "scope": scope,
        "purpose": purpose, "state": LISTING, "page_size": page_size, "claim_no": 1,
        "due_at": now + LEASE_MS, "leased_by": worker, "created_at": moment(now),
    }  # fmt: skip
    key = connection.execute(insert(s).values(row)).inserted_primary_key
    assert key is not None  # noqa: S101 - one row was inserted
    return Listing(int(key[0]), 1, start, end, scope, purpose, page_size, None, 0, 0, 0)


def resume(  # noqa: PLR0913 - as above
    connection: Connection,
    *,
    account: str,
    worker: str,
    purpose: str,
    now: int,
    scope: str | None = None,
) -> Listing | None:
    """Take over a window whose worker is gone, of one ``scope`` or any; None if there is none.

    Call it while listing none: a window leased by this ``worker`` is one whose answer was lost.
    """
    free = or_(s.c.due_at <= now, s.c.leased_by == worker)
    statement = (
        select(s)
        .where(s.c.account == account, s.c.state == LISTING, free)
        .where(s.c.purpose == purpose)
        .order_by(s.c.account, s.c.state, s.c.due_at)
        .limit(1)
    )
    if scope is not None:
        statement = statement.where(s.c.scope == scope)
    while (row := _first(connection, locked(statement, skip=True))) is not None:
        if _sound(row, now):
            return _take_over(connection, row, worker, now)
        # Somebody has changed it by hand. Its attempts are listed anew.
        connection.execute(update(s).where(s.c.id == row.id).values(state=ABANDONED))
    return None


def _sound(row: Row[Any], now: int) -> bool:
    """Say whether a window's values make sense. SQLite keeps text in any column."""
    numbers = (
        row.window_from, row.window_to, row.page_size, row.claim_no, row.pages, row.seen,
        row.matched,
    )  # fmt: skip
    return (
        all(isinstance(number, int) and 0 <= number < _MOST for number in numbers)
        and row.window_from < row.window_to <= now
        and 0 < row.page_size <= LARGEST_PAGE
        and max(row.claim_no, row.pages, row.seen, row.matched) < _MOST_COUNT
    )


def set_down(connection: Connection, *, account: str, now: int) -> None:
    """Take back what a fast clock has written. This is part of a run's start.

    A lease that ends too late would be waited for. A window that ends in the future was listed
    before its attempts existed. The next one would begin after them.
    """
    wrong: tuple[tuple[str, ColumnElement[bool], dict[str, object]], ...] = (
        (LISTING, s.c.due_at > now + 2 * LEASE_MS, {"due_at": now}),
        (DONE, s.c.window_to > now, {"state": ABANDONED}),
    )
    for state, ahead, values in wrong:
        found = select(s.c.id).where(s.c.account == account, s.c.state == state, ahead)
        if ids := connection.execute(found).scalars().all():
            mine = update(s).where(s.c.id.in_(ids), s.c.state == state, ahead)
            connection.execute(mine.values(values))


def _take_over(connection: Connection, row: Row[Any], worker: str, now: int) -> Listing:
    values = {"claim_no": row.claim_no + 1, "due_at": now + LEASE_MS, "leased_by": worker}
    connection.execute(update(s).where(s.c.id == row.id).values(values))
    return Listing(
        row.id, row.claim_no + 1, row.window_from, row.window_to, row.scope, row.purpose,
        row.page_size, row.next_page, row.pages, row.seen, row.matched,
    )  # fmt: skip


def advance(connection: Connection, listing: Listing, *, now: int) -> bool:
    """Write a window's progress and renew its lease; False if it is no longer ours."""
    return _write(connection, listing, {"due_at": now + LEASE_MS})


def end(connection: Connection, listing: Listing, state: str, *, now: int) -> bool:
    """Close a window as ``DONE`` or ``ABANDONED``; False if it is no longer ours."""
    return _write(connection, listing, {"state": state, "due_at": 0, "finished_at": moment(now)})


def doubt(connection: Connection, listing: Listing) -> None:
    """Count a finished window as abandoned: its list was not whole."""
    which = (s.c.id == listing.id, s.c.claim_no == listing.claim_no, s.c.state == DONE)
    connection.execute(update(s).where(*which).values(state=ABANDONED))


def let_go(connection: Connection, listing: Listing, *, now: int) -> bool:
    """Give the lease up, so that the next run goes on here at once."""
    return _write(connection, listing, {"due_at": now})


def leave(connection: Connection, *, account: str, worker: str, now: int) -> int:
    """Give up all of a worker's leases; return how many windows that are."""
    mine = (s.c.account == account, s.c.state == LISTING, s.c.leased_by == worker)
    return connection.execute(update(s).where(*mine, s.c.due_at > now).values(due_at=now)).rowcount


def _write(connection: Connection, listing: Listing, values: dict[str, Any]) -> bool:
    progress = {
        "page_size": listing.page_size, "next_page": listing.next_page, "pages": listing.pages,
        "seen": listing.seen, "matched": listing.matched,
    }  # fmt: skip
    fence = (s.c.id == listing.id, s.c.claim_no == listing.claim_no, s.c.state == LISTING)
    return connection.execute(update(s).where(*fence).values(progress | values)).rowcount == 1


def live(
    connection: Connection, *, account: str, now: int, scope: str = "", but: str = ""
) -> list[tuple[int, int]]:
    """Return the windows (start, end) that workers, except ``but``, are listing now."""
    statement = select(s.c.window_from, s.c.window_to).where(
        s.c.account == account, s.c.state == LISTING, s.c.due_at > now, s.c.scope == scope
    )
    statement = statement.where(s.c.leased_by != but)
    return [(start, end) for start, end in _numbers(connection, statement)]


def counted(connection: Connection, *, account: str, since: int) -> list[tuple[int, int, int]]:
    """Return the windows (start, end, attempts) that were listed whole and without a filter."""
    statement = select(s.c.window_from, s.c.window_to, s.c.seen).where(
        s.c.account == account, s.c.state == DONE, s.c.scope == "", s.c.window_from >= since
    )
    return [(start, end, seen) for start, end, seen in _numbers(connection, statement)]


def earliest(connection: Connection, *, account: str, scope: str, purpose: str) -> int | None:
    """Return when the earliest window of this kind begins (ms), or None if there is none."""
    mine = _whole(account, scope, purpose)
    first = connection.execute(select(func.min(s.c.window_from)).where(*mine)).scalar_one()
    return first if isinstance(first, int) else None


def _whole(account: str, scope: str, purpose: str) -> tuple[ColumnElement[bool], ...]:
    kind = (s.c.scope == scope, s.c.purpose == purpose)
    return (s.c.account == account, s.c.state == DONE, *kind)


def reached(
    connection: Connection, *, account: str, scope: str, purpose: str, since: int
) -> int | None:
    """Return up to when creation times are listed without a gap, or None if none are.

    Counting starts at the earliest window of this kind, or at ``since`` (ms) if that is later.
    """
    first = earliest(connection, account=account, scope=scope, purpose=purpose)
    if first is None:
        return None
    mine = _whole(account, scope, purpose)
    end_ms = max(first, since)
    windows = select(s.c.window_from, s.c.window_to).where(*mine, s.c.window_to > end_ms)
    for start, end in _numbers(connection, windows.order_by(s.c.window_from)):
        if start > end_ms:
            break
        end_ms = max(end_ms, end)
    return end_ms


def _first(connection: Connection, statement: Select[Any]) -> Row[Any] | None:
    return as_text(connection, lambda: connection.execute(statement).first())


def _numbers(connection: Connection, statement: Select[Any]) -> Iterator[tuple[int, ...]]:
    """Yield the rows of whole numbers. SQLite keeps other values, too."""
    for row in as_text(connection, lambda: connection.execute(statement).all()):
        if all(isinstance(value, int) for value in row):
            yield tuple(row)
