"""Kill the job at any moment and start it again: nothing is lost, nothing is written twice."""

import random
import signal
import subprocess
import time

import pytest
from sqlalchemy import Engine, delete, func, insert, select, update

from etl.database.schema import attempt_changes
from etl.database.schema import attempt_queue as q
from etl.database.times import clock
from etl.queue import attempts
from etl.queue.attempts import ALONE_AFTER, DEAD_AFTER
from etl.records import State
from etl.sandbox import Sandbox, World
from tests.support.harness import (
    PATIENCE_S,
    assert_loaded,
    environment,
    fill,
    for_a_while,
    run_json,
    scaled,
    start,
    states,
    until,
    verify_etl,
)
from tests.support.in_process import HOUR, run_here

KILLS = scaled(20)


def _lapse(engine: Engine) -> None:
    """Let every lease run out, as two minutes do."""
    with engine.begin() as connection:
        connection.execute(update(q).where(q.c.state == State.LEASED).values(due_at=1))


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.soak
def test_killed_at_any_moment_it_loses_nothing(engine: Engine, database_url: str) -> None:
    """After 20 kills at random moments one more run leaves every row, once, as the API holds it."""
    chance = random.Random(1)
    world = World(size=1_000 + 250 * KILLS, static_at=time.time())
    fill(engine, world.sids())
    with Sandbox(world, limit=0, latency=0.01) as box:
        env = environment(box, database_url, concurrency="8")
        for _ in range(KILLS):
            seen = box.stats()["requests"]
            more = chance.randrange(0, 150)
            process = start("run", env=env)
            until(lambda seen=seen, more=more: box.stats()["requests"] - seen >= more)  # type: ignore[misc]
            for _ in range(chance.randrange(1_000)):
                # A little later, at a moment that depends on nothing that the program does.
                box.stats()
            assert process.poll() is None, "it must be killed in mid-run"
            _kill(process)
            _lapse(engine)
        report = run_json(env=env)
        sent = box.stats()["requests"]
    assert report["fetched"] > 0
    assert_loaded(engine, world, world.sids())
    # A kill wastes what was in hand and what waited for its batch, no more.
    assert sent <= world.size + KILLS * 400
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(attempt_changes)).scalar() == 0


def test_killed_before_the_answer_a_lease_is_lost_and_counted(
    engine: Engine, database_url: str
) -> None:
    """A row whose worker was killed in mid-request is pending again with one lost lease."""
    world = World(size=1, static_at=time.time())
    fill(engine, world.sids())
    with Sandbox(world, limit=0, latency=5) as box:
        process = start("run", env=environment(box, database_url))
        until(lambda: states(engine) == {"leased": 1} and box.stats()["connections"] >= 1)
        _kill(process)
        _lapse(engine)
        box.latency = 0
        with engine.connect() as connection:
            assert connection.execute(select(q.c.claim_no)).scalar_one() == 1
        run_json(env=environment(box, database_url))
    with engine.connect() as connection:
        row = connection.execute(select(q)).one()
    assert (row.claim_no, row.lost_leases, row.fetches) == (2, 0, 1)
    assert_loaded(engine, world, world.sids())


def _lost(engine: Engine) -> dict[str, int]:
    """Let leases run out and be taken back; return how many each row has lost."""
    _lapse(engine)
    with engine.begin() as connection:
        attempts.promote(connection, clock(connection))
        found = connection.execute(select(q.c.sid, q.c.lost_leases))
        return {row.sid: row.lost_leases for row in found}


def test_a_row_that_kills_its_workers_is_dead_after_five(engine: Engine, database_url: str) -> None:
    """Each worker dies while it holds one row: after the second death no other row pays for it."""
    world = World(size=20, static_at=time.time())
    sids = list(world.sids())
    killer, heralds, others = sids[0], sids[1:6], sids[6:11]
    fill(engine, [killer, *sids[11:]])
    with engine.begin() as connection:
        # The hours until it is forgotten put each round's rows into their order.
        now = clock(connection)
        late = {"expires_at": now + 2 * HOUR}
        connection.execute(update(q).where(q.c.sid == killer).values(late))
    lost: list[dict[str, int]] = []
    with Sandbox(world, limit=0, latency=0.3) as box:
        box.faults.add(f"slow:60:sid={killer}")
        env = environment(box, database_url, concurrency="4")
        for death, (herald, other) in enumerate(zip(heralds, others, strict=True), start=1):
            with engine.begin() as connection:
                # The herald's answer ends the time in which one request is in hand, whatever it is.
                row = {"sid": herald, "expires_at": now + HOUR}
                # No suspect yet, and before all who are.
                next_one = {"sid": other, "expires_at": now + 3 * HOUR - death}
                connection.execute(insert(q), [row, next_one])
            process = start("run", env=env)
            until(lambda death=death: box.stats()["faults"].get("slow") == death)  # type: ignore[misc]
            if death <= ALONE_AFTER:
                until(lambda: states(engine)["leased"] > 1)
            else:
                for_a_while(lambda: states(engine)["leased"] == 1)
            _kill(process)
            lost.append(_lost(engine))
        box.latency = 0
        assert run_here(engine, box).exit_code == 0
        assert box.stats()["faults"]["slow"] == DEAD_AFTER
    assert [each[killer] for each in lost] == [1, 2, 3, 4, 5]
    assert sum(lost[0].values()) > 1, "others must be in hand when the worker dies"
    second = {sid: count for sid, count in lost[1].items() if sid != killer}
    for later in lost[2:]:
        assert all(later[sid] <= second.get(sid, 0) for sid in later if sid != killer)
    with engine.connect() as connection:
        found = {row.sid: row for row in connection.execute(select(q))}
    assert (found[killer].state, found[killer].outcome) == ("dead", "killed_worker")
    with engine.begin() as connection:
        connection.execute(delete(q).where(q.c.sid == killer))
    assert_loaded(engine, world, [sid for sid in sids if sid != killer])


