"""Sort what the API answers: payloads, refusals, pauses, summaries."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from etl.errors import (
    BadBody,
    ConfigError,
    CredentialsRefused,
    EtlError,
    MalformedSid,
    NotFound,
    Throttled,
    TransientFailure,
)
from etl.extract import Api, retry_after_ms
from tests.support.raw_server import RawServer, as_json, http, refusal

SID = "VL" + "0123456789abcdef" * 2
DATE = "Sun, 22 Nov 2026 12:00:00 GMT"
NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
PAGE = b"<html>+15005550006 someone@example.com</html>"
HTML = "Content-Type: text/html; charset=utf-8"
Connect = Callable[[RawServer], Api]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Build clients for raw servers, and close them."""
    built = []

    def build(server: RawServer) -> Api:
        api = Api(
            server.url, user="u", password="hush", credential_name="TWILIO_API_KEY", user_agent="t"
        )
        built.append(api)
        return api

    yield build
    for api in built:
        api.close()


def _error(connect: Connect, answer: bytes) -> EtlError:
    with RawServer(answer) as server:
        with pytest.raises(EtlError) as caught:
            connect(server).attempt(SID)
        assert len(server.requests) == 1
    return caught.value


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (refusal(401, 20003, "Authenticate"), CredentialsRefused, "401 (code 20003)"),
        (http(401, PAGE, HTML), CredentialsRefused, "TWILIO_API_KEY"),
        (http(401), CredentialsRefused, "TWILIO_API_KEY"),
        (refusal(403, 20403), CredentialsRefused, "the account is suspended"),
        (refusal(403, 70051), CredentialsRefused, "lacks the permission"),
        (refusal(403, 1), CredentialsRefused, "403 (code 1) to the credential TWILIO_API_KEY"),
        (http(403, PAGE, HTML), BadBody, "45 bytes (text/html, status 403)"),
        (as_json({"error": "forbidden"}, 403), BadBody, "application/json"),
        (refusal(404, 20404), NotFound, "404 (code 20404): it knows no such resource"),
        (refusal(404, 1, "Odd."), BadBody, "404 (code 1): Odd."),
        (http(404, PAGE, HTML), BadBody, "text/html, status 404"),
        (refusal(429, 20429), Throttled, "429 (code 20429)"),
        (http(429), Throttled, "60 s"),
        (refusal(500, 20500, "Oops", "Twilio-Request-Id: RQ77"), TransientFailure, "request RQ77"),
        (http(502, PAGE, HTML), TransientFailure, "answered 502."),
        (http(503), TransientFailure, "answered 503."),
        (http(504), TransientFailure, "answered 504."),
        (http(599), TransientFailure, "answered 599."),
        (http(408), TransientFailure, "answered 408."),
        (http(425), TransientFailure, "answered 425."),
        (refusal(400, 60200, "Invalid parameter"), BadBody, "400 (code 60200): Invalid parameter."),
        (http(410, b"x" * 100_000), BadBody, "an unread body (no content type, status 410)"),
        (http(204), BadBody, "204"),
        (http(206, b"{}"), BadBody, "206"),
    ],
)
def test_status_is_sorted(
    connect: Connect, answer: bytes, kind: type[EtlError], words: str
) -> None:
    """Each status means one error, told without a body and without a secret."""
    error = _error(connect, answer)
    assert type(error) is kind
    assert words in str(error)
    assert f"GET /v2/Attempts/{SID}" in str(error)
    for secret in ("hush", "5005550006", "example.com", "<html>"):
        assert secret not in str(error)


def test_message_of_an_error_is_cleaned(connect: Connect) -> None:
    """Of Twilio's own words, numbers, addresses and queries are taken out, and the end is cut."""
    said = (
        "To +1 (500) 555-0006 or 15005550006, a@b.example, /x?To=5 \x1b[1m code 60200 " + "z" * 300
    )
    error = _error(connect, refusal(400, 60200, said))
    assert "To [removed] or [removed], [removed] /x[removed]  [1m code 60200 zzz" in str(error)
    assert len(str(error)) < 350


