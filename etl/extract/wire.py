"""Carry one GET to one origin and its answer back, within deadlines and a cap on bytes.

``requests`` brings the adapter: pools, TLS, proxies. Its session is left out on purpose. Even with
redirects off, ``Session.send`` reads the whole body of a redirect, without any limit. It adds
cookies, the environment's proxies and ``~/.netrc``, and makes up half of a call's cost. Nothing
here retries: each call sends one request at most.
"""

import ssl
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from time import monotonic
from traceback import walk_tb
from typing import Any, Final, cast

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, Retry, Timeout
from urllib3.exceptions import HTTPError
from urllib3.util.ssl_ import create_urllib3_context

from etl.errors import BadBody, BodyTooLarge, ConfigError, EtlError, TransientFailure, Unreachable
from etl.extract.deadline import Limits, TimedConnection, TimedTlsConnection, TotalDeadline

_CHUNK: Final = 65_536
_ERROR_LIMIT: Final = 65_536
"""Decoded bytes to read of an answer other than 200. Only its code matters."""

_NO_BODY: Final = (1, 3)
"""A 1xx comes before another answer, and no redirect is followed. So the rest is closed unread."""

_CAUSES: Final = 4

_BROKEN: Final = (HTTPError, HTTPException, OSError, zlib.error)
"""The errors of urllib3, http.client and zlib for a broken connection or answer."""

_ONCE: Final = Retry(False, redirect=False)  # noqa: FBT003 - urllib3's own way to say "never"
_GZIP: Final = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Hold an answer. ``body`` is decoded; it is None if not 200 and not readable.

    ``sent_at`` and ``answered_at`` are seconds of ``time.monotonic``. The first is taken before
    connecting, so no answer looks newer than it is.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | None
    sent_at: float
    answered_at: float


def tls_context(ca_bundle: str) -> ssl.SSLContext:
    """Build the TLS settings once for all threads, with certifi's list or ``ca_bundle``.

    Raises ``ConfigError`` if the bundle cannot be read. Loading certificates takes ~20 ms; requests
    by itself pays that for each new connection.
    """
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    path = Path(ca_bundle or DEFAULT_CA_BUNDLE_PATH)
    try:
        if path.is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except OSError as error:  # ssl.SSLError is one of them
        msg = f"the certificates in {path} cannot be read: {error.strerror or _name(error)}."
        raise ConfigError(msg, hint="Set VERIFY_ETL_CA_BUNDLE to a file in PEM format.") from None
    return context


class Wire(HTTPAdapter):
    """Hold one keep-alive connection to one origin, for one request at a time."""

    def __init__(
        self, origin: str, *, limits: Limits, context: ssl.SSLContext | None, proxy: str
    ) -> None:
        self._context = context
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)
        self._clock = TotalDeadline(limits)
        self._origin = origin
        self._timeout = Timeout(connect=limits.connect_s, read=limits.read_s)
        self._pool = self._find_pool(origin, {"all": proxy} if proxy else None)
        # A proxy gets a plain http address in full. A tunnel carries the path alone.
        self._prefix = origin if proxy and origin.startswith("http:") else ""
        self._hint = "Check VERIFY_ETL_PROXY and the network." if proxy else "Check the network."

    def _find_pool(self, origin: str, proxies: dict[str, str] | None) -> HTTPConnectionPool:
        asked = requests.Request("GET", origin).prepare()
        # The stubs name its base class, which can hardly do anything.
        pool: Any = self.get_connection_with_tls_context(asked, verify=True, proxies=proxies)
        kind = TimedTlsConnection if pool.scheme == "https" else TimedConnection
        pool.ConnectionCls = partial(kind, clock=self._clock)
        return cast("HTTPConnectionPool", pool)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - requests'
        """Make every pool use the one TLS context."""
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: ANN401 - requests'
        """Make a proxy's pools, and TLS to the proxy itself, use the one TLS context."""
        return super().proxy_manager_for(
            proxy, ssl_context=self._context, proxy_ssl_context=self._context, **kwargs
        )

    def close(self) -> None:
        """Close the connection. urllib3 would leave that to the garbage collector."""
        self._pool.close()
        super().close()

    def get(
        self, target: str, *, headers: Mapping[str, str], limit: int, ends_at: float
    ) -> HttpAnswer:
        """Send one GET for ``target`` (path and query) and read at most ``limit`` decoded bytes.

        It ends at its total deadline, and at ``ends_at`` (monotonic) in any case.
        Raises ``Unreachable`` if the request could not be sent, ``TransientFailure`` if the answer
        did not arrive whole and in time, ``BodyTooLarge``, or ``BadBody`` for an unrequested
        encoding. No message quotes what the server sent.
        """
        sent_at = self._clock.start(ends_at)
        with self._sorted():
            response = self._pool.urlopen(
                "GET",
                self._prefix + target,
                headers=headers,
                retries=_ONCE,
                redirect=False,
                assert_same_host=False,
                timeout=self._timeout,
                preload_content=False,
                decode_content=False,
            )
        try:
            body = self._body(response, limit)
        finally:
            # Harmless after the body is read and the connection is back in the pool. Unread bytes
            # must never be taken for the next answer.
            response.close()
        self._clock.used_at = answered_at = monotonic()
        return HttpAnswer(response.status, response.headers, body, sent_at, answered_at)

    def _body(self, response: BaseHTTPResponse, limit: int) -> bytes | None:
        """Read the body. If it cannot be read, the status of an answer other than 200 is enough."""
        if response.status == HTTPStatus.OK:
            with self._sorted():
                return _read(response, limit)
        if response.status // 100 in _NO_BODY:
            return None
        with suppress(BadBody, BodyTooLarge, TransientFailure), self._sorted():
            return _read(response, _ERROR_LIMIT)
        return None

    @contextmanager
    def _sorted(self) -> Iterator[None]:
        """Turn any failure caused by the other side's bytes into one error of the tree.

        For unexpected bytes the libraries raise errors of any class (``ValueError`` for a negative
        chunk size). An error of our own code stays the bug that it is.
        """
        try:
            yield
        except EtlError:
            raise
        except Exception as error:
            if not isinstance(error, _BROKEN) and (not self._clock.heard or _is_ours(error)):
                raise
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> TransientFailure | BodyTooLarge:
        names = _chain(error)
        if self._clock.sent and ("LineTooLong" in names or _many_headers(error)):
            msg = f"the answer's headers are larger than any of the API's ({names})."
            return BodyTooLarge(msg)
        if monotonic() >= self._clock.ends_at:
            names = f"{names}, ended by {self._clock.name()}"
        if self._clock.sent:
            return TransientFailure(f"no whole answer came: {names}.")
        return Unreachable(f"{self._origin} cannot be reached: {names}.", hint=self._hint)


