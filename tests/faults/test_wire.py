"""Let bytes that no HTTP server would send meet a whole run."""

import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import Engine, select, update

from etl.database.engine import open_engine
from etl.database.schema import api_slots, attempts
from etl.database.schema import attempt_queue as q
from etl.errors import Throttled
from tests.support.databases import Server
from tests.support.harness import fill, in_process
from tests.support.raw_server import RawServer, as_json, refusal, then_close

SID = "VL" + "0123456789abcdef" * 2
OK = as_json({"sid": SID, "price": {"value": "0.0075", "currency": "usd"}})
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CANARY = "15005550006"

Run = Callable[..., Result]


@pytest.fixture
def database(servers: Callable[[str], Server], monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Open an database on SQLite alone: what the API does is the same for every database."""
    with servers("sqlite").database(migrated=True) as url:
        monkeypatch.setenv("DATABASE_URL", url)
        database = open_engine(url)
        yield database
        database.dispose()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the program against a raw server."""
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC" + "0" * 32)
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "opens-nothing")
    monkeypatch.setenv("VERIFY_ETL_ALLOWANCE", "0")

    def run(server: RawServer, *args: str) -> Result:
        monkeypatch.setenv("VERIFY_ETL_API_URL", server.url)
        return in_process("run", "--strategy", "fetch", *args)

    return run


def _row(database: Engine) -> Any:
    with database.connect() as connection:
        return connection.execute(select(q)).one()


@pytest.mark.parametrize(("size", "name"), [(b"-5", "ValueError"), (b"-1", "IncompleteRead")])
def test_a_negative_chunk_costs_a_try(database: Engine, run: Run, size: bytes, name: str) -> None:
    """A chunk of less than nothing is a failure that passes; the next run stores the row."""
    fill(database, [SID])
    bad = then_close(CHUNKED + size + b"\r\n{}\r\n0\r\n\r\n")
    with RawServer(bad, bad, bad, OK) as server:
        first = run(server)
        assert (first.exit_code, len(server.requests)) == (0, 3), first.output
        row = _row(database)
        assert (row.state, row.attempts, row.lost_leases) == ("retry", 1, 0)
        assert name in row.last_error
        assert "Traceback" not in first.output
        with database.begin() as connection:
            connection.execute(update(q).values(due_at=1))
        assert run(server).exit_code == 0
    row = _row(database)
    assert (row.state, row.attempts, row.fetches) == ("refresh", 0, 1)
    with database.connect() as connection:
        assert connection.execute(select(attempts.c.sid)).scalars().all() == [SID]


@pytest.mark.parametrize("apart", [-3600, -50, 0, 50, 3600, 86_400])
def test_a_pause_to_a_date_is_no_matter_of_clocks(
    database: Engine, run: Run, monkeypatch: pytest.MonkeyPatch, apart: int
) -> None:
    """A 429 that names a date pauses as long as the API's own clock says, whatever ours shows."""
    monkeypatch.setenv("VERIFY_ETL_ALLOWANCE", "100")
    fill(database, [SID])
    there = time.time() + apart
    headers = [f"Date: {formatdate(there, usegmt=True)}"]
    headers.append(f"Retry-After: {formatdate(there + 300, usegmt=True)}")
    with RawServer(refusal(429, 20429, "Too many", *headers)) as server:
        before = int(time.time() * 1000)
        done = run(server, "--max-seconds", "1")
        after = int(time.time() * 1000)
        assert isinstance(done.exception, Throttled)
        assert len(server.requests) == 1
    with database.connect() as connection:
        gate = select(api_slots.c.free_at).where(api_slots.c.slot == -1)
        until = connection.execute(gate).scalar_one()
    assert before + 300_000 <= until <= after + 300_000
    row = _row(database)
    assert (row.state, row.attempts) == ("pending", 0)


def test_headers_that_cannot_be_read_are_not_quoted(database: Engine, run: Run) -> None:
    """Of an answer whose headers break off nothing is said in its own words, nor a traceback."""
    fill(database, [SID])
    broken = f'HTTP/1.1 200 OK\r\nX: a\r\nY\r\n\r\n{{"to": "+{CANARY}", "sid"'.encode()
    with RawServer(then_close(broken)) as server:
        done = run(server)
    assert (done.exit_code, _row(database).state) == (0, "retry")
    for words in (CANARY, "Traceback", "unparsed"):
        assert words not in done.output
        assert words not in _row(database).last_error
