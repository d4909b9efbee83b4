"""Check the sandbox as a web server: error bodies, headers, keep-alive, nonsense, and its end."""

from __future__ import annotations

import ast
import contextlib
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

import etl.sandbox
from etl.sandbox import Fault, Sandbox, World
from tests.support.harness import PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/Attempts/VL" + "0" * 32, 404, 20404),
        ("GET", "/v2/Attempts/VE" + "0" * 32, 404, 20404),
        ("GET", "/v2/Attempts/", 404, 20404),
        ("GET", "/v2/Services", 404, 20404),
        ("GET", "/", 404, 20404),
        ("POST", "/v2/Attempts", 405, 20004),
        ("DELETE", "/v2/Attempts/VL" + "0" * 32, 405, 20004),
        ("GET", "/v2/Attempts?PageSize=0", 400, 60200),
        ("GET", "/v2/Attempts?PageSize=1001", 400, 60200),
        ("GET", "/v2/Attempts?PageSize=ten", 400, 60200),
        ("GET", "/v2/Attempts?Status=maybe", 400, 60200),
        ("GET", "/v2/Attempts?DateCreatedAfter=yesterday", 400, 60200),
        ("GET", "/v2/Attempts?PageToken=x", 400, 60200),
        ("GET", "/v2/Attempts?PageToken=PA5-1-0", 400, 60200),
        ("GET", "/v2/Attempts?PageToken=PA0-ffffff-0", 400, 60200),
        ("GET", "/v2/Attempts/Summary?DateCreatedAfter=2026-13-01", 400, 60200),
    ],
)
def test_error_bodies(
    box: Sandbox, session: requests.Session, method: str, path: str, status: int, code: int
) -> None:
    """Each refusal has Twilio's four fields, whose status is the answer's."""
    answer = session.request(method, box.url + path)
    body = answer.json()
    assert (answer.status_code, body["code"], body["status"]) == (status, code, status)
    assert list(body) == ["code", "message", "more_info", "status"]
    assert body["more_info"].endswith(str(code))


def test_not_found_names_the_resource(box: Sandbox, session: requests.Session) -> None:
    """A 404 says which resource was not found."""
    path = "/v2/Attempts/VL" + "0" * 32
    message = session.get(box.url + path).json()["message"]
    assert message == f"The requested resource {path} was not found"


def test_headers(box: Sandbox, session: requests.Session) -> None:
    """Answers carry Twilio's headers, and each another request id."""
    first, second = (session.get(f"{box.url}/v2/Attempts/{box.world.sid(0)}") for _ in range(2))
    assert first.headers["Content-Type"] == "application/json; charset=utf-8"
    assert first.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Expose-Headers" in first.headers
    assert first.headers["Twilio-Concurrent-Requests"] == "1"
    assert first.headers["Twilio-Request-Id"] != second.headers["Twilio-Request-Id"]
    assert len(first.headers["Twilio-Request-Id"]) == 34


def test_keep_alive(box: Sandbox, session: requests.Session) -> None:
    """Many requests share a connection, errors and HEAD among them."""
    for path in ("/v2/Attempts", "/v2/Nothing", f"/v2/Attempts/{box.world.sid(0)}"):
        session.get(box.url + path)
        assert session.head(box.url + path).content == b""
    assert box.stats()["connections"] == 1
    assert box.stats()["requests"] == 6


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !!!", "Bearer abc", "Basic YTpi", "Basic é"]
)
def test_odd_credentials(box: Sandbox, raw: Callable[..., bytes], header: str) -> None:
    """Whatever is sent as credentials and is none gets Twilio's 401."""
    request = f"GET /v2/Attempts HTTP/1.1\r\nAuthorization: {header}\r\nConnection: close\r\n\r\n"
    answer = raw(box, send=request.encode("latin-1"))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b'"code":20003,"message":"Authenticate"' in answer


@pytest.mark.parametrize(
    "nonsense",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 300 + b"\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_nonsense(
    box: Sandbox,
    raw: Callable[..., bytes],
    capfd: pytest.CaptureFixture[str],
    nonsense: bytes,
) -> None:
    """What is no HTTP gets a 400 or a closed connection, and not a word on the console."""
    try:
        answer = raw(box, send=nonsense)
    except ConnectionResetError:
        # Closed with some of it unread.
        answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert raw(box, "/v2/Attempts/Summary").startswith(b"HTTP/1.1 200 ")
    assert capfd.readouterr() == ("", "")


def test_bad_line_is_told(box: Sandbox, raw: Callable[..., bytes]) -> None:
    """A request line that is none is answered in JSON."""
    assert b'"code":20001' in raw(box, send=b"hello\r\n\r\n")


