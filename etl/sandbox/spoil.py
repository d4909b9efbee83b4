"""Spoil answers: in their content (`spoil`), or on their way (`send_badly`)."""

from __future__ import annotations

import json
import os
import socket
import struct
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from .answers import JSON_TYPE, Answer, encode, not_found, problem, too_many
from .answers import unauthorized as unauthorized_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from .faults import Fault
    from .wire import RequestLine

_ELSEWHERE = "https://elsewhere.example.com/v2/Attempts?PageSize=50&Page=1&PageToken=x"
_MEGABYTE = 1 << 20
_BOMB = 289_000_000
_BIG_HEADER = 10 * _MEGABYTE
_HUGE = 1 << 30
_DEEP = 100_000
# Default seconds, and how often to look whether the client has left.
_WAITS = {"slow": 1.0, "hang": 600.0}
_LOOK = 0.1
_DRIP = 0.5
_GZIP = (("Content-Encoding", "gzip"),)
_PAGE = "<!doctype html>\n<html><head><title>Sign in</title></head><body>Sign in</body></html>\n"


class Spoiled(NamedTuple):
    """Hold what a fault may need: the request's path, and the answer to another fetch."""

    path: str
    other: Callable[[], Answer]


def spoil(fault: Fault, answer: Answer, asked: Spoiled) -> Answer:
    """Return the spoiled answer, or the answer itself for faults of other kinds."""
    change = _CHANGES.get(fault.kind)
    if change is not None:
        return _edited(answer, change, fault)
    replace = _REPLACEMENTS.get(fault.kind)
    return answer if replace is None else replace(fault, answer, asked)


def send_badly(fault: Fault, answer: Answer, line: RequestLine) -> bool:
    """Send the answer as the fault does; return False for a fault of another sort.

    The connection is of no use afterwards. Long faults end with the server or the client.
    """
    act = _ACTS.get(fault.kind)
    if act is None:
        return False
    act(fault, answer, line)
    return True


def dawdle(fault: Fault, line: RequestLine) -> None:
    """Wait as `slow` and `hang` do: their seconds, or until the server or the client ends."""
    if fault.kind not in _WAITS:
        return
    left = _WAITS[fault.kind] if fault.seconds is None else fault.seconds
    while left > 0 and not line.stopping.wait(min(left, _LOOK)) and not _gone(line.sock):
        left -= _LOOK


# Other contents.


def _throttle(fault: Fault, _answer: Answer, _asked: Spoiled) -> Answer:
    refused = too_many(None if fault.retry_after is None else str(fault.retry_after))
    return refused._replace(status=fault.status or refused.status)


def _html(fault: Fault, _answer: Answer, _asked: Spoiled) -> Answer:
    return Answer(fault.status or 200, _PAGE.encode(), content_type="text/html; charset=utf-8")


def _problem(status: int, code: int, words: str) -> Callable[[Fault, Answer, Spoiled], Answer]:
    return lambda fault, _answer, _asked: problem(fault.status or status, fault.code or code, words)


def _redirect(fault: Fault, _answer: Answer, _asked: Spoiled) -> Answer:
    headers = (("Location", fault.location or _ELSEWHERE),)
    return Answer(fault.status or 302, b"", headers, "text/html")


def _big_header(fault: Fault, answer: Answer, _asked: Spoiled) -> Answer:
    return answer._replace(headers=(("X-Big", "x" * (fault.size or _BIG_HEADER)),))


def _gzip_bomb(fault: Fault, answer: Answer, _asked: Spoiled) -> Answer:
    bomb = _bomb(fault.size or _BOMB)
    return answer._replace(body=bomb, headers=_GZIP)


