"""Test `report` as a person or a script calls it."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, text

from etl.cli.commands.report import report
from etl.errors import EtlError
from etl.reports import REPORTS, find
from etl.reports.model import ColumnKind
from etl.reports.output import WRITERS
from etl.reports.query import Question, ask
from tests.support.databases import Servers, filled
from tests.support.harness import in_process
from tests.support.report_world import make, store

Call = Callable[..., Result]


@pytest.fixture(scope="module")
def made_up_url(database_kind: str, servers: Servers) -> Iterator[str]:
    """Fill a database with a made-up world; give its address."""
    with filled(servers(database_kind), lambda connection: store(connection, make(6))) as url:
        yield url


@pytest.fixture
def call(made_up_url: str, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call the command on a filled database, which it only reads."""
    monkeypatch.setenv("DATABASE_URL", made_up_url)
    monkeypatch.setenv("COLUMNS", "160")

    def called(*args: str, more: tuple[str, ...] = ()) -> Result:
        return in_process(*more, "report", *args)

    return called


def _rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, (result.output, result.exception)
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


def test_without_a_name_it_lists_the_reports(call: Call) -> None:
    """Each report with its sentence."""
    words = call().stdout.split()
    for found in REPORTS:
        assert found.name in words
        assert " ".join(found.sentence.split()) in " ".join(words)
    assert "Write the page" in " ".join(words)
    assert {"html", "fees"} < set(words)


@pytest.mark.parametrize("found", REPORTS, ids=lambda found: found.name)
def test_every_report_has_help_with_an_example(found: Any) -> None:
    """The help says what is counted, shows an example, and names every column."""
    result = CliRunner().invoke(report, [found.name, "--help"])
    assert result.exit_code == 0
    assert f"verify-etl report {found.name}" in result.output
    for column in found.columns:
        assert column.name in result.output


def test_every_report_comes_in_every_format(call: Call, tmp_path: Path) -> None:
    """CSV, JSON and the table have as many rows as the view's SELECT."""
    for found in REPORTS:
        rows = _rows(call(found.name, "--format", "json"))
        lines = call(found.name, "--format", "csv").stdout.splitlines()
        assert len(lines) == len(rows) + 1
        assert lines[0].split(",") == list(rows[0])
        table = tmp_path / "table.txt"
        most = str(max(len(rows), 1))
        assert call(found.name, "-o", str(table), "--limit", most).exit_code == 0
        assert len(table.read_text().splitlines()) > len(rows)


def test_the_options_narrow(call: Call) -> None:
    """A window, a channel and a country keep what they say."""
    rows = _rows(
        call(
            "conversion-daily", "--since", "2026-03-25", "--until", "2026-03-28", "--channel",
            "SMS", "--country", "br", "--country", "US", "--format", "json",
        )
    )  # fmt: skip
    assert {row["channel"] for row in rows} == {"sms"}
    assert {row["country"] for row in rows} == {"BR", "US"}
    assert {row["day"] for row in rows} == {"2026-03-25", "2026-03-26", "2026-03-27"}


def test_by_chooses_the_keys(call: Call) -> None:
    """The total is one row, days and channels are keys, others are refused."""
    assert len(_rows(call("conversion-daily", "--by", "total", "--format", "json"))) == 1
    (row, *_) = _rows(call("conversion-daily", "--by", "channel,day", "--format", "json"))
    assert list(row)[:3] == ["day", "channel", "attempts"]
    assert call("conversion-daily", "--by", "carrier").exit_code == 2


def test_a_zone_moves_days_and_shows_its_times(call: Call) -> None:
    """Moments carry the zone's offset, days are its days."""
    rows = _rows(call("attempts", "--timezone", "Asia/Kolkata", "--format", "json"))
    for row in rows:
        if row["date_created"]:
            assert row["date_created"].endswith("+05:30")
            assert row["date_created"][:10] == row["day"]


