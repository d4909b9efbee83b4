"""Follow a list: only its own next page, and credentials to nobody else."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from etl.errors import ApiContractBroken, BadBody, NotFound
from etl.extract import Api
from tests.support.raw_server import RawServer, as_json, refusal

NEXT = "{url}/v2/Attempts?PageSize=2&Page=1&PageToken=PT1"


def _page(next_url: object, *attempts: object) -> bytes:
    return as_json(
        {"meta": {"key": "attempts", "next_page_url": next_url}, "attempts": list(attempts)},
        200,
        "Twilio-Request-Id: RQ1",
    )


@pytest.fixture
def other() -> Iterator[RawServer]:
    """Listen as somebody else, and see at the end that nobody called."""
    with RawServer(_page(None)) as server:
        yield server
        assert server.connections == 0


def _api(server: RawServer, path: str = "") -> Api:
    return Api(server.url + path, user="u", password="p", credential_name="K", user_agent="t")


def test_first_page_carries_the_filters() -> None:
    """The first page is asked for with its size and window, and handed over as it came."""
    with RawServer(_page(None, {"sid": "a"}, 1)) as server:
        api = _api(server)
        page = api.page(
            page_size=1000,
            after=datetime(2026, 11, 1, tzinfo=UTC),
            before=datetime(2026, 11, 2, tzinfo=UTC),
            service_sid="VA1",
            verification_sid="VE1",
        )
        api.close()
    assert (page.payloads, page.next_url, page.request_id) == (({"sid": "a"}, 1), None, "RQ1")
    assert 0 < page.answered_at - page.sent_at < 5
    (path,) = server.paths()
    assert path == (
        "/v2/Attempts?PageSize=1000&DateCreatedAfter=2026-11-01T00%3A00%3A00Z"
        "&DateCreatedBefore=2026-11-02T00%3A00%3A00Z&VerifyServiceSid=VA1&VerificationSid=VE1"
    )


@pytest.mark.parametrize("root", ["", "/mock", "/mock/"])
def test_next_page_is_followed(root: str) -> None:
    """The address of the next page is used as given, under a path prefix too, until null."""
    with RawServer(_page(None, 2)) as server:
        following = NEXT.format(url=server.url + root.rstrip("/"))
        server._answers = (_page(following, 1), _page(None, 2))
        api = _api(server, root)
        page = api.page(page_size=2, after=None, before=None)
        assert page.next_url == following
        assert api.next_page(following).payloads == (2,)
        api.close()
    assert server.paths()[1] == f"{root.rstrip('/')}/v2/Attempts?PageSize=2&Page=1&PageToken=PT1"
    assert server.connections == 1


HOSTILE = [
    "{other}/v2/Attempts?Page=1",
    "http://127.0.0.1/v2/Attempts?Page=1",
    "http://localhost:{port}/v2/Attempts?Page=1",
    "https://127.0.0.1:{port}/v2/Attempts?Page=1",
    "http://u:p@127.0.0.1:{port}/v2/Attempts?Page=1",
    "http://127.0.0.1:{port}@{host}/v2/Attempts?Page=1",
    "http://{host}#@127.0.0.1:{port}/v2/Attempts?Page=1",
    "http://{host}\\@127.0.0.1:{port}/v2/Attempts?Page=1",
    "//{host}/v2/Attempts?Page=1",
    "/v2/Attempts?Page=1",
    "?Page=1",
    "",
    "file:///etc/passwd",
    "{url}/v2/Attempts/Summary?Page=1",
    "{url}/v2/Attempts/?Page=1",
    "{url}/v2/../v2/Attempts?Page=1",
    "{url}/v2/Services?Page=1",
    "{url}/v2/Attempts?Page=1#x",
    "{url}/v2/Attempts?Page=1 HTTP/1.1\r\nX: y",
    "{url}/v2/Att\nempts?Page=1",
    " {url}/v2/Attempts?Page=1",
    "{url}/v2/Attempts?Page=ü",
    "{url}/v2/Attempts?Page=" + "1" * 9000,
    "http://[::1/v2/Attempts?Page=1",
    "http://127.0.0.1:99999/v2/Attempts?Page=1",
]


@pytest.mark.parametrize("address", HOSTILE)
def test_hostile_next_page_is_refused_before_anything_is_sent(
    other: RawServer, address: str
) -> None:
    """Whoever names another origin, path or user gets no request and no credential."""
    with RawServer(_page(None)) as server:
        host = f"127.0.0.1:{other.port}"
        url = address.format(url=server.url, port=server.port, other=other.url, host=host)
        server._answers = (_page(url),)
        api = _api(server)
        with pytest.raises(ApiContractBroken) as caught:
            api.next_page(url)
        assert server.connections == 0
        assert str(other.port) not in str(caught.value)
        with pytest.raises(ApiContractBroken):
            api.page(page_size=2, after=None, before=None)
        assert len(server.requests) == 1
        api.close()


@pytest.mark.parametrize("value", [0, 1, True, [], {}, ["http://x"]])
def test_next_page_that_is_no_string_is_refused(value: object) -> None:
    """An address is a string or null."""
    with RawServer(_page(value)) as server:
        api = _api(server)
        with pytest.raises(ApiContractBroken, match="is no address"):
            api.page(page_size=2, after=None, before=None)
        api.close()


def test_page_that_leads_to_itself_is_refused() -> None:
    """A next page that is the one just read would be read for ever."""
    with RawServer(_page(None)) as server:
        url = NEXT.format(url=server.url)
        turned = f"{server.url}/v2/Attempts?PageToken=PT1&PageSize=2&Page=1"
        server._answers = (_page(url), _page(url), _page(turned))
        api = _api(server)
        assert api.page(page_size=2, after=None, before=None).next_url == url
        for _ in range(2):
            with pytest.raises(ApiContractBroken, match="page just read"):
                api.next_page(url)
        api.close()


@pytest.mark.parametrize(
    "found",
    [
        [],
        None,
        "x",
        {},
        {"attempts": []},
        {"attempts": [], "meta": None},
        {"attempts": [], "meta": {}},
        {"attempts": {}, "meta": {"next_page_url": None}},
        {"meta": {"next_page_url": None}},
    ],
)
def test_what_is_no_page_is_a_bad_body(found: object) -> None:
    """A list without attempts, or without a word on what follows, is not the API's."""
    with RawServer(as_json(found)) as server:
        api = _api(server)
        with pytest.raises(BadBody, match="no page of attempts"):
            api.page(page_size=2, after=None, before=None)
        api.close()


def test_refusal_of_a_page_names_the_list_without_its_query() -> None:
    """An error of a list says which resource, and keeps the filters to itself."""
    with RawServer(refusal(404, 20404)) as server:
        api = _api(server)
        with pytest.raises(NotFound, match="GET /v2/Attempts: the API answered 404"):
            api.page(page_size=2, after=None, before=None, verification_sid="VE1")
        api.close()