@lru_cache(maxsize=2)
def _bomb(size: int) -> bytes:
    """Compress about `size` blanks: one flushed block, repeated, does as well."""
    block = b" " * _MEGABYTE
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = squeeze.compress(block) + squeeze.flush(zlib.Z_FULL_FLUSH)
    count = -(-size // _MEGABYTE)
    check = 0
    for _ in range(count):
        check = zlib.crc32(block, check)
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    tail = struct.pack("<II", check, count * _MEGABYTE & 0xFFFFFFFF)
    return head + packed * count + b"\x03\x00" + tail


_REPLACEMENTS: dict[str, Callable[[Fault, Answer, Spoiled], Answer]] = {
    "throttle": _throttle,
    "error": _problem(500, 20500, "An internal server error occurred"),
    "html": _html,
    "forbidden": _problem(403, 20403, "Forbidden"),
    "redirect": _redirect,
    "big_header": _big_header,
    "bad_gzip": lambda _fault, answer, _asked: answer._replace(headers=_GZIP),
    "gzip_bomb": _gzip_bomb,
    "duplicate_keys": lambda _fault, answer, _asked: answer._replace(
        body=answer.body[:-1] + b',"sid":"VL' + b"0" * 32 + b'"}'
    ),
    "deep": lambda _fault, answer, _asked: answer._replace(body=b"[" * _DEEP + b"]" * _DEEP),
    "unauthorized": lambda _fault, _answer, _asked: unauthorized_answer(),
    "not_found": lambda _fault, _answer, asked: not_found(asked.path),
    "wrong_sid": lambda _fault, _answer, asked: asked.other(),
    "empty": lambda fault, _answer, _asked: Answer(fault.status or 200, b""),
    "array": lambda _fault, answer, _asked: answer._replace(body=b"[" + answer.body + b"]"),
    "null": lambda _fault, answer, _asked: answer._replace(body=b"null"),
    "body": lambda fault, answer, _asked: answer._replace(body=(fault.body or "").encode()),
}


# Changes inside the document.


def _edited(
    answer: Answer, change: Callable[[dict[str, Any], Fault], object], fault: Fault
) -> Answer:
    """Change the JSON object of an answer. Errors and other values stay as they are."""
    document = json.loads(answer.body)
    if answer.status != 200 or not isinstance(document, dict):  # noqa: PLR2004 - HTTP's OK
        return answer
    change(document, fault)
    return answer._replace(body=encode(document))


def _nan(document: dict[str, Any], _fault: Fault) -> None:
    for attempt in document.get("attempts", [document]):
        attempt["price"] = {"value": float("nan"), "currency": "usd"}


def _foreign_next(document: dict[str, Any], fault: Fault) -> None:
    document.get("meta", {})["next_page_url"] = fault.location or _ELSEWHERE


def _self_next(document: dict[str, Any], _fault: Fault) -> None:
    meta = document.get("meta", {})
    meta["next_page_url"] = meta.get("url")


def _endless_next(document: dict[str, Any], _fault: Fault) -> None:
    meta = document.get("meta", {"page": 0, "url": ""})
    here, after = f"&Page={meta['page']}", f"&Page={meta['page'] + 1}"
    meta["next_page_url"] = f"{meta['url']}&".replace(f"{here}&", f"{after}&")[:-1]


_CHANGES: dict[str, Callable[[dict[str, Any], Fault], object]] = {
    "nan": _nan,
    "no_sid": lambda document, _fault: document.pop("sid", None),
    "foreign_next": _foreign_next,
    "self_next": _self_next,
    "endless_next": _endless_next,
}


# How the answer travels.


def reset(sock: socket.socket) -> None:
    """Close a connection with RST: lingering for no time drops the unsent data."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Detached first: the stream still holds the socket and would delay the closing.
    os.close(sock.detach())


def _half(answer: Answer) -> bytes:
    return answer.body[: max(1, len(answer.body) // 2)]


def _reset_body(_fault: Fault, answer: Answer, line: RequestLine) -> None:
    line.sock.sendall(answer.head() + _half(answer))
    # A reset overtakes unread data, and would come before the headers.
    line.stopping.wait(0.05)
    reset(line.sock)


def _chunked(answer: Answer) -> bytes:
    return answer._replace(headers=(("Transfer-Encoding", "chunked"),)).head(length=-1)


def _chunk(part: bytes) -> bytes:
    return f"{len(part):x}\r\n".encode() + part + b"\r\n"


def _cut_chunks(_fault: Fault, answer: Answer, line: RequestLine) -> None:
    line.sock.sendall(_chunked(answer) + _chunk(_half(answer)))


def _endless_chunks(_fault: Fault, answer: Answer, line: RequestLine) -> None:
    line.sock.sendall(_chunked(answer))
    part = _chunk(b" " * 65_536)
    while not line.stopping.is_set():
        line.sock.sendall(part)


def _huge(fault: Fault, answer: Answer, line: RequestLine) -> None:
    left = fault.size or _HUGE
    line.sock.sendall(answer.head(length=left))
    block = b" " * 65_536
    while left > 0 and not line.stopping.is_set():
        line.sock.sendall(block[:left])
        left -= len(block)


def _drip(fault: Fault, line: RequestLine) -> None:
    while not line.stopping.wait(_DRIP if fault.seconds is None else fault.seconds):
        line.sock.sendall(b" ")


def _drip_headers(fault: Fault, _answer: Answer, line: RequestLine) -> None:
    line.sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: {JSON_TYPE}\r\nX-Drip:".encode())
    _drip(fault, line)


def _drip_body(fault: Fault, answer: Answer, line: RequestLine) -> None:
    line.sock.sendall(answer.head(length=_HUGE))
    _drip(fault, line)


def _gone(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


_ACTS: dict[str, Callable[[Fault, Answer, RequestLine], None]] = {
    "reset": lambda _fault, _answer, line: reset(line.sock),
    "reset_body": _reset_body,
    "short": lambda _fault, answer, line: line.sock.sendall(answer.head() + _half(answer)),
    "cut_chunks": _cut_chunks,
    "endless_chunks": _endless_chunks,
    "huge": _huge,
    "drip_headers": _drip_headers,
    "drip_body": _drip_body,
    # `dawdle` has waited; nothing is sent.
    "hang": lambda _fault, _answer, _line: None,
}
SENT_BADLY = frozenset(_ACTS)
KINDS = (*_REPLACEMENTS, *_CHANGES, *_ACTS, "slow")
