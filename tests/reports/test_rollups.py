"""Compare roll-ups with the raw rows after any writes."""

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from random import Random
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, Engine, func, select, text

from etl.database.engine import READ_ONLY
from etl.database.schema import rollup_marks
from etl.final import DAY_MS, Policy
from etl.load import redact, upsert
from etl.records import Attempt, Fetched
from etl.reports import REPORTS, Report
from etl.reports.fees import replace as put_fees
from etl.reports.query import Question, ask, scope_of, statement
from etl.reports.questions.fraud import FRAUD_PREFIX_HOURLY
from etl.rollups import marks, refresh
from etl.rollups.cubes import ROLLUPS, UNKNOWN
from etl.rollups.tables import rollups as rollups_of
from etl.sandbox import Sandbox, World
from etl.sql.spans import DAY_S
from tests.support.harness import PATIENCE_S, fill
from tests.support.in_process import run_here
from tests.support.report_world import CHANNELS, FEES, NOW, SERVICES, Made, make

ROW_BY_ROW: Final = {
    "attempts", "verification-outcome", "repeat-destinations", "changes", "changes-daily",
}  # fmt: skip
SUMMARIES: Final = [report for report in REPORTS if report.name not in ROW_BY_ROW]
SINCE: Final = datetime(2026, 3, 27, 22, 59, 59, tzinfo=UTC).timestamp()
UNTIL: Final = datetime(2026, 4, 4, 15, 7, 0, 500_000, tzinfo=UTC).timestamp()
DAYS: Final = tuple(datetime(2026, 3, day, tzinfo=UTC).timestamp() for day in (25, 31))
QUESTIONS: Final = (
    Question(),
    Question(by=()),
    Question(since=SINCE, until=UNTIL),
    Question(since=DAYS[0], until=DAYS[1]),
    Question(since=DAYS[0] + 3600, until=DAYS[0] + 7200 + 1),
    Question(since=SINCE, by=("channel",), channels=("sms", "call")),
    Question(until=UNTIL, services=(str(SERVICES[0]),)),
    Question(countries=("BR", "US"), since=SINCE),
    Question(zone=ZoneInfo("Asia/Kathmandu"), since=SINCE, until=UNTIL),
    Question(zone=ZoneInfo("Australia/Lord_Howe"), by=("day",)),
    Question(zone=ZoneInfo("Europe/Berlin"), by=("country",), until=UNTIL),
    Question(zone=ZoneInfo("Africa/Monrovia"), since=0.5, by=("day", "service_sid")),
)
_NAMES: Final = [name for name in Attempt._fields if name != "warnings"]


def _rows(connection: Connection, report: Report, question: Question) -> list[tuple[Any, ...]]:
    with ask(connection, report, question) as answer:
        return list(answer.rows)


def _differences(engine: Engine, questions: Iterable[Question] = QUESTIONS) -> list[str]:
    """Name each report and question whose numbers differ from the raw rows."""
    found = []
    with engine.execution_options(**READ_ONLY).connect() as connection:
        for report, question in product(SUMMARIES, questions):
            asked = replace(question, by=question.by if report.by else None)
            if asked.by is not None:
                asked = replace(asked, by=tuple(key for key in report.by if key in asked.by))
            asked = asked if report.filters else Question()
            rolled = Counter(_rows(connection, report, asked))
            whole = _rows(connection, report, replace(asked, raw=True))
            raw = Counter(whole)
            if rolled != raw:
                found.append(f"{report.name} {asked}: {rolled - raw} instead of {raw - rolled}")
            # The newest rows are looked for in the newest hours alone.
            found += [
                f"{report.name} {asked}: the first {limit} differ"
                for limit in ((1, 7) if report is FRAUD_PREFIX_HOURLY else ())
                if _rows(connection, report, replace(asked, limit=limit)) != whole[:limit]
            ]
    return found


