"""Send one request for one thing, and return its answer."""

import math
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import SplitResult, urlencode, urlsplit

from etl.errors import BadBody, ConfigError, EtlError, MalformedSid
from etl.extract.answers import cut, read_payload, refuse, request_id
from etl.extract.deadline import Limits
from etl.extract.paging import must_lead_on, query_of
from etl.extract.wire import HttpAnswer, Wire, tls_context
from etl.records import SID_PATTERN

RECORD_BYTES: Final = 1_000_000
"""The most decoded bytes of an attempt (usually about 800) or a summary."""
PAGE_BYTES: Final = 16_000_000
"""The most decoded bytes of a page of 1,000 attempts (usually about 800,000)."""

MOST: Final = 10**15
"""More attempts than any window holds. Sums of such counts must still fit."""

_LIST: Final = "/v2/Attempts"
_SUMMARY: Final = "/v2/Attempts/Summary"
_NEXT: Final = "next_page_url"


@dataclass(frozen=True, slots=True)
class Reply:
    """Carry one parsed payload of any shape. Times are seconds of the monotonic clock."""

    payload: object
    sent_at: float
    answered_at: float
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Carry one page of a list. ``next_url`` is another page of the same list."""

    payloads: tuple[object, ...]
    next_url: str | None
    sent_at: float
    answered_at: float
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Carry Twilio's own counts of a window. ``rate`` is a percentage, None if unreadable."""

    total: int
    converted: int
    unconverted: int
    rate: Decimal | None
    sent_at: float
    answered_at: float


