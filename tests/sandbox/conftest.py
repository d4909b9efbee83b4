"""Start sandboxes for tests and talk to them, with Twilio's own library or with bare sockets."""

from __future__ import annotations

import base64
import socket
from typing import TYPE_CHECKING, Any

import pytest
import requests

# Twilio's library ships no types.
from twilio.http.http_client import TwilioHttpClient  # type: ignore[import-untyped]
from twilio.rest import Client  # type: ignore[import-untyped]

from etl.sandbox import Sandbox, World
from tests.support.harness import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A moment at which frozen worlds are seen: Monday, 23 November 2026, noon UTC.
NOON = 1_795_435_200.0


@pytest.fixture
def start() -> Iterator[Callable[..., Sandbox]]:
    """Start sandboxes over a given world, or over a frozen one, and stop them in the end."""
    running: list[Sandbox] = []

    def begin(world: World | None = None, **settings: Any) -> Sandbox:
        settings.setdefault("limit", 0)
        box = Sandbox(world or World(7, 300, static_at=NOON), **settings).start()
        running.append(box)
        return box

    yield begin
    for box in running:
        box.stop()


@pytest.fixture
def box(start: Callable[..., Sandbox]) -> Sandbox:
    """Start a sandbox of 300 attempts, frozen in time and without an allowance."""
    return start()


@pytest.fixture
def session(box: Sandbox) -> Iterator[requests.Session]:
    """Open a session with the credentials of `box`."""
    with requests.Session() as opened:
        opened.auth = (box.account_sid, box.auth_token)
        opened.trust_env = False
        yield opened


@pytest.fixture
def twilio() -> Iterator[Callable[..., Any]]:
    """Point Twilio's own library at a sandbox; give its `verify.v2`."""
    clients: list[TwilioHttpClient] = []

    def connect(box: Sandbox, user: str | None = None, password: str | None = None) -> Any:
        http = TwilioHttpClient()
        clients.append(http)
        name, secret = user or box.account_sid, password or box.auth_token
        client = Client(name, secret, account_sid=box.account_sid, http_client=http)
        client.verify.base_url = box.url
        return client.verify.v2

    yield connect
    for http in clients:
        http.session.close()


@pytest.fixture
def raw() -> Callable[..., bytes]:
    """Send bytes, or a GET with credentials, and read until the other side closes.

    `watch` is told what has come so far.
    """

    def talk(
        box: Sandbox,
        path: str = "",
        *,
        send: bytes = b"",
        timeout: float = PATIENCE_S,
        watch: Callable[[bytes], None] = lambda _received: None,
    ) -> bytes:
        port = int(box.url.rpartition(":")[2])
        pair = base64.b64encode(f"{box.account_sid}:{box.auth_token}".encode()).decode()
        request = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Authorization: Basic {pair}\r\nConnection: close\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as sock:
            sock.sendall(send or request.encode())
            received = b""
            while part := sock.recv(65_536):
                received += part
                watch(received)
            return received

    return talk
