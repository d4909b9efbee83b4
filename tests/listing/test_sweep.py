"""Sweep instead of fetching: the same rows for fewer requests, whatever the list is like."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, func, select, update

from etl.database.schema import attempt_queue as q
from etl.database.schema import attempts, sweeps
from etl.errors import Exit
from etl.job.counts import Counts
from etl.sandbox import Sandbox, World
from tests.support.harness import (
    PATIENCE_S,
    assert_loaded,
    environment,
    fill,
    run_json,
    start,
    states,
    until,
    verify_etl,
)
from tests.support.in_process import run_here

AUTO = ("--strategy", "auto")
SWEEP = ("--strategy", "sweep")


@pytest.fixture
def world() -> World:
    """Give a world of one day that stands still."""
    now = time.time()
    return World(size=3_000, start=now - 86_400, span=80_000, static_at=now)


@pytest.fixture(params=["desc", "asc", "shuffled"])
def box(world: World, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Serve it without an allowance, in every order a list may have."""
    with Sandbox(world, limit=0, order=request.param, track_sids=True) as box:
        yield box


def test_a_full_queue_costs_pages(
    engine: Engine, database_url: str, world: World, box: Sandbox
) -> None:
    """3,000 SIDs of an account of 3,000 attempts cost a handful of requests, in any order."""
    fill(engine, world.sids())
    report = run_json(*AUTO, env=environment(box, database_url))
    assert report["requests"] <= 6
    assert report["fetched"] == 3_000
    assert_loaded(engine, world, world.sids())


def test_what_nobody_queued_is_left_out(
    engine: Engine, database_url: str, world: World, box: Sandbox
) -> None:
    """A sweep stores the queued SIDs of its pages and no others."""
    queued = list(world.sids())[::3]
    fill(engine, queued)
    run_json(*AUTO, env=environment(box, database_url))
    assert_loaded(engine, world, queued)


def test_what_a_sweep_does_not_find_is_fetched(
    engine: Engine, database_url: str, world: World, box: Sandbox
) -> None:
    """SIDs that the list does not show are fetched one by one afterwards."""
    fill(engine, world.sids())
    missing = list(world.sids())[::200]
    world.unlisted.update(missing)
    run_json(*AUTO, env=environment(box, database_url))
    assert sorted(box.stats()["fetched"]) == sorted(missing)
    assert_loaded(engine, world, world.sids())


@pytest.mark.parametrize("order", ["desc", "asc", "shuffled"])
def test_refreshes_met_before_they_are_due_end_no_sweep(
    engine: Engine, database_url: str, order: str
) -> None:
    """Where half of a busy quarter of an hour is due, a page of the other half counts for nothing."""
    hour = (time.time() - 7_200) // 3_600 * 3_600
    world = World(size=6_000, start=hour, span=890, static_at=time.time())
    sids = list(world.sids())
    fill(engine, sids)
    forgotten = int(hour + 720 * 3_600) * 1000
    with engine.begin() as connection:
        connection.execute(update(q).values(expires_at=forgotten))
        later = {"state": "refresh", "due_at": int(time.time() + 86_400) * 1000}
        connection.execute(update(q).where(q.c.sid.in_(sids[3_000:])).values(later))
    with Sandbox(world, limit=0, order=order) as box:
        report = run_json(*AUTO, env=environment(box, database_url))
    assert report["requests"] <= 7
    assert report["fetched"] >= 3_000
    assert "pending" not in states(engine)


def test_few_of_many_are_fetched(engine: Engine, database_url: str, world: World) -> None:
    """Three SIDs among 3,000 cost three requests, not a sweep."""
    fill(engine, list(world.sids())[:3])
    with Sandbox(world, limit=0) as box:
        report = run_json(*AUTO, env=environment(box, database_url))
        assert (box.stats()["lists"], box.stats()["summaries"]) == (0, 0)
    assert report["requests"] == 3


def test_a_row_leased_by_another_is_left_to_its_holder(
    engine: Engine, database_url: str, world: World
) -> None:
    """A sweep does not touch a row that somebody holds."""
    fill(engine, world.sids())
    held = world.sid(7)
    with engine.begin() as connection:
        lease = {"state": "leased", "claim_no": 5, "due_at": int((time.time() + 90) * 1000)}
        connection.execute(update(q).where(q.c.sid == held).values(lease))
    with Sandbox(world, limit=0) as box:
        run_json(*AUTO, env=environment(box, database_url))
    with engine.connect() as connection:
        row = connection.execute(select(q).where(q.c.sid == held)).one()
        stored = connection.execute(select(attempts.c.sid).where(attempts.c.sid == held)).all()
    assert (row.state, row.claim_no, stored) == ("leased", 5, [])
    assert states(engine)["leased"] == 1


def test_a_missing_row_comes_back_when_a_page_shows_it(
    engine: Engine, database_url: str, world: World
) -> None:
    """A row that was given up as not found is settled by a sweep that sees it."""
    fill(engine, world.sids())
    lost = world.sid(9)
    with engine.begin() as connection:
        dead = {"state": "dead", "outcome": "not_found"}
        connection.execute(update(q).where(q.c.sid == lost).values(dead))
    with Sandbox(world, limit=0) as box:
        run_json(*AUTO, env=environment(box, database_url))
    assert_loaded(engine, world, world.sids())


