"""Let the API fail under a whole run, in every way that the sandbox knows."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, update

from etl.database.schema import api_slots, attempt_channel_data, attempts
from etl.database.schema import attempt_queue as q
from etl.database.times import clock
from etl.errors import Exit
from etl.extract import Api, Reply
from etl.job.counts import Counts
from etl.job.stop import StopFlag
from etl.sandbox import Fault, Sandbox, World
from tests.support.harness import PATIENCE_S, assert_loaded, fill, states
from tests.support.in_process import DAY, HOUR, run_here

SHORT = {"read_s": 0.3, "total_s": 0.4}
"""Deadlines of one row's requests, for faults that wait for them."""

WAITING = ("drip_headers", "drip_body", "hang")

TRANSIENT = 3
ONCE = 1


# What the API does is the same for every database.
pytestmark = pytest.mark.kinds("sqlite")


@pytest.fixture
def world() -> World:
    """Give a world that stands still, so that two looks see the same."""
    return World(size=20, static_at=time.time())


class HastyFor(Api):
    """Wait for one SID's answers a moment only, and for those of its neighbours patiently."""

    def __init__(self, sid: str, box: Sandbox) -> None:
        options: dict[str, Any] = {
            "user": box.account_sid, "password": box.auth_token,
            "credential_name": "TWILIO_AUTH_TOKEN", "user_agent": "tests",
        }  # fmt: skip
        super().__init__(box.url, **{**options, "read_s": PATIENCE_S, "total_s": PATIENCE_S})
        self._sid = sid
        self._hasty = Api(box.url, **{**options, **SHORT})

    def attempt(self, sid: str) -> Reply:
        """Fetch one attempt by its SID."""
        return self._hasty.attempt(sid) if sid == self._sid else super().attempt(sid)

    def close(self) -> None:
        """Close the connections of both kinds."""
        self._hasty.close()
        super().close()


def row_of(engine: Engine, sid: str) -> Any:
    """Read one row of the queue."""
    with engine.connect() as connection:
        return connection.execute(select(q).where(q.c.sid == sid)).one()


def gate_of(engine: Engine) -> int:
    """Read until when the pause after a 429 lasts (ms)."""
    with engine.connect() as connection:
        gate = select(api_slots.c.free_at).where(api_slots.c.slot == -1)
        return int(connection.execute(gate).scalar_one())


def hasten(engine: Engine) -> None:
    """Let what waits for a later try be due now, as time does."""
    with engine.begin() as connection:
        connection.execute(update(q).where(q.c.state == "retry").values(due_at=1))


