"""Run the job inside the test's own process: with a clock, deadlines and patience of the test's."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, select

from etl.allowance.permits import Permits
from etl.allowance.slots import Allowance
from etl.database.schema import attempt_queue as q
from etl.database.times import Clock, clock
from etl.extract import Api
from etl.final import Policy
from etl.job.breaker import Breaker
from etl.job.counts import Counts
from etl.job.stop import StopFlag
from etl.job.tools import Job, Tools
from etl.run import pipeline
from etl.run.pipeline import RunReport, Watch
from etl.sandbox import Sandbox, World
from tests.support.harness import assert_loaded

HOUR = 3_600_000
DAY = 24 * HOUR
POLICY = Policy(settle_after=DAY, price_grace=3 * DAY, refresh_round=HOUR, retention=30 * DAY)


def client(box: Sandbox, **limits: Any) -> Api:
    """Build the program's client for a sandbox; ``limits`` are its deadlines in seconds."""
    return Api(
        box.url,
        user=box.account_sid,
        password=box.auth_token,
        credential_name="TWILIO_AUTH_TOKEN",
        user_agent="tests",
        **limits,
    )


def run_here(
    engine: Engine,
    box: Sandbox,
    *,
    clock: Clock = clock,
    allowance: tuple[int, int] = (0, 60_000),
    limits: dict[str, float] | None = None,
    stop: StopFlag | None = None,
    watch: Watch = lambda _counts: None,
    go: Callable[..., RunReport] = pipeline.run,
    api: Api | None = None,
    **asked: Any,
) -> RunReport:
    """Drain the queue once; ``allowance`` is (requests, window in ms), ``asked`` goes to ``Job``.

    ``go`` does something else instead, and ``api`` is a client that is not the usual one.
    """
    api = api or client(box, **(limits or {}))
    job = Job(
        account=box.account_sid,
        allowance=Allowance(box.account_sid, *allowance),
        policy=POLICY,
        **{"concurrency": 8, "strategy": "fetch", **asked},
    )
    try:
        return go(engine, api, job, stop=stop or StopFlag(), watch=watch, clock=clock)
    finally:
        api.close()


def parts_of(engine: Engine, api: Api, *, clock: Clock = clock) -> Tools:
    """Build the parts of a run without an allowance."""
    stop = StopFlag()
    allowance = Allowance("AC", 0, 60_000)
    return Tools(
        engine=engine,
        api=api,
        permits=Permits(engine, allowance, clock=clock, sleep=stop.sleep),
        breaker=Breaker(),
        clock=clock,
        counts=Counts(),
        stop=stop,
        watch=lambda _counts: None,
        accounts=("", "AC"),
        account="AC",
        worker="me",
        policy=POLICY,
    )


def assert_each_once(engine: Engine, world: World) -> None:
    """Assert that the tables hold the world, each row fetched once and none of them blamed."""
    assert_loaded(engine, world, world.sids())
    with engine.connect() as connection:
        assert set(connection.execute(select(q.c.fetches)).scalars()) == {1}
        assert set(connection.execute(select(q.c.attempts)).scalars()) == {0}