def _as_attempt(row: Made) -> Attempt:
    return Attempt(**{name: getattr(row, name) for name in _NAMES})


def _write(engine: Engine, rows: Iterable[tuple[Attempt, bool]], sent_at: int) -> None:
    """Load attempts as a run does."""
    with engine.begin() as connection:
        _write_in(connection, rows, sent_at)


def _write_in(connection: Connection, rows: Iterable[tuple[Attempt, bool]], sent_at: int) -> None:
    marks.enter(connection)
    listed = list(rows)
    known = upsert.known(connection, [attempt.sid for attempt, _ in listed])
    merged = [
        (upsert.merge(Fetched(attempt, sent_at), known.get(attempt.sid)), final)
        for attempt, final in listed
    ]
    upsert.write(connection, merged)


def _changed(random: Random, attempt: Attempt, other: Attempt) -> Attempt:
    """Make up what a newer fetch may say of an attempt."""
    moved = timedelta(seconds=random.choice((1, -900, 3600, 86_400)))
    change: dict[str, Any] = random.choice(
        (
            {"conversion_status": "converted"},
            {"conversion_status": None},
            {"price_amount": Decimal("0.010000"), "price_currency": random.choice(("USD", "EUR"))},
            {"verification_sid": other.verification_sid},
            {"verification_sid": None},
            {"date_created": None},
            {"date_created": other.date_created},
            {"date_created": attempt.date_created and attempt.date_created + moved},
            {"channel": random.choice(CHANNELS), "carrier": "Claro"},
            {"country": other.country, "destination_prefix": other.destination_prefix},
            {"service_sid": "", "country": "", "error_code": "30003"},
        )
    )
    return attempt._replace(**change)