@pytest.mark.parametrize(
    ("fault", "tries", "said"),
    [
        ("error:500", TRANSIENT, "answered 500"),
        ("error:502", TRANSIENT, "answered 502"),
        ("error:504", TRANSIENT, "answered 504"),
        ("error:408", TRANSIENT, "answered 408"),
        ("html:503", TRANSIENT, "answered 503"),
        ("reset", TRANSIENT, "ConnectionResetError"),
        ("reset_body", TRANSIENT, "ConnectionResetError"),
        ("short", TRANSIENT, "IncompleteRead"),
        ("cut_chunks", TRANSIENT, "IncompleteRead"),
        ("bad_gzip", TRANSIENT, "no whole answer came: damaged gzip"),
        ("drip_headers:0.05", TRANSIENT, "total deadline of 0.4 s"),
        ("drip_body:0.05", TRANSIENT, "total deadline of 0.4 s"),
        ("hang:30", TRANSIENT, "TimeoutError"),
        ("html:200", ONCE, "which is not JSON"),
        ("html:404", ONCE, "status 404"),
        ("html:403", ONCE, "status 403"),
        ("empty:200", ONCE, "0 bytes"),
        ("array", ONCE, "not a JSON object"),
        ("null", ONCE, "not a JSON object"),
        ("deep", ONCE, "which is not JSON"),
        ("wrong_sid", ONCE, "another"),
        ("no_sid", ONCE, "sid"),
        ("duplicate_keys", ONCE, "another"),
        ("redirect", ONCE, "a redirect to another place, not followed"),
        ("huge", ONCE, "larger than 1000000 bytes"),
        ("gzip_bomb", ONCE, "larger than 1000000 bytes"),
        ("endless_chunks", ONCE, "larger than 1000000 bytes"),
        ("big_header", ONCE, "headers are larger"),
    ],
)
def test_one_row_that_fails_is_tried_again_later_and_says_why(
    engine: Engine, world: World, fault: str, tries: int, said: str
) -> None:
    """A row whose answers fail waits with the exact reason; its neighbours are stored."""
    sids = list(world.sids())
    bad = sids[5]
    fill(engine, sids)
    with Sandbox(world, limit=0, track_sids=True) as box:
        box.faults.add(f"{fault}:sid={bad}")
        before = time.time() * 1000
        api = HastyFor(bad, box) if fault.startswith(WAITING) else None
        report = run_here(engine, box, api=api)
        assert box.stats()["fetched"][bad] == tries
        assert box.stats()["requests"] == report.counts["requests"] == len(sids) - 1 + tries
        row = row_of(engine, bad)
        assert (row.state, row.attempts, row.outcome, row.leased_by) == ("retry", 1, None, None)
        assert said in row.last_error
        assert row.due_at - before >= 90_000
        assert (report.exit_code, report.counts["fetched"]) == (0, len(sids) - 1)
        assert (report.counts["retry"], report.pending) == (1, 0)
        box.faults.clear()
        hasten(engine)
        assert run_here(engine, box).counts["fetched"] == 1
    assert row_of(engine, bad).attempts == 0
    assert row_of(engine, bad).last_error is None
    assert_loaded(engine, world, sids)


def test_a_price_that_is_no_number_costs_no_row(engine: Engine, world: World) -> None:
    """NaN for a price is a missing price with its raw text kept, and a warning."""
    sids = list(world.sids())
    fill(engine, sids)
    with Sandbox(world, limit=0) as box:
        box.faults.add(f"nan:sid={sids[3]}")
        report = run_here(engine, box)
    assert (report.counts["fetched"], report.counts["warnings"]) == (20, 1)
    columns = (attempts.c.price_amount, attempt_channel_data.c.extra)
    with engine.connect() as connection:
        statement = select(*columns).join(attempt_channel_data).where(attempts.c.sid == sids[3])
        row = connection.execute(statement).one()
    assert row.price_amount is None
    assert "NaN" in str(row.extra)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_leads_nowhere(engine: Engine, world: World, status: int) -> None:
    """Whatever a redirect names, nobody there hears of us."""
    fill(engine, list(world.sids())[:3])
    with Sandbox(world, limit=0) as box, Sandbox(World(size=1), limit=0) as elsewhere:
        location = f"{elsewhere.url}/v2/Attempts/{world.sid(0)}"
        box.faults.add(Fault("redirect", status=status, location=location))
        report = run_here(engine, box)
        assert elsewhere.stats()["connections"] == 0
    assert report.counts["fetched"] == 0
    assert set(states(engine)) <= {"retry", "pending"}


@pytest.mark.parametrize("fault", ["forbidden:code=20403", "forbidden:code=70051", "unauthorized"])
def test_refused_credentials_stop_the_run_and_cost_nothing(
    engine: Engine, world: World, fault: str
) -> None:
    """A 401, or a 403 with Twilio's code, ends the run with 77 after one request."""
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        box.faults.add(fault)
        report = run_here(engine, box)
        assert box.stats()["requests"] == 1
    assert report.exit_code == Exit.CREDENTIALS
    assert "TWILIO_AUTH_TOKEN" in str(report.error)
    assert box.auth_token not in str(report.error)
    assert states(engine) == {"pending": 20}