def test_a_sweep_ends_when_every_sid_was_shown(
    engine: Engine, database_url: str, world: World
) -> None:
    """Of 30 pages the first shows all that waits, whose age nobody knew: no other one is read."""
    queued = list(world.sids())[-100:]
    fill(engine, queued)
    with Sandbox(world, limit=0, order="desc") as box:
        report = run_json(*AUTO, env=environment(box, database_url, page_size="100"))
        assert box.stats()["lists"] == 1
    assert report["requests"] <= 3
    assert_loaded(engine, world, queued)


def test_pages_grow_again_within_a_window(engine: Engine, database_url: str) -> None:
    """After three failures at its start a list of 120 small pages ends in larger ones."""
    now = time.time()
    world = World(size=12_000, start=now - 86_400, span=80_000, static_at=now)
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        box.faults.add("error:503:match=list:count=3")
        report = run_json(*AUTO, env=environment(box, database_url))
    with engine.connect() as connection:
        sizes = connection.execute(select(sweeps.c.page_size).order_by(sweeps.c.id)).scalars()
        assert list(sizes) == [100, 250]
    # Three that fail and twenty small ones, then the whole in pages of 250.
    assert report["requests"] <= 3 + 20 + 48 + 2
    assert_loaded(engine, world, world.sids())


def test_pages_grow_for_nothing_that_is_thinly_sown(engine: Engine, database_url: str) -> None:
    """Where hardly a SID is on a page, its start is not read again: that shows none at all."""
    now = time.time()
    world = World(size=8_000, start=now - 86_400, span=80_000, static_at=now)
    queued = list(world.sids())[::89]
    fill(engine, queued)
    with Sandbox(world, limit=0) as box:
        box.faults.add("error:503:match=list:count=3")
        report = run_json(*AUTO, env=environment(box, database_url))
    assert report["requests"] <= len(queued)
    assert_loaded(engine, world, queued)


@pytest.mark.parametrize("fault", ["error:500", "reset_body", "short"])
def test_pages_shrink_when_large_ones_fail(
    engine: Engine, database_url: str, world: World, fault: str
) -> None:
    """After a page fails the next is smaller, and the sweep goes on."""
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        box.faults.add(f"{fault}:match=list:count=2")
        report = run_json(*AUTO, env=environment(box, database_url))
    with engine.connect() as connection:
        sizes = set(connection.execute(select(sweeps.c.page_size)).scalars())
    assert 250 in sizes
    assert report["requests"] <= 25
    assert_loaded(engine, world, world.sids())


def test_when_lists_fail_for_good_everything_is_fetched(
    engine: Engine, database_url: str, world: World
) -> None:
    """With a list that never works, the SIDs come one by one."""
    queued = list(world.sids())[:200]
    fill(engine, queued)
    with Sandbox(world, limit=0) as box:
        box.faults.add("html:200:match=list")
        box.faults.add("html:200:match=summary")
        report = run_json(*SWEEP, env=environment(box, database_url))
    assert report["fetched"] == 200
    assert_loaded(engine, world, queued)


@pytest.mark.parametrize("fault", ["foreign_next", "self_next", "endless_next"])
def test_a_list_that_leads_astray_ends_the_run(
    engine: Engine, database_url: str, world: World, fault: str
) -> None:
    """A next page elsewhere, or one that comes round again, ends the run with 76."""
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        box.faults.add(f"{fault}:match=list")
        done = verify_etl("run", *SWEEP, env=environment(box, database_url))
    assert done.returncode == Exit.PROTOCOL, done.stderr
    assert "leased" not in states(engine)


@contextmanager
def _killed_in_mid_window(
    engine: Engine, database_url: str
) -> Iterator[tuple[Sandbox, dict[str, str]]]:
    """Kill a run some pages into a window of twenty; in the end all of it must be loaded."""
    now = time.time()
    world = World(size=20_000, start=now - 86_400, span=80_000, static_at=now)
    fill(engine, world.sids())
    with Sandbox(world, limit=0, latency=0.1) as box:
        env = environment(box, database_url)
        process = start("run", *AUTO, env=env)
        until(lambda: box.stats()["lists"] >= 8)
        process.kill()
        process.communicate()
        yield box, env
    assert_loaded(engine, world, world.sids())


def _let_lapse(engine: Engine) -> int:
    """Let the lease of the window run out, as two minutes do; return the pages it had reached."""
    with engine.begin() as connection:
        pages: int = connection.execute(select(func.max(sweeps.c.pages))).scalar_one()
        connection.execute(update(sweeps).values(due_at=1))
    return pages


def test_a_killed_sweep_goes_on_where_it_was(engine: Engine, database_url: str) -> None:
    """After a kill in mid-window the next run reads the pages that are left, not all again."""
    with _killed_in_mid_window(engine, database_url) as (box, env):
        pages = _let_lapse(engine)
        assert pages >= 5
        before = box.stats()["lists"]
        run_json(*AUTO, env=env)
        assert box.stats()["lists"] - before <= 20 - pages + 2


