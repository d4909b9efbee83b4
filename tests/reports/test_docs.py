"""Run what docs/reports.md shows, and hold its tables to the registry."""

import re
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Engine

from etl.database.engine import READ_ONLY
from etl.reports import REPORTS, Report
from etl.reports.questions.delivery import CARRIER_PERFORMANCE
from etl.sql.expressions import DEFINITIONS, DELIVERED, UNDELIVERED
from tests.support.describe import markdown
from tests.support.report_world import make, store

PAGE: Final = (Path(__file__).parents[2] / "docs" / "reports.md").read_text(encoding="utf-8")
QUESTIONS: Final = dict(
    re.findall(r"^(\S[^\n]*\?)\n\n```sql\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
)


def test_there_are_enough_questions() -> None:
    """Every block of SQL answers a question, and there are a dozen at least."""
    assert len(QUESTIONS) == PAGE.count("```sql")
    assert len(QUESTIONS) >= 12


def test_the_page_describes_every_view() -> None:
    """The tables of columns are those of the registry."""
    assert PAGE.endswith(markdown().rstrip() + "\n")


def test_the_page_defines_each_word() -> None:
    """The definitions are those that the SQL is made of."""
    rows = [f"| `{word}` | {meaning} |" for word, meaning in DEFINITIONS.items()]
    assert "| word | means |\n| --- | --- |\n" + "\n".join(rows) + "\n\n" in PAGE
    for statuses, word in ((DELIVERED, "delivered"), (UNDELIVERED, "undelivered")):
        column = next(c for c in CARRIER_PERFORMANCE.columns if c.name == word)
        assert column.meaning == f"Its status is {' or '.join(statuses)}."
        assert all(status in DEFINITIONS[word] for status in statuses)


@pytest.mark.parametrize("report", [r for r in REPORTS if r.by], ids=lambda report: report.name)
def test_each_help_names_the_day_that_counts(report: Report) -> None:
    """What counts by day says whose day: that of the attempt, or of the first of several."""
    assert re.search(r"day (they|on which (they|attempts)) were made|first (converted )?attempt|"
                     r"day on which it became known|day, service, channel and country of their first",
                     f"{report.counts}")  # fmt: skip


def test_every_question_runs(reports: Engine) -> None:
    """Each example runs on every database; without a threshold it finds rows."""
    with reports.begin() as connection:
        store(connection, make(5, 300))
    found = {}
    with reports.execution_options(**READ_ONLY).connect() as connection:
        for question, sql in QUESTIONS.items():
            found[question] = len(connection.exec_driver_sql(sql).fetchall())
    silent = {question for question, count in found.items() if not count}
    assert silent <= {question for question in QUESTIONS if "prefix" in question}


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_question_needs_one_database(question: str) -> None:
    """Examples keep to what all databases understand."""
    assert not re.search(r"::|DATE_TRUNC|strftime|INTERVAL", QUESTIONS[question], re.IGNORECASE)
