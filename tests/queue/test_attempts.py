from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from etl.allowance.slots import Allowance
from etl.queue import attempts, status
from etl.queue.attempts import DEAD_AFTER, LEASE_MS, SOON_MS
from etl.queue.leases import give_back, give_back_strays, insert_listed
from etl.records import Outcome, State, Verdict
from tests.support.databases import Servers
from tests.support.queue_rows import (
    DAY,
    DIGITS,
    HOUR,
    NOW,
    claim,
    crowd,
    execute,
    explain,
    lock_leases,
    own_engine,
    promote,
    put,
    read,
    sid,
    watch,
)


def test_a_bare_insert_is_claimed(engine: Engine) -> None:
    """A row of which only the SID was inserted is leased with every other value at its default."""
    execute(engine, "INSERT INTO attempt_queue (sid) VALUES ('VL1')")
    ((lease,), row) = claim(engine), read(engine)["VL1"]
    assert (lease.sid, lease.claim_no, lease.due_at) == ("VL1", 1, NOW + LEASE_MS)
    assert (lease.expires_at, lease.attempts, lease.fetches, lease.lost_leases) == (0, 0, 0, 0)
    assert (row.state, row.claim_no, row.due_at) == ("leased", 1, NOW + LEASE_MS)
    assert (row.leased_by, row.account, row.outcome) == ("worker", "", None)


def test_claims_take_the_most_urgent_first(engine: Engine) -> None:
    """Soon forgotten, unknown age, later, expired: in this order, first in first out inside."""
    put(
        engine,
        {"sid": "expired", "expires_at": NOW},
        {"sid": "later", "expires_at": NOW + SOON_MS + 1},
        {"sid": "unknown 1"},
        {"sid": "soon", "expires_at": NOW + SOON_MS},
        {"sid": "soonest", "expires_at": NOW + 1},
        {"sid": "unknown 2"},
        {"sid": "long expired", "expires_at": 1},
        {"sid": "soon, too", "expires_at": NOW + SOON_MS},
    )
    expected = [
        "soonest", "soon", "soon, too", "unknown 1", "unknown 2", "later", "long expired", "expired",
    ]  # fmt: skip
    ones = [lease.sid for _ in range(4) for lease in claim(engine, 1)]
    assert ones + [lease.sid for lease in claim(engine)] == expected


def test_a_claim_takes_no_more_than_its_limit(engine: Engine) -> None:
    """The limit counts over all the ranges and accounts together."""
    for account in ("", "AC1"):
        for expires_at in (0, NOW + 1, NOW + SOON_MS + 1, 1):
            row = {"sid": f"{account}{expires_at}", "account": account, "expires_at": expires_at}
            put(engine, row)
    assert [len(claim(engine, n, accounts=("", "AC1"))) for n in (0, 3, 4, 5)] == [0, 3, 4, 1]


def test_urgency_comes_before_account(engine: Engine) -> None:
    """A backlog of one account does not make the other's rows late, and strangers' rows stay."""
    put(
        engine,
        *({"sid": f"VL{n}"} for n in range(3)),
        {"sid": "urgent", "account": "AC1", "expires_at": NOW + HOUR},
        {"sid": "stranger's", "account": "AC2", "expires_at": NOW + 1},
    )
    claimed = claim(engine, accounts=("", "AC1"))
    assert [lease.sid for lease in claimed] == ["urgent", "VL0", "VL1", "VL2"]


@pytest.mark.parametrize("state", [state for state in State if state is not State.PENDING])
def test_only_pending_rows_are_claimed(engine: Engine, state: State) -> None:
    """No row that is leased, waits or rests is claimed, however long it is due."""
    put(engine, {"sid": "VL1", "state": state, "expires_at": NOW + 1, "due_at": 1})
    assert claim(engine) == []


