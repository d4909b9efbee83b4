"""Read a sandbox with Twilio's own library: one attempt, the list, the summary, and who may."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from twilio.base.exceptions import (  # type: ignore[import-untyped] # it ships no types
    TwilioRestException,
)

from etl.sandbox import Sandbox, World

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

NOON = 1_795_435_200.0
DAY = 86_400.0


def at(moment: float) -> datetime:
    """Return epoch seconds as the datetime that Twilio's library wants."""
    return datetime.fromtimestamp(moment, UTC)


def test_fetch(box: Sandbox, twilio: Callable[..., Any]) -> None:
    """A fetched attempt has every field of the world's payload."""
    payload = box.world.attempt(17)
    attempt = twilio(box).verification_attempts(payload["sid"]).fetch()
    names = ("sid", "account_sid", "verification_sid", "channel", "price", "channel_data", "url")
    assert {name: getattr(attempt, name) for name in names} == {n: payload[n] for n in names}
    assert attempt.date_created.timestamp() == math.floor(box.world.created(17))


@pytest.mark.parametrize("order", ["desc", "asc", "shuffled"])
@pytest.mark.parametrize("page_size", [1, 7, 100, 299, 300, 1000])
def test_pages_are_complete(
    start: Callable[..., Sandbox], twilio: Callable[..., Any], order: str, page_size: int
) -> None:
    """Every attempt is listed once, whatever the order and the size of a page."""
    box = start(order=order)
    listed = [a.sid for a in twilio(box).verification_attempts.list(page_size=page_size)]
    expected = list(box.world.sids())
    assert sorted(listed) == sorted(expected)
    assert (listed == expected) == (order == "asc")
    assert (listed == expected[::-1]) == (order == "desc")
    assert box.stats()["lists"] == math.ceil(300 / page_size)


def test_page_shape(box: Sandbox, session: requests.Session) -> None:
    """A page has Twilio's meta, of the same origin, and ends with null."""
    first = session.get(f"{box.url}/v2/Attempts?PageSize=200&Channel=&Country=").json()
    assert list(first) == ["attempts", "meta"]
    meta = first["meta"]
    assert (meta["key"], meta["page"], meta["page_size"]) == ("attempts", 0, 200)
    assert meta["previous_page_url"] is None
    assert meta["next_page_url"].startswith(f"{box.url}/v2/Attempts?")
    second = session.get(meta["next_page_url"]).json()
    assert second["meta"]["url"] == meta["next_page_url"]
    assert second["meta"]["next_page_url"] is None
    assert second["meta"]["page"] == 1
    back = session.get(second["meta"]["previous_page_url"]).json()
    assert back["attempts"] == first["attempts"] == session.get(meta["first_page_url"]).json()[
        "attempts"
    ]  # fmt: skip


def test_default_page_size(box: Sandbox, session: requests.Session) -> None:
    """A page holds fifty unless asked otherwise."""
    assert len(session.get(f"{box.url}/v2/Attempts").json()["attempts"]) == 50


@pytest.mark.parametrize("order", ["desc", "asc", "shuffled"])
def test_paging_is_stable(
    start: Callable[..., Sandbox], session: requests.Session, order: str
) -> None:
    """Attempts created while somebody pages neither repeat nor shift what follows."""
    now = [NOON]
    world = World(7, 400, start=NOON - DAY, span=2 * DAY, clock=lambda: now[0])
    box = start(world, order=order)
    session.auth = (box.account_sid, box.auth_token)
    there = set(world.sids(*world.range(None, NOON)))
    assert 100 < len(there) < 300
    url, listed = f"{box.url}/v2/Attempts?PageSize=30", []
    while url:
        page = session.get(url).json()
        listed += [attempt["sid"] for attempt in page["attempts"]]
        url = page["meta"]["next_page_url"]
        now[0] += 3600.0
    assert len(listed) == len(there)
    assert set(listed) == there


