"""Write the views: each report's SELECT over every row, in days of UTC.

The text of a view is code, not history: whoever upgrades the schema replaces what has changed.
"""

from textwrap import fill

from etl.database.dialects import dialect
from etl.reports import REPORTS, Report
from etl.sql.scope import Scope

WIDTH = 96


def create_statements(dialect_name: str) -> list[tuple[str, str]]:
    """Give (name, CREATE VIEW …) for every view, in an order in which they can be created.

    No name in them is qualified or quoted, so the views follow the connection's schema, and none
    holds a percent sign or a colon that a driver could read as a parameter.
    """
    return [(report.view, _create(report, dialect_name)) for report in REPORTS]


def comment_statements(dialect_name: str) -> list[tuple[str, str]]:
    """Give (name, COMMENT ON VIEW …), for PostgreSQL, which drops comments from definitions."""
    if not dialect(dialect_name).comments_on_views:
        return []
    return [
        (report.view, f"COMMENT ON VIEW {report.view} IS {_quoted(_says(report))}")
        for report in REPORTS
    ]


def _create(report: Report, dialect_name: str) -> str:
    sql = report.select(Scope(dialect(dialect_name))).sql()
    comment = fill(_says(report), WIDTH, initial_indent="-- ", subsequent_indent="-- ")
    return f"CREATE VIEW {report.view} AS\n{comment}\n{sql}"


def _says(report: Report) -> str:
    return f"{report.sentence} {report.counts}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
