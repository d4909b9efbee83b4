"""Tell rows that always fail from an API that is down, wherever in the queue they stand."""

import random
import threading
import time
from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select, update

from etl.allowance.slots import Allowance
from etl.database.schema import attempt_queue as q
from etl.database.schema import attempts
from etl.database.schema import verification_queue as v
from etl.errors import Exit
from etl.fetch import claims
from etl.job.stop import StopFlag
from etl.job.tools import Job
from etl.listing.discover import DiscoverOptions
from etl.queue import attempts as queue
from etl.records import State
from etl.run import pipeline
from etl.run.pipeline import RunReport
from etl.sandbox import Sandbox, World
from tests.support.harness import assert_loaded, fill, states
from tests.support.in_process import POLICY, client, run_here
from tests.support.listings import enqueue
from tests.support.queue_rows import crowd, explain, put, read, sid

SHORT = {"read_s": 0.4, "total_s": 0.5}


def world_of(size: int) -> World:
    """Make a world that stands still and is old enough to be final."""
    now = time.time()
    return World(size=size, start=now - 12 * 86_400, span=10 * 86_400, static_at=now)


def spoil(box: Sandbox, sids: Iterable[str], fault: str = "error:500") -> None:
    """Let these SIDs, and no others, fail for ever."""
    for one in sids:
        box.faults.add(f"{fault}:sid={one}")


def stored(engine: Engine) -> set[str]:
    """Return the SIDs that are stored."""
    with engine.connect() as connection:
        return set(connection.execute(select(attempts.c.sid)).scalars())


def tries(engine: Engine, sids: Iterable[str]) -> set[tuple[str, int, int]]:
    """Return the states of these rows, with what is counted against them."""
    rows = read(engine)
    return {(rows[one].state, rows[one].attempts, rows[one].lost_leases) for one in sids}


def assert_the_good_are_stored(
    engine: Engine, report: RunReport, world: World, bad: set[str]
) -> None:
    """Assert that all but ``bad`` are stored for few requests, and that these back off."""
    assert (report.exit_code, report.error, report.pending) == (0, None, 0)
    assert stored(engine) == set(world.sids()) - bad
    assert tries(engine, bad) == {("retry", 1, 0)}
    assert report.counts["requests"] <= 1.2 * world.size + 2


@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize("fault", ["error:500", "html:200", "reset", "hang:9"])
def test_rows_that_always_fail_at_the_head_keep_nobody_waiting(
    sqlite: Engine, fault: str, concurrency: int
) -> None:
    """The hundred behind twelve bad ones are stored in the same run; the bad ones back off."""
    world = world_of(112)
    bad = set(list(world.sids())[:12])
    fill(sqlite, world.sids())
    with Sandbox(world, limit=0) as box:
        spoil(box, bad, fault)
        limits = SHORT if fault.startswith("hang") else {}
        report = run_here(sqlite, box, concurrency=concurrency, limits=limits)
        assert_the_good_are_stored(sqlite, report, world, bad)
        again = run_here(sqlite, box)
        assert (again.exit_code, again.counts["requests"]) == (0, 0)