def test_window_of_time(box: Sandbox, twilio: Callable[..., Any]) -> None:
    """The bounds of a window are inclusive and exclusive: windows that meet share nothing."""
    first, middle, last = NOON - 20 * DAY, math.floor(box.world.created(150)), NOON - DAY
    attempts = twilio(box).verification_attempts
    early = attempts.list(date_created_after=at(first), date_created_before=at(middle))
    late = attempts.list(date_created_after=at(middle), date_created_before=at(last))
    low, high = box.world.range(first, last)
    assert [a.sid for a in late + early] == list(box.world.sids(low, high))[::-1]
    assert box.world.sid(150) in {a.sid for a in late}
    assert min(len(early), len(late)) > 10


def filters(world: World) -> list[dict[str, Any]]:
    """Return one filter of each kind, each matching something and not everything."""
    sample = next(
        payload
        for payload in map(world.attempt, range(world.size))
        if payload["conversion_status"] == "converted"
        and (payload["channel_data"] or {}).get("mcc")
    )
    return [
        {"country": sample["channel_data"]["country"]},
        {"channel": sample["channel"]},
        {"verify_service_sid": sample["service_sid"]},
        {"verification_sid": sample["verification_sid"]},
        {"channel_data_to": sample["channel_data"]["to"]},
        {"status": "unconverted"},
        {"country": "US", "channel": "sms", "date_created_after": at(NOON - 20 * DAY)},
    ]


@pytest.mark.parametrize("number", range(7))
def test_filters(box: Sandbox, twilio: Callable[..., Any], number: int) -> None:
    """Each filter gives what looking at each attempt gives, over several pages."""
    chosen = filters(box.world)[number]

    def wanted(payload: dict[str, Any]) -> bool:
        data = payload["channel_data"] or {}
        found = {
            "country": data.get("country"),
            "channel": payload["channel"],
            "verify_service_sid": payload["service_sid"],
            "verification_sid": payload["verification_sid"],
            "channel_data_to": data.get("to"),
            "status": payload["conversion_status"],
        }
        born = datetime.fromisoformat(payload["date_created"])
        after = chosen.get("date_created_after", born)
        names = chosen.keys() - {"date_created_after"}
        return born >= after and all(found[name] == chosen[name] for name in names)

    expected = [p["sid"] for p in map(box.world.attempt, range(299, -1, -1)) if wanted(p)]
    listed = [a.sid for a in twilio(box).verification_attempts.list(**chosen, page_size=9)]
    assert listed == expected
    assert 0 < len(expected) < 300


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"country": "US"},
        {"channel": "sms"},
        {"date_created_after": at(NOON - 9 * DAY), "date_created_before": at(NOON - 2 * DAY)},
        {"date_created_after": at(NOON - 9 * DAY), "channel": "sms", "country": "GB"},
    ],
)
def test_summary_counts_the_list(
    start: Callable[..., Sandbox], twilio: Callable[..., Any], chosen: dict[str, Any]
) -> None:
    """A summary is the count of the list with the same filters, hidden and bent ones included."""
    world = World(7, 9000, static_at=NOON)
    sids = [world.sid(i) for i in range(6000, 6040)]
    world.hidden.update(sids[:7])
    world.unlisted.update(sids[5:12])
    world.overrides.update(
        (sid, {**world.attempt(sid), "conversion_status": "CONVERTED"}) for sid in sids[10:]
    )
    box = start(world)
    verify = twilio(box)
    listed = verify.verification_attempts.list(**chosen, page_size=1000)
    summary = verify.verification_attempts_summary().fetch(**chosen)
    converted = sum(a.conversion_status.lower() == "converted" for a in listed)
    assert summary.total_attempts == len(listed) > 0
    assert summary.total_converted == converted > 0
    assert summary.total_unconverted == len(listed) - converted > 0
    assert isinstance(summary.conversion_rate_percentage, str)
    assert float(summary.conversion_rate_percentage) == pytest.approx(100 * converted / len(listed))


def test_summary_of_a_moving_world(
    start: Callable[..., Sandbox], twilio: Callable[..., Any]
) -> None:
    """What was counted before conversions came in is counted again."""
    now = [NOON]
    world = World(7, 9000, start=NOON - 3600, span=3600, clock=lambda: now[0])
    summaries = twilio(start(world)).verification_attempts_summary()
    early = summaries.fetch()
    now[0] += 3600.0
    late = summaries.fetch()
    expected = sum(world.attempt(i)["conversion_status"] == "converted" for i in range(9000))
    assert late.total_converted == expected > early.total_converted
    assert early.total_attempts == late.total_attempts == 9000


