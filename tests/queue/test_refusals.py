"""Let a user's constraints and triggers refuse what is written: one row pays, or the run stops."""

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, func, insert, select

from etl.allowance.slots import Allowance
from etl.database.schema import attempts, verification_queue
from etl.errors import Exit, WriteRefused
from etl.job.stop import StopFlag
from etl.job.tools import Job
from etl.listing.discover import DiscoverOptions
from etl.queue.refusals import MOST
from etl.run import pipeline
from etl.run.pipeline import RunReport
from etl.sandbox import Sandbox, World
from tests.support.harness import assert_loaded, fill, states
from tests.support.in_process import DAY, POLICY, client, run_here
from tests.support.queue_rows import execute, read, watch
from tests.support.user_rules import MARKER, PLPGSQL, Rule

SIZE = 80


@pytest.fixture
def world() -> World:
    """Give a world that stands still."""
    return World(size=SIZE, static_at=time.time())


@pytest.fixture
def box(world: World) -> Iterator[Sandbox]:
    """Serve it."""
    with Sandbox(world, limit=0) as box:
        yield box


def discover_here(engine: Engine, box: Sandbox) -> RunReport:
    """Load the last 30 days."""
    account = box.account_sid
    job = Job(account=account, allowance=Allowance(account, 0, 1), policy=POLICY, concurrency=1)
    since = int(time.time() * 1000) - 30 * DAY
    return pipeline.discover(
        engine, client(box), job, DiscoverOptions(since, None), stop=StopFlag()
    )


def assert_untouched(engine: Engine, count: int) -> None:
    """Assert that all rows wait, with nothing counted."""
    rows = read(engine).values()
    assert [(row.state, row.attempts, row.outcome) for row in rows] == [
        ("pending", 0, None)
    ] * count


def assert_stopped(report: RunReport, *names: str) -> None:
    """Assert that a run ended with 78, and says by names alone why."""
    assert isinstance(report.error, WriteRefused), report.error
    said = str(report.error)
    assert report.exit_code == Exit.CONFIG
    assert MARKER not in said
    assert [name for name in names if name not in said] == []
    assert (report.counts["dead"], report.counts["retry"]) == (0, 0)


RULES = [
    ("attempts", "INSERT", ""), ("attempt_channel_data", "INSERT", ""),
    ("rollup_marks", "INSERT", ""), ("attempt_queue", "UPDATE", "NEW.state = 'leased'"),
    ("attempt_queue", "UPDATE", "NEW.state IN ('settled', 'refresh')"),
    ("attempts", "INSERT", "NEW.url IS NOT NULL"),
]  # fmt: skip
# A sweep leases no row.
WAYS = [(way, *rule) for way in ("fetch", "sweep") for rule in RULES
        if way == "fetch" or "leased" not in rule[2]]  # fmt: skip


@pytest.mark.parametrize(("strategy", "table", "verb", "when"), WAYS)
def test_what_refuses_every_row_stops_the_run(
    engine: Engine, world: World, box: Sandbox, table: str, verb: str, when: str, strategy: str
) -> None:
    """The run ends with 78 and names the table, all rows wait uncounted, and later all are stored."""
    fill(engine, world.sids())
    rule = Rule(engine, table, verb, when)
    assert_stopped(run_here(engine, box, strategy=strategy, concurrency=4), table)
    assert_untouched(engine, SIZE)
    rule.drop()
    assert run_here(engine, box, strategy=strategy).exit_code == 0
    assert_loaded(engine, world, world.sids())


# SQLite adds no such column to a table, and no constraint.
@pytest.mark.kinds("postgresql", "second-postgresql", "mariadb")
def test_a_column_or_constraint_that_refuses_every_row_is_named(
    engine: Engine, world: World, box: Sandbox
) -> None:
    """A column without a default, and a constraint, are named by the databases that have them."""
    name = engine.dialect.name
    fill(engine, world.sids())
    run_here(engine, box, limit=10)
    checks = {
        "frozen": "ADD CONSTRAINT frozen CHECK (sid = '')", "needed": "ADD needed INT NOT NULL",
    }  # fmt: skip
    later = " NOT VALID" if name == "postgresql" else ""
    with engine.begin() as connection:
        if name != "postgresql":
            connection.exec_driver_sql("SET check_constraint_checks = 0")
        connection.exec_driver_sql(f"ALTER TABLE attempts {checks['frozen']}{later}")
        if name != "postgresql":
            connection.exec_driver_sql("SET check_constraint_checks = 1")
    assert_stopped(run_here(engine, box), "table attempts", "constraint frozen")
    execute(engine, "ALTER TABLE attempts DROP CONSTRAINT frozen")
    if name == "postgresql":
        execute(engine, "CREATE TABLE kept AS SELECT * FROM attempts")
        execute(engine, "DELETE FROM attempts")
    execute(engine, f"ALTER TABLE attempts {checks['needed']}")
    assert states(engine)["pending"] == SIZE - 10
    if name == "postgresql":
        assert_stopped(run_here(engine, box), "table attempts", "column needed")
    else:
        # It would be so with no row at all, which is tried at the start.
        with pytest.raises(WriteRefused, match="table attempts, column needed"):
            run_here(engine, box)
    assert states(engine)["pending"] == SIZE - 10


