"""Answer a request as Twilio's Verify Attempts API would. Nothing is sent here.

    authenticate | allowance | draw a fault | answer

The order matters to clients. Wrong credentials use none of the allowance. A fault strikes only
requests within the allowance.
"""

from __future__ import annotations

import binascii
import math
import re
import time
from base64 import b64decode
from typing import TYPE_CHECKING, Any, NamedTuple

from .answers import Answer, encode, json_answer, not_found, problem, too_many, unauthorized
from .faults import Fault, Faults
from .limiter import Limiter
from .listing import AttemptList
from .query import BadRequest, parse_query
from .sids import derive
from .spoil import SENT_BADLY, Spoiled, dawdle, spoil
from .stats import Stats
from .timeline import DAY

if TYPE_CHECKING:
    from collections.abc import Callable

    from .wire import Request, RequestLine
    from .world import World

_LIST = "/v2/Attempts"
_SUMMARY = "/v2/Attempts/Summary"
_FETCH = re.compile(r"/v2/Attempts/(VL[0-9a-fA-F]{32})")
_HOST = re.compile(r"[0-9A-Za-z.:\[\]-]+")
_CACHED_BYTES = 256_000_000
_OK = 200


class _Call(NamedTuple):
    """Hold a request's kind (fetch, list, summary, other) and the SID of a fetch."""

    request: Request
    kind: str
    sid: str | None


