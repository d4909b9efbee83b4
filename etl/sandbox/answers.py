"""Hold an answer to send, and Twilio's error bodies."""

from __future__ import annotations

import json
from email.utils import formatdate
from http.client import responses
from typing import Any, NamedTuple

JSON_TYPE = "application/json; charset=utf-8"
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode

# The headers of Twilio's OpenAPI document for this resource.
CORS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "GET, OPTIONS"),
    ("Access-Control-Allow-Headers", "Content-Type, Authorization"),
    ("Access-Control-Allow-Credentials", "true"),
    ("Access-Control-Expose-Headers", "X-Custom-Header1, X-Custom-Header2"),
)
_CORS_LINES = "".join(f"{name}: {value}\r\n" for name, value in CORS)


class Answer(NamedTuple):
    """Hold an answer to one request: status, body, further headers, and the body's type."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = JSON_TYPE

    def head(self, *, length: int | None = None, close: bool = False) -> bytes:
        """Return the status line and headers, for `length` bytes or the body's.

        A negative length sends no Content-Length.
        """
        lines = [f"HTTP/1.1 {self.status} {responses.get(self.status, 'Unknown')}\r\n"]
        lines.append(f"Content-Type: {self.content_type}\r\n")
        size = len(self.body) if length is None else length
        if size >= 0:
            lines.append(f"Content-Length: {size}\r\n")
        lines.extend(f"{name}: {value}\r\n" for name, value in self.headers)
        if close:
            lines.append("Connection: close\r\n")
        lines.append(_CORS_LINES)
        lines.append("\r\n")
        return "".join(lines).encode("latin-1")


def encode(document: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Encode a JSON value, compact and in ASCII."""
    return _ENCODE(document).encode("ascii")


def json_answer(document: Any, status: int = 200) -> Answer:  # noqa: ANN401 - any JSON value
    """Return a JSON value as an answer."""
    return Answer(status, encode(document))


def problem(
    status: int, code: int, message: str, headers: tuple[tuple[str, str], ...] = ()
) -> Answer:
    """Return an error in Twilio's form: code, message, more_info and status."""
    body = {
        "code": code,
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return Answer(status, encode(body), headers)


def not_found(path: str) -> Answer:
    """Return Twilio's 404 for a path."""
    return problem(404, 20404, f"The requested resource {path} was not found")


def unauthorized() -> Answer:
    """Return Twilio's 401."""
    challenge = (("WWW-Authenticate", 'Basic realm="Twilio API"'),)
    return problem(401, 20003, "Authenticate", challenge)


def too_many(retry_after: str | None = None) -> Answer:
    """Return Twilio's 429, with the given text as its Retry-After header.

    A date in it counts from the answer's own date, so that is sent, too.
    """
    asked = () if retry_after is None else (("Retry-After", retry_after),)
    headers = (("Date", formatdate(usegmt=True)), *asked)
    return problem(429, 20429, "Too many requests", headers)
