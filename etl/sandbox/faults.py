"""Say what goes wrong, how often and for whom. `spoil` does it."""

from __future__ import annotations

import random
import re
import threading
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from .spoil import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable

# Kinds that strike only these requests by default. The others strike any.
_ONLY = {
    "wrong_sid": "fetch",
    "no_sid": "fetch",
    "duplicate_keys": "fetch",
    "foreign_next": "list",
    "self_next": "list",
    "endless_next": "list",
}
TARGETS = ("fetch", "list", "summary", "any")
# Known names only, so that an address or a body may hold colons and equals signs.
_KEY = re.compile(
    r":(?=(?:share|count|match|sid|retry_after|status|code|location|size|seconds|body)=)"
)
# The meaning of the word after the kind in a fault written in one line.
_POSITIONAL = {
    "throttle": "retry_after",
    "redirect": "location",
    "foreign_next": "location",
    "huge": "size",
    "gzip_bomb": "size",
    "big_header": "size",
    "body": "body",
    "slow": "seconds",
    "hang": "seconds",
    "drip_headers": "seconds",
    "drip_body": "seconds",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Describe one thing that goes wrong, for a share of the matching requests.

    `count` ends it after so many strikes. `sid` limits it to fetches of one attempt. `retry_after`
    is sent as it is written. `status` and `code` belong to throttle, error, html, empty, redirect
    and forbidden, `location` to redirect and foreign_next, `size` (bytes, decoded) to huge,
    gzip_bomb and big_header, `seconds` to slow and hang (how long) and the drips (between two
    bytes), `body` to body. Raises ValueError for senseless values.
    """

    kind: str
    share: float = 1.0
    count: int | None = None
    match: str | None = None
    sid: str | None = None
    retry_after: str | float | None = None
    status: int | None = None
    code: int | None = None
    location: str | None = None
    size: int | None = None
    seconds: float | None = None
    body: str | None = None

    def __post_init__(self) -> None:
        """Refuse unknown kinds and targets, and wrong shares."""
        if self.kind not in KINDS:
            message = f"unknown fault {self.kind!r}; known: {', '.join(KINDS)}"
            raise ValueError(message)
        if self.match is not None and self.match not in TARGETS:
            message = f"match must be one of {', '.join(TARGETS)}, not {self.match!r}"
            raise ValueError(message)
        if not 0.0 <= self.share <= 1.0:
            message = f"share must be within 0..1, not {self.share}"
            raise ValueError(message)
        if self.status is not None and not 200 <= self.status <= 599:  # noqa: PLR2004 - HTTP's
            message = f"status must be within 200..599, not {self.status}"
            raise ValueError(message)

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read `kind[:value][:key=value…]`, as in `error:503:share=0.1`; ValueError if unreadable.

        The bare value is a status, unless the kind needs something else more (`_POSITIONAL`).
        """
        head, *options = _KEY.split(text.strip())
        kind, colon, value = head.partition(":")
        values: dict[str, Any] = {"kind": kind}
        if colon:
            values[_POSITIONAL.get(kind, "status")] = value
        for option in options:
            key, _, given = option.partition("=")
            values[key] = given
        return cls.of(values)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Fault:
        """Make a fault of a JSON mapping. Numbers may be text."""
        unknown = values.keys() - {field.name for field in fields(cls)}
        if unknown:
            message = f"unknown fault option {', '.join(sorted(unknown))}"
            raise ValueError(message)
        read = dict(values)
        for name, kind in (("share", float), ("seconds", float), ("count", int),
                           ("status", int), ("code", int), ("size", int)):  # fmt: skip
            if read.get(name) is not None:
                try:
                    read[name] = kind(read[name])
                except (TypeError, ValueError) as error:
                    message = f"fault option {name} must be a number, not {read[name]!r}"
                    raise ValueError(message) from error
        return cls(**read)

    def strikes_at(self, kind: str, sid: str | None) -> bool:
        """Say whether it strikes this kind of request (fetch, list, summary, other)."""
        if self.sid is not None and self.sid != sid:
            return False
        return (self.match or _ONLY.get(self.kind, "any")) in {"any", kind}


class Faults:
    """Hold the active faults, and draw from a seed so that runs repeat."""

    def __init__(self, seed: int = 1) -> None:
        """Start with nothing going wrong."""
        self._lock = threading.Lock()
        self._random = random.Random(f"faults:{seed}")
        # Each with the strikes that are left, None for any number.
        self._faults: list[tuple[Fault, int | None]] = []

    def add(self, fault: Fault | str) -> None:
        """Add a fault, or the text of one as `Fault.parse` reads it. Earlier ones go first."""
        added = Fault.parse(fault) if isinstance(fault, str) else fault
        with self._lock:
            self._faults.append((added, added.count))

    def clear(self) -> None:
        """Switch all faults off."""
        self.replace(())

    def replace(self, faults: Iterable[Fault]) -> None:
        """Switch on these faults and no others."""
        added = [(fault, fault.count) for fault in faults]
        with self._lock:
            self._faults = added

    def active(self) -> list[Fault]:
        """Return the faults that can still strike."""
        with self._lock:
            return [fault for fault, left in self._faults if left != 0]

    def draw(self, kind: str, sid: str | None) -> Fault | None:
        """Return the first fault that matches a request and is drawn, or None."""
        if not self._faults:
            return None
        with self._lock:
            for number, (fault, left) in enumerate(self._faults):
                if left == 0 or not fault.strikes_at(kind, sid):
                    continue
                if fault.share < 1.0 and self._random.random() >= fault.share:
                    continue
                if left is not None:
                    self._faults[number] = fault, left - 1
                return fault
        return None
