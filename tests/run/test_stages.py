"""Put the ways together: the urgent first, plans made anew, sweeps given up, slots given back."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select, update

from etl.allowance.slots import Allowance
from etl.database.schema import api_slots, attempts, sweeps
from etl.database.schema import attempt_queue as q
from etl.database.times import moment
from etl.errors import Exit
from etl.job.counts import Counts
from etl.job.stop import StopFlag
from etl.job.tools import Job
from etl.listing.discover import DiscoverOptions
from etl.listing.pages import Pages
from etl.queue.windows import ABANDONED
from etl.run import pipeline
from etl.run.pipeline import RunReport
from etl.sandbox import Fault, Sandbox, World
from tests.support.harness import assert_loaded
from tests.support.in_process import DAY, HOUR, POLICY, client, parts_of, run_here
from tests.support.listings import begin

RETENTION_S = 30 * 86_400
PER_MINUTE = (1_000, 60_000)


def aged(engine: Engine, world: World, numbers: Sequence[int]) -> None:
    """Enqueue attempts of the world with the time at which the API forgets them."""
    rows = [
        {"sid": world.sid(n), "expires_at": int(world.created(n) + RETENTION_S) * 1000}
        for n in numbers
    ]
    with engine.begin() as connection:
        connection.execute(insert(q), rows)


def test_the_urgent_are_swept_where_that_is_cheaper(engine: Engine) -> None:
    """2,000 SIDs that the API forgets in two hours take pages, and come before all others."""
    now = time.time()
    world = World(size=2_000, start=now - RETENTION_S + 7_200, span=1_800, static_at=now)
    aged(engine, world, range(world.size))
    others = World(size=3, start=now - 86_400, span=60, static_at=now, seed=2)
    seen: list[int] = []

    def watch(_counts: Counts) -> None:
        with engine.connect() as connection:
            ended = connection.execute(select(func.count()).where(q.c.state == "settled"))
            seen.append(ended.scalar_one())

    with engine.begin() as connection:
        connection.execute(insert(q), [{"sid": sid} for sid in others.sids()])
    with Sandbox(world, limit=0) as box:
        report = run_here(engine, box, strategy="auto", watch=watch)
        assert box.stats()["lists"] <= 4
    # The three are not of this world: each is asked for once, after the last page.
    assert report.counts["requests"] <= 4 + 3
    assert report.counts["fetched"] == world.size
    assert max(seen) == world.size


def test_what_is_enqueued_meanwhile_is_planned_for(engine: Engine) -> None:
    """400 SIDs that come while three are fetched cost pages, not 400 requests."""
    now = time.time()
    world = World(size=2_000, start=now - 86_400, span=80_000, static_at=now)
    aged(engine, world, range(3))
    more = iter([range(3, 403)])

    def watch(counts: Counts) -> None:
        if counts.fetched and (numbers := next(more, None)):
            aged(engine, world, numbers)

    with Sandbox(world, limit=0, latency=0.01) as box:
        report = run_here(engine, box, strategy="auto", allowance=PER_MINUTE, watch=watch)
        assert box.stats()["lists"] >= 1
    assert report.counts["requests"] <= 3 + 60
    assert_loaded(engine, world, [world.sid(n) for n in range(403)])


def test_a_sweep_that_proves_long_is_given_up(engine: Engine) -> None:
    """Where the database knew of few attempts and the list is long, the rest is fetched."""
    now = time.time()
    world = World(size=20_000, start=now - 5 * 86_400, span=3_000, static_at=now)
    with Sandbox(world, limit=0) as box:
        aged(engine, world, range(0, 20_000, 200))
        run_here(engine, box, strategy="fetch")
        pending = range(101, 20_000, 1_700)
        aged(engine, world, pending)
        report = run_here(engine, box, strategy="auto")
    with engine.connect() as connection:
        assert ABANDONED in connection.execute(select(sweeps.c.state)).scalars().all()
    assert report.counts["requests"] <= len(pending) + 4
    sids = {world.sid(n) for n in (*range(0, 20_000, 200), *pending)}
    assert_loaded(engine, world, sids)


def test_no_window_ends_in_the_future(engine: Engine) -> None:
    """What is created after a list was read would be missing from its count for ever."""
    now = time.time()
    world = World(size=3_000, start=now - 3_600, span=3_590, static_at=now)
    aged(engine, world, range(world.size))
    with Sandbox(world, limit=0) as box:
        run_here(engine, box, strategy="auto")
    with engine.connect() as connection:
        ends = connection.execute(select(sweeps.c.window_to)).scalars().all()
    assert ends
    assert max(ends) <= time.time() * 1000
    assert_loaded(engine, world, world.sids())


def test_the_slot_of_a_question_comes_free_a_window_after_its_answer(engine: Engine) -> None:
    """A Summary may be the last request for long; its slot must not wait for the next page."""
    now = time.time()
    world = World(size=3_000, start=now - 20 * 86_400, span=19 * 86_400, static_at=now)
    with engine.begin() as connection:
        connection.execute(insert(q), [{"sid": sid} for sid in list(world.sids())[::300]])
    with Sandbox(world, limit=0) as box:
        report = run_here(engine, box, strategy="auto", allowance=PER_MINUTE)
        assert box.stats()["summaries"] >= 1
    assert report.exit_code == 0
    with engine.connect() as connection:
        last = connection.execute(select(func.max(api_slots.c.free_at))).scalar_one()
    assert last <= time.time() * 1000 + PER_MINUTE[1]


def test_pages_grow_again_a_step_at_a_time(engine: Engine) -> None:
    """After twenty good pages of 100 the next windows get pages of 250, not of 1,000."""
    now = time.time()
    world = World(size=2_600, start=now - 86_400, span=80_000, static_at=now)
    sizes: list[int] = []
    with Sandbox(world, limit=0) as box:
        api = client(box)
        pages = Pages(parts_of(engine, api), largest=1_000)
        pages.size = 100
        for day in (2, 3):
            start = int(now * 1000) - day * DAY
            end = int(now * 1000) - (day - 2) * HOUR
            listing = pages.lease.begin("discover", start, end, page_size=pages.size)
            assert listing is not None
            sizes.append(listing.page_size)
            pages.window(listing, write=_nothing(pages), go_on=lambda _listing, _done: True)
        api.close()
    assert sizes == [100, 250]
    assert pages.size == 250


def _nothing(pages: Pages) -> Any:
    def write(connection: Any, _found: Any, sent_at: int) -> Any:
        return pages.store(connection, [], sent_at, discover=False)

    return write


@pytest.mark.parametrize("value", [1_800_000_000_000_000, 2**62, 1_800_000_000, -7])
def test_an_impossible_end_stops_no_command(engine: Engine, value: int) -> None:
    """Whatever another program wrote into `expires_at`, its SID and all others are fetched."""
    now = time.time()
    world = World(size=40, start=now - 86_400, span=3_600, static_at=now)
    aged(engine, world, range(1, 40))
    with engine.begin() as connection:
        connection.execute(insert(q).values(sid=world.sid(0), expires_at=value))
    with Sandbox(world, limit=0) as box:
        report = run_here(engine, box, strategy="auto")
    assert report.exit_code == 0
    assert_loaded(engine, world, world.sids())


@pytest.mark.kinds("sqlite")
@pytest.mark.parametrize("sid", ["CAST(x'564ce9' AS TEXT)", "x'00ff'", "17"])
def test_what_is_no_text_is_parked(engine: Engine, sid: str) -> None:
    """SQLite takes any bytes for a SID; they are refused before a request, like other nonsense."""
    now = time.time()
    world = World(size=3, start=now - 86_400, span=3_600, static_at=now)
    aged(engine, world, range(3))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO attempt_queue (sid, lost_leases) VALUES ({sid}, 'x')"
        )
    with Sandbox(world, limit=0) as box:
        report = run_here(engine, box, strategy="auto")
    assert (report.exit_code, report.counts["fetched"], report.counts["dead"]) == (0, 3, 1)
    with engine.connect() as connection:
        dead = connection.execute(select(q.c.outcome).where(q.c.state == "dead")).scalars().all()
    assert dead == ["malformed_sid"]


@pytest.mark.parametrize("enqueued", ["9999-12-31 23:59:59", "2001-01-01 00:00:00"])
def test_a_time_of_enqueuing_that_cannot_be_places_nothing(engine: Engine, enqueued: str) -> None:
    """Once applications are known to enqueue as they send, an odd time is still no creation time."""
    now = time.time()
    world = World(size=40, start=now - 86_400, span=3_600, static_at=now)
    with engine.begin() as connection:
        rows = [
            {"sid": world.sid(n), "enqueued_at": moment(int(world.created(n) + 5) * 1000)}
            for n in range(20)
        ]
        connection.execute(insert(q), rows)
    with Sandbox(world, limit=0) as box:
        run_here(engine, box, strategy="fetch")
        odd = [{"sid": world.sid(n), "enqueued_at": moment_of(enqueued)} for n in range(20, 40)]
        with engine.begin() as connection:
            connection.execute(insert(q), odd)
        report = run_here(engine, box, strategy="auto")
    assert report.exit_code == 0
    assert report.counts["requests"] <= 20 + 2
    assert_loaded(engine, world, world.sids())


def moment_of(text: str) -> datetime:
    """Read a time, UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(("size", "page_size"), [(6_000, 100), (6_000, 1_000)])