def test_claims_and_promotions_read_an_index_and_sort_nothing(engine: Engine) -> None:
    """Among 50,000 rows in other states, every SELECT of a claim walks the claim's own index."""
    crowd(engine)
    with watch(engine) as noted:
        claim(engine, 1_000)
        with engine.connect() as connection:
            attempts.pending(connection, ("", "AC1"))
        promote(engine, NOW)
    plans = [explain(engine, s, p) for s, p in noted if s.startswith("SELECT")]
    assert len(plans) == 8
    for number, plan in enumerate(plans):
        assert ("ix_attempt_queue_claim" if number < 5 else "ix_attempt_queue_due") in plan, plan
        sorts = ("Sort", "Seq Scan", "filesort", "temporary", "TEMP B-TREE", "SCAN", " ALL ")
        assert not [word for word in sorts if word in plan], plan


def test_a_million_rows_make_no_claim_slower(sqlite: Engine) -> None:
    """A claim from 1,000,000 pending rows takes few steps more than one from 10,000."""
    took = []
    event.listen(sqlite, "connect", lambda c, _: c.execute("PRAGMA synchronous = OFF"))
    with sqlite.connect() as connection:
        for first, last in ((1, 10_000), (10_001, 1_000_000)):
            connection.exec_driver_sql(
                f"WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n"
                f" WHERE i < {last}) INSERT INTO attempt_queue (sid, expires_at)"
                f" SELECT printf('VL%032x', i), (i % 2) * ({NOW + SOON_MS} + i) FROM n"
            )
            connection.commit()
            steps: list[int] = []
            driver: Any = connection.connection.driver_connection
            driver.set_progress_handler(lambda steps=steps: steps.append(0), 10)
            leases = attempts.claim(
                connection, accounts=("",), worker="w", now=NOW, limit=100, holding=False
            )
            driver.set_progress_handler(None, 0)
            assert len(leases) == 100
            connection.commit()
            took.append(len(steps))
    assert 0 < took[1] < 1.5 * took[0]


def test_the_second_worker_gets_other_rows_at_once(server: Engine) -> None:
    """A claim locks the rows it returns and no others, and the next claim skips them."""
    put(server, *({"sid": sid(n), "expires_at": NOW + DAY * (n % 2)} for n in range(40)))
    options = {"accounts": ("",), "worker": "w", "now": NOW, "limit": 10, "holding": False}
    with server.begin() as one, server.begin() as two:
        first = {lease.sid for lease in attempts.claim(one, **options)}  # type: ignore[arg-type]
        # If it waited for the first, it would do so until the database ends it with an error.
        second = {lease.sid for lease in attempts.claim(two, **options)}  # type: ignore[arg-type]
    assert (len(first), len(second), first & second) == (10, 10, set())


def test_a_row_that_another_program_locks_is_skipped(server: Engine) -> None:
    """A transaction left open on a row keeps nobody from the others."""
    put(server, *({"sid": sid(n)} for n in range(3)))
    with server.begin() as other:
        other.execute(text("UPDATE attempt_queue SET source = 'x' WHERE sid = :s"), {"s": sid(0)})
        assert [lease.sid for lease in claim(server)] == [sid(1), sid(2)]
        with server.begin() as connection:
            assert attempts.any_pending(connection, ("",))
    assert [lease.sid for lease in claim(server)] == [sid(0)]


def test_a_lease_holds_until_somebody_else_claims(engine: Engine) -> None:
    """The fence lets a holder pass until its lease was taken back, even if nobody claimed since."""
    put(engine, {"sid": sid(1)})
    (first,) = claim(engine)
    assert lock_leases(engine, [first]) == ({first.id}, set())
    promote(engine, first.due_at)
    assert lock_leases(engine, [first]) == (set(), set())
    (second,) = claim(engine, worker="other")
    assert (second.claim_no, second.lost_leases) == (first.claim_no + 1, 1)
    assert lock_leases(engine, [first]) == (set(), set())
    assert lock_leases(engine, [second]) == ({second.id}, set())


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM attempt_queue", "lost"),
        ("UPDATE attempt_queue SET claim_no = claim_no + 1", "lost"),
        ("UPDATE attempt_queue SET state = 'pending'", "lost"),
        ("UPDATE attempt_queue SET state = 'settled'", "done"),
        ("UPDATE attempt_queue SET state = 'dead', outcome = 'killed_worker'", "lost"),
        ("UPDATE attempt_queue SET source = 'edited'", "held"),
    ],
)
def test_the_fence_sees_what_others_did(engine: Engine, statement: str, expected: str) -> None:
    """A row deleted or taken by another is lost, one that rests under our token is done."""
    put(engine, {"sid": sid(1)})
    leases = claim(engine)
    execute(engine, statement)
    held, done = lock_leases(engine, leases)
    assert {"held": (1, 0), "done": (0, 1), "lost": (0, 0)}[expected] == (len(held), len(done))


