"""Hold every report about the past to what the same report said then.

The oracle is a second database that was given only the fetches sent by the moment.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import combinations
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, insert, text, update

from etl.database.engine import READ_ONLY, open_engine
from etl.database.schema import TRACKED, attempt_changes, attempts
from etl.reports import REPORTS, Report
from etl.reports.query import Question, ask, undated
from etl.sql.as_of import AsOf, first_known
from tests.support import history
from tests.support.databases import Server
from tests.support.history import MOMENTS, Fetch
from tests.support.report_world import FEES

QUEUE: Final = {"waiting", "to_retry", "to_refresh", "last_known", "lost", "dead"}
FINALITY: Final = {"final", "not_final"}
QUESTIONS: Final[dict[str, dict[str, Any]]] = {
    "whole": {},
    "total": {"by": ()},
    "window": {"since": MOMENTS[1].timestamp(), "until": MOMENTS[3].timestamp()},
    "slice": {"channels": ("sms", "call"), "countries": ("BR", "US"), "by": ("day", "channel")},
}


def _exact(fetches: list[Fetch]) -> datetime:
    """Give the moment of a request: its answer is known from then on."""
    return datetime.fromtimestamp(fetches[len(fetches) // 2].sent_at / 1000, UTC)


@pytest.fixture
def then(database_kind: str, servers: Callable[[str], Server]) -> Iterator[Engine]:
    """Open a second database, which is only told what was known."""
    with servers(database_kind).database(migrated=True) as url:
        engine = open_engine(url)
        yield engine
        engine.dispose()


def _fill(engine: Engine, fetches: list[Fetch]) -> None:
    from etl.reports.fees import replace

    with engine.begin() as connection:
        replace(connection, FEES)
        history.store(connection, fetches)


def _read(
    connection: Connection, report: Report, question: dict[str, Any], as_of: AsOf | None
) -> list[dict[str, Any]]:
    asked = dict(question) if report.filters else {}
    if not report.by:
        asked.pop("by", None)
    with ask(connection, report, Question(**asked, as_of=as_of)) as answer:
        names = [column.name for column in answer.columns]
        rows = [dict(zip(names, row, strict=True)) for row in answer.rows]
    return [row for row in rows if row.get("measure") not in QUEUE]


def _same(now: list[dict[str, Any]], then: list[dict[str, Any]], without: set[str]) -> None:
    def kept(rows: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
        return Counter(
            tuple((name, value) for name, value in row.items() if name not in without)
            for row in rows
        )

    assert kept(now) == kept(then)


def _compare(reports: Engine, then: Engine, fetches: list[Fetch], without: set[str]) -> None:
    """Ask every question of the past here, and at that time there."""
    _fill(reports, fetches)
    told = 0
    for moment in sorted((*MOMENTS, _exact(fetches))):
        known = history.until(fetches, moment)
        _fill(then, known[told:])
        told = len(known)
        as_of = AsOf(moment.timestamp())
        with (
            reports.execution_options(**READ_ONLY).connect() as here,
            then.execution_options(**READ_ONLY).connect() as there,
        ):
            assert undated(here, as_of) == undated(there)
            for report in REPORTS:
                for question in QUESTIONS.values():
                    found = _read(here, report, question, as_of)
                    wanted = _read(there, report, question, None)
                    if report.name == "freshness" and without:
                        found, wanted = ([r for r in rows if "final" not in r["measure"]]
                                         for rows in (found, wanted))  # fmt: skip
                    # A fetch that showed nothing new has left no trace but the last one's time.
                    _same(found, wanted, without | {"fetched_at"})
    assert told == len(fetches)


def test_every_report_says_what_it_said_then(reports: Engine, then: Engine) -> None:
    """As of a moment, each report equals the report at that moment."""
    _compare(reports, then, history.make(1, again=False), set())


def test_what_was_fetched_after_it_was_final(reports: Engine, then: Engine) -> None:
    """Then too, all values are equal, and no row is final that was not."""
    fetches = history.make(3, again=True)
    _compare(reports, then, fetches, FINALITY)
    fewer = 0
    for moment in MOMENTS[1:-1]:
        as_of = AsOf(moment.timestamp())
        with reports.connect() as connection:
            found = _rows_by_sid(connection, as_of)
        known: dict[str, bool] = {}
        sent: dict[str, int] = {}
        for fetch in history.until(fetches, moment):
            sid, attempt = fetch.attempt.sid, fetch.attempt
            known[sid] = history.settled(fetches, attempt.sid, moment)
            sent[sid] = fetch.sent_at
        assert set(found) == set(known)
        for sid, (final, fetched_at) in found.items():
            assert known[sid] or not final
            assert fetched_at.timestamp() * 1000 <= sent[sid] + 0.5
            fewer += known[sid] and not final
    assert fewer


def _rows_by_sid(connection: Connection, as_of: AsOf) -> dict[str, tuple[Any, Any]]:
    rows = _read(connection, _named("attempts"), {}, as_of)
    return {row["sid"]: (row["final"], row["fetched_at"]) for row in rows}


def test_the_first_moment_is_known(reports: Engine) -> None:
    """Before the first fetch nothing is known; the report says since when."""
    fetches = history.make(4, 20, again=False)
    with reports.connect() as connection:
        assert first_known(connection) is None
    _fill(reports, fetches)
    with reports.connect() as connection:
        begun = first_known(connection)
        assert begun is not None
        assert round(begun.timestamp() * 1000) == fetches[0].sent_at
        before = AsOf(begun.timestamp() - 1)
        for report in REPORTS:
            rows = _read(connection, report, {}, before)
            assert [row for row in rows if row.get("number") != 0] == []
        assert len(_rows_by_sid(connection, AsOf(begun.timestamp()))) == 1


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_changes_add_up_to_what_moved(reports: Engine, seed: int) -> None:
    """For every slice and any two moments, the changes between are the difference of the reports."""
    fetches = history.make(seed, again=True)
    _fill(reports, fetches)
    moments = sorted((*MOMENTS, _exact(fetches)))
    compared = 0
    with reports.connect() as connection:
        for early, late in combinations([AsOf(moment.timestamp()) for moment in moments], 2):
            before, after = _stated(connection, early), _stated(connection, late)
            moved = Counter({key: after[key] - before[key] for key in {*after, *before}})
            assert moved == _ledger(connection, late, since=early)
            compared += sum(map(bool, moved.values()))
    assert compared > 100


_SLICE: Final = ("day", "service_sid", "channel", "country")


def _stated(connection: Connection, as_of: AsOf) -> Counter[tuple[Any, ...]]:
    """Give attempts, conversions and amounts of money by every key."""
    sums: Counter[tuple[Any, ...]] = Counter()
    question = {"by": _SLICE}
    for row in _read(connection, _named("conversion-daily"), question, as_of):
        sums[*_keys(row), "converted"] += row["converted"]
    for row in _read(connection, _named("cost-daily"), question, as_of):
        sums[*_keys(row), row["currency"], "attempts"] += row["attempts"]
        sums[*_keys(row), row["currency"], "total"] += row["total"] or 0
    return sums


def _ledger(connection: Connection, as_of: AsOf, *, since: AsOf) -> Counter[tuple[Any, ...]]:
    sums: Counter[tuple[Any, ...]] = Counter()
    question = {"by": _SLICE, "seen_since": since.at}
    for row in _read(connection, _named("changes-daily"), question, as_of):
        sums[*_keys(row), "converted"] += row["converted_change"]
        sums[*_keys(row), row["currency"], "attempts"] += row["attempts"]
        sums[*_keys(row), row["currency"], "total"] += row["price_change"] or 0
    return sums


def _keys(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _SLICE)


def _named(name: str) -> Report:
    return next(report for report in REPORTS if report.name == name)


def test_every_tracked_field_is_turned_back() -> None:
    """The fields whose changes are kept, and which reports turn back, are these."""
    assert {*TRACKED} == {
        "price_amount", "price_currency", "conversion_status", "channel", "status",
        "message_status", "call_status", "error_code",
    }  # fmt: skip


def test_a_tracked_number_is_turned_back(reports: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of whole numbers, once its changes are kept, gets its old value like a text."""
    monkeypatch.setattr("etl.sql.as_of.TRACKED", (*TRACKED, "code_length"))
    fetches = history.make(6, 20, again=False)
    _fill(reports, fetches)
    sid = fetches[0].attempt.sid
    moment = fetches[-1].sent_at + 1000
    change = {
        "attempt_sid": sid, "field": "code_length", "old_value": "17", "new_value": "6",
        "seen_at": moment + 5000,
    }  # fmt: skip
    found = []
    with reports.begin() as connection:
        connection.execute(update(attempts).values(fetched_at=change["seen_at"]))
        connection.execute(insert(attempt_changes), [change])
        for at in (moment, moment + 6000):
            rows = _read(connection, _named("attempts"), {}, AsOf(at / 1000))
            found.append({row["sid"]: row["code_length"] for row in rows})
    before, after = found
    assert before == after | {sid: 17}
    assert after[sid] != 17
    assert type(before[sid]) is int


def test_the_past_needs_no_more_than_the_window(reports: Engine) -> None:
    """A past day is read by the indexes of creation times and changes."""
    if reports.dialect.name != "sqlite":
        return
    from etl.reports.query import binds, scope_of, statement

    report = _named("conversion-daily")
    question = Question(since=0.0, until=1.0, as_of=AsOf(5.0))
    with reports.connect() as connection:
        scope = scope_of(connection, question)
        sql = statement(report, scope)
        rows = connection.execute(text("EXPLAIN QUERY PLAN " + sql), binds(scope, sql))
        plan = "\n".join(str(row.detail) for row in rows)
    assert "ix_attempts_date_created" in plan
    assert "SCAN attempt" not in plan
    assert "ix_attempt_changes_attempt_sid" in plan
