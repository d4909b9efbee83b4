"""Observe each fault as a client does: with requests, or on a bare socket."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import requests

from etl.sandbox import KINDS, Fault, Faults, Sandbox
from tests.support.harness import PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import Callable

FETCH, LIST, SUMMARY = "fetch", "list", "summary"
# The kinds that the tests below observe; test_all_kinds compares them with what there is.
SAID = {
    "throttle", "error", "html", "empty", "redirect", "array", "null", "deep", "nan", "body",
    "wrong_sid", "no_sid", "duplicate_keys", "foreign_next", "self_next", "endless_next",
    "not_found", "unauthorized", "forbidden",
}  # fmt: skip
SENT = {
    "reset", "reset_body", "short", "cut_chunks", "endless_chunks", "bad_gzip", "gzip_bomb",
    "huge", "big_header", "drip_headers", "drip_body", "hang", "slow",
}  # fmt: skip


def path_of(box: Sandbox, kind: str = FETCH) -> str:
    """Return a path of a kind of request; fetches are of the third attempt."""
    paths = {LIST: "/v2/Attempts?PageSize=20", SUMMARY: "/v2/Attempts/Summary"}
    return paths.get(kind, f"/v2/Attempts/{box.world.sid(3)}")


def test_all_kinds() -> None:
    """Every kind there is has its test here."""
    assert set(KINDS) == SAID | SENT


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("throttle", 429, 20429),
        ("error", 500, 20500),
        ("error:503", 503, 20500),
        ("error:504:code=20504", 504, 20504),
        ("not_found", 404, 20404),
        ("unauthorized", 401, 20003),
        ("forbidden", 403, 20403),
        ("forbidden:403:code=70051", 403, 70051),
    ],
)
def test_refusals(
    box: Sandbox, session: requests.Session, fault: str, status: int, code: int
) -> None:
    """A fault that refuses does so in Twilio's words, and the next request may pass."""
    box.faults.add(Fault.parse(fault + ":count=1"))
    answer = session.get(box.url + path_of(box))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert session.get(box.url + path_of(box)).status_code == 200
    assert box.stats()["by_status"] == {status: 1, 200: 1}
    assert sum(box.stats()["faults"].values()) == 1


@pytest.mark.parametrize(
    "text", ["1", "0.5", "-3", "1e11", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"]
)
def test_retry_after(box: Sandbox, session: requests.Session, text: str) -> None:
    """Retry-After is sent as it was written, however odd."""
    box.faults.add(f"throttle:{text}")
    assert session.get(box.url + path_of(box)).headers["Retry-After"] == text


@pytest.mark.parametrize("status", [200, 502])
def test_html(box: Sandbox, session: requests.Session, status: int) -> None:
    """A proxy's page has any status and is no JSON."""
    box.faults.add(f"html:{status}")
    answer = session.get(box.url + path_of(box))
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.text.startswith("<!doctype html>")


def test_redirect(box: Sandbox, session: requests.Session) -> None:
    """A redirect points at another host by default, and where it was told."""
    box.faults.add("redirect:count=1")
    box.faults.add("redirect:http://127.0.0.1:9/x?y=1:status=307")
    first, second = (session.get(box.url + path_of(box), allow_redirects=False) for _ in range(2))
    assert first.status_code == 302
    assert first.headers["Location"].startswith("https://elsewhere.example.com/")
    assert second.status_code == 307
    assert second.headers["Location"] == "http://127.0.0.1:9/x?y=1"


def test_odd_documents(box: Sandbox, session: requests.Session) -> None:
    """Bodies of the wrong shape arrive whole, with status 200."""
    true = box.world.attempt(3)
    url = box.url + path_of(box)

    def struck(fault: str) -> bytes:
        box.faults.clear()
        box.faults.add(fault)
        answer = session.get(url)
        assert answer.status_code == 200
        return answer.content

    assert struck("empty") == b""
    assert struck("null") == b"null"
    assert json.loads(struck("array")) == [true]
    assert struck("deep").startswith(b"[[[[[[[[")
    assert math.isnan(json.loads(struck("nan"))["price"]["value"])
    assert struck('body:{"a": "b:c=d"}') == b'{"a": "b:c=d"}'
    assert json.loads(struck("wrong_sid")) == box.world.attempt(4)
    assert json.loads(struck("no_sid")) == {k: v for k, v in true.items() if k != "sid"}
    assert struck("duplicate_keys").count(b'"sid":') == 2


def test_odd_pages(box: Sandbox, session: requests.Session) -> None:
    """Next pages lead elsewhere, to themselves, or on for ever; other requests are spared."""
    url = box.url + path_of(box, LIST)

    def following(fault: str) -> str:
        box.faults.clear()
        box.faults.add(fault)
        assert session.get(box.url + path_of(box)).json() == box.world.attempt(3)
        page = session.get(url).json()
        assert len(page["attempts"]) == 20
        return str(page["meta"]["next_page_url"])

    assert following("foreign_next").startswith("https://elsewhere.example.com/")
    assert following("foreign_next:http://user@127.0.0.1:9/") == "http://user@127.0.0.1:9/"
    same = following("self_next")
    assert session.get(same).json()["meta"]["next_page_url"] == same
    urls = [following("endless_next")]
    for _ in range(30):
        urls.append(session.get(urls[-1]).json()["meta"]["next_page_url"])
    assert len(set(urls)) == 31


@pytest.mark.parametrize("kind", [FETCH, LIST, SUMMARY])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("reset", requests.ConnectionError),
        ("reset_body", (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)),
        ("short", requests.exceptions.ChunkedEncodingError),
        ("cut_chunks", requests.exceptions.ChunkedEncodingError),
        ("bad_gzip", requests.exceptions.ContentDecodingError),
    ],
)
def test_broken_answers(
    box: Sandbox,
    session: requests.Session,
    fault: str,
    error: type[Exception] | tuple[type[Exception], ...],
    kind: str,
) -> None:
    """A broken answer raises what requests raises, and the next request passes."""
    box.faults.add(Fault(fault, count=1))
    with pytest.raises(error):
        session.get(box.url + path_of(box, kind))
    assert session.get(box.url + path_of(box, kind)).status_code == 200
    assert box.stats()["by_status"] == ({200: 2} if fault == "bad_gzip" else {0: 1, 200: 1})


