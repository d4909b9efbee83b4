"""Reach the API and nobody else: redirects, environment, proxies, TLS, names."""

import socket
import ssl
import threading
from pathlib import Path

import pytest

from etl.errors import BadBody, ConfigError, TransientFailure, Unreachable
from tests.support.harness import MakeApi
from tests.support.raw_server import (
    CERTIFICATE,
    KEY,
    PATIENCE_S,
    Answer,
    RawServer,
    as_json,
    drip,
    flood,
    http,
    then_close,
)

SID = "VL" + "0123456789abcdef" * 2
OK = as_json({"sid": SID})
HEAD = b"HTTP/1.1 200 OK\r\n"
CUT = HEAD + b"Content-Length: 100\r\n\r\n{"
MB = b" " * 1_000_000


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Write the test's certificate and its key to one file."""
    path = tmp_path / "localhost.pem"
    path.write_text(CERTIFICATE + KEY)
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    """Build a server's TLS settings with the test's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_drip_over_tls_ends_at_the_total_deadline(
    make_api: MakeApi, tls: ssl.SSLContext, certificate: Path
) -> None:
    """TLS changes nothing: dripped headers and bodies end at the deadline."""
    with RawServer(OK, drip(HEAD, b"X: a"), drip(CUT, b" "), tls=tls) as api:
        assert make_api(api.url, ca_bundle=str(certificate)).attempt(SID).payload == {"sid": SID}
        hasty = make_api(api.url, ca_bundle=str(certificate), total_s=1.0)
        for _ in range(2):
            with pytest.raises(TransientFailure, match="total deadline"):
                hasty.attempt(SID)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 304])
def test_redirect_is_not_followed(make_api: MakeApi, status: int) -> None:
    """A redirect is no answer; nobody else hears of us and its address is not repeated."""
    with RawServer(OK) as other:
        to = f"Location: {other.url}/?token=hush"
        with RawServer(http(status, MB, to)) as api:
            with pytest.raises(BadBody, match="redirect") as caught:
                make_api(api.url).attempt(SID)
            assert len(api.requests) == 1
        assert other.connections == 0
    assert "hush" not in str(caught.value)
    assert str(other.port) not in str(caught.value)


def test_environment_is_not_read(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Proxies, netrc and certificates of the environment change nothing."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    with RawServer(OK) as proxy, RawServer(OK) as api:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
        make_api(api.url).attempt(SID)
        assert proxy.connections == 0
    assert b"Authorization: Basic QUN4Omh1c2g=\r\n" in api.requests[0]


def test_proxy_for_http_is_asked_for_the_whole_address(make_api: MakeApi) -> None:
    """A proxy that is configured is used, with its own credentials."""
    with RawServer(OK) as proxy:
        url = proxy.url.replace("//", "//pat:door@")
        make_api("http://127.0.0.1:9", proxy=url).attempt(SID)
    assert proxy.paths() == [f"http://127.0.0.1:9/v2/Attempts/{SID}"]
    assert b"Proxy-Authorization: Basic cGF0OmRvb3I=\r\n" in proxy.requests[0]


def test_proxy_for_https_carries_a_tunnel(
    make_api: MakeApi, tls: ssl.SSLContext, certificate: Path
) -> None:
    """Through a tunnel the proxy sees neither credentials nor path, and deadlines hold."""
    with RawServer(OK, drip(CUT, b" "), tls=tls) as api:

        def tunnel(conn: socket.socket) -> bool:
            conn.sendall(b"HTTP/1.1 200 Go\r\n\r\n")
            with socket.create_connection(("127.0.0.1", api.port), PATIENCE_S) as far:
                back = threading.Thread(target=_pump, args=(far, conn), daemon=True)
                back.start()
                _pump(conn, far)
                back.join(PATIENCE_S)
            return True

        with RawServer(tunnel) as proxy:
            through = {"proxy": proxy.url, "ca_bundle": str(certificate)}
            client = make_api(api.url, **through)
            assert client.attempt(SID).payload == {"sid": SID}
            hasty = make_api(api.url, total_s=1.0, **through)
            with pytest.raises(TransientFailure, match="total deadline"):
                hasty.attempt(SID)
            client.close()
            hasty.close()
    assert proxy.requests[0].startswith(b"CONNECT 127.0.0.1:")
    assert b"Authorization" not in proxy.requests[0]


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.mark.parametrize(
    "answer",
    [http(407), drip(b"", b"H"), flood(HEAD + b"X: ", MB, times=2), then_close(b"")],
)
def test_proxy_that_refuses_is_unreachable(make_api: MakeApi, answer: Answer) -> None:
    """What goes wrong before the API hears of us says so, and points to the proxy."""
    with RawServer(answer) as proxy:
        url = proxy.url.replace("//", "//pat:door@")
        with pytest.raises(Unreachable, match="VERIFY_ETL_PROXY") as caught:
            make_api("https://api.invalid", proxy=url, total_s=1.0).attempt(SID)
    assert "door" not in repr(caught.value)


def test_refused_connection_is_unreachable(make_api: MakeApi) -> None:
    """A port where nobody listens is an API out of reach."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match="NewConnectionError: ConnectionRefusedError"):
        make_api(f"http://127.0.0.1:{port}").attempt(SID)


