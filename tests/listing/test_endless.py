"""Meet lists whose pages never end: ever new rows, of any size, of an account or a Verification."""

import itertools
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import Result
from sqlalchemy import Engine, insert, select

from etl.database.schema import attempt_queue as q
from etl.database.schema import attempts
from etl.database.schema import sweeps as s
from etl.database.schema import verification_queue as v
from etl.errors import ApiContractBroken, Exit
from etl.listing import endless
from etl.sandbox import Sandbox, World
from tests.support.harness import fill, in_process, states
from tests.support.raw_server import RawServer, as_json, http

VERIFICATION = "VE" + "0" * 32
PAGES = 2_000
"""A server that is asked for so many pages has not been bounded."""


class Endless:
    """Answer with pages of ever new attempts, and with a Summary of ``total`` (None: with a 500)."""

    def __init__(self, *, rows: int, total: int | None) -> None:
        self._rows = rows
        self._total = total
        self._created = datetime.fromtimestamp(time.time() - 7_200, UTC).isoformat()
        self._numbers = itertools.count(1)
        self._server = RawServer(self._answer)
        self.url = self._server.url
        self.pages = self.summaries = self.fetches = 0

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def _answer(self, conn: socket.socket) -> bool:
        """Send a page, a Summary, or an attempt."""
        path = urlsplit(self._server.paths()[-1])
        # Fetches come one at a time: there is one thread for them.
        sid = path.path.rsplit("/", 1)[-1]
        if sid == "Summary":
            self.summaries += 1
            conn.sendall(http(500) if self._total is None else self._summary(self._total))
        elif sid == "Attempts":
            self.pages += 1
            conn.sendall(self._page(parse_qs(path.query)))
        else:
            self.fetches += 1
            conn.sendall(as_json(self._attempt(sid)))
        return self.pages > PAGES

    def _summary(self, total: int) -> bytes:
        return as_json({"total_attempts": total, "total_converted": 0, "total_unconverted": total})

    def _page(self, query: dict[str, list[str]]) -> bytes:
        rows = [self._attempt(f"VL{next(self._numbers):032x}") for _ in range(self._rows)]
        kept = "".join(f"&{name}={value[0]}" for name, value in query.items() if name != "Page")
        following = f"{self._server.url}/v2/Attempts?Page={self.pages}{kept}"
        return as_json({"attempts": rows, "meta": {"next_page_url": following}})

    def _attempt(self, sid: str) -> dict[str, Any]:
        return {"sid": sid, "verification_sid": VERIFICATION, "date_created": self._created}


Run = Callable[..., Result]


@pytest.fixture
def world() -> World:
    """Give a world of half a day that stands still."""
    now = time.time()
    return World(size=3_000, start=now - 50_000, span=40_000, static_at=now)


