"""Read requests from a connection, without an e-mail parser's cost for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    import socket
    import threading

_LINE = 65_536
_HEADERS = 200
_BODY = 1_000_000


class BadHttpError(Exception):
    """Say that no HTTP request came. The connection is answered with 400 and closed."""


class RequestLine(NamedTuple):
    """Hold a connection to answer on, and the event of the server's stop."""

    sock: socket.socket
    stopping: threading.Event


class Request(NamedTuple):
    """Hold a request as read: header names in lower case, the query not yet decoded."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool

    @property
    def target(self) -> str:
        """Return path and query as they came."""
        return f"{self.path}?{self.query}" if self.query else self.path


def read_request(stream: BinaryIO) -> Request | None:
    """Read one request, None if the client has gone. Raises BadHttpError if it is none."""
    line = stream.readline(_LINE + 1)
    if line == b"\r\n":  # RFC 9112 2.2: a blank line before a request is let pass
        line = stream.readline(_LINE + 1)
    if not line:
        return None
    words = line.decode("latin-1").split()
    if len(line) > _LINE or len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004 - method, target, version
        message = "not an HTTP/1 request line"
        raise BadHttpError(message)
    method, target, version = words
    headers = _read_headers(stream)
    body = _read_body(stream, headers)
    connection = headers.get("connection", "").lower()
    keep = "close" not in connection if version == "HTTP/1.1" else "keep-alive" in connection
    path, _, query = target.partition("?")
    return Request(method, path, query, headers, body, keep)


def _read_headers(stream: BinaryIO) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(_HEADERS):
        line = stream.readline(_LINE + 1)
        if line in {b"\r\n", b"\n"}:
            return headers
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or len(line) > _LINE:
            message = "not a header line"
            raise BadHttpError(message)
        headers[name.strip().lower()] = value.strip()
    message = "too many headers"
    raise BadHttpError(message)


def _read_body(stream: BinaryIO, headers: dict[str, str]) -> bytes:
    if "transfer-encoding" in headers:
        message = "chunked requests are not read here"
        raise BadHttpError(message)
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or int(length) > _BODY:
        message = "no readable Content-Length"
        raise BadHttpError(message)
    return stream.read(int(length)) if int(length) else b""
