"""Judge one value that may be a SID, of an attempt or a Verification."""

import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from etl.records import SID_PATTERN, VERIFICATION_PATTERN

BLANK: Final = " \t\n\r\f\v\u00a0\ufeff"

_QUOTED: Final = 60
# Phone numbers, addresses, and tokens: 32 hex digits that no letters name.
_PERSONAL: Final = re.compile(
    r"(?<![0-9A-Za-z])(?:\+?\d(?:[ ().-]?\d){6,}|[0-9a-fA-F]{32}(?![0-9A-Za-z]))"
    r"|[^\s@,;\"']+@[^\s@,;\"']+"
)
_NAMES: Final = {
    "VL": "an attempt's", "VE": "a Verification", "VA": "a Verify Service", "SM": "a Message",
    "MM": "a Message", "CA": "a Call", "AC": "an Account", "SK": "an API key",
}  # fmt: skip
_FIRST_YEAR: Final = 2000
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ANY_SID: Final = re.compile(r"[A-Z]{2}[0-9a-fA-F]{32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SidKind:
    """Say which SIDs a file is read for: their prefix, pattern, and columns, the best first."""

    prefix: str
    name: str
    pattern: re.Pattern[str]
    columns: tuple[str, ...]


ATTEMPTS: Final = SidKind("VL", "attempt", SID_PATTERN, ("attempt_sid", "sid"))
VERIFICATIONS: Final = SidKind(
    "VE", "Verification", VERIFICATION_PATTERN, ("verification_sid", "sid")
)


@dataclass(frozen=True, slots=True)
class BadLine:
    """Say why a line (counted from 1) holds no attempt SID; ``reason`` quotes it, cut.

    ``prefix`` is that of a SID of something else.
    """

    line: int
    reason: str
    prefix: str = field(default="", compare=False)


@dataclass(slots=True)
class Block:
    """Hold what some consecutive lines gave, column by column.

    ``created`` is as long as ``sids``, or empty where the format has no dates. ``undated`` counts
    unreadable dates. ``offset`` is how many bytes have been read.
    """

    lines: int = 0
    sids: list[str] = field(default_factory=list)
    created: list[datetime | None] = field(default_factory=list)
    numbers: range | list[int] = field(default_factory=list[int])
    bad: list[BadLine] = field(default_factory=list)
    undated: int = 0
    offset: int = 0
    kind: SidKind = ATTEMPTS

    def take(self, value: object, created: object, line: int) -> None:
        """Sort one value found on ``line`` into the good or the bad."""
        sid = value.strip(BLANK) if isinstance(value, str) else ""
        if not self.kind.pattern.fullmatch(sid):
            prefix = sid[:2] if _ANY_SID.fullmatch(sid) else ""
            self.bad.append(BadLine(line, _why(sid, self.kind), prefix))
            return
        moment = read_moment(created)
        self.undated += moment is None and bool(created)
        self.sids.append(sid)
        self.created.append(moment)
        self.numbers.append(line)  # type: ignore[union-attr] # a range only on the plain path


def read_moment(value: object) -> datetime | None:
    """Read an ISO 8601 time, UTC unless it says otherwise; None if it is not credible."""
    with suppress(ValueError, OverflowError):
        if isinstance(value, str) and value.strip()[4:5] == "-":
            moment = datetime.fromisoformat(value.strip())
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
            return moment if moment.year >= _FIRST_YEAR else None
    return None


def snake(name: str) -> str:
    """Spell a column's name as the API does: `attemptSid` and `Attempt SID` are `attempt_sid`."""
    return _HUMP.sub("_", name).lower().replace(" ", "_")


def _why(sid: str, kind: SidKind) -> str:
    if not sid:
        return "holds no SID"
    if kind.pattern.match(sid) and re.search(r"[,;\t]", sid):
        return f"{quote(sid[:34])} and more; a CSV file needs a header with a sid column"
    if _ANY_SID.fullmatch(sid) and (other := _NAMES.get(sid[:2])):
        return f"{quote(sid)} is {other} SID, not {_NAMES[kind.prefix]}{_OWN[kind.prefix]}"
    return f"{quote(sid)} is not {kind.prefix} and 32 hex digits"


_OWN: Final = {"VL": "", "VE": "'s"}


def quote(value: str) -> str:
    """Quote a value in ASCII, cut, without what may be a phone number or an address."""
    text = ascii(_PERSONAL.sub("(hidden)", value[: 4 * _QUOTED]))
    return text if len(text) <= _QUOTED else text[: _QUOTED - 4] + "..." + text[-1]