@pytest.mark.parametrize("before", [False, True], ids=["at first", "later"])
def test_a_page_of_a_discovery_stops_it(
    engine: Engine, world: World, box: Sandbox, *, before: bool
) -> None:
    """A discovery whose rows are all refused ends with 78, and leaves no dead row behind."""
    if before:
        fill(engine, [world.sid(0)])
        run_here(engine, box)
    rule = Rule(engine, "attempt_channel_data", "INSERT")
    report = discover_here(engine, box)
    assert_stopped(report, "attempt_channel_data")
    assert states(engine).get("dead", 0) == 0
    rule.drop()
    assert discover_here(engine, box).exit_code == 0
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(attempts)).scalar() == SIZE


@pytest.mark.parametrize("table", ["attempts", "attempt_queue"])
@pytest.mark.parametrize("size", [1, SIZE])
def test_an_odd_row_is_set_aside_alone(
    engine: Engine, world: World, box: Sandbox, table: str, size: int
) -> None:
    """One row that is refused, among others or alone, is dead, the rest is stored, and it ends."""
    sids = list(world.sids())[:size]
    fill(engine, sids)
    odd = world.sid(0)
    verb, when = "INSERT", f"NEW.sid = '{odd}'"
    if table == "attempt_queue":
        verb, when = "UPDATE", f"{when} AND NEW.state <> 'dead'"
    Rule(engine, table, verb, when)
    report = run_here(engine, box)
    assert (report.exit_code, report.counts["fetched"]) == (0, size - 1)
    row = read(engine)[odd]
    assert (row.state, row.outcome, row.rested) == ("dead", "db_reject", True)
    assert f"table {table}" in row.last_error
    assert MARKER not in row.last_error


@pytest.mark.parametrize("state", ["settled", "refresh", "retry"])
def test_a_row_whose_next_state_is_refused_is_set_aside(
    engine: Engine, world: World, box: Sandbox, state: str
) -> None:
    """A constraint of the user's on the queue keeps one row from its end, and no other."""
    fill(engine, world.sids())
    by_age = sorted(world.sids(), key=lambda sid: str(world.attempt(sid)["date_created"]))
    odd = by_age[-1] if state == "refresh" else by_age[0]
    if state == "retry":
        box.faults.add(f"error:503:sid={odd}")
    Rule(engine, "attempt_queue", "UPDATE", f"NEW.sid = '{odd}' AND NEW.state = '{state}'")
    report = run_here(engine, box)
    assert (report.exit_code, report.counts["fetched"]) == (0, SIZE - 1)
    row = read(engine)[odd]
    assert (row.state, row.outcome) == ("dead", "db_reject")
    assert set(states(engine)) <= {"settled", "refresh", "dead"}


def test_a_batch_that_is_refused_is_not_tried_row_by_row(engine: Engine) -> None:
    """A few rows of hundreds show that all are refused; the others are not tried."""
    world = World(size=300, static_at=time.time())
    fill(engine, world.sids())
    Rule(engine, "attempts", "INSERT", "NEW.url IS NOT NULL")
    with Sandbox(world, limit=0) as box, watch(engine) as noted:
        assert_stopped(run_here(engine, box, concurrency=32), "table attempts")
    assert_untouched(engine, 300)
    tried = sum(statement.startswith("INSERT INTO attempts") for statement, _ in noted)
    # Each row at the most in a batch of its own, by itself, and beside a sample.
    assert MOST <= tried <= 4 * MOST


def test_neighbours_that_are_refused_are_not_everything(
    engine: Engine, world: World, box: Sandbox
) -> None:
    """A dozen odd rows at the queue's head do not hold the good ones back."""
    fill(engine, world.sids())
    odd = "', '".join(list(world.sids())[:12])
    Rule(engine, "attempts", "INSERT", f"NEW.sid IN ('{odd}')")
    report = run_here(engine, box, concurrency=1)
    assert (report.exit_code, report.counts["dead"], report.counts["fetched"]) == (0, 12, SIZE - 12)


