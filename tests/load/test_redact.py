"""Leave no personal data of old attempts in any table, on any database."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow.parquet import read_schema
from sqlalchemy import Connection, Engine, delete, event, insert, select, text, update

from etl.database.engine import open_engine
from etl.database.schema import (
    attempt_changes,
    attempt_channel_data,
    attempt_queue,
    attempts,
    sweeps,
    sync_runs,
    verification_queue,
)
from etl.database.times import moment
from etl.export import ExportOptions, export
from etl.final import Policy
from etl.load import redact as redact_
from etl.load import upsert
from etl.records import Attempt, Fetched
from etl.rollups import refresh
from etl.rollups.tables import metadata
from etl.transform.attempt import transform
from tests.support.export_world import exported
from tests.support.hiding import cells, leaks, payloads
from tests.support.payloads import EXAMPLE, EXAMPLE_DATA
from tests.support.queue_rows import DAY, NOW, sid

SECRET = "whatsapp:+1\u00a0415-555-0147 ext 5"
BATCHES = st.lists(payloads(), min_size=5, max_size=15)
FEW = settings(
    max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, *HealthCheck]
)


def put(engine: Engine, sent: Sequence[dict[str, Any]], *, sent_at: int = NOW) -> None:
    """Write payloads as a run does, each under the SID of its place."""
    found = [transform({**each, "sid": sid(n)}, sid=sid(n)) for n, each in enumerate(sent)]
    fetched = [Fetched(attempt, sent_at) for attempt in found if isinstance(attempt, Attempt)]
    assert len(fetched) == len(found)
    with engine.begin() as connection:
        known = upsert.known(connection, [each.attempt.sid for each in fetched])
        merged = [upsert.merge(each, known.get(each.attempt.sid)) for each in fetched]
        upsert.write(connection, [(each, False) for each in merged])


def redact(
    engine: Engine, *, before: int = NOW + DAY, write: bool = True, step: int = redact_.STEP
) -> dict[str, int]:
    """Redact every table, a transaction for each step; return what was counted."""
    found = dict.fromkeys(("destinations", "extras", "columns", "changes", *redact_.OTHERS), 0)
    after: str | None = ""
    while after is not None:
        with engine.begin() as connection:
            done = redact_.redact(connection, before=before, after=after, write=write, step=step)
        for name in ("destinations", "extras", "columns", "changes"):
            found[name] += getattr(done, name)
        after = done.last
    for name in redact_.OTHERS:
        last: int | None = 0
        while last is not None:
            with engine.begin() as connection:
                cleaned = redact_.redact_others(
                    connection, name, before=before, after=last, write=write, step=step
                )
            found[name] += cleaned.rows
            last = cleaned.last
    return {name: count for name, count in found.items() if count}


def empty(engine: Engine) -> None:
    """Delete every row."""
    with engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(delete(table))


@given(BATCHES)
@FEW
def test_no_secret_is_left_in_any_table(engine: Engine, batch: list[dict[str, Any]]) -> None:
    """A number, address or name, spelled and hidden anyhow, is in no column of any table."""
    empty(engine)
    put(engine, batch)
    # Each attempt changes, so that what it was is kept as well, and is added up.
    put(engine, [*batch[1:], EXAMPLE], sent_at=NOW + 1)
    refresh.refresh(engine, policy=Policy(), everything=True)
    assert leaks(cells(engine))
    redact(engine)
    assert leaks(cells(engine)) == []
    refresh.refresh(engine, policy=Policy(), everything=True)
    assert leaks(cells(engine)) == []
    assert redact(engine) == {}


@given(BATCHES)
@FEW
def test_no_secret_is_exported_without_destinations(
    engine: Engine, tmp_path: Path, batch: list[dict[str, Any]]
) -> None:
    """An export without destinations holds none either, and is the same after a redaction."""
    empty(engine)
    put(engine, batch)
    folder = tmp_path / "lake"
    assert export(engine, ExportOptions(folder, full=True)).rows == len(batch)
    held = exported(folder)
    assert leaks(cell for day in held.values() for row in day for cell in row.values()) == []
    assert leaks([*held, *(str(read_schema(file).metadata) for file in folder.glob("*/*"))]) == []
    redact(engine)
    assert export(engine, ExportOptions(folder)).written == 0
    assert export(engine, ExportOptions(folder, full=True)).written == len(held)
    assert exported(folder) == held


def test_what_is_harmless_stays(engine: Engine) -> None:
    """Of an attempt as documented only the destination goes, and no roll-up is made anew."""
    extra = {"risk_check": "enable", "segments": 2}
    put(engine, [{**EXAMPLE, "channel_data": EXAMPLE_DATA | extra}])
    put(engine, [{**EXAMPLE, "price": {"value": "0.01", "currency": "EUR"}}], sent_at=NOW + 1)
    put(engine, [{**EXAMPLE, "channel_data": EXAMPLE_DATA | extra}], sent_at=NOW + 2)
    refresh.refresh(engine, policy=Policy(), everything=True)
    before = cells(engine)
    own = f"https://verify.twilio.com/v2/Attempts/{sid(0)}"
    with engine.begin() as connection:
        connection.execute(update(attempts).values(url=own))
    assert redact(engine) == {"destinations": 1}
    gone, url = str(EXAMPLE_DATA["to"]), str(EXAMPLE["url"])
    expected = [None if cell == gone else own if cell == url else cell for cell in before]
    assert cells(engine) == expected


def test_the_young_are_left_alone(engine: Engine) -> None:
    """Nothing of a younger attempt, row or run is touched, and a dry run changes nothing at all."""
    put(engine, [{**EXAMPLE, "note": SECRET, "date_created": "2026-11-01T00:00:00Z"}])
    with engine.begin() as connection:
        others(connection, at=NOW - DAY)
    before = cells(engine)
    assert redact(engine, before=NOW - 31 * DAY) == {}
    assert redact(engine, write=False) == redact(engine, write=False) != {}
    assert cells(engine) == before


def others(connection: Connection, *, at: int) -> None:
    """Insert rows with a secret in every text that may hold one."""
    when = moment(at)
    queue: list[dict[str, Any]] = [
        {"sid": sid(1), "state": "dead", "outcome": "exhausted", "source": "signups 2026-11-01"},
        {"sid": SECRET, "state": "dead", "outcome": "malformed_sid", "source": SECRET},
        {"sid": f"{SECRET}!", "state": "pending", "outcome": SECRET[:32], "source": "discover"},
        {"sid": sid(2), "state": "leased", "outcome": None, "source": None},
    ]
    for row in queue:
        error = f"GET said {SECRET}" if row["state"] == "dead" else None
        connection.execute(
            insert(attempt_queue).values(**row, enqueued_at=when, last_error=error, claim_no=7)
        )
    for name in ("VE" + "0" * 32, SECRET):
        connection.execute(
            insert(verification_queue).values(sid=name, source=SECRET, enqueued_at=when)
        )
    asked = {"strategy": "auto", "start": NOW, "service": "VA" + "0" * 32, "by": None, "end": ""}
    run = {"command": "run", "version": "1", "worker": "w", "started_at": when}
    connection.execute(
        insert(sync_runs).values(
            **run, asked={**asked, "note": SECRET, SECRET: 1}, did={"fetched": 1, "said": SECRET},
            error=f"it was {SECRET}",
        )
    )  # fmt: skip
    connection.execute(insert(sync_runs).values(**run, asked=asked, did={"fetched": 5}))
    for state in ("done", "listing"):
        page = f"https://example.com/?To={SECRET}" if state == "done" else "https://example.com/"
        connection.execute(
            insert(sweeps).values(
                account="AC", window_from=0, window_to=1, purpose="sweep", state=state,
                page_size=10, next_page=page, created_at=when,
            )
        )  # fmt: skip


def test_queues_runs_and_windows(engine: Engine) -> None:
    """Errors and odd texts of that age go, what is no SID gets a name, and every row stays."""
    with engine.begin() as connection:
        others(connection, at=NOW)
    assert leaks(cells(engine))
    assert redact(engine) == {
        "attempt_queue": 3, "verification_queue": 2, "sync_runs": 1, "sweeps": 1,
    }  # fmt: skip
    assert leaks(cells(engine)) == []
    assert redact(engine) == {}
    q = attempt_queue.c
    with engine.connect() as connection:
        columns = (q.sid, q.state, q.outcome, q.source, q.last_error, q.claim_no)
        found = [tuple(row) for row in connection.execute(select(*columns).order_by(q.id))]
        ran = select(sync_runs.c.asked, sync_runs.c.did).order_by(sync_runs.c.id)
        runs = [tuple(row) for row in connection.execute(ran)]
        pages = connection.execute(select(sweeps.c.next_page).order_by(sweeps.c.id)).scalars().all()
    assert found[0] == (sid(1), "dead", "exhausted", "signups 2026-11-01", None, 7)
    assert found[1][1:] == ("dead", "malformed_sid", None, None, 7)
    assert found[2][1:] == ("pending", None, "discover", None, 7)
    assert found[3] == (sid(2), "leased", None, None, None, 7)
    assert all(row[0].startswith("redacted-") for row in found[1:3])
    asked = {"strategy": "auto", "start": NOW, "service": "VA" + "0" * 32, "by": None, "end": ""}
    assert runs == [(asked, {"fetched": 1}), (asked, {"fetched": 5})]
    assert pages == [None, "https://example.com/"]


def test_steps_go_on_where_they_ended(engine: Engine) -> None:
    """However small the steps, every row is looked at once."""
    put(engine, [{**EXAMPLE, "note": SECRET}] * 5)
    with engine.begin() as connection:
        others(connection, at=NOW)
    found = redact(engine, step=2)
    assert (found["destinations"], found["attempt_queue"]) == (5, 3)
    assert leaks(cells(engine)) == []


def test_a_later_fetch_wins(engine: Engine) -> None:
    """What is fetched again says what the API says, until it is redacted again."""
    put(engine, [EXAMPLE])
    redact(engine)
    put(engine, [EXAMPLE], sent_at=NOW + 1)
    with engine.connect() as connection:
        there = connection.execute(select(attempt_channel_data.c.destination)).scalar_one()
        noted = connection.execute(select(attempt_changes)).all()
    assert (there, noted) == (EXAMPLE_DATA["to"], [])
    assert redact(engine)["destinations"] == 1


def test_a_fetch_in_between(server: Engine) -> None:
    """What is written between the look and the lock is redacted as well, and nothing is undone."""
    put(server, [{**EXAMPLE, "note": SECRET}])
    other = open_engine(server.url.render_as_string(hide_password=False))

    def fetch(_c: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "FOR UPDATE" in statement and not sent:
            sent.append(statement)
            late = {**EXAMPLE_DATA, "locale": SECRET, "mnc": "7"}
            put(other, [{**EXAMPLE, "channel_data": late}], sent_at=NOW + 1)

    sent: list[str] = []
    event.listen(server, "before_cursor_execute", fetch)
    redact(server)
    other.dispose()
    assert len(sent) == 1
    assert leaks(cells(server)) == []
    with server.connect() as connection:
        assert connection.execute(select(attempt_channel_data.c.mnc)).scalar_one() == "7"


@pytest.mark.kinds("sqlite")
def test_the_file_keeps_nothing(engine: Engine) -> None:
    """SQLite's file holds what went in none of its pages."""
    put(engine, [{**EXAMPLE, "note": f"Jane Quillfeather {number}"} for number in range(200)])
    assert engine.url.database is not None
    redact(engine)
    engine.dispose()
    assert b"Quillfeather" not in Path(engine.url.database).read_bytes()


@pytest.mark.kinds("sqlite")
def test_what_others_wrote_ends_no_redaction(engine: Engine) -> None:
    """JSON that is none, a text for a number and bytes that are no text go like all else."""
    put(engine, [EXAMPLE])
    with engine.begin() as connection:
        others(connection, at=NOW)
        connection.execute(
            text("UPDATE attempt_channel_data SET extra = '{', code_length = :secret, mcc = x'ff'"),
            {"secret": SECRET},
        )
        connection.execute(text("UPDATE sync_runs SET did = '{', asked = '['"))
        connection.execute(
            text("UPDATE attempt_queue SET sid = CAST(x'ff41' AS TEXT) WHERE id = 2")
        )
    redact(engine)
    assert redact(engine) == {}
    assert leaks(cells(engine)) == []