def test_summary_by_prefix(box: Sandbox, twilio: Callable[..., Any]) -> None:
    """A summary narrows to destinations that begin with a prefix, and to nothing with nothing."""
    summaries = twilio(box).verification_attempts_summary()
    found = [(box.world.attempt(i)["channel_data"] or {}).get("to", "") for i in range(300)]
    american = sum(to.startswith("+1") for to in found)
    assert summaries.fetch(destination_prefix="+1").total_attempts == american > 0
    nothing = summaries.fetch(destination_prefix="+999")
    assert (nothing.total_attempts, nothing.conversion_rate_percentage) == (0, "0")


def test_conversion_rate_is_written_as_twilio_does(
    start: Callable[..., Sandbox], session: requests.Session
) -> None:
    """Nine of eleven is "81.818181818", as in the documentation."""
    world = World(7, 11, static_at=NOON)
    for i, sid in enumerate(world.sids()):
        world.overrides[sid] = {"conversion_status": "unconverted" if i < 2 else "converted"}
    box = start(world)
    session.auth = (box.account_sid, box.auth_token)
    summary = session.get(f"{box.url}/v2/Attempts/Summary").json()
    assert summary["conversion_rate_percentage"] == "81.818181818"


def test_hidden_and_unlisted(box: Sandbox, twilio: Callable[..., Any]) -> None:
    """A hidden attempt is nowhere; an unlisted one can be fetched."""
    gone, shy = box.world.sid(3), box.world.sid(4)
    box.world.hidden.add(gone)
    box.world.unlisted.add(shy)
    attempts = twilio(box).verification_attempts
    assert not {a.sid for a in attempts.list()} & {gone, shy}
    assert twilio(box).verification_attempts(shy).fetch().sid == shy
    with pytest.raises(TwilioRestException) as caught:
        twilio(box).verification_attempts(gone).fetch()
    assert (caught.value.status, caught.value.code) == (404, 20404)


def test_overrides_everywhere(box: Sandbox, twilio: Callable[..., Any]) -> None:
    """An override shows in fetch and list, and in fetch for a SID of nobody's."""
    sid, stranger = box.world.sid(5), "VL" + "0" * 32
    box.world.overrides[sid] = {**box.world.attempt(sid), "channel": "pigeon"}
    box.world.overrides[stranger] = {"sid": stranger, "channel": "raven"}
    verify = twilio(box)
    assert verify.verification_attempts(sid).fetch().channel == "pigeon"
    assert verify.verification_attempts(stranger).fetch().channel == "raven"
    listed = verify.verification_attempts.list()
    assert [a.sid for a in listed if a.channel == "pigeon"] == [sid]


@pytest.mark.parametrize(
    "asked",
    [
        "Channel=foo", "Channel=SMS", "Channel=sms%20", "Status=Converted",
        "VerifyServiceSid=VA1", "VerifyServiceSid=VE" + "0" * 32, "VerificationSid=VA" + "0" * 32,
    ],
)  # fmt: skip
def test_what_the_specification_refuses(
    box: Sandbox, session: requests.Session, start: Callable[..., Sandbox], asked: str
) -> None:
    """Senseless filters are refused as the specification says, and taken by a loose sandbox."""
    answer = session.get(f"{box.url}/v2/Attempts?{asked}")
    assert (answer.status_code, answer.json()["code"]) == (400, 60200)
    loose = start(loose=True)
    assert session.get(f"{loose.url}/v2/Attempts?{asked}").status_code == 200


