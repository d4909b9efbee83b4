"""Break HTTP for real: resets, cuts, drips, bombs."""

import contextlib
import gzip
import socket
import threading
import tracemalloc
import zlib

import pytest

from etl.errors import BadBody, BodyTooLarge, TransientFailure, Unreachable
from tests.support.harness import MakeApi
from tests.support.raw_server import (
    PATIENCE_S,
    Answer,
    RawServer,
    as_json,
    drip,
    flood,
    http,
    then_close,
    then_reset,
)

SID = "VL" + "0123456789abcdef" * 2
OK = as_json({"sid": SID})
GZIP = "Content-Encoding: gzip"
HEAD = b"HTTP/1.1 200 OK\r\n"
MB = b" " * 1_000_000
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_request_as_sent(make_api: MakeApi) -> None:
    """One attempt is one GET with Basic credentials, our name and no cookie."""
    with RawServer(as_json({"sid": SID}, 200, "Set-Cookie: a=b", "Twilio-Request-Id: RQ1")) as api:
        client = make_api(api.url)
        reply = client.attempt(SID)
        client.attempt(SID)
    assert reply.payload == {"sid": SID}
    assert reply.request_id == "RQ1"
    assert 0 < reply.answered_at - reply.sent_at < PATIENCE_S
    first, second = (request.decode().split("\r\n") for request in api.requests)
    assert first == second
    assert first[0] == f"GET /v2/Attempts/{SID} HTTP/1.1"
    assert sorted(first[1:-2]) == [
        "Accept-Encoding: identity",
        "Accept: application/json",
        "Authorization: Basic QUN4Omh1c2g=",
        f"Host: 127.0.0.1:{api.port}",
        "User-Agent: test/1",
    ]


def test_as_many_connections_as_requests_at_a_time(make_api: MakeApi) -> None:
    """Threads that come and go use each other's connections, and close ends them all."""
    both = threading.Barrier(2, timeout=PATIENCE_S)

    def together(conn: socket.socket) -> bool:
        both.wait()
        conn.sendall(OK)
        return False

    def ask(threads: int) -> None:
        asking = [threading.Thread(target=client.attempt, args=(SID,)) for _ in range(threads)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()

    with RawServer(OK, OK, together, together, OK) as api:
        client = make_api(api.url)
        ask(1)
        ask(1)
        assert api.connections == 1
        ask(2)
        ask(1)
        assert (api.connections, len(api.requests)) == (2, 5)
        client.close()
        assert [api.ended.acquire(timeout=PATIENCE_S) for _ in range(2)] == [True, True]


def test_stale_connection_is_replaced(make_api: MakeApi) -> None:
    """A connection that the server closed meanwhile costs no request."""
    with RawServer(then_close(OK)) as api:
        client = make_api(api.url)
        client.attempt(SID)
        assert api.ended.acquire(timeout=PATIENCE_S)
        client.attempt(SID)
    assert (api.connections, len(api.requests)) == (2, 2)


@pytest.mark.parametrize(("idle_s", "connections"), [(0.0, 2), (3_600.0, 1)])
def test_idle_connection_is_replaced(make_api: MakeApi, idle_s: float, connections: int) -> None:
    """A connection unused for too long is not trusted, even if it looks alive."""
    with RawServer(OK) as api:
        client = make_api(api.url, idle_s=idle_s)
        client.attempt(SID)
        client.attempt(SID)
    assert api.connections == connections


CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (then_close(b""), "RemoteDisconnected"),
        (then_reset(b""), "ConnectionResetError"),
        (then_close(b"HTTP/1.1 200 OK\r\nContent-Le"), "JSON"),
        (then_close(b"HTTP/1.1 2"), "ProtocolError: BadStatusLine"),
        (then_close(b"SSH-2.0-OpenSSH_9.9\r\n"), "ProtocolError: BadStatusLine"),
        (then_close(CUT), "IncompleteRead"),
        (then_reset(CUT), "ProtocolError: ConnectionResetError"),
        (then_close(CHUNKED + b"10\r\n{"), "ProtocolError: IncompleteRead"),
        (then_close(CHUNKED + b"2\r\n{}\r\n"), "ProtocolError: IncompleteRead"),
        (then_close(CHUNKED + b"nonsense\r\n"), "ProtocolError: IncompleteRead"),
        (then_close(CHUNKED + b"-5\r\n{}\r\n0\r\n\r\n"), "no whole answer came: ValueError."),
        (then_close(CHUNKED + b"-1\r\n{}\r\n0\r\n\r\n"), "ProtocolError: IncompleteRead"),
        (then_close(CHUNKED + b"0\r\n-5\r\n" * 99 + b"-80000000\r\n"), "JSON"),
        (http(200, b"no gzip at all", GZIP), "damaged gzip"),
        (http(200, gzip.compress(b"{}" * 500, mtime=0)[:-9], GZIP), "damaged gzip"),
    ],
)
def test_broken_answer_is_transient(make_api: MakeApi, answer: Answer, name: str) -> None:
    """An answer that breaks off passes; the message names the exact class; one request is sent."""
    with RawServer(answer) as api:
        with pytest.raises((TransientFailure, BadBody)) as caught:
            make_api(api.url).attempt(SID)
        assert len(api.requests) == 1
    assert name in str(caught.value)
    assert isinstance(caught.value, BadBody) is (name == "JSON")
    assert not isinstance(caught.value, Unreachable)
    assert f"GET /v2/Attempts/{SID}" in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("answer", [CUT, CHUNKED + b"-5\r\n", CHUNKED + b"-1\r\n" + b"x" * 9999])
