"""Let answers drip past `--max-seconds`: the run ends, and neither row nor API is blamed."""

import math
import socket
from functools import partial

import pytest
from sqlalchemy import Engine, select

from etl.database.schema import attempt_queue as q
from etl.errors import Exit, TransientFailure
from etl.job.stop import StopFlag
from etl.listing.discover import DiscoverOptions
from etl.run import pipeline
from etl.sandbox import Sandbox, World
from tests.support.harness import MakeApi, fill
from tests.support.in_process import run_here
from tests.support.raw_server import Answer, RawServer, as_json, drip

WORLD = World(size=3)
HEAD = b"HTTP/1.1 200 OK\r\n"
CUT = HEAD + b"Content-Type: application/json\r\nContent-Length: 99999\r\n\r\n{"
DRIPS: list[Answer] = [drip(HEAD, b"X: a"), drip(CUT, b" ")]
EVER = DiscoverOptions(None, None)


def late(stop: StopFlag, answer: Answer) -> Answer:
    """Let the time limit pass while this answer is under way."""
    assert callable(answer)
    dripping = answer

    def then(conn: socket.socket) -> bool | None:
        stop.deadline = -math.inf
        return dripping(conn)

    return then


@pytest.mark.parametrize("dripping", DRIPS, ids=["head", "body"])
def test_no_request_goes_on_past_its_run(make_api: MakeApi, dripping: Answer) -> None:
    """A request ends when the run must, long before its own deadline."""
    with RawServer(as_json({}), dripping) as raw:
        api = make_api(raw.url)
        api.ends_at = api.attempt(WORLD.sid(0)).answered_at + 0.3
        with pytest.raises(TransientFailure, match="ended by the time limit of the run"):
            api.attempt(WORLD.sid(0))


@pytest.mark.parametrize("strategy", ["fetch", "sweep"])
@pytest.mark.parametrize("dripping", DRIPS, ids=["head", "body"])
def test_what_the_time_limit_ends_is_not_counted(
    sqlite: Engine, make_api: MakeApi, strategy: str, dripping: Answer
) -> None:
    """The row waits as if it was never asked for, and the API is not called down."""
    fill(sqlite, WORLD.sids())
    stop = StopFlag()
    with Sandbox(WORLD, limit=0) as box, RawServer(late(stop, dripping)) as raw:
        api = make_api(raw.url, total_s=0.3)
        report = run_here(sqlite, box, api=api, stop=stop, strategy=strategy)
        assert len(raw.requests) == 1
    assert report.exit_code == Exit.TRY_LATER
    assert "The time limit passed with nothing done, and 3 SIDs wait" in str(report.error)
    with sqlite.connect() as connection:
        rows = connection.execute(select(q.c.state, q.c.attempts, q.c.last_error)).all()
    assert [tuple(row) for row in rows] == [("pending", 0, None)] * 3


def test_discover_keeps_the_time_limit(sqlite: Engine, make_api: MakeApi) -> None:
    """A list that drips at the time limit is no error; it is read the next time."""
    stop = StopFlag()
    with Sandbox(WORLD, limit=0) as box, RawServer(late(stop, DRIPS[1])) as raw:
        api = make_api(raw.url, total_s=0.3)
        go = partial(pipeline.discover, asked=EVER)
        report = run_here(sqlite, box, api=api, stop=stop, go=go)
        assert len(raw.requests) == 1
    assert (report.exit_code, report.error) == (0, None)


def test_each_run_bounds_its_requests(sqlite: Engine, make_api: MakeApi) -> None:
    """The client knows the time limit; without one it knows none."""
    with Sandbox(WORLD, limit=0) as box:
        for max_seconds in (100.0, None):
            stop, api = StopFlag(), make_api(box.url)
            run_here(sqlite, box, api=api, stop=stop, max_seconds=max_seconds)
            assert api.ends_at == stop.deadline + pipeline.ANSWER_LATE_S
            assert math.isfinite(api.ends_at) == (max_seconds is not None)