@pytest.mark.parametrize("host", ["nonexistent.invalid", "a..b", "x" * 64])
def test_unknown_name_is_unreachable(make_api: MakeApi, host: str) -> None:
    """A name that does not resolve, or cannot, is an API out of reach."""
    with pytest.raises(Unreachable, match="cannot be reached"):
        make_api(f"http://{host}").attempt(SID)


def test_plain_text_behind_https_is_unreachable(make_api: MakeApi) -> None:
    """TLS with a port that speaks none fails before anything is sent."""
    with RawServer(OK) as api:
        with pytest.raises(Unreachable) as caught:
            make_api(api.url.replace("http:", "https:"), connect_s=0.5).attempt(SID)
        assert api.requests == []
    assert "QUN4" not in str(caught.value)


def test_untrusted_certificate_is_unreachable(make_api: MakeApi, tls: ssl.SSLContext) -> None:
    """A certificate nobody vouches for ends the connection, and the message says why."""
    with RawServer(OK, tls=tls) as api:
        with pytest.raises(
            Unreachable, match=r"SSLCertVerificationError \(self.signed certificate"
        ):
            make_api(api.url).attempt(SID)
        assert api.requests == []


def test_handshake_that_hangs_is_unreachable(make_api: MakeApi) -> None:
    """A server that accepts and never shakes hands is left after the connect timeout."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = make_api(f"https://127.0.0.1:{listener.getsockname()[1]}", connect_s=0.1)
        with pytest.raises(Unreachable, match="TimeoutError"):
            client.attempt(SID)


def test_nothing_is_sent_after_the_deadline(make_api: MakeApi) -> None:
    """When connecting took until the deadline, the request stays at home."""
    with RawServer(OK) as api:
        with pytest.raises(Unreachable, match="total deadline"):
            make_api(api.url, total_s=0.0).attempt(SID)
        assert api.requests == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_unreadable_certificates_are_a_wrong_setting(
    make_api: MakeApi, tmp_path: Path, content: str | None
) -> None:
    """A CA bundle that is missing or no PEM stops at the start."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="VERIFY_ETL_CA_BUNDLE"):
        make_api("https://127.0.0.1", ca_bundle=str(path))


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://", "http://h:99999", "http://["])
def test_unusable_proxy_is_a_wrong_setting(make_api: MakeApi, proxy: str) -> None:
    """A proxy that would be bypassed or misread stops at the start."""
    with pytest.raises(ConfigError, match="VERIFY_ETL_PROXY"):
        make_api("https://127.0.0.1", proxy=proxy)
