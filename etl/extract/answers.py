"""Turn an answer into a payload, or into one error of the tree.

No message quotes a body. Of Twilio's own JSON errors the code and the message are kept, without
e-mail addresses, possible phone numbers and the queries of URLs.
"""

import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from json import JSONDecoder
from typing import Final, NoReturn

from etl.errors import BadBody, CredentialsRefused, EtlError, NotFound, Throttled, TransientFailure
from etl.extract.wire import HttpAnswer

_PASSING: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY})
_NO_RESOURCE: Final = 20404
_FORBIDDEN: Final = {
    20403: "the account is suspended",
    70051: "the API key lacks the permission for this",
}
"""The meaning of Twilio's codes of a 403 (source: Twilio's error dictionary)."""


def refuse(path: str, answer: HttpAnswer, *, credential_name: str, window_s: float) -> NoReturn:
    """Raise the meaning of an answer other than 200.

    That is ``Throttled``, ``TransientFailure``, ``CredentialsRefused``, ``NotFound``, or
    ``BadBody`` for everything else, redirects included. A 401 is always ``CredentialsRefused``. A
    403 is so only with one of Twilio's codes, for a firewall's page says nothing about a key. Only
    Twilio's code 20404 is ``NotFound``, no other 404.
    """
    status, (code, text) = answer.status, _complaint(answer)
    said = f"GET {path}: the API answered {_label(status, code, request_id(answer))}"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        raise _throttled(said, answer, window_s)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING:
        msg = f"{said}."
        raise TransientFailure(msg)
    if status == HTTPStatus.UNAUTHORIZED or (status == HTTPStatus.FORBIDDEN and code is not None):
        why = _FORBIDDEN.get(code or 0, "it was refused")
        msg = f"{said} to the credential {credential_name}: {why}."
        raise CredentialsRefused(msg, hint=f"Check {credential_name}, and the account's console.")
    if status == HTTPStatus.NOT_FOUND and code == _NO_RESOURCE:
        msg = f"{said}: it knows no such resource."
        raise NotFound(msg)
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        text = "a redirect to another place, not followed"
    msg = f"{said}: {text or _describe(answer)}."
    raise BadBody(msg)


def _throttled(said: str, answer: HttpAnswer, window_s: float) -> EtlError:
    pause = retry_after_ms(answer.headers.get("Retry-After"), date=answer.headers.get("Date"))
    asked = f"until its window of {window_s:g} s is over" if pause is None else f"for {pause} ms"
    msg = f"{said}: too many requests; it takes no more {asked}."
    return Throttled(msg, retry_after_ms=pause)


def _number(text: str) -> Decimal | str:
    # An exponent beyond Decimal's own must not cost the row. Its text is kept.
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


_DECODER: Final = JSONDecoder(parse_float=_number, parse_constant=str)
"""Fractions are exact, NaN and Infinity are their names. Of duplicate keys the last wins."""


def read_payload(path: str, answer: HttpAnswer) -> object:
    """Parse the JSON of a 200, whatever its shape. Raises ``BadBody`` for anything else."""
    try:
        return _DECODER.decode((answer.body or b"").decode("utf-8-sig"))
    except (ValueError, RecursionError):
        # ValueError also means bytes that are not UTF-8, or integers of over 4,300 digits.
        msg = f"GET {path}: the API answered {_describe(answer)}, which is not JSON."
        raise BadBody(msg) from None


def _complaint(answer: HttpAnswer) -> tuple[int | None, str]:
    """Read Twilio's code and message from an error. Others' errors give (None, "")."""
    try:
        found = _DECODER.decode((answer.body or b"").decode())
    except (ValueError, RecursionError):
        return None, ""
    if not isinstance(found, dict) or type(found.get("code")) is not int:
        return None, ""
    return found["code"], _clean(found.get("message"))


_PERSONAL: Final = re.compile(
    r"\S+@\S+|(?<![0-9A-Za-z])\+?\d(?:[\s().-]*\d){6,}(?![0-9A-Za-z])|\?\S*", re.ASCII
)
"""An e-mail address, a possible phone number, the query of a URL."""


def _clean(text: object) -> str:
    if not isinstance(text, str):
        return ""
    plain = "".join(char if char.isprintable() else " " for char in text[:1000])
    return cut(_PERSONAL.sub("[removed]", plain), 200).strip(" .")


def cut(text: str, length: int) -> str:
    """Shorten a text to a length, visibly."""
    return text if len(text) <= length else text[: length - 3] + "..."


def _describe(answer: HttpAnswer) -> str:
    kind = _clean(answer.headers.get("Content-Type", "").split(";")[0])[:60] or "no content type"
    size = "an unread body" if answer.body is None else f"{len(answer.body)} bytes"
    return f"{size} ({kind}, status {answer.status})"


def _label(status: int, code: int | None, request_id: str | None) -> str:
    more = [f"code {code}"] if code is not None else []
    more += [f"request {request_id}"] if request_id else []
    return f"{status} ({', '.join(more)})" if more else str(status)


def request_id(answer: HttpAnswer) -> str | None:
    """Return Twilio's own number of a request, to quote to its support."""
    found = answer.headers.get("Twilio-Request-Id")
    return found if found and re.fullmatch(r"[\w-]{1,64}", found, re.ASCII) else None


def retry_after_ms(header: str | None, *, date: str | None) -> int | None:
    """Read a Retry-After header as milliseconds, clamped to 1 s .. 15 min.

    It takes seconds, even decimals, or an HTTP date (RFC 9110, 10.2.3). The date counts from the
    answer's own ``date`` header: our clock may be an hour off, and the pause is every worker's. A
    negative pause is 1 s, 1e11 is 15 min. The result is None, and so one window, for no header, for
    NaN, inf and other text, and for a date in an answer without its own.
    """
    text = (header or "").strip()
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,4})?", text, re.ASCII | re.IGNORECASE):
        seconds = Decimal(text)
    else:
        until, now = _http_date(text), _http_date(date)
        if until is None or now is None:
            return None
        seconds = Decimal((until - now).total_seconds())
    return int(min(max(seconds, Decimal(1)), Decimal(900)) * 1000)


def _http_date(text: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime((text or "").strip())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