@pytest.fixture
def run(database_url: str, world: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the program against a server, with the credentials of the world's sandbox."""
    box = Sandbox(world)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", box.account_sid)
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", box.auth_token)
    monkeypatch.setenv("VERIFY_ETL_ALLOWANCE", "0")
    monkeypatch.setenv("VERIFY_ETL_CONCURRENCY", "1")

    def run(url: str, *args: str) -> Result:
        monkeypatch.setenv("VERIFY_ETL_API_URL", url)
        return in_process(*args)

    return run


def _broken(done: Result) -> str:
    assert isinstance(done.exception, ApiContractBroken), (done.output, done.exception)
    assert done.exception.exit_code == Exit.PROTOCOL
    return str(done.exception)


def test_a_window_of_ever_new_rows_ends(engine: Engine, world: World, run: Run) -> None:
    """Beyond twice what the Summary counts, the run ends with 76; the next one loads the window."""
    with Endless(rows=50, total=120) as api:
        said = _broken(run(api.url, "discover", "--since", "20h"))
        assert (api.pages, api.summaries) == (25, 2)
    assert "do not end: they have shown 1,250 attempts, where the Summary counts 120." in said
    with engine.connect() as connection:
        assert connection.execute(select(s.c.state, s.c.pages)).all() == [("listing", 0)]
        assert len(connection.execute(select(attempts.c.sid)).all()) == 1_250
    with Sandbox(world, limit=0) as box:
        again = run(box.url, "discover", "--since", "20h")
        assert (again.exit_code, box.stats()["lists"]) == (0, 4), again.output
    with engine.connect() as connection:
        stored = set(connection.execute(select(attempts.c.sid)).scalars())
        assert connection.execute(select(s.c.state)).scalars().all() == ["done", "done"]
    assert stored.issuperset(world.sids())


@pytest.mark.kinds("sqlite")
@pytest.mark.parametrize(
    ("since", "rows", "total", "pages"),
    [
        # A month is asked for beforehand, a day once twenty pages have come.
        ("20h", 1000, 0, 21),
        ("20h", 1, 0, 21),
        ("20h", 1, 60, 141),
        ("20h", 200, 20_000, 221),
        ("25d", 50, 120, 25),
        ("25d", 1, 0, 21),
    ],
)
def test_pages_of_any_size_end(
    engine: Engine, run: Run, since: str, rows: int, total: int, pages: int
) -> None:
    """However few rows are on a page, it is their number that is held to the Summary's."""
    with Endless(rows=rows, total=total) as api:
        said = _broken(run(api.url, "discover", "--since", since))
        assert api.pages == pages
        assert api.summaries <= 2
    assert f"the Summary counts {total:,}." in said


@pytest.mark.kinds("sqlite")
def test_without_a_summary_pages_end_all_the_same(
    engine: Engine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no Summary can be read, a list ends at ten million attempts."""
    monkeypatch.setattr(endless, "MOST_PAGES", 30)
    with Endless(rows=10, total=None) as api:
        said = _broken(run(api.url, "discover", "--since", "20h"))
        assert api.pages <= 100
    assert "no Summary can be read" in said


@pytest.mark.kinds("sqlite")
def test_a_sweep_of_ever_new_rows_ends(engine: Engine, world: World, run: Run) -> None:
    """A sweep ends with 76 too, and leaves what waits uncounted for the next run."""
    fill(engine, world.sids())
    with Endless(rows=50, total=120) as api:
        _broken(run(api.url, "run", "--strategy", "sweep"))
        assert api.pages == 25
    assert states(engine) == {"pending": world.size}
    with engine.connect() as connection:
        assert set(connection.execute(select(q.c.attempts + q.c.lost_leases)).scalars()) == {0}
    with Sandbox(world, limit=0) as box:
        assert run(box.url, "run", "--strategy", "sweep").exit_code == 0
    assert states(engine).keys() <= {"settled", "refresh"}


@pytest.mark.kinds("sqlite")
@pytest.mark.parametrize("strategy", ["fetch", "auto"])
@pytest.mark.parametrize(("rows", "pages"), [(40, 3), (1, 101), (1000, 1)])
def test_a_verification_of_ever_new_rows_ends(
    engine: Engine, world: World, run: Run, rows: int, pages: int, strategy: str
) -> None:
    """A Verification has few attempts; what waits beside it is fetched, and the run ends with 76."""
    wanted = world.attempt(5)["verification_sid"]
    with engine.begin() as connection:
        connection.execute(insert(v), [{"sid": VERIFICATION}, {"sid": "VE" + "1" * 32}])
    fill(engine, list(world.sids())[:1])
    with Endless(rows=rows, total=0) as api:
        said = _broken(run(api.url, "run", "--strategy", strategy))
        # Of the other one, the one page is nobody's.
        assert (api.pages, api.fetches) == (pages + 1, 1)
    assert "one Verification has" in said
    assert states(engine).keys() <= {"settled", "refresh"}
    with engine.begin() as connection:
        tries = dict(iter(connection.execute(select(v.c.sid, v.c.tries))))
        assert tries == {VERIFICATION: 0, "VE" + "1" * 32: 1}
        connection.execute(insert(v), [{"sid": wanted}])
    with Sandbox(world, limit=0) as box:
        assert run(box.url, "run").exit_code == 0
    with engine.connect() as connection:
        found = dict(iter(connection.execute(select(v.c.sid, v.c.found))))
    assert found[wanted] > 0


@pytest.mark.kinds("sqlite")
def test_a_long_list_is_read_to_its_end(
    engine: Engine, world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of many small pages that is as long as the Summary says costs one Summary more."""
    monkeypatch.setenv("VERIFY_ETL_PAGE_SIZE", "50")
    with Sandbox(world, limit=0) as box:
        assert run(box.url, "discover", "--since", "20h").exit_code == 0
        assert (box.stats()["lists"], box.stats()["summaries"]) == (60, 1)
    with engine.connect() as connection:
        assert set(connection.execute(select(attempts.c.sid)).scalars()) == set(world.sids())
