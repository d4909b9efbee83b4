"""Live through a month in which every attempt must become final: 200,000 a day, 100 a minute.

An application enqueues each SID as it is created; a job every ten minutes, through the real
``pipeline.run``, HTTP and SQLite, with a clock that jumps wherever the job would wait. Conversions
flip within ten minutes, prices are final after 24 h. Beside it the same days without an
application, where ``discover`` finds the SIDs for ``run`` to refresh, and with single fetches,
which fall behind. Exits with 1 when a bound is missed::

    python bench/month.py                  # three days; the month is more of the same
    python bench/month.py --days 30        # all of it, which takes hours; each day says how it is
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine, event, func, insert, select

from bench._box import SPAWN, Box
from bench._rows import is_as_fetched
from bench._simulated import Simulated
from etl.allowance.slots import Allowance
from etl.database.engine import open_engine
from etl.database.schema import attempt_channel_data, attempt_queue, attempts
from etl.database.times import moment, moment_ms
from etl.extract import Api
from etl.final import Policy
from etl.job.stop import StopFlag
from etl.job.tools import Job
from etl.listing.discover import DiscoverOptions
from etl.migrate.upgrade import upgrade
from etl.rollups import refresh
from etl.run import pipeline, stages
from etl.sandbox import Sandbox, World
from etl.sandbox.limiter import Limiter
from etl.sandbox.payload import Payload

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
EVERY: Final = 600.0
"""The job's period."""

FINAL_WITHIN: Final = 26 * HOUR
MOST_EACH: Final = 0.01
COMPARED: Final = 500_000
"""Of so many rows at the most every column is compared."""

HOUR_MS: Final = 3_600_000
POLICY: Final = Policy(24 * HOUR_MS, 72 * HOUR_MS, HOUR_MS, 720 * HOUR_MS)
WAYS: Final = ("auto", "discover", "fetch")
LAZY: Final = (refresh, stages)
"""A run imports these when it needs them: here before the clock is installed."""


@dataclass(frozen=True, slots=True)
class Month:
    """Say how long, how busy, and within which allowance (requests a minute)."""

    days: float
    per_day: int
    allowance: int
    start: float

    @property
    def size(self) -> int:
        """Return how many attempts are created."""
        return round(self.days * self.per_day)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what came of a month: how many were final in time, of those that had the time."""

    created: int
    requests: int
    throttled: int
    in_time: int
    had_time: int
    slowest_h: float
    lost: int
    wrong: int
    waiting: int
    seconds: float


class Priced(World):
    """A world in which every price is known and final after 24 hours."""

    def natural(self, index: int, at: float, sid: str | None = None) -> Payload:
        """Give the one in a hundred that would never have a price theirs."""
        payload = super().natural(index, at, sid)
        if payload["price"] is None and at - self.created(index) >= 23.5 * HOUR:
            payload["price"] = {"value": "0.0500", "currency": "usd"}
        return payload


def world_of(month: Month, clock: Simulated) -> World:
    """Build the month's world; it is the same in every process."""
    span = month.days * DAY
    return Priced(size=month.size, start=month.start, span=span, clock=clock.time)


def _serve(month: Month, ahead: "Synchronized[float]", pipe: Connection) -> None:
    clock = Simulated(ahead)
    with Sandbox(world_of(month, clock), limit=month.allowance) as box:
        # The server's minute is the simulated one, too.
        box._allowance = Limiter(month.allowance, 60.0, clock=clock.monotonic)  # noqa: SLF001 - the one clock that has no door
        pipe.send(box.environ())
        pipe.poll(None)


@contextmanager
def served(month: Month, clock: Simulated) -> Iterator[Box]:
    """Serve the month's world from a process of its own."""
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=_serve, args=(month, clock.ahead, there), daemon=True)
    process.start()
    try:
        yield Box(here.recv())
    finally:
        here.send(None)
        process.join()