def test_sids_that_do_not_exist_are_not_looked_for_for_long(
    engine: Engine, size: int, page_size: int
) -> None:
    """A list without finds costs at most a tenth of its possible savings."""
    now = time.time()
    world = World(size=size, start=now - 20 * 86_400, span=19 * 86_400, static_at=now)
    with Sandbox(world, limit=0) as box:
        run_here(engine, box, strategy="fetch")
        waiting = [{"sid": f"VL{n:032x}"} for n in range(70)]
        with engine.begin() as connection:
            connection.execute(insert(q), waiting)
        report = run_here(engine, box, strategy="auto", page_size=page_size)
    assert report.counts["requests"] <= 70 * 1.1 + 2


# ---- discover


def discover(
    engine: Engine, box: Sandbox, start: int | None, end: int | None = None, **asked: Any
) -> RunReport:
    """Load a window, up to now by default."""
    api = client(box)
    job = Job(
        account=box.account_sid, allowance=Allowance(box.account_sid, 0, 60_000), policy=POLICY,
        concurrency=8, **asked,
    )  # fmt: skip
    try:
        return pipeline.discover(engine, api, job, DiscoverOptions(start, end), stop=StopFlag())
    finally:
        api.close()


def test_a_window_that_a_crash_left_is_listed_once(engine: Engine) -> None:
    """A dead worker's window, once finished by one run, is not listed again by another."""
    now = time.time()
    world = World(size=5_000, start=now - 20 * 3_600, span=19 * 3_600, static_at=now)
    start = int(now - 21 * 3_600) * 1000
    with Sandbox(world, limit=0) as box:
        with engine.begin() as connection:
            begin(connection, start, box.account_sid, end=int(now) * 1000, worker="dead")
            connection.execute(update(sweeps).values(due_at=1))
        report = discover(engine, box, start)
        assert box.stats()["lists"] <= 5 + 1
    assert report.counts["fetched"] == world.size