def test_reset_is_a_reset(box: Sandbox, raw: Callable[..., bytes]) -> None:
    """A reset comes as RST, before the headers or after some of the body."""
    box.faults.add("reset:count=1")
    with pytest.raises(ConnectionResetError):
        raw(box, path_of(box))
    box.faults.add("reset_body:count=1")
    with pytest.raises(ConnectionResetError):
        raw(box, path_of(box))


def test_cut_bodies(box: Sandbox, raw: Callable[..., bytes]) -> None:
    """A short body is half of what was announced, cut chunks lack the last one."""
    box.faults.add("short:count=1")
    head, _, body = raw(box, path_of(box)).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body) * 2}".encode()[:-1] in head
    box.faults.add("cut_chunks:count=1")
    head, _, body = raw(box, path_of(box)).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    assert not body.endswith(b"0\r\n\r\n")


def test_gzip_bomb(box: Sandbox, session: requests.Session) -> None:
    """A bomb is valid gzip, a thousand times smaller than what comes out of it."""
    box.faults.add("gzip_bomb:5000000")
    with session.get(box.url + path_of(box), stream=True) as answer:
        packed = answer.raw.read(decode_content=False)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(packed) < 10_000
    assert len(gzip.decompress(packed)) == 5 << 20


def test_default_bomb_is_big(box: Sandbox, session: requests.Session) -> None:
    """Unless told otherwise a bomb of 300 KB holds 289 MB."""
    box.faults.add("gzip_bomb")
    with session.get(box.url + path_of(box), stream=True) as answer:
        packed = answer.raw.read(decode_content=False)
    assert len(packed) < 400_000
    unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert len(unpack.decompress(packed, 1_000_000)) == 1_000_000
    assert unpack.unconsumed_tail


def test_sizes(box: Sandbox, session: requests.Session, raw: Callable[..., bytes]) -> None:
    """Huge bodies and headers have the size that was asked for."""
    box.faults.add("huge:3000000:count=1")
    assert len(session.get(box.url + path_of(box)).content) == 3_000_000
    box.faults.add("big_header:200000:count=1")
    assert len(raw(box, path_of(box)).partition(b"\r\n\r\n")[0]) > 200_000
    box.faults.add("big_header:count=1")
    with pytest.raises(requests.ConnectionError):
        session.get(box.url + path_of(box))


def test_endless_chunks(box: Sandbox, session: requests.Session) -> None:
    """Endless chunks go on until the client has had enough."""
    box.faults.add("endless_chunks:count=1")
    with session.get(box.url + path_of(box), stream=True) as answer:
        for size, part in enumerate(answer.iter_content(100_000)):
            assert part.isspace()
            if size == 50:
                break
    assert session.get(box.url + path_of(box)).status_code == 200