def _places(name: str, size: int) -> list[int]:
    return {
        "head": list(range(200)),
        "middle": list(range(40, 80)),
        "end": list(range(size - 40, size)),
        "both ends": [*range(15), *range(size - 15, size)],
        "every other": list(range(0, size, 2)),
        "spread": random.Random(3).sample(range(size), size // 2),
    }[name]


@pytest.mark.parametrize("where", ["head", "middle", "end", "both ends", "every other", "spread"])
@pytest.mark.parametrize("concurrency", [1, 16])
def test_wherever_the_bad_rows_stand_the_good_ones_are_stored(
    sqlite: Engine, where: str, concurrency: int
) -> None:
    """At the head, the end, both, in a block or spread: one run stores all that can be stored."""
    world = world_of(300)
    bad = {world.sid(n) for n in _places(where, world.size)}
    fill(sqlite, world.sids())
    with Sandbox(world, limit=0) as box:
        spoil(box, bad)
        report = run_here(sqlite, box, concurrency=concurrency)
    assert_the_good_are_stored(sqlite, report, world, bad)


@pytest.mark.parametrize("limit", [1, 3, 5, 11])
def test_a_limit_below_the_bad_rows_comes_past_them(sqlite: Engine, limit: int) -> None:
    """Runs of a few SIDs each leave the bad ones behind them, and none of them ends with 69."""
    world = world_of(30)
    bad = set(list(world.sids())[:12])
    fill(sqlite, world.sids())
    with Sandbox(world, limit=0) as box:
        spoil(box, bad)
        for _ in range(-(-world.size // limit)):
            report = run_here(sqlite, box, limit=limit)
            assert (report.exit_code, report.error) == (0, None)
            assert report.counts["fetched"] + report.counts["retry"] <= limit
    assert stored(sqlite) == set(world.sids()) - bad
    assert tries(sqlite, bad) == {("retry", 1, 0)}


def test_an_allowance_is_kept_while_it_is_told_who_is_to_blame(sqlite: Engine) -> None:
    """What is asked for to tell takes slots as everything does, and gives them back."""
    world = world_of(60)
    bad = set(list(world.sids())[:14])
    fill(sqlite, world.sids())
    with Sandbox(world, limit=20, window=1.0) as box:
        spoil(box, bad)
        report = run_here(sqlite, box, allowance=(20, 1_000))
        assert box.stats()["throttled"] == 0
    assert_the_good_are_stored(sqlite, report, world, bad)


def test_a_few_good_rows_among_many_bad_ones_are_stored(sqlite: Engine) -> None:
    """Once one attempt is stored it is asked for when nothing else tells."""
    world = world_of(301)
    sids = list(world.sids())
    bad = {one for number, one in enumerate(sids) if number % 10}
    fill(sqlite, sids[:1])
    with Sandbox(world, limit=0) as box:
        run_here(sqlite, box)
        fill(sqlite, sids[1:])
        spoil(box, bad)
        report = run_here(sqlite, box)
    assert_the_good_are_stored(sqlite, report, world, bad)


@pytest.mark.parametrize("size", [12, 40])
def test_bad_rows_alone_back_off_where_something_is_stored(sqlite: Engine, size: int) -> None:
    """An attempt that is stored is asked for once more: it shows that the API is not down."""
    world = world_of(size + 3)
    good, bad = list(world.sids())[:3], set(list(world.sids())[3:])
    fill(sqlite, good)
    with Sandbox(world, limit=0) as box:
        run_here(sqlite, box)
        before = read(sqlite)
        spoil(box, bad)
        fill(sqlite, sorted(bad))
        report = run_here(sqlite, box)
    assert (report.exit_code, report.counts["retry"]) == (0, size)
    assert tries(sqlite, bad) == {("retry", 1, 0)}
    assert {one: read(sqlite)[one] for one in good} == before


@pytest.mark.parametrize("fault", ["error:500", "html:200", "reset", "hang:9"])
@pytest.mark.parametrize("history", [0, 30])
def test_an_api_that_is_down_costs_ten_requests_and_no_row(
    sqlite: Engine, fault: str, history: int
) -> None:
    """With or without stored attempts: about ten failures, 69, every row back uncounted."""
    world = world_of(150)
    sids = list(world.sids())
    with Sandbox(world, limit=0) as box:
        if history:
            fill(sqlite, sids[:history])
            run_here(sqlite, box)
        fill(sqlite, sids[history:])
        box.faults.add(fault)
        limits = SHORT if fault.startswith("hang") else {}
        report = run_here(sqlite, box, limits=limits)
    assert report.exit_code == Exit.UNREACHABLE
    assert report.counts["requests"] <= 11
    assert tries(sqlite, sids[history:]) == {("pending", 0, 0)}


@pytest.mark.parametrize("fault", ["error:503", "hang:9"])
def test_an_api_that_goes_down_in_mid_run_costs_no_row(sqlite: Engine, fault: str) -> None:
    """What was stored stays, what was in hand goes back uncounted, and little more is sent."""
    world = world_of(400)
    fill(sqlite, world.sids())
    sent: list[int] = []
    with Sandbox(world, limit=0, latency=0.01) as box:

        def watch(_counts: Any) -> None:
            if not sent and box.stats()["requests"] >= 60:
                box.faults.add(fault)
                sent.append(box.stats()["requests"])

        limits = SHORT if fault.startswith("hang") else {}
        report = run_here(sqlite, box, concurrency=16, limits=limits, watch=watch)
        wasted = box.stats()["requests"] - sent[0]
    assert report.exit_code == Exit.UNREACHABLE
    # What was on its way when it went down, a try more of each, and what told.
    assert wasted <= 16 + 16 + 10
    counts = states(sqlite)
    assert set(counts) <= {"pending", "settled", "refresh"}
    assert counts["pending"] == 400 - report.counts["fetched"]
    assert tries(sqlite, set(world.sids()) - stored(sqlite)) == {("pending", 0, 0)}


def test_several_workers_come_past_the_bad_rows(engine: Engine) -> None:
    """Three workers at once store the good ones; each tells for itself, and none ends with 69."""
    world = world_of(240)
    bad = set(list(world.sids())[:60])
    fill(engine, world.sids())
    reports: list[RunReport] = []
    with Sandbox(world, limit=0, latency=0.005) as box:
        spoil(box, bad)
        each = [
            threading.Thread(target=lambda: reports.append(run_here(engine, box))) for _ in range(3)
        ]
        for thread in each:
            thread.start()
        for thread in each:
            thread.join()
    assert [report.exit_code for report in reports] == [0, 0, 0]
    assert stored(engine) == set(world.sids()) - bad
    assert tries(engine, bad) == {("retry", 1, 0)}
    assert sum(report.counts["requests"] for report in reports) <= 1.2 * world.size + 6


def test_suspects_alone_are_left_and_the_doubt_still_ends(sqlite: Engine) -> None:
    """Rows that may kill their process are no help in telling, and hold nobody up."""
    world = world_of(8)
    bad, suspects = list(world.sids())[:4], list(world.sids())[4:]
    fill(sqlite, world.sids())
    with sqlite.begin() as connection:
        connection.execute(update(q).where(q.c.sid.in_(suspects)).values(lost_leases=2))
    with Sandbox(world, limit=0) as box:
        spoil(box, bad)
        report = run_here(sqlite, box)
    assert (report.exit_code, report.counts["fetched"], report.counts["retry"]) == (0, 4, 4)
    assert report.counts["seconds"] < 20


# ---- lists


@pytest.mark.parametrize("fault", ["error:500", "html:200", "reset"])
def test_lists_that_fail_keep_no_sid_from_being_fetched(sqlite: Engine, fault: str) -> None:
    """However often lists and Summaries fail, every SID is fetched singly in the same run."""
    world = world_of(1_500)
    with sqlite.begin() as connection:
        expires = [int(world.created(n) + 30 * 86_400) * 1000 for n in range(0, 1_500, 5)]
        sids = [world.sid(n) for n in range(0, 1_500, 5)]
        rows = [{"sid": s, "expires_at": e} for s, e in zip(sids, expires, strict=True)]
        connection.execute(insert(q), rows)
    enqueue(sqlite, *(world.attempt(n)["verification_sid"] for n in (3, 500, 900, 1_200)))
    with Sandbox(world, limit=0) as box:
        for match in ("list", "summary"):
            box.faults.add(f"{fault}:match={match}")
        report = run_here(sqlite, box, strategy="auto")
    assert report.exit_code == Exit.UNREACHABLE
    assert "Verifications that wait could not be listed" in str(report.error)
    assert stored(sqlite) == set(sids)
    assert report.counts["requests"] <= 1.2 * len(sids)


def test_discover_fetches_what_is_due_though_the_list_fails(sqlite: Engine) -> None:
    """SIDs that wait are stored, and the list that could not be read ends the run with 69."""
    world = world_of(40)
    fill(sqlite, world.sids())
    with Sandbox(world, limit=0) as box:
        box.faults.add("error:500:match=list")
        job = Job(
            account=box.account_sid, allowance=Allowance(box.account_sid, 0, 60_000),
            policy=POLICY, concurrency=8,
        )  # fmt: skip
        api = client(box)
        report = pipeline.discover(sqlite, api, job, DiscoverOptions(None, None), stop=StopFlag())
        api.close()
    assert report.exit_code == Exit.UNREACHABLE
    assert "could not be read" in str(report.error)
    assert_loaded(sqlite, world, world.sids())


@pytest.mark.parametrize("count", [3, 5])
def test_verifications_that_fail_keep_no_other_waiting(
    sqlite: Engine, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    """After lists that fail a page tells that the API works: the rest is listed, they back off."""
    world = world_of(400)
    wanted = list(dict.fromkeys(world.attempt(n)["verification_sid"] for n in range(0, 400, 40)))
    enqueue(sqlite, *wanted)
    with Sandbox(world, limit=0) as box:
        # Three tries of the first, and one of each of those that follow.
        box.faults.add(f"error:500:match=list:count={count}")
        began = time.time() * 1000
        report = run_here(sqlite, box)
        assert (report.exit_code, report.error) == (0, None)
        failed = count - 2
        with sqlite.connect() as connection:
            rows = {row.sid: row for row in connection.execute(select(v))}
        assert [rows[one].state for one in wanted] == (
            ["pending"] * failed + ["listed"] * (len(wanted) - failed)
        )
        assert all(rows[one].due_at > began + 60_000 for one in wanted[:failed])
        assert "could not be listed" in caplog.text
        with sqlite.begin() as connection:
            connection.execute(update(v).where(v.c.state == "pending").values(due_at=1))
        assert run_here(sqlite, box).exit_code == 0
    with sqlite.connect() as connection:
        assert set(connection.execute(select(v.c.state)).scalars()) == {"listed"}


def test_lists_that_are_down_put_no_verification_off(sqlite: Engine) -> None:
    """When a page fails, too, it ends with 69 after a few requests, and all are due at once."""
    world = world_of(400)
    enqueue(sqlite, *dict.fromkeys(world.attempt(n)["verification_sid"] for n in range(0, 400, 8)))
    with Sandbox(world, limit=0) as box:
        box.faults.add("error:500:match=list")
        report = run_here(sqlite, box)
    assert report.exit_code == Exit.UNREACHABLE
    assert report.counts["requests"] <= 10
    with sqlite.connect() as connection:
        latest = connection.execute(select(func.max(v.c.due_at))).scalar_one()
    assert latest <= time.time() * 1000


# ---- statements


def test_what_waits_elsewhere_is_found_by_an_index(engine: Engine) -> None:
    """Among 50,000 rows the queue's other end is read off the claim's index, unsorted."""
    crowd(engine)
    statement = claims.far_statement("")
    with engine.connect() as connection:
        ids = connection.execute(statement).scalars().all()
        every = select(q.c.id, q.c.expires_at).where(q.c.state == State.PENDING)
        rows = connection.execute(every).all()
    assert ids == [row.id for row in sorted(rows, key=lambda r: (r.expires_at, r.id), reverse=True)]
    bound = statement.compile(engine, compile_kwargs={"literal_binds": True})
    plan = explain(engine, str(bound), ())
    assert "ix_attempt_queue_claim" in plan, plan
    sorts = ("Sort", "Seq Scan", "filesort", "temporary", "TEMP B-TREE", "SCAN", " ALL ")
    assert not [word for word in sorts if word in plan], plan


def test_a_claim_of_others_leases_one_that_nobody_locks(engine: Engine) -> None:
    """Whatever it is asked to look among, a claim leases and fences as it always does."""
    put(engine, *({"sid": sid(n)} for n in range(4)))
    others = [select(*queue.LEASE_COLUMNS).where(q.c.sid == sid(n)) for n in (9, 2, 3)]
    with engine.begin() as connection:
        leases = queue.claim(
            connection, accounts=("",), worker="w", now=5, limit=1, holding=True, others=others
        )
    assert [lease.claim_no for lease in leases] == [1]
    states_now = {row.sid: row.state for row in read(engine).values()}
    assert states_now == {sid(n): "leased" if n == 2 else "pending" for n in range(4)}
