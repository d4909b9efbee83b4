import heapq
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, select

from etl.allowance import slots as slots_
from etl.allowance.pace import Pace
from etl.allowance.permits import IN_HAND_MS, Permits
from etl.allowance.slots import GATE, LONGEST_PAUSE_MS, REQUEST_MS, Allowance, Room
from etl.database.schema import api_slots as s
from etl.errors import Throttled
from etl.records import Spent
from tests.support.databases import Servers
from tests.support.harness import PATIENCE_S, scaled
from tests.support.queue_rows import HOUR, NOW, execute, own_engine

WINDOW = 60_000
HELD = WINDOW + REQUEST_MS
FIVE = Allowance("AC1", 5, WINDOW)


def open_gate(engine: Engine, allowance: Allowance = FIVE, now: int = NOW) -> None:
    """Create an account's slots."""
    with engine.begin() as connection:
        slots_.open_gate(connection, allowance, now)


def look(engine: Engine, now: int, *, take: int = 0, allowance: Allowance = FIVE) -> Room:
    """Look for room, and take some of it, in one transaction."""
    with engine.begin() as connection:
        paused = slots_.lock_gate(connection, allowance)
        room = slots_.room(connection, allowance, paused_until=paused, now=now)
        slots_.take(connection, allowance, room.free[:take], now)
        return room


def release(engine: Engine, *answered: tuple[int, int], held: dict[int, int] | None = None) -> None:
    """Give slots back in one transaction."""
    with engine.begin() as connection:
        slots_.release(connection, FIVE, answered, held)


def slots(engine: Engine) -> dict[int, int]:
    """Read when each slot is free again."""
    with engine.connect() as connection:
        return {row.slot: row.free_at for row in connection.execute(select(s).order_by(s.c.slot))}


class Time:
    """A clock and a monotonic clock that move only by sleeping."""

    def __init__(self) -> None:
        self.ms = NOW
        self.seconds = 1_000.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Move both clocks."""
        self.sleeps.append(seconds)
        self.ms += round(seconds * 1000)
        self.seconds += seconds


def permits(engine: Engine, time: Time, allowance: Allowance = FIVE) -> Permits:
    """Make one process's permits on simulated clocks."""
    return Permits(
        engine, allowance, clock=lambda _c: time.ms, sleep=time.sleep,
        monotonic=lambda: time.seconds,
    )  # fmt: skip


def do(engine: Engine, work: Callable[[Connection], object]) -> None:
    """Run something in a transaction."""
    with engine.begin() as connection:
        work(connection)


def test_slots_are_free_at_first_and_come_free_after_their_answers(engine: Engine) -> None:
    """A taken slot comes free a window after its answer, one never sent at once, a crash's late."""
    open_gate(engine)
    assert look(engine, NOW, take=3) == Room((0, 1, 2, 3, 4), NOW)
    assert look(engine, NOW).free == (3, 4)
    release(engine, (0, NOW + 2_000), (1, NOW + 100 - WINDOW))
    assert look(engine, NOW + 100).free == (3, 4, 1)
    assert look(engine, NOW + 2_000 + WINDOW - 1).free == (3, 4, 1)
    assert look(engine, NOW + 2_000 + WINDOW).free == (3, 4, 1, 0)
    assert look(engine, NOW + HELD - 1).free == (3, 4, 1, 0)
    assert look(engine, NOW + HELD).free == (3, 4, 1, 0, 2)


def test_with_none_free_the_soonest_is_waited_for(engine: Engine) -> None:
    """The room tells when to look again."""
    open_gate(engine)
    look(engine, NOW, take=5)
    release(engine, (3, NOW + 7))
    assert look(engine, NOW + 8) == Room((), NOW + 7 + WINDOW)


def test_how_long_slots_are_taken(engine: Engine) -> None:
    """Taken slots have their time, free ones none, and a pause takes them all."""

    def taken(now: int) -> list[int]:
        with engine.begin() as connection:
            return slots_.taken(connection, FIVE, now)

    assert taken(NOW) == []
    open_gate(engine)
    assert taken(NOW) == []
    look(engine, NOW, take=3)
    release(engine, (0, NOW + 100))
    assert taken(NOW + 100) == [WINDOW, HELD - 100, HELD - 100]
    with engine.begin() as connection:
        slots_.pause(connection, FIVE, NOW + HELD - 50)
    assert sorted(taken(NOW)) == [*[HELD - 50] * 3, HELD, HELD]