def test_each_knows_its_own_filters(
    box: Sandbox, session: requests.Session, start: Callable[..., Sandbox]
) -> None:
    """A summary ignores what only lists know, and a list what only summaries know."""
    nobody = "VE" + "0" * 32
    others = f"Status=converted&ChannelData.To=%2B999&VerificationSid={nobody}"
    counted = session.get(f"{box.url}/v2/Attempts/Summary?{others}").json()
    assert counted["total_attempts"] == box.world.size
    prefix = "PageSize=1000&DestinationPrefix=%2B999"
    assert len(session.get(f"{box.url}/v2/Attempts?{prefix}").json()["attempts"]) == box.world.size
    loose = start(loose=True)
    assert session.get(f"{loose.url}/v2/Attempts?{prefix}").json()["attempts"] == []


def test_retention(start: Callable[..., Sandbox], twilio: Callable[..., Any]) -> None:
    """What is older than the retention is neither listed nor fetched nor counted."""
    world = World(7, 300, static_at=NOON)
    verify = twilio(start(world, retention=10 * DAY))
    low, high = world.range(NOON - 10 * DAY, NOON)
    assert 0 < low < high == 300
    assert {a.sid for a in verify.verification_attempts.list()} == set(world.sids(low, high))
    assert verify.verification_attempts_summary().fetch().total_attempts == high - low
    assert verify.verification_attempts(world.sid(low)).fetch().sid == world.sid(low)
    with pytest.raises(TwilioRestException):
        verify.verification_attempts(world.sid(low - 1)).fetch()


def test_not_created_yet(start: Callable[..., Sandbox], twilio: Callable[..., Any]) -> None:
    """An attempt of the future is not found until its time has come."""
    now = [NOON]
    world = World(7, 10, start=NOON, span=600.0, clock=lambda: now[0])
    attempt = twilio(start(world)).verification_attempts(world.sid(9))
    with pytest.raises(TwilioRestException):
        attempt.fetch()
    now[0] = world.created(9)
    assert attempt.fetch().date_created == at(now[0]).replace(microsecond=0)


@pytest.mark.parametrize(
    ("user", "password", "good"),
    [
        ("account_sid", "auth_token", True),
        ("api_key", "api_secret", True),
        ("account_sid", "api_secret", False),
        ("api_key", "auth_token", False),
    ],
)
def test_credentials(
    box: Sandbox, twilio: Callable[..., Any], user: str, password: str, *, good: bool
) -> None:
    """Account and token, or key and secret, let in; anything mixed does not and costs nothing."""
    verify = twilio(box, getattr(box, user), getattr(box, password))
    if good:
        assert len(verify.verification_attempts.list(limit=5)) == 5
        assert box.stats()["unauthorized"] == 0
        return
    with pytest.raises(TwilioRestException) as caught:
        verify.verification_attempts(box.world.sid(0)).fetch()
    assert (caught.value.status, caught.value.code) == (401, 20003)
    assert (box.stats()["unauthorized"], box.stats()["accepted"]) == (1, 0)


def test_own_credentials(start: Callable[..., Sandbox], twilio: Callable[..., Any]) -> None:
    """Chosen credentials are those that open, and payloads name the chosen account."""
    box = start(account_sid="AC" + "0" * 32, auth_token="fake")
    attempt = twilio(box, "AC" + "0" * 32, "fake").verification_attempts.list(limit=1)[0]
    assert attempt.account_sid == box.environ()["TWILIO_ACCOUNT_SID"] == "AC" + "0" * 32
    assert box.environ()["TWILIO_AUTH_TOKEN"] == "fake"


def test_million_in_pages(start: Callable[..., Sandbox], session: requests.Session) -> None:
    """A page in the middle of a million attempts comes without a scan from the first."""
    world = World(7, 1_000_000, static_at=NOON)
    box = start(world)
    session.auth = (box.account_sid, box.auth_token)
    low, high = world.range(NOON - 20 * DAY, NOON - 10 * DAY)
    assert high - low > 250_000
    url = f"{box.url}/v2/Attempts?PageSize=1000&PageToken=PA{low:x}-{high:x}-{200_000:x}&Page=200"
    began = time.process_time()
    answer = session.get(url)
    # Of this process, which is the server as well: a scan takes thrice this.
    assert time.process_time() - began < 1
    assert [a["sid"] for a in answer.json()["attempts"]] == [
        world.sid(high - 1 - place) for place in range(200_000, 201_000)
    ]