def test_a_run_that_waited_for_a_dead_sweep_goes_on_where_it_was(
    engine: Engine, database_url: str
) -> None:
    """A window whose worker was killed a moment ago is waited for, then taken over, not listed anew."""
    with _killed_in_mid_window(engine, database_url) as (box, _):
        before = box.stats()["lists"]
        reached: list[int] = []

        def watch(counts: Counts) -> None:
            if counts.waiting_for == "another worker's sweep" and not reached:
                reached.append(_let_lapse(engine))

        run_here(engine, box, strategy="auto", watch=watch)
        assert 5 <= reached[0] <= 12
        assert box.stats()["lists"] - before <= 20 - reached[0]


def test_two_workers_do_not_list_one_window(engine: Engine, database_url: str) -> None:
    """A second worker waits for the first one's sweep instead of asking for the same pages."""
    now = time.time()
    world = World(size=10_000, start=now - 86_400, span=80_000, static_at=now)
    fill(engine, world.sids())
    with Sandbox(world, limit=0, latency=0.05) as box:
        env = environment(box, database_url)
        first = start("run", *AUTO, env=env)
        until(lambda: box.stats()["lists"] >= 2)
        second = start("run", *AUTO, env=env)
        outputs = [worker.communicate(timeout=PATIENCE_S) for worker in (first, second)]
        assert box.stats()["requests"] <= 15
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert_loaded(engine, world, world.sids())


def test_discover_loads_a_window_without_a_queue(
    engine: Engine, database_url: str, world: World, box: Sandbox
) -> None:
    """Every attempt of the window is stored; what can still change waits for its refresh."""
    env = environment(box, database_url)
    done = verify_etl("discover", "--since", "2d", env=env)
    assert done.returncode == 0, done.stderr
    assert box.stats()["requests"] <= 5
    with engine.connect() as connection:
        stored = set(connection.execute(select(attempts.c.sid)).scalars())
        finals = set(
            connection.execute(select(attempts.c.sid).where(attempts.c.is_final)).scalars()
        )
        queued = {row.sid: row.state for row in connection.execute(select(q))}
    assert stored == set(world.sids())
    assert set(queued) == stored - finals
    assert set(queued.values()) == {"refresh"}


def test_discover_goes_on_where_it_ended(engine: Engine, database_url: str) -> None:
    """Without --since only what came after the last whole window is listed, with an overlap."""
    now = time.time()
    world = World(size=3_000, start=now - 10 * 86_400, span=10 * 86_400 - 60, static_at=now)
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url)
        assert verify_etl("discover", env=env).returncode == 0
        before = box.stats()["requests"]
        assert verify_etl("discover", env=env).returncode == 0
        assert box.stats()["requests"] - before == 1
    with engine.connect() as connection:
        count = connection.execute(select(func.count()).select_from(attempts)).scalar_one()
        span = connection.execute(
            select(sweeps.c.window_to - sweeps.c.window_from).order_by(sweeps.c.id.desc()).limit(1)
        ).scalar_one()
    assert count == 3_000
    assert 3_600_000 <= span <= 3_700_000


def test_what_follows_an_interrupted_window_overlaps_it(engine: Engine, database_url: str) -> None:
    """The first pages of a window that is finished later were read before the break."""
    now = time.time()
    world = World(size=3_000, start=now - 10 * 86_400, span=10 * 86_400 - 60, static_at=now)
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url)
        asked = ("discover", "--since", "5d", "--until", "2h")
        assert verify_etl(*asked, env=env).returncode == 0
        with engine.begin() as connection:
            broken = {"state": "listing", "due_at": 1, "next_page": None, "pages": 0, "seen": 0}
            connection.execute(update(sweeps).values(broken))
        assert verify_etl("discover", env=env).returncode == 0
    with engine.connect() as connection:
        windows = select(sweeps.c.window_from, sweeps.c.window_to).order_by(sweeps.c.id)
        first, second = connection.execute(windows).all()
    assert second.window_from == first.window_to - 3_600_000
    assert second.window_to > first.window_to


def test_overlapping_discoveries_change_nothing_twice(engine: Engine, database_url: str) -> None:
    """A window that is listed twice leaves the same rows, queue and no changes."""
    # None becomes a day old, and final, between the two.
    now = time.time()
    world = World(size=3_000, start=now - 80_000, span=70_000, static_at=now)
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url)
        verify_etl("discover", "--since", "2d", env=env)
        with engine.connect() as connection:
            before = connection.execute(select(q).order_by(q.c.id)).all()
        verify_etl("discover", "--since", "2d", env=env)
    with engine.connect() as connection:
        after = connection.execute(select(q).order_by(q.c.id)).all()
        count = connection.execute(select(func.count()).select_from(attempts)).scalar_one()
    assert [(row.sid, row.state, row.due_at) for row in after] == [
        (row.sid, row.state, row.due_at) for row in before
    ]
    assert count == 3_000
