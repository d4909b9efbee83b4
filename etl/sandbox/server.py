"""Serve a world over HTTP on loopback: connections, threads, and sending well or badly."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Any, Self

from .api import Api
from .control import PREFIX, control
from .sids import derive
from .spoil import send_badly
from .transport import Listener

if TYPE_CHECKING:
    from .answers import Answer
    from .wire import Request, RequestLine
    from .world import World


class Sandbox(Api):
    """Serve a local Verify Attempts API over a world.

    It is a context manager. `url`, the credentials and `environ()` tell how to reach it.
    """

    def __init__(
        self,
        world: World,
        *,
        port: int = 0,
        verbose: bool = False,
        **settings: Any,  # noqa: ANN401 - the API's own
    ) -> None:
        """Prepare a server on 127.0.0.1 (port 0: any free one); `start()` or `with` runs it.

        The other settings are the API's.
        """
        super().__init__(world, **settings)
        self.verbose = verbose
        self._port = port
        self._server: Listener | None = None
        self._numbers = itertools.count(1)
        self._run = derive("requests", world.seed)[:16]

    def start(self) -> Self:
        """Bind and serve in the background. Raises OSError if the port is taken."""
        if self._server is None:
            self._server = Listener(
                self.handle, self._stats.connected, self._port, verbose=self.verbose
            )
            self.base = f"http://127.0.0.1:{self._server.server_port}"
            self._server.run()
        return self

    def stop(self) -> None:
        """End every connection, even hanging ones, and give the port back."""
        server, self._server = self._server, None
        if server is not None:
            server.end()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    @property
    def url(self) -> str:
        """Return the origin, http://127.0.0.1:PORT. Raises RuntimeError unless it runs."""
        if self._server is None:
            message = "the sandbox is not running"
            raise RuntimeError(message)
        return self.base

    def environ(self) -> dict[str, str]:
        """Return the environment for verify-etl to reach this server."""
        return {
            "TWILIO_ACCOUNT_SID": self.account_sid,
            "TWILIO_AUTH_TOKEN": self.auth_token,
            "VERIFY_ETL_API_URL": self.url,
        }

    def handle(self, request: Request, line: RequestLine) -> bool:
        """Answer one request; return whether the connection can carry another."""
        if request.path.startswith(PREFIX):
            self._send(line, request, control(self, request))
            return request.keep_alive
        answer, fault, concurrency = self.decide(request, line)
        if fault is not None and send_badly(fault, answer, line):
            return False
        self._send(line, request, answer, concurrency)
        return request.keep_alive

    def _send(
        self, line: RequestLine, request: Request, answer: Answer, concurrency: int = 0
    ) -> None:
        if concurrency:
            # next() of a counter is one step under the GIL, so no two requests share a number.
            answer = answer._replace(
                headers=(
                    *answer.headers,
                    ("Twilio-Request-Id", f"RQ{self._run}{next(self._numbers):016x}"),
                    ("Twilio-Concurrent-Requests", str(concurrency)),
                )
            )
        if self.verbose:
            sys.stderr.write(f"{request.method} {request.path} {answer.status}\n")
        body = b"" if request.method == "HEAD" else answer.body
        # One call, so that head and body leave in one segment if they fit.
        line.sock.sendall(answer.head(close=not request.keep_alive) + body)