def test_giving_back_counts_nothing(engine: Engine) -> None:
    """A row given back only has a new token. A lost one is left to its new holder."""
    put(engine, {"sid": sid(1), "attempts": 3, "lost_leases": 1, "fetches": 2}, {"sid": sid(2)})
    leases = claim(engine)
    execute(engine, f"UPDATE attempt_queue SET claim_no = 9 WHERE sid = '{sid(2)}'")
    with engine.begin() as connection:
        assert give_back(connection, leases) == 1
    mine, other = read(engine).values()
    assert (mine.state, mine.due_at, mine.leased_by, mine.claim_no) == ("pending", 0, None, 1)
    assert (mine.attempts, mine.lost_leases, mine.fetches) == (3, 1, 2)
    assert (other.state, other.claim_no) == ("leased", 9)


def test_strays_of_a_claim_without_an_answer_are_given_back(engine: Engine) -> None:
    """What is leased under our name and not held by us goes back, others' leases stay."""
    put(engine, *({"sid": sid(n)} for n in range(3)))
    kept, stray = (claim(engine, 1, worker="me")[0] for _ in range(2))
    claim(engine, 1, worker="other")
    with engine.begin() as connection:
        assert give_back_strays(connection, "me", {kept.id: kept}) == 1
    states = {row.sid: row.state for row in read(engine).values()}
    assert states == {kept.sid: "leased", stray.sid: "pending", sid(2): "leased"}
    assert read(engine)[stray.sid].lost_leases == 0


@pytest.mark.parametrize("state", [State.RETRY, State.REFRESH, State.LEASED])
def test_due_rows_become_pending(engine: Engine, state: State) -> None:
    """A row comes back at its due time and not before; only a lease counts as lost."""
    put(engine, {"sid": sid(1), "state": state, "due_at": NOW, "attempts": 4, "leased_by": "w"})
    assert promote(engine, NOW - 1) == 0
    assert (read(engine)[sid(1)].state, promote(engine, NOW)) == (state, 1)
    row = read(engine)[sid(1)]
    assert (row.state, row.due_at, row.attempts, row.leased_by) == ("pending", 0, 4, None)
    assert row.lost_leases == (state is State.LEASED)


def test_promotion_takes_a_thousand_rows_at_most(engine: Engine) -> None:
    """A long pause is worked off in portions, so that locks stay short."""
    execute(
        engine,
        "INSERT INTO attempt_queue (sid, state, due_at)"
        f" SELECT a.i + 10 * b.i + 100 * c.i + 1000 * d.i, 'retry', 1 FROM ({DIGITS}) a,"
        f" ({DIGITS}) b, ({DIGITS}) c, ({DIGITS}) d WHERE d.i < 2",
    )
    assert [promote(engine, NOW) for _ in range(3)] == [1_000, 1_000, 0]


def test_a_row_that_lost_five_leases_is_dead(engine: Engine) -> None:
    """The row that kills its worker each time rests at last, with the reason in words."""
    put(engine, {"sid": sid(1)})
    for lost in range(DEAD_AFTER):
        (lease,) = claim(engine)
        assert lease.lost_leases == lost
        promote(engine, lease.due_at)
    row = read(engine)[sid(1)]
    assert (row.state, row.outcome, row.lost_leases) == ("dead", "killed_worker", DEAD_AFTER)
    assert "5 times" in row.last_error
    assert (row.rested, row.leased_by, claim(engine)) == (True, None, [])


