"""Let several workers share one database: no SID at the same time twice, one allowance."""

import json
import time

from sqlalchemy import Engine, select

from etl.database.schema import attempt_queue as q
from etl.sandbox import Sandbox, World
from tests.support.harness import PATIENCE_S, assert_loaded, environment, fill, start, states


def test_two_workers_share_queue_and_allowance(engine: Engine, database_url: str) -> None:
    """Two processes drain one queue: each SID is fetched once, and no window is exceeded."""
    world = World(size=150, static_at=time.time())
    fill(engine, world.sids())
    # The allowance scaled from 100 in 60 s to 30 in 3 s, at the client and at the server.
    with Sandbox(world, limit=30, window=3.0, latency=0.01, track_sids=True) as box:
        env = environment(box, database_url, allowance="30", allowance_window="3s")
        workers = [start("run", env=env) for _ in range(2)]
        outputs = [worker.communicate(timeout=PATIENCE_S) for worker in workers]
        stats = box.stats()
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert stats["throttled"] == 0
    assert stats["peak_in_window"] <= 30
    assert stats["concurrent_same_sid"] == 0
    assert set(stats["fetched"].values()) == {1}
    assert_loaded(engine, world, world.sids())


def test_two_workers_without_an_allowance_never_fetch_one_sid_twice(
    engine: Engine, database_url: str
) -> None:
    """At full speed on one queue two processes still fetch each SID exactly once."""
    world = World(size=1_000, static_at=time.time())
    fill(engine, world.sids())
    with Sandbox(world, limit=0, latency=0.005, track_sids=True) as box:
        env = environment(box, database_url, concurrency="8")
        workers = [start("run", env=env) for _ in range(2)]
        outputs = [worker.communicate(timeout=PATIENCE_S) for worker in workers]
        stats = box.stats()
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert stats["concurrent_same_sid"] == 0
    assert set(stats["fetched"].values()) == {1}
    with engine.connect() as connection:
        claims = set(connection.execute(select(q.c.claim_no)).scalars())
    assert claims == {1}
    assert_loaded(engine, world, world.sids())


def test_a_short_queue_does_not_wait(engine: Engine, database_url: str) -> None:
    """A hundred SIDs are sent at once, whatever the window: here it would be an hour."""
    world = World(size=100, static_at=time.time())
    fill(engine, world.sids())
    with Sandbox(world) as box:
        env = environment(box, database_url, allowance="100", allowance_window="1h")
        worker = start("run", env=env)
        worker.communicate(timeout=PATIENCE_S)
        assert box.stats()["throttled"] == 0
    assert worker.returncode == 0
    assert set(states(engine)) <= {"settled", "refresh"}


def test_a_429_pauses_every_worker(engine: Engine, database_url: str) -> None:
    """One worker's Retry-After closes the gate for the other, and no row pays for it."""
    world = World(size=60, static_at=time.time())
    fill(engine, world.sids())
    with Sandbox(world, limit=0, latency=0.01) as box:
        box.faults.add("throttle:2:count=1")
        env = environment(box, database_url, allowance="100", allowance_window="5s")
        workers = [start("run", "--json", env=env) for _ in range(2)]
        outputs = [worker.communicate(timeout=PATIENCE_S) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert max(json.loads(output)["seconds"] for output, _ in outputs) >= 2
    with engine.connect() as connection:
        assert set(connection.execute(select(q.c.attempts)).scalars()) == {0}
    assert_loaded(engine, world, world.sids())