def test_request_id_is_not_trusted(connect: Connect) -> None:
    """A request number that does not look like one is left out."""
    error = _error(connect, http(500, b"", "Twilio-Request-Id: RQ <b>+15005550006</b>"))
    assert "answered 500." in str(error)


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        (None, None),
        ("", None),
        ("0", 1000),
        ("1", 1000),
        ("2.5", 2500),
        (".5", 1000),
        (" 7 ", 7000),
        ("+30", 30_000),
        ("-3", 1000),
        ("1e11", 900_000),
        ("100000000000", 900_000),
        ("9" * 5000, 900_000),
        ("1e9999", 900_000),
        ("-1e9999", 1000),
        ("1e-9999", 1000),
        ("899.9999", 899_999),
        ("Sun, 22 Nov 2026 12:01:00 GMT", 60_000),
        ("Sun, 22 Nov 2026 12:01:00 -0000", 60_000),
        ("Sunday, 22-Nov-26 12:01:00 GMT", 60_000),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 1000),
        ("Sun, 22 Nov 2076 12:00:00 GMT", 900_000),
        ("Sun, 99 Nov 2026 12:00:00 GMT", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("-Infinity", None),
        ("1_000", None),
        ("0x10", None),
        ("1,5", None),
        ("٣", None),
        ("5 seconds", None),
        ("\x00", None),
    ],
)
def test_retry_after_is_read(header: str | None, pause: int | None) -> None:
    """Seconds, decimals and dates count, between 1 s and 15 min; garbage does not."""
    assert retry_after_ms(header, date=DATE) == pause


@pytest.mark.parametrize(
    ("date", "pause"),
    [
        ("Sun, 22 Nov 2026 12:00:00 GMT", 30_000),
        ("Sun, 22 Nov 2026 13:00:00 +0100", 30_000),
        ("Sunday, 22-Nov-26 12:00:20 GMT", 10_000),
        ("Sun Nov 22 12:00:29 2026", 1000),
        (" Sun, 22 Nov 2026 12:00:00 -0000 ", 30_000),
        ("Sun, 22 Nov 2026 12:01:00 GMT", 1000),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 900_000),
        ("Sun, 22 Nov 2026 12:00:00 +99999999999999", None),
        ("Sun, 22 Nov 2026 12:00:00 GMT, Sun, 22 Nov 2026 12:00:00 GMT", 30_000),
        ("1795348800", None),
        ("now", None),
        ("", None),
        (None, None),
    ],
)
def test_a_date_to_come_back_counts_from_the_answers_own(
    date: str | None, pause: int | None
) -> None:
    """A date is read by its writer's clock. Without that clock's time it says nothing."""
    assert retry_after_ms("Sun, 22 Nov 2026 12:00:30 GMT", date=date) == pause
    assert retry_after_ms("7", date=date) == 7000


def test_throttled_carries_the_pause(connect: Connect) -> None:
    """A 429 hands on the pause that it asked for, and none if it asked for none."""
    for header, pause in (("Retry-After: 2.5", 2500), ("Retry-After: soon", None)):
        error = _error(connect, refusal(429, 20429, "Too many", header))
        assert isinstance(error, Throttled)
        assert error.retry_after_ms == pause


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"[]", []),
        (b"null", None),
        (b'"x"', "x"),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        (b'{"a":1,"a":2}', {"a": 2}),
        (b'{"a":0.10}', {"a": Decimal("0.10")}),
        (b'{"a":[NaN,Infinity,-Infinity]}', {"a": ["NaN", "Infinity", "-Infinity"]}),
        (b'{"a":1e400}', {"a": Decimal("1e400")}),
        (b'{"a":1e99999999999999999999}', {"a": "1e99999999999999999999"}),
        (b'{"a":"\\ud800\\u0000"}', {"a": "\ud800\x00"}),
        (b" \n{}\n", {}),
    ],
)
def test_json_is_parsed_as_sent(connect: Connect, body: bytes, payload: object) -> None:
    """Any JSON comes through: fractions exact, odd constants by name, nothing judged."""
    with RawServer(http(200, body)) as server:
        found = connect(server).attempt(SID).payload
    assert (found, str(found)) == (payload, str(payload))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{} {}",
        PAGE,
        b"\xff\xfe{\x00}\x00",
        b'{"a":"\xff"}',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"9" * 5000,
        b'{"a":"\n"}',
    ],
    ids=["empty", "cut", "two", "html", "utf-16", "no utf-8", "deep", "deeper", "digits", "raw"],
)
def test_what_is_no_json_is_a_bad_body(connect: Connect, body: bytes) -> None:
    """What cannot be parsed is described by size and type, and not quoted."""
    error = _error(connect, http(200, body, HTML))
    assert type(error) is BadBody
    assert f"{len(body)} bytes (text/html, status 200), which is not JSON" in str(error)
    assert "5005550006" not in str(error)