def test_a_smaller_allowance_uses_fewer_slots(engine: Engine) -> None:
    """Slots beyond it stay, unused."""
    open_gate(engine)
    open_gate(engine, replace(FIVE, requests=2))
    assert look(engine, NOW, allowance=replace(FIVE, requests=2)).free == (0, 1)
    assert list(slots(engine)) == [GATE, 0, 1, 2, 3, 4]


def test_slots_of_a_raised_allowance_start_a_window_later(engine: Engine) -> None:
    """Earlier requests are unknown, so only the old slots are free now."""
    open_gate(engine, replace(FIVE, requests=2))
    open_gate(engine, now=NOW)
    assert look(engine, NOW).free == (0, 1)
    assert look(engine, NOW + WINDOW).free == (0, 1, 2, 3, 4)


def test_accounts_do_not_share(engine: Engine) -> None:
    """Each account has its own slots and its own gate."""
    other = replace(FIVE, account="AC2")
    open_gate(engine)
    open_gate(engine, other)
    look(engine, NOW, take=5)
    do(engine, lambda c: slots_.pause(c, FIVE, NOW + 9))
    assert look(engine, NOW, allowance=other).free == (0, 1, 2, 3, 4)


def test_a_pause_closes_the_gate_for_all(engine: Engine) -> None:
    """No slot is free until it ends, and a shorter one does not end it."""
    open_gate(engine)
    do(engine, lambda c: slots_.pause(c, FIVE, NOW + 900))
    do(engine, lambda c: slots_.pause(c, FIVE, NOW + 5))
    assert look(engine, NOW) == Room((), NOW + 900, paused=True)
    assert len(look(engine, NOW + 900).free) == 5


@pytest.mark.parametrize(
    ("asked", "expected"), [(None, WINDOW), (1_500, 1_500), (10**14, LONGEST_PAUSE_MS)]
)
def test_a_pause_is_clamped(engine: Engine, asked: int | None, expected: int) -> None:
    """Without a time it lasts one window, and never longer than a quarter of an hour."""
    open_gate(engine)
    do(engine, lambda c: permits(engine, Time()).pause(c, asked, NOW))
    assert slots(engine)[GATE] == NOW + expected


def test_a_clock_that_jumps_back_costs_one_window(engine: Engine) -> None:
    """Pause and slots are written down once, and do not move on with the clock."""
    open_gate(engine)
    look(engine, NOW, take=5)
    do(engine, lambda c: slots_.pause(c, FIVE, NOW + 1_000))
    back = NOW - HOUR
    assert look(engine, back) == Room((), back + LONGEST_PAUSE_MS, paused=True)
    assert slots(engine) == {GATE: back + LONGEST_PAUSE_MS, **dict.fromkeys(range(5), back + HELD)}
    assert look(engine, back + LONGEST_PAUSE_MS - 1).paused
    assert len(look(engine, back + LONGEST_PAUSE_MS).free) == 5


def test_a_sleeper_does_not_free_what_another_took_since(engine: Engine) -> None:
    """A slot whose hold ran out and was taken again is not given back by its first taker."""
    open_gate(engine)
    time = Time()
    sleeper = permits(engine, time)
    do(engine, lambda c: sleeper.take(c, [0], NOW))
    time.sleep(HELD / 1000 + 100)
    look(engine, time.ms, take=5)
    taken = slots(engine)
    do(
        engine,
        lambda c: sleeper.give_back(c, [Spent(0, 1_001.0)], now=time.ms, read_at=time.seconds),
    )
    assert slots(engine) == taken


def test_a_clock_that_jumps_forward_leaves_each_process_its_own_count(engine: Engine) -> None:
    """Slots seem free an hour later; this process still waits out its own window."""
    open_gate(engine)
    time = Time()
    mine = permits(engine, time)
    used = [mine.acquire(timeout_s=1) for _ in range(5)]
    time.ms += HOUR
    with engine.begin() as connection:
        assert mine.look(connection)[1] == Room((), time.ms + IN_HAND_MS)
    spent = [Spent(slot, time.seconds) for slot in used]
    do(engine, lambda c: mine.give_back(c, spent, now=time.ms, read_at=time.seconds))
    mine.given_back(spent)
    time.ms += HOUR
    with engine.begin() as connection:
        room = mine.look(connection)[1]
    assert (room.free, room.wait_until - time.ms) == ((), WINDOW + 1)
    time.seconds += WINDOW / 1000
    with engine.begin() as connection:
        assert len(mine.look(connection)[1].free) == 5