def test_a_suspect_is_claimed_alone(engine: Engine) -> None:
    """A row that lost two leases ends a batch. If nothing else is held, it is one itself."""
    put(engine, {"sid": "a", "lost_leases": 1}, {"sid": "b", "lost_leases": 2}, {"sid": "c"})
    assert [lease.sid for lease in claim(engine)] == ["a"]
    assert claim(engine, holding=True) == []
    assert [lease.sid for lease in claim(engine)] == ["b"]
    assert [lease.sid for lease in claim(engine, holding=True)] == ["c"]


def test_revive_brings_back_the_dead_and_no_others(engine: Engine) -> None:
    """By SID, outcome, both, or all: dead rows start anew, others are left alone."""
    dead = {"state": "dead", "attempts": 12, "lost_leases": 5, "last_error": "x"}
    put(
        engine,
        {"sid": "a", "outcome": "not_found", **dead},
        {"sid": "b", "outcome": "exhausted", **dead},
        {"sid": "c", "outcome": "exhausted", **dead},
        {"sid": "d", "state": "settled", "outcome": "not_found"},
    )
    with engine.begin() as connection:
        assert attempts.revive(connection, sids=["a"], outcomes=["exhausted"]) == 0
        assert attempts.revive(connection, sids=["a", "d"]) == 1
        assert attempts.revive(connection, outcomes=iter(["exhausted", "not_found"])) == 2
        assert attempts.revive(connection) == 0
    rows = read(engine)
    assert [rows[s].state for s in "abcd"] == ["pending", "pending", "pending", "settled"]
    assert [(rows[s].attempts, rows[s].lost_leases) for s in "abc"] == [(0, 0)] * 3
    assert [(rows[s].outcome, rows[s].last_error) for s in "abc"] == [(None, None)] * 3


def test_counts_tell_states_and_accounts_apart(engine: Engine) -> None:
    """Pending counts the accounts asked for; states names every state."""
    put(engine, {"sid": "a"}, {"sid": "b", "account": "AC1"}, {"sid": "c", "state": "retry"})
    with engine.connect() as connection:
        assert [attempts.pending(connection, a) for a in (("",), ("", "AC1"), ("AC9",))] == [
            1,
            2,
            0,
        ]
        assert [attempts.any_pending(connection, a) for a in (("",), ("AC9",))] == [True, False]
        found = status.read(
            connection,
            allowance=Allowance("AC1", 0, 60_000),
            retention=DAY,
            page_size=1_000,
            now=NOW,
        )
    assert found.states == {state.value: 0 for state in State} | {"pending": 2, "retry": 1}


@pytest.mark.parametrize("value", [-(2**63), -1, 2**63 - 1])
def test_odd_deadlines_are_claimed(engine: Engine, value: int) -> None:
    """A negative deadline tells nothing of the age, and a huge one is merely far."""
    put(engine, {"sid": "odd", "expires_at": value}, {"sid": "even"})
    claimed = {lease.sid: lease.expires_at for lease in claim(engine)}
    assert claimed == {"odd": max(value, 0), "even": 0}