def test_a_list_that_was_cut_is_not_taken_for_the_whole(engine: Engine) -> None:
    """An empty list where the Summary counts thousands ends the run, and the next one lists anew."""
    now = time.time()
    world = World(size=2_000, start=now - 5 * 86_400, span=4 * 86_400, static_at=now)
    empty = '{"attempts":[],"meta":{"key":"attempts","next_page_url":null}}'
    with Sandbox(world, limit=0) as box:
        box.faults.add(Fault("body", match="list", body=empty))
        report = discover(engine, box, None)
        assert (report.exit_code, report.counts["fetched"]) == (Exit.UNREACHABLE, 0)
        box.faults.clear()
        report = discover(engine, box, None)
    assert (report.exit_code, report.counts["fetched"]) == (0, world.size)


def test_an_address_of_yesterday_restarts_its_window(engine: Engine) -> None:
    """The API may have left the address of a crashed run's page."""
    now = time.time()
    world = World(size=3_000, start=now - 86_400, span=80_000, static_at=now)
    aged(engine, world, range(world.size))
    with Sandbox(world, limit=0) as box:
        with engine.begin() as connection:
            start = int(now - 90_000) * 1000
            begin(
                connection, start, box.account_sid, end=int(now) * 1000, worker="dead",
                purpose="sweep",
            )  # fmt: skip
            elsewhere = "https://verify.example.com/v2/Attempts?PageSize=1000&Page=1"
            connection.execute(update(sweeps).values(due_at=1, next_page=elsewhere, pages=1))
        report = run_here(engine, box, strategy="auto")
    assert report.exit_code == 0
    assert_loaded(engine, world, world.sids())


def test_attempts_of_dead_rows_become_final(engine: Engine) -> None:
    """A page contradicts whatever a row died of: the attempt is refreshed like any other."""
    now = time.time()
    world = World(size=6, start=now - 7_200, span=3_600, static_at=now)
    reasons = ("exhausted", "bad_body", "body_too_large", "killed_worker", "not_found", "expired")
    with engine.begin() as connection:
        rows = [
            {"sid": sid, "state": "dead", "outcome": reason}
            for sid, reason in zip(world.sids(), reasons, strict=True)
        ]
        connection.execute(insert(q), rows)
    with Sandbox(world, limit=0) as box:
        discover(engine, box, int(now - 10_000) * 1000)
    with engine.connect() as connection:
        assert set(connection.execute(select(q.c.state)).scalars()) == {"refresh"}


def test_what_was_never_listed_is_said(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """After a first window of two days, the days before it are named with the command for them."""
    now = time.time()
    world = World(size=300, start=now - 20 * 86_400, span=19 * 86_400, static_at=now)
    with Sandbox(world, limit=0) as box:
        discover(engine, box, int(now - 2 * 86_400) * 1000)
        assert caplog.messages == []
        discover(engine, box, None)
        (said,) = caplog.messages
        assert "were never listed" in said
        words = said.partition("verify-etl discover ")[2].split()
        window = dict(zip(words[::2], words[1::2], strict=True))
        bounds = {
            name.removeprefix("--"): int(datetime.fromisoformat(text).timestamp() * 1000)
            for name, text in window.items()
        }
        discover(engine, box, bounds["since"], bounds["until"])
        caplog.clear()
        discover(engine, box, None)
    assert caplog.messages == []
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(attempts)).scalar() == world.size