def test_a_dead_row_comes_back_when_a_person_says_so(engine: Engine, database_url: str) -> None:
    """`retry` makes a row pending again that was taken for the killer of its workers."""
    world = World(size=1, static_at=time.time())
    fill(engine, world.sids())
    with engine.begin() as connection:
        hurt = {"state": State.LEASED, "due_at": 1, "lost_leases": DEAD_AFTER - 1}
        connection.execute(update(q).values(hurt))
    with Sandbox(world, limit=0) as box:
        env = environment(box, database_url)
        assert run_here(engine, box).counts["dead"] == 1
        assert verify_etl("retry", world.sid(0), env=env).stdout == "1 back to pending.\n"
        assert run_here(engine, box).counts["fetched"] == 1
    assert_loaded(engine, world, world.sids())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_in_good_order(
    engine: Engine, database_url: str, number: signal.Signals
) -> None:
    """Requests in hand finish, the rest goes back uncounted, and the exit code names the signal."""
    # A minute's work, of which the signal must leave some.
    world = World(size=5_000, static_at=time.time())
    fill(engine, world.sids())
    with Sandbox(world, limit=0, latency=0.1) as box:
        process = start("run", "--json", env=environment(box, database_url, concurrency="8"))
        until(lambda: box.stats()["requests"] > 20)
        process.send_signal(number)
        output, _ = process.communicate(timeout=PATIENCE_S)
        sent = box.stats()["requests"]
    assert process.returncode == 128 + number
    assert sent < world.size
    assert f'"exit_code": {128 + number}' in output
    counts = states(engine)
    assert set(counts) <= {"pending", "settled", "refresh"}
    # Every request that was sent is stored: a signal wastes none.
    assert counts.get("settled", 0) + counts.get("refresh", 0) == sent
    with engine.connect() as connection:
        worst = select(func.max(q.c.attempts), func.max(q.c.lost_leases))
        assert connection.execute(worst).one() == (0, 0)


def test_a_second_signal_ends_it_at_once(engine: Engine, database_url: str) -> None:
    """Who asks twice does not wait for the request in hand."""
    world = World(size=5)
    fill(engine, world.sids())
    with Sandbox(world, limit=0, latency=3_600) as box:
        process = start("run", env=environment(box, database_url))
        until(lambda: box.stats()["connections"] >= 1)
        process.send_signal(signal.SIGTERM)
        for_a_while(lambda: process.poll() is None)

        def ends_if_asked_again() -> bool:
            # Again, for two that arrive together are one.
            process.send_signal(signal.SIGTERM)
            return process.poll() is not None

        until(ends_if_asked_again)
        process.communicate()
    assert process.returncode == 128 + signal.SIGTERM


def test_a_worker_paused_past_its_lease_writes_nothing(engine: Engine, database_url: str) -> None:
    """SIGSTOP past the lease, another worker finishes, SIGCONT: the late finish is discarded."""
    world = World(size=40, static_at=time.time())
    fill(engine, world.sids())
    with Sandbox(world, limit=0, latency=0.5) as box:
        env = environment(box, database_url, concurrency="4")
        process = start("run", "--json", env=env)
        until(lambda: box.stats()["max_concurrency"] >= 4)
        process.send_signal(signal.SIGSTOP)
        _lapse(engine)
        box.latency = 0
        run_json(env=env)
        with engine.connect() as connection:
            before = connection.execute(select(q).order_by(q.c.id)).all()
        process.send_signal(signal.SIGCONT)
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert '"discarded": 0' not in output
    with engine.connect() as connection:
        assert connection.execute(select(q).order_by(q.c.id)).all() == before
    assert_loaded(engine, world, world.sids())
