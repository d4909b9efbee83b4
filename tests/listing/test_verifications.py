"""Note, lease and give back Verifications inside the test's own process."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, select, update

from etl.database.schema import attempts
from etl.database.schema import verification_queue as v
from etl.database.times import clock
from etl.decide.plan import plan
from etl.decide.values import Density, Plan, Waiting
from etl.errors import Exit
from etl.job.counts import Counts
from etl.job.stop import StopFlag
from etl.listing import due, sweep
from etl.listing.due import DueVerifications
from etl.queue import verifications
from etl.queue.verifications import LEASE_MS
from etl.sandbox import Sandbox, World
from tests.support.harness import PATIENCE_S, MakeApi, environment, start, verify_etl
from tests.support.in_process import DAY, HOUR, parts_of, run_here
from tests.support.listings import REFUSED, enqueue, stored
from tests.support.queue_rows import DIGITS, NOW, execute, explain, watch


@pytest.fixture
def world() -> World:
    """Give a world of ten days that stands still, and is old enough to be final."""
    now = time.time()
    return World(size=4_000, start=now - 14 * 86_400, span=10 * 86_400, static_at=now)


def _ask_for(engine: Engine, world: World, count: int) -> set[str]:
    """Enqueue so many Verifications of a world; return the SIDs of their attempts."""
    places = range(0, world.size, world.size // count)
    wanted = [world.attempt(i)["verification_sid"] for i in places]
    enqueue(engine, *wanted)
    return {world.sid(i) for sid in wanted for i in world.members(sid)}


def _rows(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        return {row.sid: row for row in connection.execute(select(v).order_by(v.c.id))}


# ---- what a sweep has shown


def test_what_a_sweep_has_shown_is_noted_in_one_update(engine: Engine, world: World) -> None:
    """However many Verifications a sweep has shown, one statement notes all that are final."""
    sids = _ask_for(engine, world, 400)
    with Sandbox(world, limit=0) as box, watch(engine) as noted:
        report = run_here(engine, box, strategy="auto")
    assert report.counts["requests"] <= 10
    assert len([s for s, _ in noted if s.startswith("UPDATE") and "found=" in s]) == 1
    assert stored(engine) == sids
    rows = _rows(engine).values()
    assert {row.state for row in rows} == {"listed"}
    assert {row.sid: row.found for row in rows} == {
        row.sid: len(world.members(row.sid)) for row in rows
    }


@pytest.mark.parametrize(("age", "gap"), [(9 * DAY, 0), (15 * DAY, DAY)])
def test_windows_without_a_gap_are_a_sweep_of_everything(
    engine: Engine, world: World, monkeypatch: pytest.MonkeyPatch, age: int, gap: int
) -> None:
    """What two windows have shown is listed by name only if they leave something between them."""

    def split(waiting: Waiting, density: Density, **how: Any) -> Plan:
        made = plan(waiting, density, **how)
        if waiting.swept or not made.sweeps:
            return replace(made, sweeps=())
        (whole,) = made.sweeps
        middle = whole.end - age
        halves = (replace(whole, start=middle), replace(whole, end=middle - gap))
        return replace(made, sweeps=halves)

    monkeypatch.setattr(sweep, "plan", split)
    sids = _ask_for(engine, world, 40)
    with Sandbox(world, limit=0) as box:
        run_here(engine, box, strategy="auto")
        assert (box.stats()["lists"] <= 8) == (not gap)
    assert stored(engine) == sids


def test_only_what_is_stored_and_due_is_noted(engine: Engine, make_api: MakeApi) -> None:
    """Without attempts a Verification still waits, and one that is not due is left as it is."""
    ahead = time.time_ns() // 1_000_000 + HOUR
    finals = {"final": [True, True], "young": [True, False], "ahead": [True], "none": []}
    enqueue(engine, *(sid for sid in finals if sid != "ahead"))
    rows = [
        {"sid": f"{ve}{n}", "verification_sid": ve, "is_final": final}
        for ve, several in finals.items()
        for n, final in enumerate(several)
    ]
    with engine.begin() as connection:
        connection.execute(insert(v).values(sid="ahead", due_at=ahead))
        fetched = {"first_fetched_at": 1, "fetched_at": 1}
        connection.execute(insert(attempts), [{**row, **fetched} for row in rows])
    DueVerifications(parts_of(engine, make_api(REFUSED))).covered(finals)
    assert {
        row.sid: (row.state, row.found, row.listed_at is not None) for row in _rows(engine).values()
    } == {
        "final": ("listed", 2, True),
        "young": ("pending", 2, True),
        "none": ("pending", 0, False),
        "ahead": ("pending", 0, False),
    }
    assert _rows(engine)["young"].due_at > ahead
    assert _rows(engine)["ahead"].due_at == ahead


def test_without_a_sweep_nobody_reads_all_that_are_due(engine: Engine, world: World) -> None:
    """Where a few Verifications are listed by name, no statement asks for all of them."""
    sids = _ask_for(engine, world, 4)
    with Sandbox(world, limit=0) as box, watch(engine) as noted:
        run_here(engine, box, strategy="auto")
        assert box.stats()["lists"] == 4
    assert [s for s, parameters in noted if str(due.ALL) in str(parameters)] == []
    assert stored(engine) == sids


# ---- leases


A, B, C, D = (f"VE{digit * 32}" for digit in "abcd")


def _claim(engine: Engine, limit: int = 20, *, now: int = NOW) -> dict[str, int]:
    with engine.begin() as connection:
        return verifications.claim(connection, accounts=("", "AC1"), now=now, limit=limit)


def _put_off(engine: Engine, held: dict[str, int], due_at: int) -> dict[str, int]:
    with engine.begin() as connection:
        return verifications.put_off(connection, held, due_at=due_at)


def _waiting(engine: Engine) -> int:
    """Count the Verifications that a run would list now."""
    with engine.connect() as connection:
        accounts = ("", "AC1")
        return verifications.count_due(connection, accounts=accounts, now=clock(connection))


def test_a_verification_that_is_leased_does_not_wait(engine: Engine) -> None:
    """The longest due is claimed first, and again only when its lease has run out."""
    enqueue(engine, A, B, C, D)
    with engine.begin() as connection:
        connection.execute(update(v).where(v.c.sid == A).values(due_at=5))
        connection.execute(insert(v).values(sid="stranger's", account="AC2"))
    assert [list(_claim(engine, 2)) for _ in range(3)] == [[B, C], [D, A], []]
    with engine.connect() as connection:
        assert verifications.count_due(connection, accounts=("", "AC1"), now=NOW) == 0
    assert _claim(engine, now=NOW + LEASE_MS - 1) == {}
    assert sorted(_claim(engine, now=NOW + LEASE_MS)) == [A, B, C, D]


def test_what_is_no_verification_is_parked_and_never_sent(engine: Engine, world: World) -> None:
    """Nonsense that somebody inserted is missing without a request, and keeps nobody waiting."""
    odd = ["", "VE1", "../Services", world.sid(0), A + "0", *(f"VE{n}" for n in range(2, 45))]
    enqueue(engine, *odd)
    wanted = _ask_for(engine, world, 1)
    with Sandbox(world, limit=0) as box:
        run_here(engine, box, strategy="fetch")
        assert box.stats()["requests"] == 1
    assert [row.state for row in _rows(engine).values()] == [*["missing"] * len(odd), "listed"]
    assert stored(engine) == wanted


def test_duethat_no_page_shows_are_listed_by_name(engine: Engine, world: World) -> None:
    """A sweep that looks for them in vain is not begun again and again."""
    wanted = _ask_for(engine, world, 1)
    enqueue(engine, A, B, C, D, f"VE{'e' * 32}")
    with Sandbox(world, limit=0) as box:
        run_here(engine, box, strategy="auto")
        assert box.stats()["requests"] <= 6 + 4
    assert stored(engine) == wanted
    assert {row.tries for row in _rows(engine).values()} == {0, 1}


@pytest.mark.parametrize("tries", [-(10**9), 2**31 - 1])
def test_an_odd_number_of_tries_ends_all_the_same(engine: Engine, tries: int) -> None:
    """Whatever somebody wrote, a Verification without attempts is missing after three lists."""
    enqueue(engine, A)
    with engine.begin() as connection:
        connection.execute(update(v).values(tries=tries))
    for turn in range(3):
        now = NOW + turn * HOUR
        lease = _claim(engine, now=now).get(A, 0)
        with engine.begin() as connection:
            verifications.listed(connection, A, found=0, due_at=None, lease=lease, now=now)
    assert _rows(engine)[A].state == "missing"


def test_a_lease_that_is_lost_is_neither_renewed_nor_given_back(engine: Engine) -> None:
    """Whoever claims a Verification again keeps it; the same renewal done twice holds."""
    enqueue(engine, A, B)
    first = _claim(engine)
    second = _claim(engine, 1, now=NOW + LEASE_MS)
    later = NOW + 2 * LEASE_MS
    assert _put_off(engine, first, later - 1) == {B: later - 1}
    assert _put_off(engine, first, later - 1) == {B: later - 1}
    assert _put_off(engine, first | {B: later - 1}, 1) == {B: 1}
    assert {sid: row.due_at for sid, row in _rows(engine).items()} == {**second, B: 1}


def test_an_absence_that_is_noted_twice_counts_once(engine: Engine) -> None:
    """When two workers find nothing at once, that is one of three lists, not two."""
    enqueue(engine, A)
    lease = _claim(engine)[A]
    for _ in range(2):
        with engine.begin() as connection:
            verifications.listed(connection, A, found=0, due_at=None, lease=lease, now=NOW)
    row = _rows(engine)[A]
    assert (row.state, row.tries, row.due_at) == ("pending", 1, NOW + verifications.AGAIN_MS)


def test_a_claim_reads_an_index_and_sorts_nothing(engine: Engine) -> None:
    """Among 50,000 Verifications at rest or not due, a claim walks those that are due."""
    lite = engine.dialect.name == "sqlite"
    name = "printf('VE%032d', n)" if lite else "CONCAT('VE', LPAD(CAST(n AS CHAR(9)), 32, '0'))"
    execute(
        engine,
        f"INSERT INTO verification_queue (sid, state, due_at) SELECT {name},"
        " CASE WHEN n % 2 = 0 THEN 'listed' ELSE 'pending' END,"
        f" CASE WHEN n % 125 = 0 THEN n ELSE {NOW + HOUR} + n END FROM ("
        "SELECT a.i + 10 * b.i + 100 * c.i + 1000 * d.i + 10000 * e.i AS n"
        f" FROM ({DIGITS}) a, ({DIGITS}) b, ({DIGITS}) c, ({DIGITS}) d, ({DIGITS}) e"
        " WHERE e.i < 5) numbers",
    )
    analyze = "ANALYZE TABLE" if engine.dialect.name in {"mysql", "mariadb"} else "ANALYZE"
    execute(engine, f"{analyze} verification_queue")
    with watch(engine) as noted:
        assert len(_claim(engine)) == 20
    (plan,) = [explain(engine, s, p) for s, p in noted if s.startswith("SELECT")]
    assert "ix_verification_queue_due" in plan, plan
    sorts = ("Sort", "Seq Scan", "filesort", "temporary", "TEMP B-TREE", "SCAN", " ALL ")
    assert not [word for word in sorts if word in plan], plan


def test_two_workers_list_each_verification_once(
    engine: Engine, database_url: str, world: World
) -> None:
    """Two processes share what is due, and both end when nothing of it is left."""
    sids = _ask_for(engine, world, 50)
    with Sandbox(world, limit=0, latency=0.05) as box:
        env = environment(box, database_url)
        workers = [start("run", env=env) for _ in range(2)]
        outputs = [worker.communicate(timeout=PATIENCE_S) for worker in workers]
        assert box.stats()["lists"] == 50
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert stored(engine) == sids
    assert {row.state for row in _rows(engine).values()} == {"listed"}


@pytest.mark.parametrize(
    ("ended_by", "code"), [("a signal", Exit.SIGTERM), ("401", Exit.CREDENTIALS)]
)
def test_a_run_that_ends_gives_back_what_it_has_not_listed(
    engine: Engine, world: World, ended_by: str, code: Exit
) -> None:
    """After a signal and after an error the rest is due at once, not when leases run out."""
    _ask_for(engine, world, 8)
    stop = StopFlag()

    def watch(counts: Counts) -> None:
        if counts.requests < 3:
            return
        if ended_by == "a signal":
            stop.stop(15)
        else:
            box.faults.add("error:401:match=list")

    with Sandbox(world, limit=0) as box:
        report = run_here(engine, box, stop=stop, watch=watch)
    assert (report.exit_code, _waiting(engine)) == (code, 5)


def test_what_another_worker_took_over_is_left_to_it(
    engine: Engine, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose leases ran out during a list asks for no more of what somebody else has claimed."""
    monkeypatch.setattr(due, "RENEW_S", 0.0)
    _ask_for(engine, world, 4)
    theirs = time.time_ns() // 1_000_000 + HOUR

    def watch(counts: Counts) -> None:
        if not counts.listed:
            return
        with engine.begin() as connection:
            connection.execute(update(v).where(v.c.state == "pending").values(due_at=theirs))

    with Sandbox(world, limit=0) as box:
        report = run_here(engine, box, watch=watch)
        assert box.stats()["lists"] == 1
    assert report.exit_code == 0
    assert [(row.state, row.due_at) for row in _rows(engine).values()] == [
        ("listed", 0), *[("pending", theirs)] * 3
    ]  # fmt: skip


