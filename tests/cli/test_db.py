"""Run `verify-etl db` as a person and as a program would."""

import json
import os
import re
from pathlib import Path

import pytest

from etl.migrate import upgrade
from etl.reports import REPORTS
from tests.support.harness import ROOT, command


def verify_etl(*words: str, url: str, cwd: Path) -> tuple[int, str, str]:
    """Run the command; return exit code, stdout, stderr."""
    env = os.environ | {"DATABASE_URL": url, "PYTHONPATH": str(ROOT)}
    ran = command(*words, env=env, cwd=cwd)
    return ran.returncode, ran.stdout, ran.stderr


def test_from_nothing_to_head(empty_database_url: str, tmp_path: Path) -> None:
    """Data goes to stdout, talk to stderr, and the exit code of `check` is the answer."""
    url, head = empty_database_url, upgrade.head()
    if url.startswith("sqlite"):
        # One that is there, and empty, as a server's is.
        Path(url.removeprefix("sqlite:///")).touch()
    code, out, said = verify_etl("db", "check", "--json", url=url, cwd=tmp_path)
    assert (code, json.loads(out)) == (78, {"current": None, "head": head, "broken_views": []})
    assert "verify-etl db upgrade" in said
    assert verify_etl("db", "current", url=url, cwd=tmp_path) == (0, "none\n", "")
    views = ", ".join(report.view for report in REPORTS)
    done = (
        "0001: Create the tables.\n0002: Add roll-ups.\n0003: Keep milliseconds on SQLite.\n"
        "0004: Say whose tables these are.\n0005: Take NULL for a default in the queues.\n"
        f"0006: Sum all roll-ups anew.\nviews: {views}\nThe schema is at {head}.\n"
    )
    assert verify_etl("db", "upgrade", url=url, cwd=tmp_path) == (0, "", done)
    again = f"The schema is at {head}, nothing to do.\n"
    assert verify_etl("db", "upgrade", url=url, cwd=tmp_path) == (0, "", again)
    assert verify_etl("-q", "db", "check", url=url, cwd=tmp_path) == (0, "", "")
    code, out, _ = verify_etl("db", "current", "--json", url=url, cwd=tmp_path)
    assert (code, json.loads(out)) == (0, {"current": head, "head": head})


@pytest.mark.parametrize("url", ["sqlite:///never.db", "postgresql://nobody:hidden@256.0.0.1/x"])
def test_sql_connects_to_nothing(url: str, tmp_path: Path) -> None:
    """`--sql` prints what `upgrade_sql` gives, and neither makes a file nor asks a server."""
    expected = upgrade.upgrade_sql(url)
    assert verify_etl("db", "upgrade", "--sql", url=url, cwd=tmp_path) == (0, expected, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["current"], ["current", "--json"], ["check"], ["check", "--json"], ["rollups"]]
)
def test_looking_makes_no_file(words: list[str], tmp_path: Path) -> None:
    """A path that is mistyped is said, and no database is made there."""
    code, out, said = verify_etl("db", *words, url="sqlite:///mistyped.db", cwd=tmp_path)
    assert (code, out) == (78, "")
    assert said.startswith("There is no database mistyped.db yet.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no/such/x.db", r"no/such/x.db could not be opened \(.*\): there is no folder no/such"),
        ("folder", r"folder could not be opened \(.*\): it is a folder"),
    ],
)
def test_a_file_that_cannot_be_opened_is_named(path: str, said: str, tmp_path: Path) -> None:
    """What SQLite cannot open is named with the reason, whatever is being done."""
    (tmp_path / "folder").mkdir()
    code, _, error = verify_etl("status", url=f"sqlite:///{path}", cwd=tmp_path)
    assert code == 74
    assert re.fullmatch(rf"While reading the queue, {said}\. Check DATABASE_URL.*\.\n", error)