def live(month: Month, way: str, engine: Engine, *, tail: float = FINAL_WITHIN) -> Outcome:
    """Run the job every ten minutes for the month and ``tail`` seconds more."""
    clock, started = Simulated(), time.perf_counter()
    clock.until(month.start)
    world = world_of(month, clock)
    with served(month, clock) as box, clock.installed():
        api = client(box.environ)
        job = Job(
            account=world.account_sid,
            allowance=Allowance(world.account_sid, month.allowance, 60_000),
            policy=POLICY,
            concurrency=8,
            strategy="fetch" if way == "fetch" else "auto",
        )
        enqueued, tick, days = 0, month.start, 0
        while tick < month.start + month.days * DAY + tail:
            tick += EVERY
            clock.until(tick)
            if way == "discover":
                _check(
                    pipeline.discover(engine, api, job, DiscoverOptions(None, None), **_run(clock))
                )
            else:
                enqueued = enqueue(engine, world, enqueued, clock.time())
            _check(pipeline.run(engine, api, job, **_run(clock)))
            if tick >= month.start + (days + 1) * DAY:
                days += 1
                line = so_far(engine, world, now=clock.time(), requests=box.stats()["requests"])
                passed = time.perf_counter() - started
                print(f"{way}, day {days}: {line}; {passed:,.0f} s", file=sys.stderr, flush=True)
        api.close()
        stats, now = box.stats(), clock.time()
    return judge(engine, world, now=now, stats=stats, seconds=time.perf_counter() - started)


def _run(clock: Simulated) -> dict[str, Any]:
    stop = StopFlag()
    # The next one takes over with what was enqueued meanwhile.
    stop.deadline = clock.monotonic() + EVERY
    return {"stop": stop, "clock": lambda _connection: clock.ms()}


def _check(report: pipeline.RunReport) -> None:
    if report.exit_code:
        sys.exit(f"A run ended with {report.exit_code}: {report.error}")


def client(environ: Mapping[str, str]) -> Api:
    """Build the program's client."""
    return Api(
        environ["VERIFY_ETL_API_URL"],
        user=environ["TWILIO_ACCOUNT_SID"],
        password=environ["TWILIO_AUTH_TOKEN"],
        credential_name="TWILIO_AUTH_TOKEN",
        user_agent="bench",
    )


def enqueue(engine: Engine, world: World, since: int, now: float) -> int:
    """Insert what was created since the last time, as an application does when it sends."""
    until = world.range(None, now)[1]
    rows = [
        {"sid": world.sid(n), "enqueued_at": moment(int(world.created(n)) * 1000)}
        for n in range(since, until)
    ]
    if rows:
        with engine.begin() as connection:
            connection.execute(insert(attempt_queue), rows)
    return until


def so_far(engine: Engine, world: World, *, now: float, requests: int) -> str:
    """Say what has come of it so far, and of the day that has just had its time."""
    created = attempts.c.date_created
    # Whole seconds, as the times shown are.
    first, last = int(now - FINAL_WITHIN - DAY), int(now - FINAL_WITHIN)
    low, high = world.range(first, last)
    day = (created >= moment(first * 1000), created < moment(last * 1000))
    with engine.connect() as connection:
        final = connection.execute(
            select(func.count()).where(*day, attempts.c.is_final)
        ).scalar_one()
    total = world.range(None, now)[1]
    return (
        f"{requests:,} requests for {total:,} attempts, {requests / max(total, 1):.4f} for each;"
        f" of those 26 to 50 hours old {final:,} of {high - low:,} final"
    )