@pytest.mark.parametrize("fault", ["forbidden:code=20403", "unauthorized"])
def test_credentials_refused_in_mid_run_give_everything_back(engine: Engine, fault: str) -> None:
    """When a key is revoked in mid-run what is fetched stays, and the rest goes back uncounted."""
    world = World(size=60, static_at=time.time())
    fill(engine, world.sids())
    with Sandbox(world, limit=0, latency=0.01) as box:
        box.faults.add(f"{fault}:sid={world.sid(30)}")
        report = run_here(engine, box)
        sent = box.stats()["requests"]
    assert report.exit_code == Exit.CREDENTIALS
    counts = states(engine)
    assert set(counts) <= {"pending", "settled", "refresh"}
    assert counts["pending"] > 0
    # Only the refusal itself was for nothing.
    assert sent == 60 - counts["pending"] + 1
    assert report.counts["fetched"] == sent - 1


@pytest.mark.parametrize(
    ("header", "least_s", "most_s"),
    [
        ("1", 1.0, 1.0),
        ("1.5", 1.5, 1.5),
        ("0.2", 1.0, 1.0),
        ("-5", 1.0, 1.0),
        (None, 0.7, 0.7),
        ("soon", 0.7, 0.7),
        ("", 0.7, 0.7),
        ("date", 1.0, 2.0),
    ],
)
def test_a_429_pauses_for_as_long_as_it_says(
    engine: Engine, world: World, header: str | None, least_s: float, most_s: float
) -> None:
    """A short pause is kept, at least a second or else a window, and no row pays for it."""
    sids = list(world.sids())
    fill(engine, sids)
    if header == "date":
        header = formatdate(time.time() + 2, usegmt=True)
    looks: list[int] = []

    def noting(connection: Connection) -> int:
        looks.append(clock(connection))
        return looks[-1]

    with Sandbox(world, limit=0) as box:
        box.faults.add(Fault("throttle", count=1, retry_after=header))
        report = run_here(engine, box, allowance=(100, 700), clock=noting)
        assert box.stats()["requests"] == report.counts["requests"] == 21
    assert (report.exit_code, report.counts["throttled"]) == (0, 1)
    paused = [gate_of(engine) - now for now in looks]
    # The date is a whole second, and how far it is off depends on when it is read.
    assert [ms for ms in paused if least_s * 1000 <= ms <= most_s * 1000] != []
    assert min(paused) <= 0
    with engine.connect() as connection:
        assert set(connection.execute(select(q.c.attempts)).scalars()) == {0}
    assert_loaded(engine, world, sids)