def test_broken_body_of_an_error_keeps_its_status(make_api: MakeApi, answer: bytes) -> None:
    """A 503 whose body is cut, or in chunks of less than nothing, is still a 503."""
    unwell = then_close(answer.replace(b"200", b"503"))
    with RawServer(unwell) as api, pytest.raises(TransientFailure, match="answered 503"):
        make_api(api.url).attempt(SID)


def test_a_chunk_without_an_end_is_not_read(make_api: MakeApi) -> None:
    """A chunk of -1 bytes, which http.client reads to the end of the stream, ends in flat memory."""
    with RawServer(flood(CHUNKED + b"-1\r\n", MB, times=1000)) as api:
        client = make_api(api.url)
        tracemalloc.start()
        try:
            with pytest.raises(TransientFailure, match="IncompleteRead"):
                client.attempt(SID)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 8_000_000


def test_a_bug_of_ours_stays_one(make_api: MakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that our own code raises while it reads is not taken for the network's."""
    monkeypatch.setattr("etl.extract.wire._read", None)
    with RawServer(OK) as api, pytest.raises(TypeError):
        make_api(api.url).attempt(SID)


def test_what_is_unexpected_before_anything_was_heard_is_a_bug(make_api: MakeApi) -> None:
    """An error that no answer can have caused is not taken for the network's."""
    with RawServer(OK) as api:
        client = make_api(api.url)
        client._one["X-Bad"] = object()  # type: ignore[assignment]  # as a mistake would
        with pytest.raises(TypeError):
            client.attempt(SID)
        assert api.requests == []


DRIPS = [
    drip(b"", b"H"),
    drip(HEAD + b"X-Slow: ", b"a"),
    drip(HEAD, b"X-Slow: a\r\n"),
    drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    drip(HEAD + b"Content-Length: 9999\r\n\r\n", b" "),
    drip(HEAD + b"\r\n", b" "),
    drip(CHUNKED, b"1\r\n \r\n"),
    drip(CHUNKED + b"ff", b"f"),
    drip(CHUNKED + b"0\r\n", b"X-Trailer: a\r\n"),
]


@pytest.mark.parametrize("answer", DRIPS)
def test_drip_ends_at_the_total_deadline(make_api: MakeApi, answer: Answer) -> None:
    """A server that always sends one more byte is left at the deadline."""
    with RawServer(answer) as api:
        client = make_api(api.url, total_s=0.4)
        with pytest.raises((TransientFailure, BodyTooLarge)) as caught:
            client.attempt(SID)
    assert "total deadline of 0.4 s" in str(caught.value) or "100 headers" in str(caught.value)


def test_silence_ends_at_the_read_timeout(make_api: MakeApi) -> None:
    """A server that says nothing is left after the read timeout, and the next call connects."""

    def silent(conn: socket.socket) -> bool:
        return bool(conn.recv(1)) or True

    with RawServer(silent, OK) as api:
        client = make_api(api.url, read_s=1.0)
        with pytest.raises(TransientFailure, match="ReadTimeoutError"):
            client.attempt(SID)
        assert client.attempt(SID).payload == {"sid": SID}


def _bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return b"".join(packer.compress(MB) for _ in range(50)) + packer.flush()


@pytest.mark.parametrize(
    "answer",
    [
        http(200, _bomb(), GZIP),
        flood(HEAD + b"Content-Length: 1000000000\r\n\r\n", MB, times=1000),
        flood(HEAD + b"\r\n", MB, times=1000),
        flood(CHUNKED, b"f4240\r\n" + MB + b"\r\n", times=1000),
        flood(CHUNKED, b"8\r\n        \r\n" * 10_000, times=1000),
        flood(HEAD + b"X-Large: ", MB, times=10),
        flood(HEAD, b"X: a\r\n", times=1000),
        flood(CHUNKED + b"1;", MB, times=10),
        flood(HEAD + GZIP.encode() + b"\r\n\r\n", gzip.compress(b"") * 1000, times=1000),
    ],
    ids=["bomb", "length", "no-length", "chunk", "chunks", "header", "headers", "size", "members"],
)
def test_too_large_is_refused_in_flat_memory(make_api: MakeApi, answer: Answer) -> None:
    """Whatever is too large ends early, and no more than a few megabytes are held."""
    with RawServer(answer) as api:
        client = make_api(api.url)
        tracemalloc.start()
        try:
            with pytest.raises(BodyTooLarge):
                client.attempt(SID)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # The limit is 1 MB; its pieces and what joins them come on top.
    assert peak < 8_000_000


def test_page_may_be_larger_than_a_record(make_api: MakeApi) -> None:
    """A page is asked for in gzip, and may have 16 times the bytes; one record may not."""
    found = {"attempts": ["x" * 2_000_000], "meta": {"next_page_url": None}}
    plain = as_json(found)
    packed = http(200, gzip.compress(plain.split(b"\r\n\r\n", 1)[1]), GZIP)
    with RawServer(packed, plain) as api:
        client = make_api(api.url)
        page = client.page(page_size=1, after=None, before=None)
        assert page.payloads == ("x" * 2_000_000,)
        assert b"Accept-Encoding: gzip" in api.requests[0]
        with pytest.raises(BodyTooLarge, match="1000000 bytes"):
            client.attempt(SID)


def test_gzip_in_several_members(make_api: MakeApi) -> None:
    """A gzip body of two members is one document; without bytes it is none."""
    body = gzip.compress(b'{"a":') + gzip.compress(b"1}")
    with RawServer(http(200, body, GZIP), http(200, b"", GZIP)) as api:
        client = make_api(api.url)
        assert client.attempt(SID).payload == {"a": 1}
        with pytest.raises(BadBody, match="0 bytes"):
            client.attempt(SID)


def test_unasked_encoding_is_refused(make_api: MakeApi) -> None:
    """An encoding that was not asked for is no answer of the API."""
    answer = http(200, b"x", "Content-Encoding: br")
    with RawServer(answer) as api, pytest.raises(BadBody, match="encoding"):
        make_api(api.url).attempt(SID)


def test_what_follows_an_early_answer_is_not_the_next_one(make_api: MakeApi) -> None:
    """Behind a 103 comes the answer itself; it is never read as that to a later request."""
    late = threading.Event()

    def early(conn: socket.socket) -> bool:
        conn.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        assert late.wait(5)
        with contextlib.suppress(OSError):
            conn.sendall(as_json({"sid": "the first"}))
        return False

    with RawServer(early, as_json({"sid": "the second"})) as api:
        client = make_api(api.url)
        with pytest.raises(BadBody, match="103"):
            client.attempt(SID)
        late.set()
        assert client.attempt(SID).payload == {"sid": "the second"}
    assert api.connections == 2


def test_close_twice_and_go_on(make_api: MakeApi) -> None:
    """Closing ends the connections, and may be done again."""
    with RawServer(OK) as api:
        client = make_api(api.url)
        client.attempt(SID)
        client.close()
        assert api.ended.acquire(timeout=PATIENCE_S)
        client.close()
    assert api.connections == 1
