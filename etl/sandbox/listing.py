"""Answer from the world: one attempt, a page of a list, a summary."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from .payload import CODE_EXPIRES, Payload
from .query import Query, Token

if TYPE_CHECKING:
    from collections.abc import Callable

    from .world import World

ORDERS = ("desc", "asc", "shuffled")
_CHUNK = 4096
# Times of creation are whole milliseconds. A range has its lower bound and not its upper one.
_TICK = 0.001


class AttemptList:
    """Show a world as the API does: from creation to retention, without the hidden.

    A page costs in proportion to its size if only times filter. Other filters look at every attempt
    of the window. Summaries by time count conversions once for each 4,096 attempts.
    """

    def __init__(self, world: World, retention: float, order: str) -> None:
        """Look at a world. `retention` is in seconds, `order` one of ORDERS, else ValueError."""
        if order not in ORDERS:
            message = f"order must be one of {', '.join(ORDERS)}, not {order}"
            raise ValueError(message)
        self.world = world
        self.retention = retention
        self.order = order
        self._chunks: dict[int, int] = {}

    @property
    def plain(self) -> bool:
        """Say whether all attempts are natural, so that what was rendered stays true."""
        world = self.world
        return not (world.overrides or world.hidden or world.unlisted)

    def fetch(self, sid: str) -> Payload | None:
        """Return an attempt's payload, or None for the API's 404."""
        world = self.world
        if sid in world.hidden:
            return None
        index = world.index(sid)
        if index is None:
            return world.attempt(sid) if sid in world.overrides else None
        now = world.now()
        # These are exactly a page's bounds: a listed attempt can be fetched.
        there = now - self.retention + _TICK <= world.created(index) < now + _TICK
        return world.attempt(sid, now) if there else None

    def page(self, query: Query, text: str, base: str) -> Payload:
        """Return a page, `attempts` and `meta`. Its URLs begin with base and keep the filters."""
        low, high = self._window(query)
        token = query.token or Token(low, high, 0)
        found, begin, end = self._scan(query, token)
        filters = [
            pair for pair in parse_qsl(text) if pair[0] not in {"PageSize", "Page", "PageToken"}
        ]

        def url(page: int, to: Token | None) -> str:
            paging = [("PageSize", str(query.page_size)), ("Page", str(page))]
            if to is not None:
                paging.append(("PageToken", str(to)))
            return f"{base}/v2/Attempts?{urlencode(filters + paging)}"

        earlier = Token(token.low, token.high, begin, back=True)
        later = Token(token.low, token.high, end)
        return {
            "attempts": found,
            "meta": {
                "page": query.page,
                "page_size": query.page_size,
                "first_page_url": url(0, None),
                "previous_page_url": url(max(0, query.page - 1), earlier) if begin else None,
                "url": url(query.page, query.token),
                "next_page_url": url(query.page + 1, later) if end < high - low else None,
                "key": "attempts",
            },
        }

    def summary(self, query: Query, url: str) -> Payload:
        """Return the totals as of now, equal to a count of the list with the same filters."""
        low, high = self._window(query)
        total, converted = self._count(query, low, high)
        rate = f"{100 * converted / total:.9f}".rstrip("0").rstrip(".") if total else "0"
        return {
            "total_attempts": total,
            "total_converted": converted,
            "total_unconverted": total - converted,
            "conversion_rate_percentage": rate,
            "url": url,
        }

    def _oldest(self, now: float) -> int:
        return self.world.range(now - self.retention + _TICK)[0]

    def _window(self, query: Query) -> tuple[int, int]:
        """Return the indexes of the query's times, as far as they are there now."""
        if query.token is not None:
            return query.token.low, query.token.high
        now = self.world.now()
        before = now + _TICK if query.before is None else min(now + _TICK, query.before)
        low, high = self.world.range(query.after, before)
        oldest = self._oldest(now)
        return max(low, oldest), max(high, oldest)

    def _scan(self, query: Query, token: Token) -> tuple[list[Payload], int, int]:
        """Collect a page from a place in the listing: its attempts and its first and last place."""
        at, count = self._order(token.low, token.high)
        place, step = (token.passed - 1, -1) if token.back else (token.passed, 1)
        found: list[Payload] = []
        only, now = self._members(query), self.world.now()
        oldest = self._oldest(now)
        while 0 <= place < count and len(found) < query.page_size:
            index = at(place)
            payload = self._listed(query, index, now, only) if index >= oldest else None
            if payload is not None:
                found.append(payload)
            place += step
        if token.back:
            found.reverse()
            return found, place + 1, token.passed
        return found, token.passed, place

    def _members(self, query: Query) -> frozenset[int] | None:
        # Arithmetic finds a verification's attempts, unless overrides moved some.
        if not query.verification_sid or self.world.overrides:
            return None
        return frozenset(self.world.members(query.verification_sid))

    def _listed(
        self, query: Query, index: int, now: float, only: frozenset[int] | None
    ) -> Payload | None:
        """Return an index's payload if it is listed now and passes the filters."""
        if only is not None and index not in only:
            return None
        world = self.world
        sid = world.sid(index)
        if sid in world.hidden or sid in world.unlisted:
            return None
        payload = (
            world.attempt(sid, now) if sid in world.overrides else (world.natural(index, now, sid))
        )
        return payload if query.only_time or query.matches(payload) else None

    def _order(self, low: int, high: int) -> tuple[Callable[[int], int], int]:
        """Return the order as a function from a place in the listing to an index."""
        count = high - low
        if self.order == "asc":
            return lambda place: low + place, count
        if self.order == "desc":
            return lambda place: high - 1 - place, count
        # A step without a common divisor visits each index once, in a useless order.
        step = next(step for step in range(int(count * 0.618) + 1, 2 * count + 3)
                    if gcd(step, count) == 1)  # fmt: skip
        return lambda place: low + place * step % count, count

    def _count(self, query: Query, low: int, high: int) -> tuple[int, int]:
        now = self.world.now()
        if not query.only_time:
            only = self._members(query)
            listed = (self._listed(query, index, now, only) for index in range(low, high))
            states = [_converted(payload) for payload in listed if payload is not None]
            return len(states), sum(states)
        total, converted = high - low, self._conversions(low, high, now)
        for sid in self._bent():
            index = self.world.index(sid)
            if index is None or not low <= index < high:
                continue
            total -= 1
            converted -= self.world.converted_at(index) <= now
            payload = self._listed(query, index, now, None)
            if payload is not None:
                total += 1
                converted += _converted(payload)
        return total, converted

    def _bent(self) -> set[str]:
        return {*self.world.overrides, *self.world.hidden, *self.world.unlisted}

    def _conversions(self, low: int, high: int, now: float) -> int:
        """Count the conversions so far in [low, high): whole chunks once, if nothing changes."""
        first, last = -(-low // _CHUNK), high // _CHUNK
        if first >= last:
            return self._pass(low, high, now)
        edges = self._pass(low, first * _CHUNK, now) + self._pass(last * _CHUNK, high, now)
        return edges + sum(self._chunk(chunk, now) for chunk in range(first, last))

    def _chunk(self, chunk: int, now: float) -> int:
        known = self._chunks.get(chunk)
        if known is not None:
            return known
        high = (chunk + 1) * _CHUNK
        count = self._pass(chunk * _CHUNK, high, now)
        if self.world.created(high - 1) + CODE_EXPIRES < now:
            self._chunks[chunk] = count
        return count

    def _pass(self, low: int, high: int, now: float) -> int:
        converted_at = self.world.converted_at
        return sum(converted_at(index) <= now for index in range(low, high))


def _converted(payload: Any) -> bool:  # noqa: ANN401 - overridden payloads hold anything
    status = payload.get("conversion_status") if isinstance(payload, dict) else None
    return isinstance(status, str) and status.lower() == "converted"