@pytest.mark.parametrize("value", ["'soon'", "1.5", "''", "x'ff'", "9e99"])
def test_sqlite_keeps_what_no_column_should(sqlite: Engine, value: str) -> None:
    """A deadline that is no integer tells nothing of the age, and a SID may have any length."""
    long = "V" * 10_000
    execute(sqlite, f"INSERT INTO attempt_queue (sid, expires_at) VALUES ('{long}', {value})")
    assert [(lease.sid, lease.expires_at) for lease in claim(sqlite)] == [(long, 0)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2020-01-01 00:00:00", 1_577_836_800_000), ("2020-01-01T00:00:00.25Z", 1_577_836_800_250),
        ("2020-01-01T01:00:00+01:00", 1_577_836_800_000), ("9999-12-31", 253_402_214_400_000),
        ("0001-01-01T00:00:00+14:00", -62_135_647_200_000), ("yesterday", NOW), ("", NOW),
        (1_577_836_800, NOW), (b"\xff", NOW),
    ],
)  # fmt: skip
def test_any_time_of_enqueueing_is_claimed(sqlite: Engine, value: Any, expected: int) -> None:
    """On SQLite ``enqueued_at`` may hold anything; what cannot be read counts as now."""
    execute(sqlite, "INSERT INTO attempt_queue (sid, enqueued_at) VALUES ('odd', :v)", v=value)
    assert [lease.enqueued_at for lease in claim(sqlite)] == [expected]


@pytest.mark.parametrize("value", ["infinity", "-infinity", "20000-01-01", "0044-03-15 BC"])
def test_times_beyond_the_calendar_are_claimed(servers: Servers, value: str) -> None:
    """PostgreSQL's times beyond a datetime count as now, in any DateStyle."""
    with own_engine(servers, "postgresql") as engine:
        execute(
            engine,
            f"INSERT INTO attempt_queue (sid, enqueued_at) VALUES ('odd', '{value}'), ('even', '2020-01-01Z')",
        )
        enqueued = {lease.sid: lease.enqueued_at for lease in claim(engine)}
    assert enqueued == {"odd": NOW, "even": 1_577_836_800_000}


def test_sids_are_kept_and_compared_exactly(engine: Engine) -> None:
    """Emoji, blanks and twins in upper and lower case are rows of their own."""
    odd = [
        "VLaa",
        "vlaa",
        "VLAA",
        "\N{PILE OF POO}" * 16,
        "",
        " ",
        "a ",
        "a",
        "../x",
        "a\nb",
        "é",
        "e",
    ]
    put(engine, *({"sid": value} for value in odd))
    assert [lease.sid for lease in claim(engine)] == odd


def test_listed_rows_are_locked_unless_they_are_anothers(engine: Engine) -> None:
    """A page may finish waiting and missing rows, of its own accounts only."""
    states = {
        "pending": None, "retry": None, "refresh": None, "leased": None, "settled": "final",
        "dead": "not_found",
    }  # fmt: skip
    put(
        engine,
        *({"sid": state, "state": state, "outcome": states[state]} for state in states),
        {"sid": "gone", "state": "dead", "outcome": "expired"},
        {"sid": "bad", "state": "dead", "outcome": "bad_body"},
        {"sid": "stranger's", "account": "AC2"},
        {"sid": "not listed"},
    )
    listed = [*states, "gone", "bad", "stranger's"]
    with engine.begin() as connection:
        leases = attempts.lock_listed(connection, listed, accounts=("", "AC1"), now=0)
    assert [lease.sid for lease in leases] == [
        "bad", "dead", "gone", "pending", "refresh", "retry",
    ]  # fmt: skip
    assert {lease.claim_no for lease in leases} == {1}


def test_discovered_rows_leave_queued_ones_alone(engine: Engine) -> None:
    """A SID that was enqueued meanwhile keeps its row, and only new ones are counted."""
    put(engine, {"sid": "old", "source": "mine"})
    refresh = Verdict(State.REFRESH, NOW + 1, NOW + DAY, 0, None, None)
    dead = Verdict(State.DEAD, 0, 0, 1, Outcome.DB_REJECT, "no")
    with engine.begin() as connection:
        found = [("old", refresh), ("new", refresh), ("bad", dead)]
        assert insert_listed(connection, found, now=NOW) == 2
    rows = read(engine)
    assert (rows["old"].state, rows["old"].source) == ("pending", "mine")
    assert (rows["new"].state, rows["new"].due_at, rows["new"].fetches) == ("refresh", NOW + 1, 1)
    bad = rows["bad"]
    assert (bad.state, bad.outcome, bad.rested) == ("dead", "db_reject", True)
