"""Check that the allowance holds in any window, refusals are free, and counts true."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import requests

from etl.sandbox.limiter import Limiter
from tests.support.harness import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from etl.sandbox import Sandbox


def replay(allowance: Limiter, now: list[float], moments: list[float]) -> list[bool]:
    """Ask at each moment of a made-up clock whether a request is admitted."""
    answers = []
    for moment in moments:
        now[0] = moment
        answers.append(allowance.admit() == 0.0)
    return answers


def test_sliding_window() -> None:
    """A request is admitted when fewer than the limit were in the window before it."""
    now = [0.0]
    allowance = Limiter(2, 10.0, clock=lambda: now[0])
    moments = [0.0, 6.0, 7.0, 9.9, 10.0, 11.0, 16.0]
    assert replay(allowance, now, moments) == [True, True, False, False, True, False, True]
    assert (allowance.accepted, allowance.refused, allowance.peak) == (4, 3, 2)
    assert allowance.peak_seen == 5


def test_fixed_window() -> None:
    """A fixed window admits afresh at each multiple of its length."""
    now = [0.0]
    allowance = Limiter(2, 10.0, fixed=True, clock=lambda: now[0])
    assert replay(allowance, now, [8.0, 9.0, 9.5, 10.0, 11.0, 12.0]) == [
        True, True, False, True, True, False,
    ]  # fmt: skip
    assert allowance.peak == 4


def test_wait_tells_when() -> None:
    """A refusal says how long until a request would be admitted, also after the limit fell."""
    now = [0.0]
    allowance = Limiter(3, 10.0, clock=lambda: now[0])
    replay(allowance, now, [0.0, 2.0, 4.0])
    now[0] = 5.0
    assert allowance.admit() == 5.0
    allowance.limit = 1
    assert allowance.admit() == 9.0


def test_limit_over_http(start: Callable[..., Sandbox]) -> None:
    """Five requests in a window pass, the sixth is a 429, and a window later five pass again."""
    now = [0.0]
    box = start(limit=5, window=60.0, clock=lambda: now[0])
    url = f"{box.url}/v2/Attempts/{box.world.sid(0)}"
    with requests.Session() as session:
        session.auth = (box.account_sid, box.auth_token)
        statuses = [session.get(url).status_code for _ in range(8)]
        refused = session.get(url)
        now[0] = 60.0
        statuses += [session.get(url).status_code for _ in range(6)]
    assert statuses == [200] * 5 + [429] * 3 + [200] * 5 + [429]
    assert "Retry-After" not in refused.headers
    assert (refused.json()["code"], refused.json()["status"]) == (20429, 429)
    stats = box.stats()
    assert (stats["requests"], stats["accepted"], stats["throttled"]) == (15, 10, 5)
    assert stats["peak_in_window"] == 5
    assert stats["by_status"] == {200: 10, 429: 5}


def test_retry_after_on_request(start: Callable[..., Sandbox]) -> None:
    """A sandbox may say in whole seconds when to come back, and lift the limit while it runs."""
    box = start(limit=1, window=60.0, send_retry_after=True)
    url, auth = f"{box.url}/v2/Attempts", (box.account_sid, box.auth_token)
    assert requests.get(url, auth=auth, timeout=PATIENCE_S).status_code == 200
    assert requests.get(url, auth=auth, timeout=PATIENCE_S).headers["Retry-After"] == "60"
    box.limit = 0
    assert requests.get(url, auth=auth, timeout=PATIENCE_S).status_code == 200


def test_limit_holds_with_many_threads(start: Callable[..., Sandbox]) -> None:
    """However many ask at once, no window holds more than the limit."""
    box = start(limit=20, window=0.25)

    def ask() -> None:
        with requests.Session() as session:
            session.auth = (box.account_sid, box.auth_token)
            for number in range(30):
                session.get(f"{box.url}/v2/Attempts/{box.world.sid(number)}")

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = box.stats()
    assert stats["requests"] == 180 == stats["accepted"] + stats["throttled"]
    assert stats["peak_in_window"] == 20
    assert stats["throttled"] > 0
    assert stats["connections"] == 6


def test_concurrency_is_counted(start: Callable[..., Sandbox]) -> None:
    """Requests in hand together are seen, and two for one SID apart from two for two."""
    box = start(latency=2.0, track_sids=True)
    sids = [box.world.sid(0), box.world.sid(0), box.world.sid(1)]
    seen: list[str] = []

    def ask(sid: str) -> None:
        auth = (box.account_sid, box.auth_token)
        answer = requests.get(f"{box.url}/v2/Attempts/{sid}", auth=auth, timeout=PATIENCE_S)
        seen.append(answer.headers["Twilio-Concurrent-Requests"])

    threads = [threading.Thread(target=ask, args=(sid,)) for sid in sids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = box.stats()
    assert (stats["max_concurrency"], stats["concurrent_same_sid"]) == (3, 1)
    assert stats["fetched"] == Counter(sids)
    assert sorted(seen) == ["1", "2", "3"]


@pytest.mark.parametrize("path", ["/v2/Attempts", "/v2/Attempts/Summary", "/v2/Nothing"])
def test_every_call_costs(start: Callable[..., Sandbox], path: str) -> None:
    """List, summary and unknown paths take from the same allowance as fetches."""
    box = start(limit=1)
    auth = (box.account_sid, box.auth_token)
    requests.get(box.url + path, auth=auth, timeout=PATIENCE_S)
    fetch = requests.get(f"{box.url}/v2/Attempts/{box.world.sid(0)}", auth=auth, timeout=PATIENCE_S)
    assert fetch.status_code == 429
    box.reset_stats()
    assert (box.stats()["accepted"], box.stats()["requests"]) == (0, 0)
