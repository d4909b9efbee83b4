"""Do to the whole sync what the world does to it, in any order: nothing lost, nothing twice."""

import tempfile
from bisect import bisect_right
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Connection, Engine, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from etl.database.dialects import dialect
from etl.database.engine import open_engine
from etl.database.schema import attempt_changes, attempt_channel_data, attempts, sync_runs
from etl.database.schema import attempt_queue as q
from etl.job.stop import StopFlag
from etl.migrate.upgrade import upgrade
from etl.queue import attempts as attempts_
from etl.records import Attempt, Outcome, State
from etl.sandbox import Sandbox, World
from etl.transform.attempt import transform
from tests.support.harness import SCALE, values_of
from tests.support.in_process import DAY, HOUR, run_here

BIRTH = 1_795_000_000
"""When the first attempt of the world is created, epoch seconds."""

SIZE = 24
MINUTE = 60_000
INTO_IT = 20_000
"""Milliseconds of a run's minute that have passed when it starts: a page is dated back by what it took."""

STRATEGIES = st.sampled_from(["fetch", "auto", "sweep"])
RESTING = {State.SETTLED, State.DEAD}
FOUND = {Outcome.FINAL, Outcome.LAST_KNOWN}
NONSENSE = ("", "VL1", "../Services", "VE" + "0" * 32, "\U0001f600", "VL" + "g" * 32)
FAULTS = (
    "error:503:share=0.4", "error:500", "reset:share=0.3", "short:share=0.3", "html:200:share=0.3",
    "null:share=0.3", "wrong_sid:share=0.5", "not_found:share=0.5", "unauthorized:count=1",
    "empty:200", "huge:2000000:share=0.2",
)  # fmt: skip


class Hurried(StopFlag):
    """Wait for nothing: what is tested here does not depend on how long a backoff is."""

    def sleep(self, seconds: float) -> None:
        """Return at once."""