def test_silence_and_talk(
    start: Callable[..., Sandbox], capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each request is written when asked for, without any secret in it."""
    box = start(verbose=True)
    auth = (box.account_sid, box.auth_token)
    requests.get(f"{box.url}/v2/Attempts/Summary?x=1", auth=auth, timeout=PATIENCE_S)
    assert capsys.readouterr() == ("", "GET /v2/Attempts/Summary 200\n")


def test_loopback_only(box: Sandbox) -> None:
    """The server listens on 127.0.0.1 and says so."""
    assert box.url.startswith("http://127.0.0.1:")
    port = int(box.url.rpartition(":")[2])
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", port), timeout=PATIENCE_S).close()


def test_stop_is_prompt() -> None:
    """Stopping ends hanging answers and idle connections at once and frees the port."""
    box = Sandbox(World(1, 10), limit=0).start()
    port = int(box.url.rpartition(":")[2])
    box.faults.add("hang")
    ended = threading.Event()

    def ask() -> None:
        auth = (box.account_sid, box.auth_token)
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{box.url}/v2/Attempts", auth=auth, timeout=10 * PATIENCE_S)
        ended.set()

    thread = threading.Thread(target=ask)
    thread.start()
    with socket.create_connection(("127.0.0.1", port)) as idle:
        until(lambda: box.stats()["requests"] > 0)
        box.stop()
        box.stop()
        idle.settimeout(PATIENCE_S)
        # A connection that nobody had accepted yet ends with a reset.
        with contextlib.suppress(ConnectionResetError):
            assert idle.recv(1) == b""
        assert ended.wait(PATIENCE_S)
        thread.join()
    with pytest.raises(RuntimeError, match="not running"):
        _ = box.url
    with Sandbox(World(1, 10), port=port) as again:
        assert again.url.endswith(f":{port}")


def test_control(box: Sandbox) -> None:
    """A program can read counts and SIDs and set faults and settings without credentials."""
    base = f"{box.url}/_sandbox"
    with requests.Session() as session:
        sids = session.get(f"{base}/attempts?offset=290&limit=50").text.splitlines()
        assert sids == list(box.world.sids(290))
        faults = ["error:503:share=0.5", {"kind": "reset", "count": 2}]
        assert session.post(f"{base}/faults", json=faults).status_code == 200
        assert box.faults.active() == [
            Fault("error", status=503, share=0.5), Fault("reset", count=2),
        ]  # fmt: skip
        assert [f["kind"] for f in session.get(f"{base}/faults").json()] == ["error", "reset"]
        session.delete(f"{base}/faults")
        assert box.faults.active() == []
        session.post(f"{base}/settings", json={"limit": 3, "latency": 0.01})
        assert (box.limit, box.latency) == (3, 0.01)
        stats = session.get(f"{base}/stats").json()
        assert (stats["requests"], stats["connections"]) == (0, 1)
        session.delete(f"{base}/stats")
        assert box.stats()["connections"] == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "faults", "{", 400),
        ("POST", "faults", '"error"', 400),
        ("POST", "faults", "[3]", 400),
        ("POST", "faults", '["nonsense"]', 400),
        ("POST", "settings", '{"colour": 1}', 400),
        ("POST", "settings", '{"limit": "x"}', 400),
        ("GET", "attempts?limit=x", "", 400),
        ("GET", "nothing", "", 404),
    ],
)
def test_control_refuses(box: Sandbox, method: str, path: str, body: str, status: int) -> None:
    """What cannot be meant is refused with a sentence and changes nothing."""
    answer = requests.request(method, f"{box.url}/_sandbox/{path}", data=body, timeout=PATIENCE_S)
    assert answer.status_code == status
    assert answer.json()["message"]
    assert (box.faults.active(), box.limit) == ([], 0)


def test_frozen_pages_are_kept(box: Sandbox, session: requests.Session) -> None:
    """A frozen world's page is rendered once, and anew as soon as a test bends an attempt."""
    url = f"{box.url}/v2/Attempts?PageSize=300"
    first = session.get(url).json()["attempts"]
    assert session.get(url).json()["attempts"] == first
    box.world.hidden.add(first[0]["sid"])
    assert session.get(url).json()["attempts"] == first[1:]
    box.world.hidden.clear()
    assert session.get(url).json()["attempts"] == first


def test_failing_override(box: Sandbox, session: requests.Session) -> None:
    """An override that raises is told in a 500, not in silence."""
    sid = box.world.sid(0)
    box.world.overrides[sid] = lambda payload, _at: {"x": payload["nowhere"]}
    answer = session.get(f"{box.url}/v2/Attempts/{sid}")
    assert answer.status_code == 500
    assert "KeyError('nowhere')" in answer.json()["message"]


def test_unknown_order() -> None:
    """An order that does not exist is refused by name."""
    with pytest.raises(ValueError, match="sideways"):
        Sandbox(World(1, 1), order="sideways")


def test_imports() -> None:
    """The sandbox imports the standard library and itself, nothing else."""
    foreign = set()
    for path in Path(etl.sandbox.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                foreign |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level != 1:
                foreign.add((node.module or "..").partition(".")[0])
    assert foreign <= sys.stdlib_module_names
    assert "socket" in foreign
