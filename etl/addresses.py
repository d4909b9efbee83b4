"""Read the addresses in the settings: of the API, of a proxy, of a database.

Every check raises ``ValueError`` with what to write. No message repeats an address: it may hold a
password.
"""

import re
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_VERSION: Final = re.compile(r"/v\d+(?:/|$)")
_TWILIO: Final = re.compile(r"(\w+)(?:\.([\w-]+))??(?:\.([\w-]+))?\.twilio\.com", re.ASCII)
"""A host of Twilio's: product, edge, region. One word between is the region."""
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9-]*", re.ASCII)
_FILE: Final = re.compile(r"(sqlite(?:\+\w+)?:)(?://(?:/([^?]*))?)?(\?.*)?", re.ASCII | re.DOTALL)
"""An address of SQLite: the scheme, the file, the options."""
_IN_MEMORY: Final = re.compile(r"[?&]mode=memory\b")


def check_api(url: str) -> str:
    """Return the address if it is https, or http to this machine."""
    # urlsplit's ValueError (a bad port, a bad address) may quote the address.
    msg = "write https://HOST, or http:// to this machine only"
    try:
        parts = urlsplit(url)
        port_is_legal = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(msg) from None
    secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    extra = parts.username or parts.password or parts.query or parts.fragment
    if not secure or not parts.hostname or extra or not port_is_legal:
        raise ValueError(msg)
    if _VERSION.search(parts.path):
        # Every request would have it twice, and every SID would be unknown.
        msg = "leave out the path from /v2 on: it is added to each request"
        raise ValueError(msg)
    return url


def check_proxy(proxy: str) -> None:
    """Check that an address is one of a proxy, if there is one."""
    if not proxy:
        return
    msg = "write http://HOST:PORT"
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError(msg) from None
    if not usable:
        raise ValueError(msg)


def check_label(name: str) -> str:
    """Return the name of a region or an edge if it can be part of a host's name."""
    if name and not _LABEL.fullmatch(name):
        msg = "write a name such as ie1 or dublin"
        raise ValueError(msg)
    return name


def in_region(api_url: str, region: str, edge: str) -> str | None:
    """Return the API's address in a region, as Twilio's own tools build it.

    An edge without a region is one of us1. A host that is not Twilio's has no regions: None. This
    machine is asked as it is.
    """
    if not region and not edge:
        return api_url
    parts = urlsplit(api_url)
    if parts.hostname in _LOOPBACK:
        return api_url
    host = _TWILIO.fullmatch(parts.hostname or "")
    if host is None:
        return None
    edge = edge or host[2] or ""
    region = region or host[3] or "us1"
    name = ".".join(part for part in (host[1], edge, region, "twilio.com") if part)
    port = f":{parts.port}" if parts.port else ""
    return parts._replace(netloc=name + port).geturl()


def check_database(url: str) -> None:
    """Refuse an SQLite database in memory: it is gone when the command ends."""
    address = _FILE.fullmatch(url)
    if address is None:
        return
    file = address[2] or ""
    named = file.removeprefix("file:").partition("?")[0]
    if named in {"", ":memory:"} or _IN_MEMORY.search(address[3] or ""):
        msg = "a database in memory is gone when the command ends; write sqlite:///FILE"
        raise ValueError(msg)


def beside(file: Path, url: str) -> str:
    """Read an SQLite path in a settings file as relative to that file."""
    address = _FILE.fullmatch(url)
    path = (address and address[2]) or ""
    is_uri = path.startswith("file:")
    path = path.removeprefix("file:")
    if address is None or not path or path.startswith(("/", ":")):
        return url
    folder = quote(str(file.parent)) if is_uri else str(file.parent)
    where = path if folder == "." else f"{folder}/{path}"
    return f"{address[1]}///{'file:' if is_uri else ''}{where}{address[3] or ''}"