def _read(response: BaseHTTPResponse, limit: int) -> bytes:
    """Read and decode a body. Past ``limit`` bytes, raw or decoded, give up at once."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"identity", "", "gzip", "x-gzip"}:
        msg = "the answer has an encoding that was not asked for."
        raise BadBody(msg)
    unzip = zlib.decompressobj(_GZIP) if encoding.endswith("gzip") else None
    parts: list[bytes] = []
    raw = size = 0
    while data := response.read(_CHUNK, decode_content=False):
        raw += len(data)
        if unzip is not None:
            unzip, data = _inflate(unzip, data, limit - size + 1)
        size += len(data)
        if max(raw, size) > limit:
            msg = f"the answer is larger than {limit} bytes."
            raise BodyTooLarge(msg)
        parts.append(data)
    if unzip is not None and raw and not unzip.eof:
        msg = "the gzip stream ends too soon"
        raise zlib.error(msg)
    return b"".join(parts)


def _inflate(
    unzip: Any,  # noqa: ANN401 - zlib does not name its class
    data: bytes,
    room: int,
) -> tuple[Any, bytes]:
    """Decompress at most ``room`` bytes. A stream may have several members (RFC 1952)."""
    found = bytearray()
    while data and len(found) < room:
        if unzip.eof:
            unzip = zlib.decompressobj(_GZIP)
        found += unzip.decompress(data, room - len(found))
        data = unzip.unused_data or unzip.unconsumed_tail
    return unzip, bytes(found)


def _is_ours(error: BaseException) -> bool:
    """Say whether our own code raised an error, and not a library."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    name = str(frame.f_globals.get("__name__"))
    return name.partition(".")[0] == __name__.partition(".")[0]


def _chain(error: BaseException) -> str:
    """Name the classes of an error and its causes, outermost first, without their words."""
    names: list[str] = []
    found: BaseException | None = error
    while found is not None and len(names) < _CAUSES:
        names.append(_name(found))
        inner = [part for part in found.args if isinstance(part, BaseException)]
        found = inner[0] if inner else found.__cause__
    return ": ".join(dict.fromkeys(names))


def _name(error: BaseException) -> str:
    name = "damaged gzip" if isinstance(error, zlib.error) else type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{name} ({error.verify_message})"
    return f"{name} ({error.reason})" if isinstance(error, ssl.SSLError) and error.reason else name


def _many_headers(error: BaseException) -> bool:
    """Recognize http.client's limit of 100 headers, an error without a class of its own."""
    return any(type(part) is HTTPException for part in (error, *error.args))