@pytest.mark.parametrize(
    "sid",
    [
        "",
        " ",
        f"{SID}\n",
        f" {SID}",
        SID.lower(),
        SID[:-1],
        SID + "0",
        "VE" + SID[2:],
        "VL" + "g" * 32,
        "VL" + "٣" * 32,
        "../Services",
        "Summary",
        f"{SID}?x=1",
        "%2e%2e",
        "💥" * 100,
        "\ud800",
        "'; DROP TABLE attempt_queue; --",
    ],
)
def test_malformed_sid_is_refused_before_a_url_is_built(connect: Connect, sid: str) -> None:
    """What is no SID causes no request; the value is quoted, escaped and cut."""
    with RawServer(http(200, b"{}")) as server:
        with pytest.raises(MalformedSid) as caught:
            connect(server).attempt(sid)
        assert server.connections == 0
    assert len(str(caught.value)) < 160
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()


def test_summary(connect: Connect) -> None:
    """The counts of a window are integers, the rate an exact decimal."""
    found = {
        "total_attempts": 11,
        "total_converted": "9",
        "total_unconverted": 2,
        "conversion_rate_percentage": "81.818181818",
    }
    with RawServer(as_json(found)) as server:
        summary = connect(server).summary(
            after=NOW.astimezone(timezone(timedelta(hours=5))),
            before=NOW + timedelta(microseconds=1),
            service_sid="VA1",
            channel="sms",
            country="CO",
            destination_prefix="+57300",
        )
    assert (summary.total, summary.converted, summary.unconverted) == (11, 9, 2)
    assert summary.rate == Decimal("81.818181818")
    assert 0 < summary.answered_at - summary.sent_at < 5
    (path,) = server.paths()
    assert path == (
        "/v2/Attempts/Summary?DateCreatedAfter=2026-11-22T12%3A00%3A00Z"
        "&DateCreatedBefore=2026-11-22T12%3A00%3A01Z&VerifyServiceSid=VA1&Channel=sms&Country=CO"
        "&DestinationPrefix=%2B57300"
    )


@pytest.mark.parametrize("rate", [None, "", "NaN", "inf", "n/a", [1]])
def test_summary_without_a_rate(connect: Connect, rate: object) -> None:
    """A rate that cannot be read is None; the counts stand."""
    found = {"total_attempts": 0, "total_converted": 0, "total_unconverted": 0}
    with RawServer(as_json(found | {"conversion_rate_percentage": rate})) as server:
        summary = connect(server).summary(after=None, before=None)
    assert (summary.total, summary.rate) == (0, None)
    assert server.paths() == ["/v2/Attempts/Summary"]


@pytest.mark.parametrize(
    "total",
    [None, -1, True, "x", 1.5, [], 10**16, 10**4000, "9" * 5000],
    ids=lambda total: ascii(total)[:5] if total != 10**4000 else "endless",
)
def test_what_is_no_summary_is_a_bad_body(connect: Connect, total: object) -> None:
    """Counts that are no counts are not the API's."""
    found = {"total_attempts": total, "total_converted": 0, "total_unconverted": 0}
    answers: list[object] = [found, [], None, {}]
    for answer in answers:
        with RawServer(as_json(answer)) as server, pytest.raises(BadBody, match="no summary"):
            connect(server).summary(after=None, before=None)


def test_naive_time_is_a_mistake(connect: Connect) -> None:
    """A window without a time zone is the caller's mistake, and nothing is sent."""
    with RawServer(http(200, b"{}")) as server:
        with pytest.raises(ValueError, match="aware"):
            connect(server).summary(after=NOW.replace(tzinfo=None), before=None)
        assert server.connections == 0


@pytest.mark.parametrize(
    "url", ["", "api.example", "ftp://h", "https://", "http://h:0", "http://["]
)
def test_unusable_address_is_a_wrong_setting(url: str) -> None:
    """An address that is none stops at the start."""
    with pytest.raises(ConfigError, match="VERIFY_ETL_API_URL"):
        Api(url, user="u", password="p", credential_name="K", user_agent="t")