class Api:
    """Serve a world, with its allowance, its faults and its counts, and without a socket.

    `latency` (seconds), `limit`, `world` and `faults` may change while it runs. `base` is the
    origin of URLs in answers to requests without a usable Host header.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own, given by name
        self,
        world: World,
        *,
        limit: int = 100,
        window: float = 60.0,
        latency: float = 0.0,
        retention: float = 30 * DAY,
        account_sid: str | None = None,
        auth_token: str | None = None,
        order: str = "desc",
        fixed_window: bool = False,
        send_retry_after: bool = False,
        track_sids: bool = False,
        loose: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare answers: `limit` requests in any `window` seconds, 0 for no limit.

        With `loose` it takes filters that the specification does not have. With `send_retry_after`
        a 429 says in whole seconds when to come back. `account_sid` becomes
        the world's. `clock` (seconds) measures the windows. Raises ValueError for an unknown order.
        """
        self.world = world
        if account_sid is not None:
            world.account_sid = account_sid
        self.account_sid = world.account_sid
        self.auth_token = auth_token or derive("not-a-secret token", world.seed)
        self.api_key = "SK" + derive("key", world.seed)
        self.api_secret = derive("not-a-secret secret", world.seed)
        self.latency = latency
        self.send_retry_after = send_retry_after
        self._loose = loose
        self.faults = Faults(world.seed)
        self.base = ""
        self._allowance = Limiter(limit, window, fixed=fixed_window, clock=clock)
        self._listing = AttemptList(world, retention, order)
        self._stats = Stats(track_sids=track_sids)
        self._rendered: dict[str, bytes] = {}
        self._rendered_bytes = 0
        self._credentials = {
            f"{self.account_sid}:{self.auth_token}".encode(),
            f"{self.api_key}:{self.api_secret}".encode(),
        }

    @property
    def limit(self) -> int:
        """Return the allowance in requests a window. 0 means none."""
        return self._allowance.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._allowance.limit = limit

    def stats(self) -> dict[str, Any]:
        """Return the counts since the start or the last reset.

        `requests` = `accepted` + `throttled` + `unauthorized`. `peak_in_window` is the most
        accepted in any window, `peak_seen_in_window` the most with good credentials. In `by_status`
        0 is an answer that was not sent whole.
        """
        return {
            **self._stats.report(),
            "accepted": self._allowance.accepted,
            "throttled": self._allowance.refused,
            "peak_in_window": self._allowance.peak,
            "peak_seen_in_window": self._allowance.peak_seen,
        }

    def reset_stats(self) -> None:
        """Set all counts to zero. The allowance used so far stays used."""
        self._stats.reset()
        self._allowance.reset()

    def decide(self, request: Request, line: RequestLine) -> tuple[Answer, Fault | None, int]:
        """Return the answer, the fault that struck, and the number of requests in hand.

        Latency and faults wait here. The end of the server wakes them.
        """
        match = _FETCH.fullmatch(request.path)
        sid = match[1] if match else None
        kinds = {_LIST: "list", _SUMMARY: "summary"}
        call = _Call(request, "fetch" if sid else kinds.get(request.path, "other"), sid)
        concurrency = self._stats.begin(sid)
        status = 0
        try:
            answer, fault = self._decide(call, line)
            status = 0 if fault is not None and fault.kind in SENT_BADLY else answer.status
        finally:
            # Before anything is sent, so that a client finds its answer counted. It may also ask
            # for the same SID again at once.
            self._stats.end(sid, status)
        return answer, fault, concurrency

    def _decide(self, call: _Call, line: RequestLine) -> tuple[Answer, Fault | None]:
        """Authenticate, take from the allowance, draw a fault, and find the answer."""
        if not self._is_known(call.request.headers.get("authorization", "")):
            self._stats.refuse()
            return unauthorized(), None
        wait = self._allowance.admit()
        if wait:
            return too_many(str(math.ceil(wait)) if self.send_retry_after else None), None
        self._stats.accept(call.kind, call.sid)
        if self.latency:
            line.stopping.wait(self.latency)
        fault = self.faults.draw(call.kind, call.sid)
        if fault is None:
            return self._answer(call), None
        self._stats.fault(fault.kind)
        dawdle(fault, line)
        asked = Spoiled(call.request.path, lambda: self._neighbour(call))
        return spoil(fault, self._answer(call), asked), fault

    def _is_known(self, header: str) -> bool:
        scheme, _, pair = header.partition(" ")
        try:
            given = b64decode(pair.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        return scheme.lower() == "basic" and given in self._credentials

    def _answer(self, call: _Call) -> Answer:
        """Return the true answer to a request, or a 500 with the reason if an override fails."""
        try:
            return self._true_answer(call)
        except BadRequest as error:
            return problem(400, 60200, str(error))
        except Exception as error:  # noqa: BLE001 - a test's override may raise anything
            return problem(500, 20500, f"The sandbox failed: {error!r}")

    def _true_answer(self, call: _Call) -> Answer:
        request = call.request
        if request.method not in {"GET", "HEAD"}:
            return problem(405, 20004, "Method not allowed", (("Allow", "GET"),))
        if call.sid is not None:
            payload = self._listing.fetch(call.sid)
            return not_found(request.path) if payload is None else json_answer(payload)
        if call.kind == "other":
            return not_found(request.path)
        return Answer(_OK, self._collection(call))

    def _collection(self, call: _Call) -> bytes:
        """Render a page or a summary, once for each URL if nothing can change it."""
        request = call.request
        host = request.headers.get("host", "")
        base = f"http://{host}" if _HOST.fullmatch(host) else self.base
        name = f"{base}{request.target}"
        lasting = self.world.static_at is not None and self._listing.plain
        if lasting and name in self._rendered:
            return self._rendered[name]
        query = parse_query(request.query, self.world.size, call.kind, loose=self._loose)
        if call.kind == "list":
            body = encode(self._listing.page(query, request.query, base))
        else:
            body = encode(self._listing.summary(query, f"{base}{_SUMMARY}"))
        if lasting and self._rendered_bytes + len(body) <= _CACHED_BYTES:
            self._rendered_bytes += len(body)
            self._rendered[name] = body
        return body

    def _neighbour(self, call: _Call) -> Answer:
        """Return the next attempt as the answer to a fetch: the wrong one."""
        index = self.world.index(call.sid or "")
        if index is None or self.world.size < 2:  # noqa: PLR2004 - there is no other
            return self._answer(call)
        return json_answer(self.world.attempt((index + 1) % self.world.size))