def test_whatever_commit_gets_no_answer_nothing_is_forgotten_or_listed_twice(
    engine: Engine, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each Verification is listed once, and an absence counted once, though all is done twice."""

    def twice(engine: Engine, work: Callable[[Connection], Any], **_how: Any) -> Any:
        with engine.begin() as connection:
            work(connection)
        with engine.begin() as connection:
            return work(connection)

    monkeypatch.setattr(due, "transact", twice)
    monkeypatch.setattr(due, "RENEW_S", 0.0)
    sids = _ask_for(engine, world, 50)
    enqueue(engine, "VE" + "0" * 32)
    with Sandbox(world, limit=0) as box:
        report = run_here(engine, box)
        assert box.stats()["lists"] == 51
    assert (report.exit_code, stored(engine)) == (0, sids)
    states = [(row.state, row.tries) for row in _rows(engine).values()]
    assert states == [("listed", 0)] * 50 + [("pending", 1)]


def test_a_missing_verification_is_tried_again_when_a_person_says_so(
    engine: Engine, database_url: str
) -> None:
    """`retry` brings back one by its SID, and all with --all; those that wait stay as they are."""
    rows: list[dict[str, Any]] = [
        {"sid": f"VE{n:032x}", "state": state, "tries": 3, "due_at": 9}
        for n, state in enumerate(("missing", "missing", "missing", "listed"))
    ]
    with engine.begin() as connection:
        connection.execute(insert(v), rows)
    with Sandbox(World(size=1, start=0, span=1), limit=0) as box:
        env = environment(box, database_url)
        one = verify_etl("retry", "--json", rows[0]["sid"], rows[3]["sid"], env=env)
        rest = verify_etl("retry", "--json", "--all", env=env)
    assert (json.loads(one.stdout), json.loads(rest.stdout)) == ({"revived": 1}, {"revived": 2})
    with engine.connect() as connection:
        found = connection.execute(select(v.c.state, v.c.tries).order_by(v.c.id)).all()
    assert [tuple(row) for row in found] == [("pending", 0)] * 3 + [("listed", 3)]