@pytest.mark.parametrize("header", ["1e11", "99999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_429_for_ages_is_cut_to_a_quarter_of_an_hour(
    engine: Engine, world: World, header: str
) -> None:
    """No pause is read as longer than 15 minutes; the run says that it was throttled, with 75."""
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        box.faults.add(Fault("throttle", retry_after=header))
        before = int(time.time() * 1000)
        stop = StopFlag()

        def watch(counts: Counts) -> None:
            if counts.throttled:
                stop.deadline = 0.0

        report = run_here(engine, box, allowance=(100, 700), stop=stop, watch=watch)
        after = int(time.time() * 1000)
        assert box.stats()["requests"] == 1
    assert report.exit_code == Exit.TRY_LATER
    assert states(engine) == {"pending": 20}
    assert before + 900_000 <= gate_of(engine) <= after + 900_000


def test_a_404_is_tried_three_times_over_an_hour(engine: Engine, world: World) -> None:
    """A SID that the API does not know yet is given an hour before it is dead as not_found."""
    missing = world.sid(4)
    world.hidden.add(missing)
    fill(engine, [missing])
    waited = 0
    with Sandbox(world, limit=0, track_sids=True) as box:
        for tries in (1, 2):
            before = int(time.time() * 1000)
            assert run_here(engine, box).counts["retry"] == 1
            row = row_of(engine, missing)
            assert (row.state, row.attempts, row.outcome) == ("retry", tries, "not_found")
            waited += row.due_at - before
            assert run_here(engine, box).counts["requests"] == 0
            hasten(engine)
        assert run_here(engine, box).counts["dead"] == 1
        assert box.stats()["fetched"][missing] == 3
    assert waited >= HOUR
    row = row_of(engine, missing)
    assert (row.state, row.outcome, row.settled_at is None) == ("dead", "not_found", False)
    assert "20404" in row.last_error


def test_a_404_that_turns_up_later_is_stored(engine: Engine, world: World) -> None:
    """A SID that was too young to be seen is fetched at its next try."""
    young = world.sid(19)
    world.hidden.add(young)
    fill(engine, [young])
    with Sandbox(world, limit=0) as box:
        run_here(engine, box)
        world.hidden.clear()
        hasten(engine)
        run_here(engine, box)
    assert_loaded(engine, world, [young])


def test_a_404_past_its_retention_is_expired_at_once(engine: Engine, world: World) -> None:
    """A SID that its inserter knew to be forgotten by now is dead as expired after one request."""
    gone = world.sid(4)
    world.hidden.add(gone)
    fill(engine, [gone])
    with engine.begin() as connection:
        connection.execute(update(q).values(expires_at=int(time.time() * 1000) - DAY))
    with Sandbox(world, limit=0) as box:
        assert run_here(engine, box).counts["dead"] == 1
        assert box.stats()["requests"] == 1
    assert (row_of(engine, gone).state, row_of(engine, gone).outcome) == ("dead", "expired")


@pytest.mark.parametrize("forgotten", ["no", "yes", "whatever its row says"])
def test_a_404_for_what_was_fetched_before_keeps_the_last_known(
    engine: Engine, forgotten: str
) -> None:
    """A refresh that finds nothing is tried until the API has forgotten it, then rests."""
    world = World(size=1, start=time.time() - 3_600, span=60, static_at=time.time())
    sid = world.sid(0)
    fill(engine, [sid])
    with Sandbox(world, limit=0) as box:
        assert run_here(engine, box).counts["refresh"] == 1
        world.hidden.add(sid)
        with engine.begin() as connection:
            connection.execute(update(q).values(due_at=1))
            if forgotten == "yes":
                connection.execute(update(q).values(expires_at=int(time.time() * 1000) - 1))
            if forgotten == "whatever its row says":
                # Others write these columns, too: a moment that no API forgets anything at.
                month_ago = datetime.now(UTC) - timedelta(days=31)
                connection.execute(update(q).values(expires_at=2**62, enqueued_at=month_ago))
        run_here(engine, box)
    row = row_of(engine, sid)
    if forgotten != "no":
        assert (row.state, row.outcome, row.fetches) == ("settled", "last_known", 1)
    else:
        assert (row.state, row.outcome, row.due_at <= row.expires_at) == (
            "retry",
            "not_found",
            True,
        )
    with engine.connect() as connection:
        assert connection.execute(select(attempts.c.sid)).scalars().all() == [sid]


def test_an_attempt_without_a_date_becomes_final_whatever_its_row_says(engine: Engine) -> None:
    """Its age counts from when it was enqueued, where another program wrote an impossible time."""
    world = World(size=1, static_at=time.time())
    sid = world.sid(0)
    world.overrides[sid] = lambda payload, _at: {**payload, "date_created": None}
    fill(engine, [sid])
    week_ago = datetime.now(UTC) - timedelta(days=7)
    with engine.begin() as connection:
        connection.execute(update(q).values(expires_at=2**62, enqueued_at=week_ago))
    with Sandbox(world, limit=0) as box:
        run_here(engine, box)
    row = row_of(engine, sid)
    assert (row.state, row.outcome, row.fetches) == ("settled", "final", 1)


def test_under_a_third_of_failures_every_row_is_stored_in_the_end(engine: Engine) -> None:
    """With 30 % of 5xx each run sends a fifth more at the most, and retries bring the rest."""
    world = World(size=150, static_at=time.time())
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        for status in (500, 502, 503):
            box.faults.add(f"error:{status}:share=0.1:match=fetch")
        for _ in range(11):
            before = box.stats()["requests"]
            report = run_here(engine, box)
            sent = box.stats()["requests"] - before
            assert report.exit_code == 0
            # Two tries more are always granted, else a lone row would never get one.
            assert sent <= max(1.2 * report.counts["claimed"], report.counts["claimed"] + 2)
            if set(states(engine)) <= {"settled", "refresh"}:
                break
            hasten(engine)
    assert_loaded(engine, world, world.sids())
