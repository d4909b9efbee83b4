import json
import re
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text, update

from etl.database.schema import VERSION_TABLE, attempt_channel_data, attempts
from etl.reports.query import Question, ask
from etl.reports.questions.conversion import CONVERSION_DAILY
from etl.rollups.refresh import mark_everything
from etl.sql.as_of import AsOf
from tests.support import history
from tests.support.browser import Open, tables, text_of
from tests.support.harness import in_process
from tests.support.report_world import make, store


@pytest.fixture
def filled(reports: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Fill the database that the command is told of."""
    with reports.begin() as connection:
        store(connection, make(21, verifications=40))
    monkeypatch.setenv("DATABASE_URL", reports.url.render_as_string(hide_password=False))
    return reports


def test_it_writes_the_page(filled: Engine, tmp_path: Path, browse: Open) -> None:
    """The command writes a page of its question, and says the size."""
    path = tmp_path / "page.html"
    arguments = ["-o", str(path), "--since", "2026-03-25", "--until", "2026-04-01"]
    result = in_process("report", "html", *arguments, "--channel", "SMS")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert re.fullmatch(rf"{re.escape(str(path))}: [\d.]+ [kM]B\.\n", result.stderr)
    page = browse(path.read_text(encoding="utf-8"))
    assert "only since 2026-03-25" in page.inner_text("#about")
    found = tables(page)
    assert [row[0] for row in found["channel"]] == ["SMS"]
    days = [row[0] for row in found["conversion"]]
    assert min(days) >= "2026-03-25"
    assert max(days) <= "2026-03-31"


def test_it_shows_the_past(reports: Engine, tmp_path: Path, browse: Open,
                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """As of a moment it names the moment, shows its data, and leaves the queue out."""
    with reports.begin() as connection:
        history.store(connection, history.make(8, 80, again=False))
    monkeypatch.setenv("DATABASE_URL", reports.url.render_as_string(hide_password=False))
    moment = history.MOMENTS[3]
    path = tmp_path / "page.html"
    arguments = ["-o", str(path), "--as-of", moment.isoformat()]
    assert in_process("-q", "report", "html", *arguments).exit_code == 0
    page = browse(path.read_text(encoding="utf-8"))
    assert "as known at 2026-03-25 10:00 UTC" in page.inner_text("#about")
    question = Question(by=("day",), as_of=AsOf(moment.timestamp()))
    with reports.connect() as connection, ask(connection, CONVERSION_DAILY, question) as answer:
        expected = {str(row[0]): f"{row[1]:,}" for row in answer.rows if row[0]}
    found = tables(page)
    shown = {row[0]: row[1] for row in found["conversion"] if row[1] != "0"}
    assert shown == expected
    assert "queue" not in found
    refused = in_process("report", "html", "-o", str(path), "--as-of", "2999-01-01")
    assert refused.exit_code == 2


def test_it_says_that_nothing_was_known(filled: Engine, tmp_path: Path) -> None:
    """Before the first request the page is empty, and says so like other reports."""
    arguments = ["-o", str(tmp_path / "page.html"), "--as-of", "2020-01-01"]
    result = in_process("report", "html", *arguments)
    assert result.exit_code == 0, result.output
    as_known, nothing, _ = result.stderr.splitlines()
    assert as_known == "As known at 2020-01-01 00:00:00+00:00."
    assert nothing.startswith("Nothing was known then")


@pytest.mark.kinds("postgresql", "second-postgresql", "mariadb")
def test_it_is_of_one_moment(filled: Engine, tmp_path: Path) -> None:
    """Rows written during the read are in no chart: all numbers agree."""
    wrote: list[bool] = []

    def load(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        # Once the page has begun to read, every attempt goes.
        begun = VERSION_TABLE in statement
        if begun and connection.engine.url == filled.url and not wrote:
            wrote.append(True)
            other = create_engine(filled.url)
            with other.begin() as loader:
                loader.execute(text("DELETE FROM attempt_changes"))
                loader.execute(text("DELETE FROM attempt_channel_data"))
                loader.execute(text("DELETE FROM attempts"))
            other.dispose()

    path = tmp_path / "page.html"
    event.listen(Engine, "after_cursor_execute", load)
    try:
        result = in_process("-q", "report", "html", "-o", str(path))
    finally:
        event.remove(Engine, "after_cursor_execute", load)
    assert result.exit_code == 0, result.output
    assert wrote
    block = path.read_text(encoding="utf-8").split('id="data">')[1].split("</script>")[0]
    known = json.loads(block)
    counted = next(row["number"] for row in known["freshness"] if row["measure"] == "attempts")
    assert counted == len(make(21, verifications=40).rows)
    assert all(grid["rows"] for grid in known["grids"].values())
    with filled.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM attempts")).scalar() == 0


def test_it_refuses_nonsense(filled: Engine, tmp_path: Path) -> None:
    """A window that ends before it begins is a usage error and writes nothing."""
    path = tmp_path / "page.html"
    arguments = ["-o", str(path), "--since", "2026-04-01", "--until", "2026-03-25"]
    result = in_process("-q", "report", "html", *arguments)
    assert result.exit_code == 2
    assert not path.exists()


def test_numbers_in_odd_places_are_not_in_the_page(reports: Engine) -> None:
    """A number or an address in place of a name is counted among the others."""
    number, address = "whatsapp:+1 415-555-0147", "jane.q@example.com"
    with reports.begin() as connection:
        store(connection, make(21, verifications=40))
        odd = {"carrier": address, "country": number, "error_code": number}
        connection.execute(update(attempt_channel_data).values(odd))
        connection.execute(update(attempts).values(channel=number, service_sid=address))
        mark_everything(connection)
    page = text_of(reports)
    assert number not in page
    assert address not in page
    # What has no name of its own is not lost.
    assert '"other": true' in page or '"other":true' in page