def _crash(engine: Engine, monkeypatch: pytest.MonkeyPatch, random: Random) -> None:
    """Cut a refresh off somewhere in a day."""
    left = random.randrange(12)
    whole = refresh._sum_facts

    def cut(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise InterruptedError
        whole(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(refresh, "_sum_facts", cut)
        try:
            refresh.refresh(engine, policy=Policy(), everything=True)
        except InterruptedError:
            return


def _marked(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(rollup_marks)).scalar_one())


@pytest.mark.parametrize("seed", [1, 2])
def test_roll_ups_equal_the_raw_rows(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """After any history, every report equals the raw rows, with marks or without."""
    random = Random(seed)
    there = [(_as_attempt(row), row.is_final) for row in make(seed, 60).rows]
    sent_at = int(NOW.timestamp() * 1000)
    with engine.begin() as connection:
        put_fees(connection, FEES)
    for step in range(13):
        batch = random.sample(range(len(there)), 15)
        if step > 3:
            for place in batch:
                other = random.choice(there)[0]
                there[place] = (_changed(random, there[place][0], other), random.random() < 0.7)
        _write(engine, [there[place] for place in batch], sent_at + step)
        if step % 4 == 1:
            days = 2 + (random.random() < 0.5)
            refresh.refresh(engine, policy=Policy(), everything=True, stop=days.__le__)
        elif step % 4 == 2:
            _crash(engine, monkeypatch, random)
        elif step % 4 == 3:
            refresh.refresh(engine, policy=Policy(), everything=True)
            with engine.begin() as connection:
                redact.redact(connection, before=sent_at, after="", write=True)
        if step in {2, 5, 9}:
            assert _differences(engine, random.sample(QUESTIONS, 4)) == []
    assert _marked(engine) > 0
    assert _differences(engine) == []
    refresh.refresh(engine, policy=Policy(), everything=True)
    assert _marked(engine) == 0
    assert _differences(engine) == []


def test_raw_rows_are_not_read_where_roll_ups_are_whole(engine: Engine) -> None:
    """After a delete by hand roll-ups are stale; marking all days mends it."""
    rows = [(_as_attempt(row), row.is_final) for row in make(3, 40).rows]
    _write(engine, rows, 1)
    refresh.refresh(engine, policy=Policy(), everything=True)
    question = Question(since=DAYS[0], until=DAYS[1])
    with engine.connect() as connection:
        before = [Counter(_rows(connection, report, question)) for report in SUMMARIES]
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM attempts"))
    with engine.connect() as connection:
        assert [Counter(_rows(connection, report, question)) for report in SUMMARIES] == before
    with engine.begin() as connection:
        refresh.mark_everything(connection)
    assert _differences(engine) == []
    refresh.refresh(engine, policy=Policy(), everything=True)
    with engine.connect() as connection:
        for rollup in ROLLUPS:
            assert connection.execute(text(f"SELECT COUNT(*) FROM {rollup.table}")).scalar() == 0


@pytest.mark.parametrize(("settle_after", "summed"), [(1, 3), (2, 2), (5, 1)])
def test_days_wait_until_they_are_quiet(engine: Engine, settle_after: int, summed: int) -> None:
    """A day is summed after its attempts were fetched again, the unknown time at once."""
    policy = Policy(settle_after=settle_after * DAY_MS, price_grace=6 * DAY_MS)
    row = _as_attempt(make(1, 5).rows[0])
    noon = NOW.replace(hour=12)
    days = [None, *(noon - timedelta(days=ago) for ago in (0, 1, 2, 3))]
    made = [row._replace(sid=f"VL{n}", date_created=at) for n, at in enumerate(days)]
    _write(engine, [(attempt, True) for attempt in made], 1)
    now = int(noon.timestamp() * 1000)
    assert refresh.refresh(engine, policy=policy, clock=lambda _: now) == summed
    with engine.connect() as connection:
        left = connection.execute(select(rollup_marks.c.start).distinct()).scalars().all()
    assert sorted(left) == [noon.timestamp() - ago * DAY_S for ago in reversed(range(5 - summed))]
    assert _differences(engine) == []


@pytest.mark.parametrize("share", [0.0, 1e9])
def test_a_run_sums_no_longer_than_its_share(
    engine: Engine, caplog: pytest.LogCaptureFixture, share: float
) -> None:
    """A backfill of old days sums two, and more as a share of its time allows."""
    caplog.set_level("DEBUG")
    midnight = time.time() // DAY_S * DAY_S
    world = World(size=50, start=midnight - 10 * DAY_S, span=7 * DAY_S, static_at=time.time())
    days = {world.created(number) // DAY_S for number in range(50)}
    fill(engine, world.sids())
    with Sandbox(world, limit=0) as box:
        assert run_here(engine, box, sum_share=share).counts["fetched"] == 50
    with engine.connect() as connection:
        starts = connection.execute(select(rollups_of["attempts"].c.start)).scalars()
        assert len({start // DAY_S for start in starts}) == (len(days) if share else 2)
    assert ("verify-etl db rollups" in caplog.text) is (not share)
    assert len(days) > 3


def test_few_prefixes_are_looked_for_in_few_hours(engine: Engine) -> None:
    """With whole roll-ups, the newest hours say where a limit begins."""
    _write(engine, [(_as_attempt(row), row.is_final) for row in make(3, 40).rows], 1)
    refresh.refresh(engine, policy=Policy(), everything=True)
    with engine.connect() as connection:
        scope = scope_of(connection, Question())
        every = FRAUD_PREFIX_HOURLY.newest(scope, 1), FRAUD_PREFIX_HOURLY.newest(scope, 10_000)
        first, none = (connection.execute(text(str(sql))).scalar() for sql in every)
        latest = select(func.max(rollups_of["prefixes"].c.start))
        assert (first, none) == (connection.execute(latest).scalar(), None)


def test_marks_are_thinned(engine: Engine) -> None:
    """A quarter written a hundred times keeps one mark until it is summed."""
    row = _as_attempt(make(1, 5).rows[0])._replace(date_created=NOW, verification_sid=None)
    for n in range(5):
        _write(engine, [(row._replace(channel=f"c{n}"), True)], n + 1)
    old = row._replace(sid="VLold", date_created=None)
    _write(engine, [(old, True)], 1)
    assert _marked(engine) == 6
    assert (
        refresh.refresh(engine, policy=Policy(), clock=lambda _: int(NOW.timestamp() * 1000)) == 1
    )
    assert _marked(engine) == 1


@pytest.mark.kinds("postgresql", "second-postgresql", "mariadb")
def test_a_loader_in_the_middle_is_waited_for(engine: Engine) -> None:
    """Of two concurrent writers of one verification, neither is left out."""
    first, second = (_as_attempt(row) for row in make(1, 5).rows[:2])
    first = first._replace(sid="VL1", verification_sid="VE1", date_created=NOW)
    later = second._replace(
        sid="VL2", verification_sid="VE1", date_created=NOW + timedelta(hours=1)
    )
    with engine.connect() as open_one, open_one.begin():
        _write_in(open_one, [(later, True)], 1)
        _write(engine, [(first, True)], 1)
        refreshing = threading.Thread(
            target=refresh.refresh, args=(engine,), kwargs={"policy": Policy(), "everything": True}
        )
        refreshing.start()
        refreshing.join(0.5)
        assert refreshing.is_alive()
    refreshing.join(PATIENCE_S)
    assert _marked(engine) == 0
    assert _differences(engine) == []


@pytest.mark.kinds("postgresql", "second-postgresql", "mariadb")
def test_a_loader_during_the_sums_keeps_its_mark(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is committed while a day is summed stays marked, and is read raw."""
    rows = [(_as_attempt(row), row.is_final) for row in make(2, 20).rows]
    _write(engine, rows, 1)
    whole = refresh._sum_facts

    def meanwhile(*arguments: Any) -> None:
        whole(*arguments)
        with monkeypatch.context() as undone:
            undone.setattr(refresh, "_sum_facts", whole)
            changed = rows[0][0]._replace(conversion_status="converted", service_sid="VAnew")
            _write(engine, [(changed, False)], sent.pop())

    sent = [900 - n for n in range(900)]
    monkeypatch.setattr(refresh, "_sum_facts", meanwhile)
    refresh.refresh(engine, policy=Policy(), everything=True)
    monkeypatch.undo()
    assert _marked(engine) > 0
    assert _differences(engine, QUESTIONS[:5]) == []


def test_two_at_once_do_not_collide(engine: Engine) -> None:
    """Several that sum the same days share them, and sum nothing twice."""
    _write(engine, [(_as_attempt(row), row.is_final) for row in make(2, 60).rows], 1)
    threads = [
        threading.Thread(
            target=refresh.refresh, args=(engine,), kwargs={"policy": Policy(), "everything": True}
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert _marked(engine) == 0
    assert _differences(engine, QUESTIONS[:4]) == []


@pytest.mark.kinds("sqlite", "postgresql")
def test_marked_spans_are_read_by_the_index(engine: Engine) -> None:
    """Raw rows of marked stretches are found by the index of creation times."""
    _write(engine, [(_as_attempt(row), row.is_final) for row in make(2, 20).rows], 1)
    prefix = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            connection.execute(text("SET LOCAL enable_bitmapscan = off"))
        for report in SUMMARIES:
            sql = statement(report, scope_of(connection, Question()))
            plan = "\n".join(str(row) for row in connection.execute(text(prefix + sql)))
            assert "ix_attempts_date_created" in plan, (report.name, plan)
            if engine.dialect.name == "sqlite":
                assert "SCAN a" not in plan, (report.name, plan)
                assert "BLOOM" not in plan, (report.name, plan)


def test_the_unknown_time_is_a_day_of_its_own() -> None:
    """The stretch of the unknown time begins on a day, as all sums assume."""
    assert UNKNOWN % DAY_S == 0
