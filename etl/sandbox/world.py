"""Make a seeded world of attempts, of any size. It is computed and never stored."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b

from .payload import (
    NEVER,
    Draws,
    Payload,
    Subject,
    conversion_age,
    draw_life,
    draw_verification,
    render,
)
from .sids import SidCodec, derive
from .timeline import DAY, Place, Timeline

MAX_SIZE = 10_000_000
# A little under the API's 30 days, so that none vanishes meanwhile.
DEFAULT_SPAN = 29.75 * DAY
NEWEST_AGE = 300.0
_SERVICES = 4
_MEMBERS = 4
_UNPACK = struct.Struct(">16H").unpack

Override = Payload | Callable[[Payload, float], Payload]
"""A payload to give instead, or a function of the natural payload and the time."""


class World:
    """Know every attempt of an account by arithmetic. The same seed gives the same world.

    Indexes run from 0 to size - 1 in order of creation. Tests bend single attempts through
    `overrides` (another payload), `hidden` (not there at all) and `unlisted` (fetched, not listed).
    """

    def __init__(  # noqa: PLR0913 - each is a property of the world, given by name
        self,
        seed: int = 1,
        size: int = 1000,
        *,
        start: float | None = None,
        span: float = DEFAULT_SPAN,
        clock: Callable[[], float] = time.time,
        static_at: float | None = None,
        late_price_share: float = 0.0,
    ) -> None:
        """Lay `size` attempts over [start, start + span), epoch seconds.

        Without `start` the newest is five minutes old. `static_at` freezes the world at a moment.
        `late_price_share` of the attempts get their price only after 24 to 70 hours. Raises
        ValueError for a size outside 0..10,000,000 or a span that is not positive.
        """
        if not 0 <= size <= MAX_SIZE:
            message = f"size must be within 0..{MAX_SIZE}, not {size}"
            raise ValueError(message)
        if span <= 0:
            message = f"span must be positive, not {span}"
            raise ValueError(message)
        self.seed = seed
        self.size = size
        self.clock = clock
        self.static_at = static_at
        self.late_price_share = late_price_share
        self.account_sid = "AC" + derive("account", seed)
        self.service_sids = tuple("VA" + derive(f"service{n}", seed) for n in range(_SERVICES))
        self.overrides: dict[str, Override] = {}
        self.hidden: set[str] = set()
        self.unlisted: set[str] = set()
        begin = self.now() - span - NEWEST_AGE if start is None else start
        self.timeline = Timeline(seed, size, begin, span)
        self._attempts = SidCodec("VL", seed, size)
        self._verifications = SidCodec("VE", seed, size)
        self._verification_hash = blake2b(key=f"verification:{seed}".encode(), digest_size=32)
        self._attempt_hash = blake2b(key=f"attempt:{seed}".encode(), digest_size=32)
        # The seed chooses a moment for one hour of fraud, or a day's worth in a short world.
        hour = begin + span * (0.3 + 0.4 * int(derive("pumping", seed)[:4], 16) / 0xFFFF)
        self.pumped = self.range(hour, hour + min(3600.0, span / 24))

    def now(self) -> float:
        """Return the time at which the world is seen: its clock's, unless it is frozen."""
        return self.clock() if self.static_at is None else self.static_at

    def sid(self, index: int) -> str:
        """Return the SID of an index. Raises IndexError outside the world."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        return self._attempts.encode(index)

    def index(self, sid: str) -> int | None:
        """Return an attempt's index, None if this world does not have it."""
        return self._attempts.decode(sid)

    def sids(self, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """Yield the SIDs of indexes from start up to stop, in order of creation."""
        end = self.size if stop is None else min(stop, self.size)
        return map(self._attempts.encode, range(max(0, start), end))

    def created(self, index: int) -> float:
        """Return an attempt's creation in epoch seconds. It never decreases with the index."""
        return self.timeline.created(index)

    def range(self, after: float | None = None, before: float | None = None) -> tuple[int, int]:
        """Return the indexes created in [after, before): the first, and the last plus one.

        Whole seconds as bounds agree with the shown timestamps, which are cut to seconds.
        """
        low = 0 if after is None else self.timeline.first_at(after)
        high = self.size if before is None else self.timeline.first_at(before)
        return low, max(low, high)

    def attempt(self, which: int | str, at: float | None = None) -> Payload:
        """Return an attempt's payload as the API gives it at a time, overrides applied.

        Raises KeyError for a SID that is neither of this world nor overridden. Before its creation
        an attempt looks new. The server decides whether it is there yet.
        """
        moment = self.now() if at is None else at
        sid = which if isinstance(which, str) else self.sid(which)
        index = self.index(sid) if isinstance(which, str) else which
        override = self.overrides.get(sid) if self.overrides else None
        if override is None:
            if index is None:
                raise KeyError(sid)
            return self.natural(index, moment, sid)
        if not callable(override):
            return override
        return override({} if index is None else self.natural(index, moment, sid), moment)

    def natural(self, index: int, at: float, sid: str | None = None) -> Payload:
        """Return an attempt's payload at a time from the seed, without overrides."""
        place = self.timeline.place(index)
        draws = self._draws(self._attempt_hash, index)
        verification = draw_verification(
            self._draws(self._verification_hash, place.root), pumped=self._is_pumped(place)
        )
        life = draw_life(
            verification,
            draws,
            position=place.position,
            last=place.last,
            late_share=self.late_price_share,
        )
        subject = Subject(
            sid or self._attempts.encode(index),
            self.account_sid,
            self.service_sids[verification.service],
            self._verifications.encode(place.root),
            self.timeline.created(index),
        )
        return render(subject, verification, life, draws, at)

    def converted_at(self, index: int) -> float:
        """Return when an attempt converts, epoch seconds, or infinity. Overrides do not count."""
        place = self.timeline.place(index)
        if not place.last or self._is_pumped(place):
            return NEVER
        drawn = draw_verification(self._draws(self._verification_hash, place.root), pumped=False)
        if not drawn.converts:
            return NEVER
        draws = self._draws(self._attempt_hash, index)
        return self.timeline.created(index) + conversion_age(draws)

    def members(self, verification_sid: str) -> list[int]:
        """Return the indexes of a verification's attempts, none if it is not of this world."""
        root = self._verifications.decode(verification_sid)
        if root is None:
            return []
        stride = self.timeline.stride
        candidates = range(root, min(root + _MEMBERS * stride, self.size), stride)
        return [index for index in candidates if self.timeline.place(index).root == root]

    def _is_pumped(self, place: Place) -> bool:
        # Two thirds of that hour's verifications. The others are ordinary traffic.
        return self.pumped[0] <= place.root < self.pumped[1] and place.root % 3 != 0

    @staticmethod
    def _draws(base: blake2b, number: int) -> Draws:
        keyed = base.copy()
        keyed.update(number.to_bytes(8, "big"))
        return _UNPACK(keyed.digest())