def test_pace_counts_requests_in_hand_and_in_the_window() -> None:
    """A request counts from its taking to a window after its answer; one never sent does not."""
    pace = Pace(FIVE)
    pace.take(3)
    assert (pace.room(0), pace.wait_until()) == (2, None)
    pace.release(10.0)
    pace.release(None)
    assert (pace.room(10), pace.wait_until()) == (3, 70.0)
    assert (pace.room(69.9), pace.room(70)) == (3, 4)


def test_no_allowance_means_no_limit(engine: Engine) -> None:
    """With 0 nothing is taken, waited for or paused, and no row is needed."""
    time = Time()
    free = permits(engine, time, replace(FIVE, requests=0))
    assert (free.limited, free.acquire(timeout_s=0)) == (False, None)
    do(engine, lambda c: free.pause(c, 5, NOW))
    with engine.begin() as connection:
        assert free.look(connection) == (NOW, Room((), 0))
    assert (slots(engine), time.sleeps) == ({}, [])


def test_acquire_waits_for_a_slot_and_gives_up_in_time(engine: Engine) -> None:
    """It sleeps in short steps until one comes free, and is throttled when none does."""
    open_gate(engine)
    time = Time()
    mine = permits(engine, time)
    look(engine, NOW, take=5)
    with pytest.raises(Throttled, match="within 7 s"):
        mine.acquire(timeout_s=7)
    assert time.sleeps == [5.0, 2.0]
    release(engine, (2, NOW - WINDOW + 10_000))
    assert mine.acquire(timeout_s=7) == 2
    assert sum(time.sleeps) == pytest.approx(10)


def test_two_who_start_at_once_share_one_set_of_slots(engine: Engine) -> None:
    """Whoever comes second finds the rows there, and no error."""
    barrier = threading.Barrier(4)
    errors: list[BaseException] = []

    def start() -> None:
        try:
            with engine.connect() as connection:
                barrier.wait(PATIENCE_S)
                with connection.begin():
                    slots_.open_gate(connection, FIVE, NOW)
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, list(slots(engine))) == ([], [GATE, 0, 1, 2, 3, 4])


def test_no_slot_is_taken_twice(engine: Engine) -> None:
    """Four processes that acquire as fast as they can share thirty slots without a twin."""
    many = replace(FIVE, requests=30)
    open_gate(engine, many)
    taken: list[int | None] = []

    def work() -> None:
        mine = permits(engine, Time(), many)
        try:
            while True:
                taken.append(mine.acquire(timeout_s=0))
        except Throttled:
            return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slot for slot in taken if slot is not None) == list(range(30))


@pytest.fixture(scope="module")
def shared(servers: Servers) -> Iterator[Engine]:
    """Open one SQLite file for all the examples."""
    with own_engine(servers, "sqlite") as engine:
        event.listen(engine, "connect", lambda c, _: c.execute("PRAGMA synchronous = OFF"))
        yield engine


LATENCY = st.tuples(st.integers(0, REQUEST_MS), st.integers(0, REQUEST_MS)).map(sorted)


@settings(max_examples=scaled(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    latencies=st.lists(LATENCY, min_size=20, max_size=40),
    takes=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    crashes=st.sets(st.integers(0, 39), max_size=5),
    steps=st.dictionaries(st.integers(1, 15), st.integers(-HOUR, 0), max_size=3),
)
def test_no_window_ever_sees_more_than_the_allowance(
    shared: Engine,
    latencies: list[list[int]],
    takes: list[int],
    crashes: set[int],
    steps: dict[int, int],
) -> None:
    """Whatever the latencies, crashes and steps back of the clock, the server counts at most N."""
    execute(shared, "DELETE FROM api_slots")
    open_gate(shared)
    true, offset, turn = 0, 0, 0
    arrivals: list[int] = []
    answers: list[tuple[int, int]] = []
    waiting = list(enumerate(latencies))
    while waiting:
        while answers and answers[0][0] <= true:
            answered, slot = heapq.heappop(answers)
            release(shared, (slot, NOW + offset + answered))
        room = look(shared, NOW + offset + true, take=(take := takes[turn % len(takes)]))
        for slot in room.free[:take]:
            number, (arrives, answered) = waiting.pop() if waiting else (0, (0, 0))
            arrivals.append(true + arrives)
            if number not in crashes:
                heapq.heappush(answers, (true + answered, slot))
        turn += 1
        soonest = min([room.wait_until - NOW - offset, *(at for at, _ in answers)], default=true)
        true = max(true + 1, true + 100 if room.free else soonest)
        offset += steps.get(turn, 0)
    arrivals.sort()
    for first, later in zip(arrivals, arrivals[FIVE.requests :], strict=False):
        assert later - first >= WINDOW
