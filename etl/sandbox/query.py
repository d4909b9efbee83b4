"""Read the parameters of list and summary requests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from .payload import Payload

MAX_PAGE = 1000
DEFAULT_PAGE = 50
_TOKEN = re.compile(r"P([AB])([0-9a-f]{1,8})-([0-9a-f]{1,8})-([0-9a-f]{1,8})")
_NUMBER = re.compile(r"[0-9]{1,9}")
# As the specification has them: lower case, and no other.
_CHANNELS = {"sms", "call", "email", "whatsapp", "rbm"}
_STATUSES = {"converted", "unconverted"}
_SIDS = {
    "VerifyServiceSid": re.compile(r"VA[0-9a-fA-F]{32}"),
    "VerificationSid": re.compile(r"VE[0-9a-fA-F]{32}"),
}
_ONLY = {
    "list": {"ChannelData.To", "VerificationSid", "Status"},
    "summary": {"DestinationPrefix"},
}
"""The filters that one of the two knows, and the other ignores."""


class BadRequest(ValueError):
    """Name the parameter that cannot be read. It becomes a 400 with Twilio's code 60200."""


@dataclass(frozen=True, slots=True)
class Token:
    """Mark a place in a listing of the indexes [low, high): how many were passed.

    The bounds are the first page's, so that new attempts shift nothing. `back` asks for the page
    that ends there, not the one that begins there.
    """

    low: int
    high: int
    passed: int
    back: bool = False

    def __str__(self) -> str:
        """Write the token as its URL has it."""
        letter = "B" if self.back else "A"
        return f"P{letter}{self.low:x}-{self.high:x}-{self.passed:x}"


@dataclass(frozen=True, slots=True)
class Query:
    """Hold the filters and the paging of one request; None and "" are missing filters."""

    after: float | None = None
    before: float | None = None
    to: str = ""
    country: str = ""
    channel: str = ""
    service_sid: str = ""
    verification_sid: str = ""
    status: str = ""
    prefix: str = ""
    page_size: int = DEFAULT_PAGE
    page: int = 0
    token: Token | None = None

    @property
    def only_time(self) -> bool:
        """Say whether creation times alone decide, so that no payload is read."""
        others = (self.to, self.country, self.channel, self.service_sid, self.status, self.prefix)
        return not any((*others, self.verification_sid))

    def matches(self, payload: Payload) -> bool:
        """Say whether an attempt passes the filters other than time. Values ignore case."""
        data = payload.get("channel_data") or {}
        return (
            _same(self.to, data.get("to"))
            and _same(self.country, data.get("country"))
            and _same(self.channel, payload.get("channel"))
            and _same(self.service_sid, payload.get("service_sid"))
            and _same(self.verification_sid, payload.get("verification_sid"))
            and _same(self.status, payload.get("conversion_status"))
            and str(data.get("to") or "").startswith(self.prefix)
        )


def parse_query(text: str, size: int, kind: str = "list", *, loose: bool = False) -> Query:
    """Read a query string for a world of `size`. Raises BadRequest for senseless values.

    Times are inclusive (after) and exclusive (before), since the documentation does not say.
    Unknown parameters are ignored, and so are filters that this kind of request does not have. A
    loose reader takes any channel and SID, in any case, and every filter for both kinds.
    """
    values = dict(parse_qsl(text, keep_blank_values=True))
    if not loose:
        others = {name for names in _ONLY.values() for name in names} - _ONLY[kind]
        values = {name: value for name, value in values.items() if name not in others}
        _check(values)
    status = values.get("Status", "").lower()
    if status and status not in _STATUSES:
        _refuse("Status")
    page_size = _number(values, "PageSize", DEFAULT_PAGE)
    if not 1 <= page_size <= MAX_PAGE:
        _refuse("PageSize")
    return Query(
        after=_moment(values, "DateCreatedAfter"),
        before=_moment(values, "DateCreatedBefore"),
        to=values.get("ChannelData.To", ""),
        country=values.get("Country", ""),
        channel=values.get("Channel", ""),
        service_sid=values.get("VerifyServiceSid", ""),
        verification_sid=values.get("VerificationSid", ""),
        status=status,
        prefix=values.get("DestinationPrefix", ""),
        page_size=page_size,
        page=_number(values, "Page", 0),
        token=_token(values, size),
    )


def _check(values: dict[str, str]) -> None:
    """Refuse what the specification's lists and patterns do not have; "" is no filter."""
    for name, known in (("Channel", _CHANNELS), ("Status", _STATUSES)):
        if values.get(name) and values[name] not in known:
            _refuse(name)
    for name, pattern in _SIDS.items():
        if values.get(name) and pattern.fullmatch(values[name]) is None:
            _refuse(name)


def _same(wanted: str, given: Any) -> bool:  # noqa: ANN401 - overridden payloads hold anything
    return not wanted or (isinstance(given, str) and given.lower() == wanted.lower())


def _refuse(name: str) -> NoReturn:
    message = f"Invalid parameter: {name}"
    raise BadRequest(message)


def _number(values: dict[str, str], name: str, default: int) -> int:
    text = values.get(name)
    if text is None:
        return default
    if _NUMBER.fullmatch(text) is None:
        _refuse(name)
    return int(text)


def _moment(values: dict[str, str], name: str) -> float | None:
    text = values.get(name)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        # Without an offset the documentation's GMT is meant.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        _refuse(name)


def _token(values: dict[str, str], size: int) -> Token | None:
    text = values.get("PageToken")
    if text is None:
        return None
    match = _TOKEN.fullmatch(text)
    if match is None:
        _refuse("PageToken")
    low, high, passed = (int(part, 16) for part in match.groups()[1:])
    if not (low <= high <= size and passed <= high - low):
        _refuse("PageToken")
    return Token(low, high, passed, back=match[1] == "B")
