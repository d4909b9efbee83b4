"""Control a running sandbox over HTTP: counts, faults, settings and SIDs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from .answers import Answer, json_answer, problem
from .faults import Fault

if TYPE_CHECKING:
    from .api import Api
    from .wire import Request

PREFIX = "/_sandbox/"
_MOST = 1_000_000
_SETTINGS = {"latency": float, "limit": int}


def control(api: Api, request: Request) -> Answer:
    """Answer a request under /_sandbox/. It needs no credentials: only loopback reaches it.

    GET stats, DELETE stats; GET, POST (a JSON list that replaces), DELETE faults; POST settings
    (`latency` in seconds, `limit`); GET attempts?offset&limit, the SIDs as text, one a line.
    """
    action = f"{request.method} {request.path.removeprefix(PREFIX)}"
    try:
        return _act(api, action, request)
    except (ValueError, TypeError, RecursionError) as error:
        return problem(400, 20001, str(error))


def _act(api: Api, action: str, request: Request) -> Answer:
    if action == "GET attempts":
        return _attempts(api, request.query)
    if action == "POST faults":
        api.faults.replace(_faults(json.loads(request.body)))
    elif action == "DELETE faults":
        api.faults.clear()
    elif action == "DELETE stats":
        api.reset_stats()
    elif action == "POST settings":
        _set(api, json.loads(request.body))
    elif action not in {"GET stats", "GET faults"}:
        return problem(404, 20404, f"The sandbox has no {action}")
    if action.endswith("faults"):
        return json_answer([{"kind": fault.kind} for fault in api.faults.active()])
    return json_answer(api.stats())


def _faults(given: Any) -> list[Fault]:  # noqa: ANN401 - whatever was sent
    if not isinstance(given, list):
        message = "faults must be a JSON list of objects or strings"
        raise TypeError(message)
    return [Fault.parse(item) if isinstance(item, str) else Fault.of(dict(item)) for item in given]


def _set(api: Api, given: Any) -> None:  # noqa: ANN401 - whatever was sent
    if not isinstance(given, dict) or given.keys() - _SETTINGS.keys():
        message = f"settings must be a JSON object of {', '.join(_SETTINGS)}"
        raise TypeError(message)
    values = {name: _SETTINGS[name](value) for name, value in given.items()}
    for name, value in values.items():
        setattr(api, name, value)


def _attempts(api: Api, query: str) -> Answer:
    values = parse_qs(query)
    offset = int(values.get("offset", ["0"])[0])
    limit = min(int(values.get("limit", ["1000"])[0]), _MOST)
    sids = api.world.sids(offset, max(0, offset) + max(0, limit))
    text = "".join(f"{sid}\n" for sid in sids)
    return Answer(200, text.encode("ascii"), content_type="text/plain; charset=utf-8")