class Api:
    """Send requests to one origin with one credential, from any number of threads.

    Times are seconds. No request goes on past ``ends_at`` (monotonic). ``window_s`` is the allowance's window and only used in messages. Raises
    ``ConfigError`` if an address, a proxy or certificates cannot be used. Every method that sends
    raises the package's errors.
    """

    def __init__(  # noqa: PLR0913 - plain values instead of the settings
        self,
        base_url: str,
        *,
        user: str,
        password: str,
        credential_name: str,
        user_agent: str,
        proxy: str = "",
        ca_bundle: str = "",
        connect_s: float = 5.0,
        read_s: float = 20.0,
        total_s: float = 25.0,
        idle_s: float = 30.0,
        window_s: float = 60.0,
    ) -> None:
        base, through = _address(base_url, "VERIFY_ETL_API_URL"), proxy
        if proxy:
            # SOCKS is refused: its connections do not keep our deadlines.
            through = proxy if "://" in proxy else f"http://{proxy}"
            _address(through, "VERIFY_ETL_PROXY")
        self._origin = f"{base.scheme}://{base.netloc}"
        self._root = base.path.rstrip("/")
        self._list_url = self._origin + self._root + _LIST
        self._credential_name = credential_name
        self._window_s = window_s
        token = b64encode(f"{user}:{password}".encode()).decode()
        self._one = {
            "User-Agent": user_agent,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Authorization": f"Basic {token}",
        }
        # A page shrinks to a tenth. For one attempt, inflating costs more than it saves.
        self._many = self._one | {"Accept-Encoding": "gzip"}
        # Read your own certificates now, for they may be wrong. The usual ones take a while and
        # wait for the first connection.
        self._context = tls_context(ca_bundle) if ca_bundle else None
        self._limits = Limits(connect_s, read_s, total_s, idle_s)
        self._proxy = through
        self.ends_at = math.inf
        self._wires: list[Wire] = []
        # The connections that nobody uses, the last used at the end.
        self._idle: list[Wire] = []
        self._lock = threading.Lock()

    def attempt(self, sid: str) -> Reply:
        """Fetch one attempt by its SID. Raises ``MalformedSid`` before any URL is built."""
        if SID_PATTERN.fullmatch(sid) is None:
            msg = f"{cut(ascii(sid), 80)} is no Verification Attempt SID: VL and 32 hex digits."
            raise MalformedSid(msg)
        answer, payload = self._get(f"{_LIST}/{sid}")
        return Reply(payload, answer.sent_at, answer.answered_at, request_id(answer))

    def page(
        self,
        *,
        page_size: int,
        after: datetime | None,
        before: datetime | None,
        service_sid: str | None = None,
        verification_sid: str | None = None,
    ) -> Page:
        """Read the first page of a list of attempts created between two aware times."""
        query = _query(
            PageSize=str(page_size),
            DateCreatedAfter=_iso(after),
            DateCreatedBefore=_iso(before, up=True),
            VerifyServiceSid=service_sid,
            VerificationSid=verification_sid,
        )
        return self._page(query)

    def next_page(self, url: str) -> Page:
        """Read the page at ``Page.next_url``.

        Raises ``ApiContractBroken``, and sends nothing, if that is not another page of our list.
        Requests go to our own origin and path; only the query is taken over.
        """
        return self._page(query_of(url, list_url=self._list_url))

    def summary(  # noqa: PLR0913 - the API's own filters, all by name
        self,
        *,
        after: datetime | None,
        before: datetime | None,
        service_sid: str | None = None,
        channel: str | None = None,
        country: str | None = None,
        destination_prefix: str | None = None,
    ) -> Summary:
        """Ask for the counts of a window of creation times."""
        query = _query(
            DateCreatedAfter=_iso(after),
            DateCreatedBefore=_iso(before, up=True),
            VerifyServiceSid=service_sid,
            Channel=channel,
            Country=country,
            DestinationPrefix=destination_prefix,
        )
        answer, payload = self._get(_SUMMARY, query)
        try:
            total, converted, unconverted = (
                _count(payload, f"total_{name}")
                for name in ("attempts", "converted", "unconverted")
            )
        except (TypeError, KeyError, ValueError):
            msg = f"GET {_SUMMARY}: the answer is JSON, but no summary."
            raise BadBody(msg) from None
        rate = _rate(payload)
        return Summary(total, converted, unconverted, rate, answer.sent_at, answer.answered_at)

    def close(self) -> None:
        """Close all connections. Those in use end with their request."""
        with self._lock:
            wires, self._wires, self._idle = self._wires, [], []
        for wire in wires:
            wire.close()

    @contextmanager
    def _wire(self) -> Iterator[Wire]:
        """Lend an idle connection, or a new one, so that there are as many as requests at a time.

        A thread's own connection would stay open after its end, and a run starts many threads.
        """
        with self._lock:
            wire = self._idle.pop() if self._idle else self._open()
        try:
            yield wire
        finally:
            with self._lock:
                if wire in self._wires:
                    self._idle.append(wire)

    def _open(self) -> Wire:
        secure = self._origin.startswith("https:") or self._proxy.startswith("https:")
        if secure and self._context is None:
            self._context = tls_context("")
        wire = Wire(self._origin, limits=self._limits, context=self._context, proxy=self._proxy)
        self._wires.append(wire)
        return wire

    def _get(self, path: str, query: str = "", *, page: bool = False) -> tuple[HttpAnswer, object]:
        target = f"{self._root}{path}?{query}" if query else self._root + path
        headers, limit = (self._many, PAGE_BYTES) if page else (self._one, RECORD_BYTES)
        try:
            with self._wire() as wire:
                answer = wire.get(target, headers=headers, limit=limit, ends_at=self.ends_at)
        except EtlError as error:
            error.message = f"GET {path}: {error.message}"
            raise
        if answer.status != HTTPStatus.OK:
            refuse(path, answer, credential_name=self._credential_name, window_s=self._window_s)
        return answer, read_payload(path, answer)

    def _page(self, query: str) -> Page:
        answer, payload = self._get(_LIST, query, page=True)
        found = payload if isinstance(payload, dict) else {}
        attempts, meta = found.get("attempts"), found.get("meta")
        if not isinstance(attempts, list) or not isinstance(meta, dict) or _NEXT not in meta:
            msg = f"GET {_LIST}: the answer is JSON, but no page of attempts."
            raise BadBody(msg)
        following = meta[_NEXT]
        if following is not None:
            must_lead_on(query_of(following, list_url=self._list_url), read=query)
        return Page(
            tuple(attempts), following, answer.sent_at, answer.answered_at, request_id(answer)
        )


def _address(url: str, name: str) -> SplitResult:
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0:
            return parts
    msg = f"{name} is not an address that can be used:"
    raise ConfigError(msg, hint="write http:// or https://, a host and, if need be, a port.")


def _query(**filters: str | None) -> str:
    return urlencode({name: value for name, value in filters.items() if value is not None})


def _iso(moment: datetime | None, *, up: bool = False) -> str | None:
    """Write an aware time as the API reads it, cut to the second outwards."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        msg = "a window needs aware times"
        raise ValueError(msg)
    if up and moment.microsecond:
        moment += timedelta(seconds=1)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _count(payload: Any, key: str) -> int:  # noqa: ANN401 - parsed JSON
    value = payload[key]
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError  # noqa: TRY004 - one error for whatever is no count
    if not 0 <= int(value) <= MOST:
        raise ValueError
    return int(value)


def _rate(payload: Any) -> Decimal | None:  # noqa: ANN401 - parsed JSON
    try:
        rate = Decimal(str(payload.get("conversion_rate_percentage")))
    except InvalidOperation:
        return None
    return rate if rate.is_finite() else None
