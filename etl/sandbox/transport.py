"""Accept connections on loopback, and end them all at once on demand."""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import suppress
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, BinaryIO, cast

from .answers import problem
from .wire import BadHttpError, Request, RequestLine, read_request

if TYPE_CHECKING:
    from collections.abc import Callable

_POLL = 0.02


class Listener(ThreadingHTTPServer):
    """Hand each request to one function, in a thread for each connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024
    # A second server on the port would take half of the clients.
    allow_reuse_port = False

    def __init__(
        self,
        handle: Callable[[Request, RequestLine], bool],
        connected: Callable[[], None],
        port: int,
        *,
        verbose: bool,
    ) -> None:
        """Bind 127.0.0.1. `handle` answers a request and returns whether another may follow.

        Raises OSError if the port is taken.
        """
        self.answer = handle
        self.stopping = threading.Event()
        self._connected = connected
        self._verbose = verbose
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(("127.0.0.1", port), _Connection)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_POLL,), daemon=True, name="sandbox"
        )

    def server_bind(self) -> None:
        """Bind without asking the resolver for the host's name, a matter of seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])

    def run(self) -> None:
        """Accept in a daemon thread."""
        self._thread.start()

    def end(self) -> None:
        """Wake all waiters, stop accepting, and shut every connection down."""
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._guard:
            for sock in self._open:
                _shut(sock)

    def opened(self, sock: socket.socket) -> None:
        """Remember a connection for `end`."""
        self._connected()
        with self._guard:
            self._open.add(sock)
        if self.stopping.is_set():
            # Accepted just before the end, and too late to be shut down there.
            _shut(sock)

    def closed(self, sock: socket.socket) -> None:
        """Forget a connection."""
        with self._guard:
            self._open.discard(sock)

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet unless asked. Clients that go away are normal here."""
        if self._verbose:
            super().handle_error(cast("socket.socket", request), client_address)


def _shut(sock: socket.socket) -> None:
    # It may be closed meanwhile, or reset by a fault.
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class _Connection(socketserver.StreamRequestHandler):
    """Read requests off one connection until either side ends it."""

    disable_nagle_algorithm = True
    server: Listener

    def handle(self) -> None:
        line = RequestLine(self.connection, self.server.stopping)
        self.server.opened(self.connection)
        try:
            while not self.server.stopping.is_set() and self._one(line):
                pass
        except OSError:
            # The client has gone, or `end` has shut the connection down.
            return
        finally:
            self.server.closed(self.connection)

    def _one(self, line: RequestLine) -> bool:
        try:
            request = read_request(cast("BinaryIO", self.rfile))
        except BadHttpError as error:
            refusal = problem(400, 20001, f"Bad request: {error}")
            line.sock.sendall(refusal.head(close=True) + refusal.body)
            return False
        return request is not None and self.server.answer(request, line)