def judge(
    engine: Engine, world: World, *, now: float, stats: Mapping[str, Any], seconds: float
) -> Outcome:
    """Look at each row's time, and compare rows with the world: all, or of millions some."""
    q = attempt_queue.c
    wrong = in_time = stored = 0
    slowest_h = 0.0
    step = max(1, world.size // COMPARED)
    statement = (
        select(attempts, attempt_channel_data, q.settled_at)
        .join(attempt_channel_data)
        .outerjoin(attempt_queue, q.sid == attempts.c.sid)
    )
    with engine.connect() as connection:
        waiting = connection.execute(select(func.count()).where(q.state == "pending")).scalar_one()
        for row in connection.execute(statement):
            stored += 1
            settled = moment_ms(row.settled_at)
            index = world.index(row.sid)
            if index is None:
                wrong += 1
                continue
            created = world.created(index)
            if row.is_final and settled is not None:
                age_h = (settled / 1000 - created) / HOUR
                slowest_h = max(slowest_h, age_h)
                in_time += age_h <= FINAL_WITHIN / HOUR
                if index % step == 0:
                    wrong += not is_as_fetched(row, world, now)
    return Outcome(
        created=world.size,
        requests=stats["requests"],
        throttled=stats["throttled"],
        in_time=in_time,
        had_time=world.range(None, now - FINAL_WITHIN)[1],
        slowest_h=slowest_h,
        lost=world.range(None, now)[1] - stored,
        wrong=wrong,
        waiting=int(waiting),
        seconds=seconds,
    )


def _hasten(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's
    """Let time and requests be what is measured, and not this machine's disk."""
    for setting in ("synchronous = OFF", "cache_size = -1048576"):
        connection.execute(f"PRAGMA {setting}")


def lived(month: Month, way: str, *, tail: float = FINAL_WITHIN) -> Outcome:
    """Live through a month with a database of its own."""
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(f"sqlite:///{folder}/month.db")
        event.listen(engine, "connect", _hasten)
        upgrade(engine)
        outcome = live(month, way, engine, tail=tail)
        engine.dispose()
    return outcome


def main() -> int:
    """Live through it each way and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=3)
    parser.add_argument("--per-day", type=int, default=200_000)
    parser.add_argument("--allowance", type=int, default=100, help="requests a minute")
    parser.add_argument("--way", choices=WAYS, help="only this one")
    parser.add_argument("--tail", type=float, default=FINAL_WITHIN, help="seconds after the days")
    parser.add_argument("--json", action="store_true", help="print figures, and judge nothing")
    options = parser.parse_args()
    start = (time.time() // HOUR + 1) * HOUR
    missed = 0
    for way in [options.way] if options.way else WAYS:
        # Single fetches at a hundredth of both, all days: it is the ratio that sinks them.
        share = 0.01 if way == "fetch" else 1.0
        month = Month(
            options.days, round(options.per_day * share), round(options.allowance * share), start
        )
        outcome = lived(month, way, tail=options.tail)
        if options.json:
            print(json.dumps(asdict(outcome)))
            continue
        each = outcome.requests / outcome.created
        ok = outcome.in_time == outcome.had_time == outcome.created and each <= MOST_EACH
        ok &= not (outcome.lost or outcome.wrong or outcome.throttled)
        missed += not ok and way != "fetch"
        print(
            f"{way}: {month.days:g} days of {month.per_day:,} within {month.allowance} a minute"
            f" and 26 h more: {outcome.requests:,} requests, {each:.4f} for each attempt;"
            f" {outcome.in_time:,} of {outcome.created:,} final within 26 h (slowest"
            f" {outcome.slowest_h:.1f} h), {outcome.lost:,} not stored, {outcome.wrong:,} wrong,"
            f" {outcome.waiting:,} waiting, {outcome.throttled} answers of 429;"
            f" {outcome.seconds:,.0f} s{'' if ok else '  <- missed'}",
            flush=True,
        )
    fits = options.allowance * 60 * 24
    if options.json:
        return 0
    print(
        f"by arithmetic: {options.per_day:,} attempts a day, each fetched at least twice, are"
        f" {2 * options.per_day:,} requests; {fits:,} fit into a day."
    )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