@pytest.mark.kinds("postgresql", "second-postgresql")
@pytest.mark.parametrize("strategy", ["fetch", "sweep"])
@pytest.mark.parametrize("table", ["attempts", "attempt_channel_data", "attempt_queue"])
@pytest.mark.parametrize("every", [False, True], ids=["one", "every"])
def test_what_is_refused_at_the_commit_is_found(
    engine: Engine, world: World, box: Sandbox, table: str, strategy: str, *, every: bool
) -> None:
    """A deferred trigger may refuse one row, which is set aside. If it refuses all, the run stops."""
    fill(engine, world.sids())
    key = "attempt_sid" if table == "attempt_channel_data" else "sid"
    state = " AND NEW.state <> 'dead'" if table == "attempt_queue" else ""
    which = "" if every else f" AND NEW.{key} = '{world.sid(5)}'"
    execute(engine, PLPGSQL.format(row="NEW"))
    execute(
        engine,
        f"CREATE CONSTRAINT TRIGGER mine AFTER INSERT OR UPDATE ON {table} DEFERRABLE INITIALLY"
        f" DEFERRED FOR EACH ROW WHEN (NEW.{key} <> ''{state}{which}) EXECUTE FUNCTION mine()",
    )
    report = run_here(engine, box, strategy=strategy)
    if every:
        assert_stopped(report, "function mine")
        assert_untouched(engine, SIZE)
        return
    assert report.exit_code == 0, report.error
    row = read(engine)[world.sid(5)]
    assert (row.state, row.outcome) == ("dead", "db_reject")
    assert "function mine" in row.last_error
    assert MARKER not in row.last_error
    assert set(states(engine)) <= {"settled", "refresh", "dead"}


@pytest.mark.kinds("postgresql")
def test_what_is_deferred_for_a_reason_is_let_be(
    engine: Engine, world: World, box: Sandbox
) -> None:
    """A deferred trigger that waits for a row's second statement refuses no good row."""
    fill(engine, world.sids())
    execute(
        engine,
        "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        " IF NOT EXISTS (SELECT FROM attempt_channel_data d WHERE d.attempt_sid = NEW.sid)"
        f" OR NEW.sid = '{world.sid(5)}' THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END$$",
    )
    execute(
        engine,
        "CREATE CONSTRAINT TRIGGER mine AFTER INSERT ON attempts DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION mine()",
    )
    report = run_here(engine, box)
    assert (report.exit_code, report.counts["fetched"], report.counts["dead"]) == (0, SIZE - 1, 1)


def test_a_discovered_row_that_is_refused_is_done_without(
    engine: Engine, world: World, box: Sandbox
) -> None:
    """One that the queue does not take is stored, and all others are enqueued, too."""
    by_age = sorted(world.sids(), key=lambda sid: str(world.attempt(sid)["date_created"]))
    Rule(engine, "attempt_queue", "INSERT", f"NEW.sid = '{by_age[-1]}'")
    assert discover_here(engine, box).exit_code == 0
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(attempts)).scalar() == SIZE
    assert by_age[-1] not in read(engine)
    assert by_age[-2] in read(engine)


def test_a_verification_that_cannot_be_claimed_is_set_aside(
    engine: Engine, world: World, box: Sandbox
) -> None:
    """One row of Verifications that is refused keeps no other from being listed."""
    named = sorted({str(world.attempt(sid)["verification_sid"]) for sid in world.sids()})[:5]
    with engine.begin() as connection:
        for sid in named:
            connection.execute(insert(verification_queue).values(sid=sid))
    Rule(
        engine, "verification_queue", "UPDATE",
        f"NEW.sid = '{named[0]}' AND NEW.state = 'pending'",
    )  # fmt: skip
    assert run_here(engine, box).exit_code == 0
    statement = select(verification_queue.c.sid).where(verification_queue.c.state == "missing")
    with engine.connect() as connection:
        assert connection.execute(statement).scalars().all() == [named[0]]
        waiting = select(verification_queue.c.sid).where(verification_queue.c.listed_at.is_(None))
        assert connection.execute(waiting).scalars().all() == [named[0]]


@pytest.mark.kinds("sqlite")
@pytest.mark.parametrize(
    "rule",
    [
        f"CREATE TRIGGER mine BEFORE INSERT ON attempts BEGIN SELECT RAISE(ROLLBACK, '{MARKER}'); END",
        (
            "CREATE TRIGGER mine AFTER INSERT ON attempts BEGIN"
            " UPDATE attempts SET other = 'nobody' WHERE sid = NEW.sid; END"
        ),
    ],
    ids=["rollback", "deferred key"],
)
def test_what_ends_the_whole_transaction_stops_the_run(
    engine: Engine, world: World, box: Sandbox, rule: str
) -> None:
    """What SQLite refuses by undoing everything, or at the commit alone, costs no row anything."""
    fill(engine, world.sids())
    execute(engine, "CREATE TABLE others (key TEXT PRIMARY KEY)")
    execute(
        engine,
        "ALTER TABLE attempts ADD other TEXT REFERENCES others (key) DEFERRABLE INITIALLY DEFERRED",
    )
    execute(engine, rule)
    assert_stopped(run_here(engine, box), "SQLITE_CONSTRAINT")
    assert_untouched(engine, SIZE)
    execute(engine, "DROP TRIGGER mine")
    assert run_here(engine, box).exit_code == 0
    assert_loaded(engine, world, world.sids())
