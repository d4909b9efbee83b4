"""End a request at its total deadline: while connecting, in headers, in the body.

``timeout=`` bounds the wait for the next byte alone. A server that drips could hold a thread for
hours. Here each ``recv`` first sets the socket's timeout to the time left. That holds over TLS and
inside a proxy's tunnel, too. Resolving a name cannot be interrupted, but nothing is sent after the
deadline.
"""

import io
import socket
from dataclasses import dataclass
from http.client import HTTPResponse, IncompleteRead
from time import monotonic
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection


@dataclass(frozen=True, slots=True)
class Limits:
    """Say how many seconds to wait: to connect, for the next byte, and for everything.

    A connection unused for ``idle_s`` is replaced, for many middleboxes silently forget it.
    """

    connect_s: float
    read_s: float
    total_s: float
    idle_s: float


class TotalDeadline:
    """Hold the deadlines of the current request, shared by a wire and its one connection."""

    __slots__ = ("ends_at", "heard", "limits", "sent", "shortened", "used_at")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.ends_at = 0.0
        self.used_at = 0.0
        self.sent = self.shortened = False
        # Whether the other side, or a proxy, has been listened to.
        self.heard = False

    def start(self, ends_at: float) -> float:
        """Start the deadline of one request, which may not go on past ``ends_at``; return now."""
        now = monotonic()
        self.ends_at = min(now + self.limits.total_s, ends_at)
        self.shortened = ends_at <= self.ends_at
        self.sent = self.heard = False
        return now

    def name(self) -> str:
        """Say which deadline ends the request."""
        if self.shortened:
            return "the time limit of the run"
        return f"the total deadline of {self.limits.total_s:g} s"

    def left(self) -> float:
        """Return the seconds left. Raises ``TimeoutError`` if there are none."""
        left = self.ends_at - monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _TimedReader(io.RawIOBase):
    """Read a socket's file, each read within the total deadline."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, clock: TotalDeadline) -> None:
        self._raw = raw
        self._sock = sock
        self._clock = clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - any writable buffer
        clock = self._clock
        clock.heard = True
        self._sock.settimeout(min(clock.left(), clock.limits.read_s))
        return self._raw.readinto(buffer)

    def readall(self) -> bytes:
        """Refuse to read without an end; http.client does for a chunk of -1 bytes."""
        raise IncompleteRead(b"")  # noqa: EM101 - what was read, no message

    def close(self) -> None:
        self._raw.close()
        super().close()


class TimedConnection(HTTPConnection):
    """Keep the total deadline while connecting, sending and reading."""

    def __init__(self, *args: Any, clock: TotalDeadline, **kwargs: Any) -> None:  # noqa: ANN401 - any
        super().__init__(*args, **kwargs)
        self._clock = clock

    def response_class(  # type: ignore[override]  # a class there, but it is only called
        self,
        sock: socket.socket,
        *args: Any,  # noqa: ANN401 - http.client's
        **kwargs: Any,  # noqa: ANN401 - http.client's
    ) -> HTTPResponse:
        """Build http.client's response, even a tunnel's, on a file that keeps the deadline."""
        response = HTTPResponse(sock, *args, **kwargs)
        raw = response.fp.detach()
        response.fp = io.BufferedReader(_TimedReader(raw, sock, self._clock))
        return response

    @property
    def is_connected(self) -> bool:
        """Say whether the pool may use this connection again."""
        idle_s = monotonic() - self._clock.used_at
        return idle_s < self._clock.limits.idle_s and super().is_connected

    def connect(self) -> None:
        """Connect within the connect timeout, for each of the name's addresses."""
        self.timeout = min(self._clock.left(), self._clock.limits.connect_s)
        super().connect()

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - urllib3's
        """Send, unless connecting took until the deadline."""
        if self.sock is None:
            self.connect()
        self.timeout = min(self._clock.left(), self._clock.limits.read_s)
        self._clock.sent = True
        super().request(*args, **kwargs)


class TimedTlsConnection(TimedConnection, HTTPSConnection):
    """Keep the total deadline over TLS. The handshake counts as connecting."""
