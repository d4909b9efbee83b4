"""Share the allowance: N requests in any window, for every worker on every machine, in SQL.

``api_slots`` holds slots 0..N-1 and one gate row for each account. Only free slots are taken, and
they are free again one window after the request's answer. So a short queue runs at once and a long
one at the full rate. A request that arrives late cannot exceed the limit. A crash wastes a slot for
one window and one request's total deadline.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from sqlalchemy import ColumnElement, Connection, bindparam, select, update

from etl.database.dialects import dialect
from etl.database.locks import locked
from etl.database.schema import api_slots as s
from etl.errors import SchemaError
from etl.settings import Settings

GATE: Final = -1
"""The slot number of the gate row. Its ``free_at`` ends the pause after a 429."""

REQUEST_MS: Final = 25_000
"""The total deadline of one request. A slot is held this much longer than its window."""

LONGEST_PAUSE_MS: Final = 15 * 60_000
"""No pause is longer, whatever ``Retry-After`` or a jumping clock says."""

_ANY: Final = 2**62


@dataclass(frozen=True, slots=True)
class Allowance:
    """Say whose allowance it is, how many requests (0 = no limit), and its window in ms."""

    account: str
    requests: int
    window_ms: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Read off the settings what the account may ask for."""
        return cls(settings.account_sid, settings.allowance, settings.allowance_window)

    def pause_ms(self, retry_after_ms: int | None) -> int:
        """Return how long a 429 pauses: as it asks, else one window."""
        wait = self.window_ms if retry_after_ms is None else retry_after_ms
        return min(wait, LONGEST_PAUSE_MS)


def accounts_of(account: str) -> tuple[str, ...]:
    """Name an account as the queue does: '' stands for the only account."""
    return ("", account) if account else ("",)


@dataclass(frozen=True, slots=True)
class Room:
    """Name the free slots; if there are none, when to look again and whether a 429 is the reason."""

    free: tuple[int, ...]
    wait_until: int
    paused: bool = False


def open_gate(connection: Connection, allowance: Allowance, now: int) -> None:
    """Create an account's missing rows, as part of a run's start.

    A new account's slots are free. Slots of a raised allowance start one window from now, since
    earlier requests are unknown.
    """
    have = set(
        connection.execute(select(s.c.slot).where(s.c.account == allowance.account)).scalars()
    )
    wanted = [GATE, *range(allowance.requests)]
    later = now + allowance.window_ms if have else 0
    rows = [
        {"account": allowance.account, "slot": slot, "free_at": 0 if slot == GATE else later}
        for slot in wanted
        if slot not in have
    ]
    if rows:
        # Another worker that starts at the same moment sees the same rows missing.
        connection.execute(dialect(connection).insert_ignore(s, "account", "slot"), rows)


def lock_gate(connection: Connection, allowance: Allowance) -> int:
    """Lock the gate, so that takers go one by one, and return the end of its pause (ms).

    Raises ``SchemaError`` if somebody has emptied the table.
    """
    statement = select(s.c.free_at).where(s.c.account == allowance.account, s.c.slot == GATE)
    free_at = connection.execute(locked(statement)).scalar_one_or_none()
    if free_at is None:
        raise _emptied(allowance)
    return int(free_at)


def _emptied(allowance: Allowance) -> SchemaError:
    msg = f"The table api_slots has no rows any more for account {allowance.account}."
    return SchemaError(msg, hint="Run it again: every run creates those that are missing.")


def room(connection: Connection, allowance: Allowance, *, paused_until: int, now: int) -> Room:
    """Return the free slots. First lock the gate, then read the clock.

    If a pause or a slot ends too late, the clock jumped back. It is then set to the latest possible
    time. Raises ``SchemaError`` as ``lock_gate`` does.
    """
    longest = now + LONGEST_PAUSE_MS
    if paused_until > longest:
        _set_down(connection, s.c.account == allowance.account, s.c.slot == GATE, to=longest)
        paused_until = longest
    furthest = now + allowance.window_ms + REQUEST_MS
    mine = (s.c.account == allowance.account, s.c.slot >= 0, s.c.slot < allowance.requests)
    statement = select(s.c.slot, s.c.free_at).where(*mine).order_by(s.c.free_at, s.c.slot)
    slots = connection.execute(statement).all()
    if not slots:
        raise _emptied(allowance)
    if any(row.free_at > furthest for row in slots):
        _set_down(connection, *mine, to=furthest)
    if paused_until > now:
        return Room((), paused_until, paused=True)
    free = tuple(row.slot for row in slots if row.free_at <= now)
    soonest = min((row.free_at for row in slots if row.free_at > now), default=now)
    return Room(free, min(soonest, furthest))


def taken(connection: Connection, allowance: Allowance, now: int) -> list[int]:
    """Return for how long (ms) each slot is taken that is not free. A pause takes them all."""
    longest = max(LONGEST_PAUSE_MS, allowance.window_ms + REQUEST_MS)
    mine = (s.c.account == allowance.account, s.c.slot < allowance.requests, s.c.free_at > now)
    rows = connection.execute(select(s.c.slot, s.c.free_at).where(*mine)).all()
    waits = {int(row.slot): min(int(row.free_at) - now, longest) for row in rows}
    pause = waits.pop(GATE, 0)
    if pause:
        return [max(pause, waits.get(slot, 0)) for slot in range(allowance.requests)]
    return sorted(waits.values())


def _set_down(connection: Connection, *which: ColumnElement[bool], to: int) -> None:
    # Written, since the next look would find it too late again.
    connection.execute(update(s).where(*which, s.c.free_at > to).values(free_at=to))


def take(connection: Connection, allowance: Allowance, slots: Iterable[int], now: int) -> int:
    """Take free slots until an answer gives them back, or the request must be dead.

    Returns that time (ms). ``release`` tells by it whether a slot is still the taker's.
    """
    held = now + allowance.window_ms + REQUEST_MS
    if slots := list(slots):
        connection.execute(
            update(s)
            .where(s.c.account == allowance.account, s.c.slot.in_(slots))
            .values(free_at=held)
        )
    return held


def release(
    connection: Connection,
    allowance: Allowance,
    answered: Iterable[tuple[int, int]],
    held: Mapping[int, int] | None = None,
) -> None:
    """Set each slot free one window after its answer (ms).

    A request that was never sent counts as answered one window ago. ``held`` says until when each
    slot was taken. A slot that is now taken for longer is another worker's: we were asleep.
    """
    held = held or {}
    rows = [
        {"b_slot": slot, "b_held": held.get(slot, _ANY), "free_at": at + allowance.window_ms}
        for slot, at in sorted(answered)
    ]
    mine = (s.c.account == allowance.account, s.c.slot == bindparam("b_slot"))
    if rows:
        connection.execute(update(s).where(*mine, s.c.free_at <= bindparam("b_held")), rows)


def pause(connection: Connection, allowance: Allowance, until: int) -> None:
    """Close the gate for every worker until ``until`` (ms), unless it is closed for longer."""
    connection.execute(
        update(s)
        .where(s.c.account == allowance.account, s.c.slot == GATE, s.c.free_at < until)
        .values(free_at=until)
    )
