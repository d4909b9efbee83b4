"""Write the views: each report's SELECT over every row, in days of UTC.

No migration holds a view's text. An upgrade of the schema replaces the views that have changed.
"""

from textwrap import fill

from etl.database.dialects import dialect
from etl.reports import REPORTS, Report
from etl.sql.scope import Scope

WIDTH = 96


def create_statements(dialect_name: str) -> list[tuple[str, str]]:
    """Give (name, CREATE VIEW …) for every view.

    No name is qualified or quoted, so the views follow the connection's schema. No text holds a
    percent sign or a colon, because drivers read those as parameters.
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
    speaks = dialect(dialect_name)
    sql = report.select(Scope(speaks)).sql()
    comment = fill(_says(report), WIDTH, initial_indent="-- ", subsequent_indent="-- ")
    return f"{speaks.create_view} {report.view} AS\n{comment}\n{sql}"


def _says(report: Report) -> str:
    return f"{report.sentence} {report.counts}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
