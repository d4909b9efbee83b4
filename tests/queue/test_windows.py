"""Lease windows, fence them, and say up to when they leave no gap, on every database."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, update

from etl.database.schema import sweeps as s
from etl.queue import windows as windows_
from tests.support.harness import PATIENCE_S
from tests.support.listings import attempt_to_begin, begin, resume


def test_a_window_that_another_worker_lists_is_not_begun(engine: Engine) -> None:
    """Whoever overlaps it by a moment waits; a neighbour, another scope or account does not."""
    with engine.begin() as connection:
        begin(connection, 5, end=9)
        assert attempt_to_begin(connection, 8, end=12, worker="other") is None
        assert attempt_to_begin(connection, 1, end=6, worker="other", purpose="sweep") is None
        elsewhere: list[dict[str, Any]] = [{"scope": "VA1"}, {"account": "AC2"}]
        begin(connection, 9, end=12, worker="other")
        begin(connection, 1, end=5, worker="third")
        for more in elsewhere:
            begin(connection, 5, end=9, worker="other", **more)


def test_of_workers_that_begin_at_once_one_lists(engine: Engine) -> None:
    """Crons start at the same moment; the window is listed once."""
    start_together = threading.Barrier(4)

    def one(worker: str) -> bool:
        with engine.begin() as connection:
            start_together.wait(PATIENCE_S)
            return attempt_to_begin(connection, 5, end=9, worker=worker) is not None

    def on_sqlite(worker: str) -> bool:
        # Its writers are alone from their BEGIN, so they cannot meet inside.
        start_together.wait(PATIENCE_S)
        with engine.begin() as connection:
            return attempt_to_begin(connection, 5, end=9, worker=worker) is not None

    meet = on_sqlite if engine.dialect.name == "sqlite" else one
    with ThreadPoolExecutor(4) as pool:
        began = list(pool.map(meet, ("a", "b", "c", "d")))
    assert sorted(began) == [False, False, False, True]


def test_a_window_begun_twice_is_one(engine: Engine) -> None:
    """When a commit's answer was lost, the window that it began is found instead of another."""
    with engine.begin() as connection:
        first = begin(connection, 5, end=9)
    with engine.begin() as connection:
        again = begin(connection, 5, end=9)
        assert not windows_.end(connection, first, windows_.DONE, now=1)
        assert windows_.end(connection, again, windows_.DONE, now=1)
    with engine.begin() as connection:
        third = begin(connection, 5, end=9)
    assert again.id == first.id
    assert first.id != third.id


def test_a_window_resumed_twice_is_held(engine: Engine) -> None:
    """When a commit's answer was lost, the window that it took over is still this worker's."""
    with engine.begin() as connection:
        begin(connection, 5, "AC", purpose="sweep", end=9)
        connection.execute(update(s).values(due_at=1))
    taken = []
    for _ in range(2):
        with engine.begin() as connection:
            taken.append(resume(connection))
    assert taken[1] is not None
    with engine.begin() as connection:
        assert windows_.end(connection, taken[1], windows_.DONE, now=1)


@pytest.mark.parametrize(
    ("windows", "since", "reached"),
    [
        ([], 0, None),
        ([(10, 20)], 0, 20),
        ([(10, 20), (20, 30), (29, 40)], 0, 40),
        ([(10, 20), (50, 60)], 0, 20),
        ([(50, 60), (10, 20), (15, 18), (19, 50)], 0, 60),
        ([(10, 20), (12, 60), (15, 30)], 0, 60),
        # Of what is forgotten nothing is missing, but for what came after it.
        ([(10, 20), (50, 60)], 30, 30),
        ([(10, 20), (30, 60)], 30, 60),
        ([(10, 20)], 40, 40),
        ([(45, 50)], 40, 50),
    ],
)
def test_a_gap_is_not_stepped_over(
    engine: Engine, windows: list[tuple[int, int]], since: int, reached: int | None
) -> None:
    """Times are listed up to the first gap after the earliest window; other kinds do not count."""
    with engine.begin() as connection:
        for start_ms, end in windows:
            windows_.end(connection, begin(connection, start_ms, end=end), windows_.DONE, now=1)
        begin(connection, 1, end=99)
        for other in ({"scope": "VA"}, {"purpose": "sweep"}, {"account": "AD"}):
            made = begin(connection, 1, end=99, **other)
            windows_.end(connection, made, windows_.DONE, now=1)
        found = windows_.reached(
            connection, account="AC", scope="", purpose="discover", since=since
        )
    assert found == reached
