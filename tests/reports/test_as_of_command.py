"""Test `--as-of` and `--seen-since` as a person or a script uses them."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result

from etl.errors import OptionError
from etl.reports import REPORTS
from tests.support import history
from tests.support.databases import Servers, filled
from tests.support.harness import in_process
from tests.support.history import MOMENTS, make

Call = Callable[..., Result]
WHEN = MOMENTS[2].strftime("%Y-%m-%dT%H:%MZ")


@pytest.fixture(scope="module")
def past_url(database_kind: str, servers: Servers) -> Iterator[str]:
    """Fill a database with a past; give its address."""
    fetches = make(7, 60, again=False)
    with filled(servers(database_kind), lambda c: history.store(c, fetches)) as url:
        yield url


@pytest.fixture
def call(past_url: str, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call the command on a database with a past, which it only reads."""
    monkeypatch.setenv("DATABASE_URL", past_url)
    monkeypatch.setenv("COLUMNS", "200")

    def called(*args: str, quiet: bool = False) -> Result:
        return in_process(*(["-q"] if quiet else []), "report", *args)

    return called


def _rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, (result.output, result.exception)
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


def test_every_report_can_be_asked_of_the_past(call: Call) -> None:
    """JSON and CSV begin with the moment; a table says it on stderr."""
    for found in REPORTS:
        result = call(found.name, "--as-of", WHEN, "--format", "json")
        rows = _rows(result)
        assert rows
        assert {row["as_of"] for row in rows} == {"2026-03-23T03:00:00Z"}
        assert next(iter(rows[0])) == "as_of"
        assert "As known at 2026-03-23 03:00:00+00:00." in result.stderr
        lines = list(csv.reader(io.StringIO(call(found.name, "--as-of", WHEN, "--format",
                                                 "csv").stdout)))  # fmt: skip
        assert len(lines) == len(rows) + 1
        assert (lines[0][0], lines[1][0]) == ("as_of", "2026-03-23T03:00:00Z")
        table = call(found.name, "--as-of", WHEN)
        assert "as_of" not in table.stdout
        assert "As known at" in table.stderr
    past, today = (_rows(call("attempts", *words, "--format", "json"))
                   for words in (["--as-of", WHEN], []))  # fmt: skip
    assert 0 < len(past) < len(today) == 60


def test_a_zone_is_the_moments_too(call: Call) -> None:
    """A day begins where the zone's does, and the moment is shown in it."""
    words = ("--as-of", "2026-03-23", "--timezone", "Asia/Kolkata", "--format", "json")
    (row,) = _rows(call("conversion-daily", "--by", "total", *words))
    assert row["as_of"] == "2026-03-23T00:00:00+05:30"


def test_what_is_not_of_then_is_said(call: Call) -> None:
    """Stderr names the fields of today, and says that the queue is left out."""
    assert "all other fields today's" in call("cost-daily", "--as-of", WHEN).stderr
    result = call("freshness", "--as-of", WHEN, "--format", "json")
    assert "The queue keeps no history" in result.stderr
    assert "waiting" not in {row["measure"] for row in _rows(result)}
    assert call("cost-daily", "--as-of", WHEN, quiet=True).stderr == ""


def test_before_everything_nothing_was_known(call: Call) -> None:
    """There are no rows, and it is said since when there are."""
    result = call("conversion-daily", "--as-of", "2026-01-01", "--format", "json")
    assert _rows(result) == []
    assert "Nothing was known then, the first request was sent at 2026-03-20" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--as-of", "2999-01-01"), "--as-of is in the future"),
        (("--as-of", "2026-03-01", "--seen-since", "2026-03-02"), "must be before --as-of"),
    ],
)
def test_an_impossible_moment_is_a_usage_error(
    call: Call, words: tuple[str, ...], said: str
) -> None:
    """The future, and a span that ends before it begins, end with 2."""
    result = call("changes", *words)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize("option", ["--as-of", "--seen-since"])
def test_a_moment_that_cannot_be_read_is_refused(call: Call, option: str) -> None:
    """The message names the option and says what may be written."""
    result = call("changes", option, "yesterday")
    assert isinstance(result.exception, OptionError)
    assert option in str(result.exception)


def test_changes_are_narrowed_by_when_they_were_seen(call: Call) -> None:
    """`--seen-since` keeps later news, `--as-of` earlier news, `--since` later attempts."""
    later = MOMENTS[3].strftime("%Y-%m-%dT%H:%MZ")
    words = ("--seen-since", WHEN, "--as-of", later, "--since", "2026-03-22", "--format", "json")
    rows = _rows(call("changes", *words))
    assert rows
    assert {"first_seen", "price_amount"} < {row["field"] for row in rows}
    assert min(row["seen_at"] for row in rows) >= "2026-03-23T03"
    assert max(row["seen_at"] for row in rows) <= "2026-03-25T10:00:00Z"
    assert min(row["date_created"] for row in rows) >= "2026-03-22"
    assert call("cost-daily", "--seen-since", "7d").exit_code == 2
