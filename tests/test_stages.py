"""Put the ways together: the urgent first, plans made anew, sweeps given up, slots given back."""

import time
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select

from etl.listing import Lister
from etl.sandbox import Sandbox, World
from etl.schema import api_slots, sweeps
from etl.schema import attempt_queue as q
from etl.sweeps import ABANDONED
from etl.tally import Tally
from tests.harness import assert_loaded
from tests.in_process import DAY, HOUR, client, parts_of, run_here

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

    def watch(_tally: Tally) -> None:
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

    def watch(tally: Tally) -> None:
        if tally.fetched and (numbers := next(more, None)):
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
    """After twenty good pages of 100 the next windows get pages of 250, and not yet of 1,000."""
    now = time.time()
    world = World(size=2_600, start=now - 86_400, span=80_000, static_at=now)
    sizes: list[int] = []
    with Sandbox(world, limit=0) as box:
        api = client(box)
        lister = Lister(parts_of(engine, api), largest_page=1_000)
        lister.page_size = 100
        for day in (2, 3):
            start = int(now * 1000) - day * DAY
            listing = lister.begin("discover", start, int(now * 1000) - (day - 2) * HOUR)
            assert listing is not None
            sizes.append(listing.page_size)
            lister.window(listing, write=_nothing(lister), go_on=lambda _listing: True)
        api.close()
    assert sizes == [100, 250]
    assert lister.page_size == 250


def _nothing(lister: Lister) -> Any:
    def write(connection: Any, _found: Any, sent_at: int) -> Any:
        return lister.store(connection, [], sent_at, discover=False)

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