@pytest.mark.parametrize("fault", ["drip_headers:0.02", "drip_body:0.02"])
def test_drips(box: Sandbox, raw: Callable[..., bytes], fault: str) -> None:
    """Drips keep a read timeout from ever firing, until the server stops."""
    box.faults.add(fault)

    def drops(received: bytes) -> bytes:
        return received.partition(b"\r\n\r\n" if "body" in fault else b"X-Drip:")[2]

    def stop(received: bytes) -> None:
        if len(drops(received)) >= 20:
            box.stop()

    received = raw(box, path_of(box), watch=stop)
    assert drops(received).isspace()
    assert len(drops(received)) >= 20


def test_hang(box: Sandbox, session: requests.Session) -> None:
    """Nothing comes of a hanging request, and the server notices when the client leaves."""
    box.faults.add("hang:count=1")
    with pytest.raises(requests.ReadTimeout):
        session.get(box.url + path_of(box), timeout=(PATIENCE_S, 0.2))
    until(lambda: box.stats()["by_status"])
    assert box.stats()["by_status"] == {0: 1}


def test_bounded_hang(box: Sandbox, raw: Callable[..., bytes]) -> None:
    """A hang with an end closes the connection without a byte."""
    box.faults.add("hang:0.2")
    assert raw(box, path_of(box)) == b""


def test_slow(box: Sandbox, session: requests.Session) -> None:
    """A slow answer is the right one, later."""
    box.faults.add("slow:0.2")
    answer = session.get(box.url + path_of(box))
    assert answer.json() == box.world.attempt(3)
    assert answer.elapsed >= timedelta(seconds=0.2)


def test_order_of_checks(start: Callable[..., Sandbox], raw: Callable[..., bytes]) -> None:
    """Wrong credentials and a used-up allowance come before faults."""
    box = start(limit=1)
    box.faults.add("error:503")
    nobody = b"GET /v2/Attempts HTTP/1.1\r\nConnection: close\r\n\r\n"
    answers = [raw(box, send=nobody), raw(box, path_of(box)), raw(box, path_of(box))]
    assert [answer[9:12] for answer in answers] == [b"401", b"503", b"429"]
    assert box.stats()["faults"] == {"error": 1}


def test_share_repeats() -> None:
    """A share strikes about that share of the requests, the same ones with the same seed."""
    runs = []
    for seed in (1, 1, 2):
        faults = Faults(seed)
        faults.add("error:share=0.25")
        runs.append([faults.draw(FETCH, None) is not None for _ in range(2000)])
    assert runs[0] == runs[1] != runs[2]
    assert 400 < sum(runs[0]) < 600


def test_matching() -> None:
    """A fault strikes its requests and its SID, in the order of adding, up to its count."""
    faults = Faults()
    faults.add(Fault("error", match=LIST, count=1))
    faults.add(Fault("html", sid="VLx"))
    faults.add("null:match=summary")
    asked = [(LIST, None), (LIST, None), (FETCH, "VLx"), (FETCH, "VLy"), (SUMMARY, None)]
    drawn = [faults.draw(kind, sid) for kind, sid in asked]
    assert [fault and fault.kind for fault in drawn] == ["error", None, "html", None, "null"]
    assert [fault.kind for fault in faults.active()] == ["html", "null"]
    faults.clear()
    assert faults.draw(FETCH, "VLx") is None


def test_parse() -> None:
    """A fault in one line says the same as one in Python."""
    assert Fault.parse("error:503:share=0.1") == Fault("error", status=503, share=0.1)
    assert Fault.parse("reset:match=list:count=3") == Fault("reset", match=LIST, count=3)
    assert Fault.parse("throttle:30") == Fault("throttle", retry_after="30")
    assert Fault.parse("redirect:http://h.example.com:8/") == Fault(
        "redirect", location="http://h.example.com:8/"
    )


@pytest.mark.parametrize(
    "text",
    ["", "fire", "error:abc", "error:share=2", "error:share=x", "error:match=all",
     "error:colour=red", "error:99", "error:count=1.5"],
)  # fmt: skip
def test_unreadable_faults(text: str) -> None:
    """What is no fault is refused."""
    with pytest.raises(ValueError, match=r"fault|must"):
        Fault.parse(text)
