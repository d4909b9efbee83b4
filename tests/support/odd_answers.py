"""Make up answers that no API gives: good ones, with some bytes of theirs changed.

Answer ``n`` is always the same one, so that what a test found is found again by its number.
"""

import gzip
import json
import random
import re
from typing import Final

from tests.support.raw_server import http, refusal

SID: Final = "VL" + "0123456789abcdef" * 2
CANARY: Final = "+15005550006"
"""Stands in bodies and in headers: no message may repeat it."""

_RECORD: Final = json.dumps(
    {
        "sid": SID,
        "channel": "sms",
        "price": {"value": "0.0075", "currency": "usd"},
        "date_created": "2026-11-22T12:00:00Z",
        "channel_data": {"to": CANARY, "error_code": 0, "code_length": 6, "mcc": "732"},
    }
).encode()
_PAGE: Final = json.dumps({"attempts": [json.loads(_RECORD)], "meta": {"next_page_url": None}})
_SUMMARY: Final = (
    b'{"total_attempts":11,"total_converted":9,"total_unconverted":2,'
    b'"conversion_rate_percentage":"81.818181818"}'
)
_BODIES: Final = (_RECORD, _PAGE.encode(), _SUMMARY, b"", b"[" * 300, b"9" * 300, b"<html>")

_NUMBERS: Final = (
    *(b"-5", b"-1", b"-0", b"+5", b"0x10", b"5_0", b"", b" 7 ", b"7;a=b", b"1.5", b"1e9"),
    *(b"0", b"00000005", b"7fffffff", b"80000000", b"ffffffffffffffff", b"9" * 30, b"9" * 5000),
    *(b"\xb2", b"NaN", b"2147483648", b"-9223372036854775809", b"5, 5", b"5, 6", b"5\x00"),
)
_TOKENS: Final = (
    *_NUMBERS,
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b":", b": ", b" ", b"\t", b",", b";", b"\xff"),
    *(b"\xc3\x28", b"\xef\xbb\xbf", b"\x1f\x8b\x08", b"HTTP/1.1 100 Continue\r\n\r\n", b"="),
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/0.9", b"\r\n folded", b"=?utf-8?q?=zz?=", b"\xe2\x80\xa8"),
    *(b"\r\nContent-Length: -1", b"\r\nContent-Length: 3", b"\r\nTransfer-Encoding: chunked"),
    *(b"\r\nTransfer-Encoding: gzip, chunked", b"\r\nContent-Encoding: gzip, gzip"),
    *(b"\r\nContent-Encoding: \xff", b"\r\nConnection: close", b"\r\nLocation: http://[::1"),
    *(b"\r\nSet-Cookie: a=b; expires=\xff", b"\r\nContent-Type: a/b; charset=\xff\x00"),
    *(b"\r\nRetry-After: 1e9999", b"\r\nRetry-After: Sun, 99 Nov -1 99:99:99 +9999", b"{", b"]"),
    *(b"\r\nDate: Sun, 22 Nov 99999 12:00:00 GMT", b"\r\nX: " + b"a" * 70_000, b"\r\nX: a" * 120),
    *(b"\\ud800", b"\\u0000", b"null", b"NaN", b"1e99999999999999999999", b'"sid":', b'"'),
)
_STATUSES: Final = (100, 101, 103, 200, 204, 206, 304, 307, 400, 401, 403, 404, 408, 429, 500, 999)


def answer(n: int) -> tuple[bytes, bool]:
    """Return the bytes of answer ``n``, and whether they are good and leave the connection open."""
    dice = random.Random(n)
    data = _good(dice)
    changes = dice.choice((0, 1, 1, 1, 2, 3, 5))
    for _ in range(changes):
        data = _changed(dice, data)
    return data, not changes and b"Content-Length" in data and not data.startswith(b"HTTP/1.1 1")


def _good(dice: random.Random) -> bytes:
    kind = dice.randrange(8)
    if kind == 0:
        status = dice.choice(_STATUSES)
        after = dice.choice(("2.5", "Sun, 22 Nov 2026 12:00:30 GMT", "soon"))
        date = "Date: Sun, 22 Nov 2026 12:00:00 GMT"
        said = f"No {CANARY}"
        return refusal(status, dice.choice((20404, 20403, 1)), said, f"Retry-After: {after}", date)
    body, headers = dice.choice(_BODIES), ["Content-Type: application/json; charset=utf-8"]
    if dice.random() < 0.3:
        headers.append("Content-Encoding: gzip")
        body = gzip.compress(body, mtime=0)
    if kind <= 3:
        return http(200, body, *headers)
    head = "\r\n".join(["HTTP/1.1 200 OK", *headers]).encode()
    if kind == 4:
        return head + b"\r\n\r\n" + body
    return head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + _chunks(dice, body)


def _chunks(dice: random.Random, body: bytes) -> bytes:
    parts = []
    while body:
        size = dice.randint(1, len(body))
        parts.append(b"%x\r\n%s\r\n" % (size, body[:size]))
        body = body[size:]
    return b"".join(parts) + b"0\r\n" + dice.choice((b"", b"X-Trailer: a\r\n")) + b"\r\n"


def _changed(dice: random.Random, data: bytes) -> bytes:
    """Change one thing, in the head as often as behind it."""
    border = min(data.find(b"\r\n\r\n") + 4, len(data))
    span = (0, border) if dice.random() < 0.5 else (border, len(data))
    at = dice.randint(*span)
    end = min(len(data), at + dice.choice((1, 1, 2, 8, 64)))
    match dice.randrange(6):
        case 0:
            numbers = list(re.finditer(rb"\b[0-9a-f]+(?=\r\n)|[0-9]+", data))
            found = dice.choice(numbers) if numbers else None
            return data if found is None else _put(data, found.span(), dice.choice(_NUMBERS))
        case 1:
            return _put(data, (at, at), dice.choice(_TOKENS))
        case 2:
            return _put(data, (at, end), b"")
        case 3:
            return _put(data, (at, end), data[at:end] * 2)
        case 4:
            return _put(data, (at, end), dice.randbytes(end - at))
        case _:
            return data[:at]


def _put(data: bytes, span: tuple[int, int], new: bytes) -> bytes:
    return data[: span[0]] + new + data[span[1] :]