def test_attempts_of_unknown_time_are_spoken_of(call: Call) -> None:
    """A window that leaves them out says so on stderr."""
    result = call("conversion-daily", "--since", "2026-03-01", "--format", "csv")
    assert "attempts of unknown time are in no window" in result.stderr
    assert "unknown time" not in result.stdout


def test_the_table_says_when_it_is_cut(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rows only, and a word about it on stderr."""
    monkeypatch.setattr("etl.cli.commands.report_output.MOST_ROWS", 10)
    result = call("attempts")
    assert "The first 10 rows" in result.stderr
    assert len(result.stdout.splitlines()) == 10 + 2
    line, *_ = call("attempts", more=("--log-format", "json")).stderr.splitlines()
    assert json.loads(line)["message"].startswith("The first 10 rows")
    assert call("attempts", more=("-q",)).stderr == ""


def test_a_narrow_terminal_names_what_is_left_out(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names go to stderr."""
    monkeypatch.setenv("COLUMNS", "70")
    result = call("conversion-daily", "--by", "channel,country,day")
    assert "unconverted" in result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 70


@pytest.mark.kinds("sqlite")
@pytest.mark.parametrize("found", REPORTS, ids=lambda found: found.name)
def test_where_nobody_looks_no_column_is_left_out(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: Any
) -> None:
    """Piped or into a file, a table is as wide as it needs to be."""
    monkeypatch.delenv("COLUMNS")
    file = tmp_path / "table.txt"
    result = call(found.name, "--limit", "1000", "-o", str(file))
    assert result.exit_code == 0, result.output
    words = file.read_text(encoding="utf-8").split()
    names = {*call(found.name, "--format", "csv").stdout.splitlines()[0].split(",")}
    if any(column.kind is ColumnKind.MONEY for column in found.columns):
        names.discard(found.currency)
    assert {name.rpartition("_")[2] for name in names} <= {*words}
    assert call(found.name, "--limit", "1000").stdout == file.read_text(encoding="utf-8")


def test_a_failure_leaves_the_old_file(call: Call, tmp_path: Path) -> None:
    """The file is replaced only when the whole report is written."""
    path = tmp_path / "report.csv"
    path.write_text("old")
    result = call("conversion-daily", "--timezone", "Nowhere/Land", "-o", str(path))
    assert isinstance(result.exception, EtlError)
    assert path.read_text() == "old"
    assert call("conversion-daily", "--format", "csv", "-o", str(path)).exit_code == 0
    assert path.read_text().startswith("day,")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.csv"]


def test_a_folder_that_is_not_there_is_named(call: Call, tmp_path: Path) -> None:
    """An unwritable file is an I/O error."""
    result = call("freshness", "--format", "csv", "-o", str(tmp_path / "no" / "x.csv"))
    assert isinstance(result.exception, EtlError)
    assert result.exception.exit_code == 74


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",),
        ("freshness", "--since", "7d"),
        ("conversion-daily", "--since", "1d", "--until", "2d"),
        ("conversion-daily", "--format", "xml"),
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(call: Call, args: tuple[str, ...]) -> None:
    """Wrong names and options end with 2."""
    assert call(*args).exit_code == 2


def test_fees_are_loaded(
    reports: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file's fees are those of the table."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    path = tmp_path / "fees.csv"
    path.write_text("currency,amount\nUSD,0.05\n")
    result = in_process("report", "fees", str(path))
    assert result.exit_code == 0
    assert "1 fee loaded." in result.stderr
    with reports.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM verification_fees")).scalar() == 1


def test_rows_come_in_order(reports: Engine) -> None:
    """Days ascend, nothing known comes last, texts are sorted by code points."""
    with reports.begin() as connection:
        store(connection, make(6))
    with reports.connect() as connection:
        found = find("conversion-daily")
        assert found is not None
        with ask(connection, found, Question()) as answer:
            keys = [row[:4] for row in answer.rows]
    assert keys == sorted(keys, key=lambda key: [(part is None, str(part)) for part in key])


@pytest.mark.parametrize("ending", [*WRITERS, "JSON"])
def test_the_name_of_the_file_chooses_the_format(call: Call, tmp_path: Path, ending: str) -> None:
    """`-o x.csv` is the same as `--format csv -o x`."""
    named, told = tmp_path / f"x.{ending}", tmp_path / "x"
    assert call("cost-daily", "-o", str(named)).exit_code == 0
    assert call("cost-daily", "-o", str(told), "--format", ending.lower()).exit_code == 0
    assert named.read_bytes() == told.read_bytes()


@pytest.mark.parametrize("name", ["x.xlsx", "x.csv.gz", "x.tsv", "x.jsonl"])
def test_an_unknown_ending_is_refused(call: Call, tmp_path: Path, name: str) -> None:
    """A table under the name of something else is written only when asked for."""
    path = tmp_path / name
    refused = call("cost-daily", "-o", str(path))
    assert refused.exit_code == 2
    assert "Write .csv, .json, .parquet or .txt, or add --format" in refused.stderr
    assert not path.exists()
    assert call("cost-daily", "-o", str(path), "--format", "csv").exit_code == 0


def test_a_file_is_not_cut(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with more rows than are shown goes into no file, unless the limit is asked for."""
    monkeypatch.setattr("etl.cli.commands.report_output.MOST_ROWS", 10)
    path = tmp_path / "x.txt"
    refused = call("attempts", "-o", str(path))
    assert refused.exit_code == 2
    assert "first 10 rows only. Add --limit" in refused.stderr
    assert not path.exists()
    assert call("attempts", "-o", str(path), "--limit", "12").exit_code == 0
    assert path.exists()


def test_json_means_the_same_everywhere(call: Call, tmp_path: Path) -> None:
    """`--json` is `--format json`, of the list and of what writes files, too."""
    assert call("cost-daily", "--json").stdout == call("cost-daily", "--format", "json").stdout
    assert call("cost-daily", "--json", "--format", "csv").exit_code == 2
    assert call("--json", "cost-daily").exit_code == 2
    assert [found["name"] for found in _rows(call("--json"))] == [found.name for found in REPORTS]
    page = tmp_path / "x.html"
    (done,) = [json.loads(call("html", "-o", str(page), "--json").stdout)]
    assert done == {"file": str(page), "bytes": page.stat().st_size}


def test_destinations_stay_out_unless_asked_for(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No number and no address, in any format, by the option that the export has."""
    monkeypatch.setenv("COLUMNS", "600")
    for name in ("attempts", "repeat-destinations"):
        for form in ("csv", "json", "table"):
            without = call(name, "--format", form)
            shown = call(name, "--format", form, "--with-destination")
            personal = re.compile(r"\+\d{10}|@example")
            found = [len(personal.findall(one.stdout)) for one in (without, shown)]
            assert (found[0], found[1] > 3) == (0, True)
        (with_it, *_) = _rows(call(name, "--json", "--with-destination"))
        (kept, *_) = _rows(call(name, "--json", "--without-destination"))
        assert [key for key in with_it if key != "destination"] == list(kept)
    assert "Without personal data; --with-destination" in call("attempts").stderr


def test_numbers_in_odd_places_stay_out_as_well(
    reports: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands where a carrier or a channel belongs goes by the rule of the export."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    number, address = "whatsapp:+1 415-555-0147", "jane.q@example.com"
    with reports.begin() as connection:
        store(connection, make(21, verifications=20))
        connection.execute(text("UPDATE attempt_channel_data SET carrier = :a"), {"a": address})
        connection.execute(
            text("UPDATE attempts SET channel = :n, url = :u"), {"n": number, "u": number}
        )
    without = in_process("report", "attempts", "--json")
    assert without.exit_code == 0, without.output
    assert number not in without.stdout
    assert address not in without.stdout
    shown = in_process("report", "attempts", "--json", "--with-destination").stdout
    assert number in shown
    assert address in shown