class Sync(RuleBasedStateMachine):
    """Hold a queue, a world and a clock, and what must be true of them after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        file = Path(self.folder.name, "test.db")
        file.write_bytes(_template())
        self.engine: Engine = open_engine(f"sqlite:///{file}")
        self.now = (BIRTH + 86_400 * 3) * 1000
        self.world = World(size=SIZE, start=BIRTH, span=86_400 * 2, static_at=self.now / 1000)
        self.box = Sandbox(self.world, limit=0, track_sids=True).start()
        self.expected: set[str] = set()
        self.moments: list[int] = []
        self.fetched_at: dict[str, int] = {}
        self.claims: dict[int, int] = {}
        self.ticks = 0
        self.abandoned = False

    def teardown(self) -> None:
        """Let time pass with nothing more going wrong: every row comes to rest."""
        for _ in range(40):
            self.advance(DAY)
            self._run()
            if {row.state for row in self._queue()} <= RESTING:
                break
        self.check()
        assert {row.state for row in self._queue()} <= RESTING
        self.box.stop()
        self.engine.dispose()
        self.folder.cleanup()

    def clock(self, _connection: Connection) -> int:
        """Stand still but for a millisecond a look."""
        self.ticks += 1
        return self.now + INTO_IT + self.ticks

    def _queue(self) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(select(q)).all()

    def _insert(self, sid: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(dialect(connection).insert_ignore(q, "sid"), [{"sid": sid}])
        self.expected.add(sid)

    @rule(first=st.integers(0, SIZE - 1), count=st.integers(1, 8))
    def enqueue(self, first: int, count: int) -> None:
        """Insert SIDs that are there."""
        for sid in self.world.sids(first, first + count):
            self._insert(sid)

    @rule(sid=st.sampled_from(NONSENSE))
    def enqueue_nonsense(self, sid: str) -> None:
        """Insert what is no SID."""
        self._insert(sid)

    @rule(number=st.integers(0, 3))
    def enqueue_unknown(self, number: int) -> None:
        """Insert a SID that the API does not know."""
        self._insert(f"VL{number:032x}")

    @precondition(lambda self: self.expected)
    @rule()
    def enqueue_again(self) -> None:
        """Insert a SID that is there already, in plain SQL."""
        try:
            with self.engine.begin() as connection:
                connection.execute(insert(q).values(sid=min(self.expected)))
        except IntegrityError:
            return
        msg = "a SID was queued twice"
        raise AssertionError(msg)

    def _run(self, limit: int | None = None, strategy: str = "fetch") -> None:
        # Each run has a minute of its own, by which a row tells when it was fetched.
        self.now = (self.now // MINUTE + 1) * MINUTE
        while self.now in self.moments:
            self.now += MINUTE
        self.ticks = 0
        self.world.static_at = (self.now + INTO_IT) / 1000
        self.moments = sorted([*self.moments, self.now])
        stop = Hurried()
        report = run_here(
            self.engine, self.box, clock=self.clock, limit=limit, stop=stop, concurrency=4,
            strategy=strategy,
        )  # fmt: skip
        with self.engine.connect() as connection:
            row = connection.execute(select(sync_runs).where(sync_runs.c.id == report.run_id)).one()
        assert (row.exit_code, row.did) == (report.exit_code, report.counts)
        assert report.exit_code in {0, 69, 77}

    @rule(limit=st.none() | st.integers(1, 5), strategy=STRATEGIES)
    def run(self, limit: int | None, strategy: str) -> None:
        """Run, perhaps for some rows only; then nothing is left leased but by the dead."""
        self._run(limit, strategy)
        if not self.abandoned:
            assert State.LEASED not in {row.state for row in self._queue()}

    @rule(fault=st.sampled_from(FAULTS), strategy=STRATEGIES)
    def run_in_trouble(self, fault: str, strategy: str) -> None:
        """Run while the API fails."""
        self.box.faults.add(fault)
        self._run(strategy=strategy)
        self.box.faults.clear()

    @rule(count=st.integers(1, 6))
    def crash(self, count: int) -> None:
        """Claim rows as a worker does that is then killed."""
        with self.engine.begin() as connection:
            leases = attempts_.claim(
                connection, accounts=("", self.box.account_sid), worker="killed",
                now=self.now, limit=count, holding=False,
            )  # fmt: skip
        self.abandoned = self.abandoned or bool(leases)

    @rule(by=st.sampled_from([3 * MINUTE, HOUR, 6 * HOUR, DAY, 4 * DAY, 31 * DAY, -HOUR]))
    def advance(self, by: int) -> None:
        """Let time pass, or somebody set the clock."""
        self.now += by

    @rule(outcome=st.none() | st.sampled_from(sorted(Outcome)))
    def retry(self, outcome: str | None) -> None:
        """Bring dead rows back, as a person does."""
        with self.engine.begin() as connection:
            attempts_.revive(connection, outcomes=[outcome] if outcome else [])

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def meddle(self, data: st.DataObject) -> None:
        """Delete a row or edit it, as another program does."""
        sid = data.draw(st.sampled_from(sorted(self.expected)))
        edit = data.draw(
            st.sampled_from([None, {"expires_at": 1}, {"expires_at": 0}, {"expires_at": 2**62},
                             {"state": "pending"}, {"due_at": 0}, {"attempts": 11},
                             {"lost_leases": 3}])
        )  # fmt: skip
        with self.engine.begin() as connection:
            if edit is None:
                connection.execute(delete(q).where(q.c.sid == sid))
                self.expected.remove(sid)
            else:
                connection.execute(update(q).where(q.c.sid == sid).values(edit))

    @invariant()
    def check(self) -> None:
        """Check the queue against what was put into it, and the rows against the world."""
        rows = self._queue()
        assert sorted(row.sid for row in rows) == sorted(self.expected)
        with self.engine.connect() as connection:
            joined = select(attempts, attempt_channel_data).join(attempt_channel_data)
            stored = {row.sid: row for row in connection.execute(joined)}
            count = connection.execute(select(func.count()).select_from(attempts)).scalar_one()
            changes = connection.execute(select(attempt_changes)).all()
        assert count == len(stored)
        assert all(change.old_value != change.new_value for change in changes)
        for row in rows:
            self._check_queued(row, stored)
        for sid, row in stored.items():
            self._check_stored(sid, row)
        assert self.box.stats()["concurrent_same_sid"] == 0
        assert self.box.stats()["unauthorized"] == 0

    def _check_queued(self, row: Any, stored: dict[str, Any]) -> None:
        assert row.state in set(State)
        assert row.claim_no >= self.claims.get(row.id, 0)
        self.claims[row.id] = row.claim_no
        if row.state == State.SETTLED:
            assert row.outcome in FOUND
            assert row.sid in stored
        if row.state == State.DEAD:
            assert row.outcome in set(Outcome) - FOUND
            assert (row.outcome == Outcome.MALFORMED_SID) == (row.sid in NONSENSE)
        if row.state == State.REFRESH:
            assert row.sid in stored
        if row.sid in NONSENSE:
            assert row.fetches == 0

    def _check_stored(self, sid: str, row: Any) -> None:
        assert row.fetched_at >= self.fetched_at.get(sid, 0)
        self.fetched_at[sid] = row.fetched_at
        moment = self.moments[bisect_right(self.moments, row.fetched_at) - 1]
        held = transform(self.world.attempt(sid, at=(moment + INTO_IT) / 1000), sid=sid)
        assert isinstance(held, Attempt)
        assert values_of(row) == values_of(held)


@cache
def _template() -> bytes:
    """Migrate a file once for all examples of this process; return its content."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "template.db")
        engine = open_engine(f"sqlite:///{file}")
        upgrade(engine)
        engine.dispose()
        return file.read_bytes()


TestSync = pytest.mark.soak(Sync.TestCase)
TestSync.settings = settings(
    max_examples=round(250 * SCALE),
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
)
