"""Check that a world is the same each time, matures as the API's does, and needs no memory."""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter, defaultdict
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.sandbox import World

NOON = 1_795_435_200.0
HOUR = 3600.0
DAY = 24 * HOUR
BIG = World(5, 1_000_000, static_at=NOON)
PHONE = re.compile(r"\+1[2-9][0-9]{2}55501[0-9]{2}|\+[0-9]{2,3}[0-9]{3,4}55501[0-9]{2}")


def seconds(text: str) -> float:
    """Return a timestamp of a payload in epoch seconds."""
    return datetime.fromisoformat(text).timestamp()


def data(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the channel's part of a payload, empty where it is null."""
    return payload["channel_data"] or {}


def test_same_seed_same_world() -> None:
    """The same seed and start give the same payloads, another seed gives others."""
    worlds = [World(seed, 200, start=NOON - DAY, span=DAY, static_at=NOON) for seed in (1, 1, 2)]
    first, second, other = ([world.attempt(i) for i in range(200)] for world in worlds)
    assert first == second
    assert not {p["sid"] for p in first} & {p["sid"] for p in other}
    assert worlds[0].account_sid != worlds[2].account_sid


@given(st.integers(0, BIG.size - 1))
def test_sid_round_trip(index: int) -> None:
    """A SID has Twilio's form and leads back to its index."""
    sid = BIG.sid(index)
    assert re.fullmatch(r"VL[0-9a-f]{32}", sid)
    assert BIG.index(sid) == index


@given(st.integers(0, BIG.size - 1), st.integers(2, 33), st.sampled_from("0123456789abcdef"))
def test_changed_sid_is_unknown(index: int, place: int, digit: str) -> None:
    """A SID with one digit changed belongs to nothing."""
    sid = BIG.sid(index)
    changed = sid[:place] + digit + sid[place + 1 :]
    assert BIG.index(changed) == (index if changed == sid else None)


@pytest.mark.parametrize(
    "sid", ["", "VL", "VL" + "0" * 32, "VL" + "_" * 32, World(6, 9).sid(3), "x" + BIG.sid(3)]
)
def test_foreign_sid_is_unknown(sid: str) -> None:
    """What is no SID, made up, or of another world has no index."""
    assert BIG.index(sid) is None


def test_sid_is_compared_exactly() -> None:
    """An upper-case twin of a SID is another SID, which does not exist."""
    sid = BIG.sid(3)
    assert BIG.index("VL" + sid[2:].upper()) is None


def test_sids_slices() -> None:
    """SIDs come in index order and only from the slice asked for."""
    world = World(1, 10)
    assert list(world.sids(2, 5)) == [world.sid(2), world.sid(3), world.sid(4)]
    assert list(world.sids(8, 99)) == [world.sid(8), world.sid(9)]
    assert len(set(world.sids())) == world.size


@pytest.mark.parametrize(("size", "span"), [(1000, 30 * DAY), (3000, HOUR), (1, DAY), (40, 60.0)])
def test_created_in_order(size: int, span: float) -> None:
    """Times of creation never decrease with the index and stay within the span."""
    world = World(3, size, start=NOON, span=span)
    times = [world.created(i) for i in range(size)]
    assert times == sorted(times)
    assert times[0] >= NOON
    assert times[-1] < NOON + span


def test_default_start() -> None:
    """By default the newest attempts are minutes old and the oldest under 30 days."""
    world = World(1, 5000, static_at=NOON)
    assert 5 * 60 <= NOON - world.created(4999) < HOUR
    assert 29 * DAY < NOON - world.created(0) < 30 * DAY


def test_daily_rhythm() -> None:
    """Noon is busier than midnight, several times over."""
    midnight = NOON - 10 * DAY - 12 * HOUR
    night = BIG.range(midnight - HOUR, midnight + HOUR)
    noon = BIG.range(midnight + 11 * HOUR, midnight + 13 * HOUR)
    assert noon[1] - noon[0] > 3 * (night[1] - night[0]) > 0


@given(st.floats(-HOUR, 25 * HOUR), st.floats(-HOUR, 25 * HOUR))
def test_range_agrees_with_counting(after: float, before: float) -> None:
    """The bounds of a range are those that looking at each attempt gives."""
    world = World(2, 300, start=NOON, span=DAY)
    low, high = world.range(NOON + after, NOON + before)
    counted = [i for i in range(300) if NOON + after <= world.created(i) < NOON + before]
    assert list(range(low, high)) == counted


@pytest.mark.parametrize(("size", "span"), [(2000, 29 * DAY), (20_000, DAY)])
def test_verifications(size: int, span: float) -> None:
    """A verification has one to four attempts, near in time, to one destination of one service."""
    world = World(4, size, start=NOON - span - DAY, span=span, static_at=NOON)
    groups = defaultdict(list)
    for i in range(size):
        groups[world.natural(i, NOON)["verification_sid"]].append(i)
    assert set(map(len, groups.values())) == {1, 2, 3, 4}
    for sid, members in groups.items():
        assert world.members(sid) == members
        payloads = [world.attempt(i) for i in members]
        assert len({p["service_sid"] for p in payloads}) == 1
        assert len({data(p)["to"] for p in payloads if data(p)}) <= 1
        assert world.created(members[-1]) - world.created(members[0]) < 600
        assert sum(p["conversion_status"] == "converted" for p in payloads) <= 1


def test_resends_change_channel() -> None:
    """Some verifications try another channel the second time."""
    channels = defaultdict(list)
    for i in range(3000):
        payload = BIG.attempt(i)
        channels[payload["verification_sid"]].append(payload["channel"])
    changes = {pair for row in channels.values() for pair in itertools.pairwise(row)}
    assert {("sms", "sms"), ("sms", "call"), ("sms", "whatsapp")} <= changes


def test_maturing() -> None:
    """Status, conversion and price move forward with age, and nothing moves after 24 hours."""
    world = World(8, 400, start=NOON, span=DAY)
    delivery: set[str] = set()
    for i in range(400):
        born = world.created(i)
        seen = [world.attempt(i, born + age) for age in (0, 3, 30, 299, 560, HOUR, DAY, 90 * DAY)]
        assert seen[0]["conversion_status"] == "unconverted"
        assert [p["price"] for p in seen[:4]] == [None] * 4 or seen[0]["channel"] == "rbm"
        flags = [p["conversion_status"] == "converted" for p in seen]
        assert flags == sorted(flags)
        assert flags[4] == flags[-1] == (world.converted_at(i) < NOON + 3 * DAY)
        assert seen[-1] == seen[-2]
        delivery.update(
            str(data(p).get("message_status")).lower() for p in seen if "message_status" in data(p)
        )
        final = str(data(seen[-1]).get("status", "")).lower()
        assert final in ({"confirmed", ""} if flags[-1] else {"expired", ""})
    assert delivery == {"queued", "sent", "delivered", "undelivered", "failed", "read"}


def test_conversion_ages() -> None:
    """Conversions come 20 seconds to 9 minutes after the attempt."""
    ages = [BIG.converted_at(i) - BIG.created(i) for i in range(5000)]
    converted = [age for age in ages if age < DAY]
    assert len(converted) > 2000
    assert min(converted) >= 20
    assert max(converted) <= 540
    assert max(converted) > 400


def test_prices_over_time() -> None:
    """Most prices come within a day, a few are corrected in the last hours, a few never come."""
    at_hours = (0.08, 1, 22, 23.5, 24, 200)
    rows = [
        [BIG.natural(i, BIG.created(i) + h * HOUR)["price"] for h in at_hours] for i in range(4000)
    ]
    count: Counter[str] = Counter()
    for first, hour, day, corrected, final, later in rows:
        count["early"] += first is not None
        count["hour"] += hour is not None
        count["corrected"] += day != corrected
        count["never"] += later is None
        assert corrected == final == later
    assert count["early"] == 0
    assert 1000 < count["hour"] < 3000
    assert 80 < count["corrected"] < 240
    assert 10 < count["never"] < 90


def test_late_prices() -> None:
    """With a share of late prices, that share comes after 24 hours and before 72."""
    world = World(5, 2000, start=NOON, span=DAY, late_price_share=0.3)
    late = 0
    for i in range(2000):
        day, three, ever = (
            world.attempt(i, world.created(i) + h * HOUR)["price"] for h in (24, 72, 900)
        )
        late += day is None and three is not None
        assert three == ever
    assert 500 < late < 700


def test_price_does_not_touch_date_updated() -> None:
    """A later price does not move date_updated."""
    world = World(9, 100, start=NOON, span=DAY)
    moved = 0
    for i in range(100):
        early = world.attempt(i, world.created(i) + 600)
        late = world.attempt(i, world.created(i) + 2 * DAY)
        moved += early["price"] != late["price"]
        assert early["date_updated"] == late["date_updated"]
    assert moved > 50


def test_rbm_falls_back() -> None:
    """An RCS message may become an SMS: channel, status and price change under one SID."""
    fallen = 0
    for i in range(20_000):
        new, older, old = (BIG.natural(i, BIG.created(i) + a) for a in (1.0, 350.0, 2 * DAY))
        if new["channel"] == "rbm" and old["channel"] == "sms":
            fallen += 1
            assert data(new).get("message_status") != data(old).get("message_status") or not data(
                old
            )
            assert old["price"] is None or older["price"]["value"] != old["price"]["value"]
    assert fallen > 20


def test_variations() -> None:
    """Every deviation from the spec that was seen live occurs among twenty thousand attempts."""
    seen: Counter[str] = Counter()
    for i in range(20_000):
        payload = BIG.attempt(i)
        rest = data(payload)
        seen["null data"] += payload["channel_data"] is None
        seen["upper status"] += rest.get("status") in {"CONFIRMED", "EXPIRED"}
        seen["upper delivery"] += rest.get("message_status") == "DELIVERED"
        seen["error 0"] += rest.get("error_code") == 0
        seen["error text"] += rest.get("error_code") == "30008"
        seen["no error key"] += "error_code" not in rest
        seen["USD"] += (payload["price"] or {}).get("currency") == "USD"
        seen["usd"] += (payload["price"] or {}).get("currency") == "usd"
        seen["eur"] += (payload["price"] or {}).get("currency") == "eur"
        seen["extra"] += "risk_check" in rest
        seen["top extra"] += "experiment" in payload
        seen["absent"] += bool(rest) and payload["channel"] == "sms" and "carrier" not in rest
        seen["fraction"] += "." in payload["date_created"]
        seen["call"] += "call_status" in rest and "message_status" not in rest
        seen["unknown channel"] += payload["channel"] == "sna"
        seen["email"] += "@example.com" in rest.get("to", "") and "country" not in rest
    assert len(seen) == 16
    assert min(seen.values()) > 0, seen
    assert seen["null data"] < 150


def test_timestamps() -> None:
    """Timestamps agree with the time of creation, cut to seconds or to milliseconds."""
    for i in range(500):
        text, created = BIG.attempt(i)["date_created"], BIG.created(i)
        assert 0 <= round(created - seconds(text), 3) < (0.001 if "." in text else 1.0)


def test_pumping() -> None:
    """In one hour a prefix nobody else uses takes much traffic and converts never."""
    low, high = BIG.pumped
    assert BIG.created(high) - BIG.created(low) < HOUR + 60

    def pumped(i: int) -> bool:
        return str(data(BIG.attempt(i)).get("to")).startswith("+628990")

    inside = [i for i in range(low, low + 300) if pumped(i)]
    assert len(inside) > 100
    assert all(BIG.attempt(i)["conversion_status"] == "unconverted" for i in inside)
    assert not any(map(pumped, range(low - 500, low)))


def test_destinations_are_fictional() -> None:
    """Every destination is a 555-01xx number or an address at example.com."""
    destinations = {data(BIG.attempt(i)).get("to", "+12015550100") for i in range(5000)}
    wrong = [to for to in destinations if not (PHONE.fullmatch(to) or to.endswith("@example.com"))]
    assert wrong == []
    assert len(destinations) > 1000


@pytest.mark.parametrize("size", [1_000_000, 10_000_000])
def test_big_world_at_once(size: int) -> None:
    """A world of millions is there at once, from its first attempt to its last."""
    begin = time.process_time()
    world = World(1, size)
    sids = [world.attempt(i)["sid"] for i in (0, size // 2, size - 1)]
    assert [world.index(sid) for sid in sids] == [0, size // 2, size - 1]
    assert time.process_time() - begin < 0.5


def test_overrides() -> None:
    """A payload or a function of the natural one stands in for it."""
    world = World(1, 5, static_at=NOON)
    plain = world.attempt(1)
    world.overrides[world.sid(1)] = {"sid": "odd"}
    world.overrides[world.sid(2)] = lambda payload, at: {**payload, "at": at}
    assert world.attempt(1) == world.attempt(world.sid(1)) == {"sid": "odd"}
    assert world.natural(1, NOON) == plain
    assert world.attempt(2, 9.0) == {**world.natural(2, 9.0), "at": 9.0}


def test_no_such_attempt() -> None:
    """Indexes and SIDs outside the world raise, in an empty world all of them."""
    world = World(1, 0)
    assert list(world.sids()) == []
    assert world.range() == (0, 0)
    with pytest.raises(IndexError):
        world.sid(0)
    with pytest.raises(KeyError):
        world.attempt("VL" + "0" * 32)


@pytest.mark.parametrize("settings", [{"size": -1}, {"size": 10_000_001}, {"span": 0.0}])
def test_impossible_worlds(settings: dict[str, Any]) -> None:
    """A size or span that cannot be is refused."""
    with pytest.raises(ValueError, match="must be"):
        World(**settings)
