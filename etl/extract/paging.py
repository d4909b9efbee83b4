"""Follow a list's own address of its next page, and no other.

``next_page_url`` comes from outside. It may lead only to a further page of our list. Even then only
its query is sent: scheme, host, port and path are our own.
"""

import re
from typing import Final, NoReturn
from urllib.parse import SplitResult, parse_qsl, urlsplit

from etl.errors import ApiContractBroken

_PORTS: Final = {"http": 80, "https": 443}
_ADDRESS: Final = re.compile(r"[!-\[\]-~]{1,8192}")
"""Printable ASCII without the backslash: urlsplit drops tabs and newlines, some read \\ as /."""


def query_of(url: object, *, list_url: str) -> str:
    """Return the query of a further page's address.

    Raises ``ApiContractBroken`` unless it is a string with the scheme, host, port and path of
    ``list_url``, and no user name or fragment.
    """
    parts = _split(url)
    if parts is None:
        _broken("is no address")
    ours = urlsplit(list_url)
    if "@" in parts.netloc:
        _broken("has a user name in it")
    if _origin(parts) != _origin(ours):
        _broken("lies elsewhere than the API")
    if parts.path != ours.path or parts.fragment:
        _broken("is not the list")
    return parts.query


def must_lead_on(query: str, *, read: str) -> None:
    """Raise ``ApiContractBroken`` if the next page is the page just read."""
    if _pairs(query) == _pairs(read):
        _broken("is that of the page just read")


def _split(url: object) -> SplitResult | None:
    if not isinstance(url, str) or _ADDRESS.fullmatch(url) is None:
        return None
    try:
        parts = urlsplit(url)
        _origin(parts)
    except ValueError:
        return None
    return parts


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    port = _PORTS.get(parts.scheme) if parts.port is None else parts.port
    return parts.scheme, parts.hostname, port


def _pairs(query: str) -> list[tuple[str, str]]:
    return sorted(parse_qsl(query, keep_blank_values=True))


def _broken(why: str) -> NoReturn:
    # The address stays out of the message: it may carry a token or a number.
    msg = f"The list of attempts cannot be followed: the address of its next page {why}."
    raise ApiContractBroken(msg, hint="Check VERIFY_ETL_API_URL, and what stands in between.")
