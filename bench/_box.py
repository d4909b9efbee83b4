"""Serve a world from a process of its own, so that the job's own process is measured alone.

``Ready`` is the sandbox with every attempt rendered beforehand: a page is then a join of bytes, and
the server is not what is measured.
"""

import json
import multiprocessing
import re
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from etl.sandbox import Sandbox, World
from etl.sandbox.answers import encode
from etl.sandbox.query import Token, parse_query

SPAWN: Final = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Shape:
    """Say what world to serve (times in epoch seconds) and how; it stands still at ``at``."""

    size: int
    start: float
    span: float
    at: float
    ready: bool = False

    def world(self) -> World:
        """Build the world; the same shape gives the same one in every process."""
        return World(size=self.size, start=self.start, span=self.span, static_at=self.at)


@dataclass(frozen=True, slots=True)
class Box:
    """Reach a server: its environment for verify-etl, and its own counts."""

    environ: dict[str, str]

    @property
    def url(self) -> str:
        """Return its origin."""
        return self.environ["VERIFY_ETL_API_URL"]

    def stats(self) -> dict[str, Any]:
        """Ask it what it counted."""
        with urllib.request.urlopen(f"{self.url}/_sandbox/stats") as answer:  # noqa: S310 - loopback
            counts: dict[str, Any] = json.load(answer)
            return counts


class Ready(Sandbox):
    """A sandbox whose attempts are rendered before the first request."""

    def __init__(self, world: World, **options: Any) -> None:  # noqa: ANN401 - the sandbox's own
        super().__init__(world, **options)
        self._bodies = [encode(world.natural(n, world.now())) for n in range(world.size)]

    def _collection(self, call: Any) -> bytes:  # noqa: ANN401 - the sandbox's own type
        query = parse_query(call.request.query, self.world.size)
        if call.kind != "list":
            return super()._collection(call)
        low, high = self._listing._window(query)  # noqa: SLF001 - the list that it stands in for
        token = query.token or Token(low, high, 0)
        top = token.high - token.passed
        bottom = max(token.low, top - query.page_size)
        following = None
        if bottom > token.low:
            kept = [p for p in parse_qsl(call.request.query) if p[0] not in {"Page", "PageToken"}]
            later = Token(token.low, token.high, token.high - bottom)
            paging = [("Page", str(query.page + 1)), ("PageToken", str(later))]
            following = f"{self.url}/v2/Attempts?{urlencode(kept + paging)}"
        meta = encode({"key": "attempts", "next_page_url": following})
        # The newest first, as the API lists them.
        found = b",".join(reversed(self._bodies[bottom:top]))
        return b'{"attempts":[' + found + b'],"meta":' + meta + b"}"


def _serve(shape: Shape, pipe: Connection) -> None:
    with (Ready if shape.ready else Sandbox)(shape.world(), limit=0) as box:
        pipe.send(box.environ())
        # Until the other end says or closes something.
        pipe.poll(None)


@contextmanager
def serve(shape: Shape) -> Iterator[Box]:
    """Serve a world, without an allowance, until the block ends."""
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=_serve, args=(shape, there), daemon=True)
    process.start()
    try:
        yield Box(here.recv())
    finally:
        here.send(None)
        process.join()


_NEXT: Final = re.compile(rb'"next_page_url":"([^"]+)"')


def own_speed(box: Box) -> float:
    """Return how many attempts a second the server gives to a client that only counts bytes."""
    address = urlsplit(box.url)
    user, password = box.environ["TWILIO_ACCOUNT_SID"], box.environ["TWILIO_AUTH_TOKEN"]
    token = b64encode(f"{user}:{password}".encode()).decode()
    line = HTTPConnection(address.hostname or "", address.port)
    target: str | None = "/v2/Attempts?PageSize=1000"
    pages, started = 0, time.perf_counter()
    while target is not None:
        line.request("GET", target, headers={"Authorization": f"Basic {token}"})
        body = line.getresponse().read()
        pages += 1
        following = _NEXT.search(body, max(0, len(body) - 2000))
        target = following[1].decode().removeprefix(box.url) if following else None
    line.close()
    return pages * 1000 / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit("This is a part of the other scripts.")
