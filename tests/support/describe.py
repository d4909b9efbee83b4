"""Describe every view in Markdown, for docs/reports.md."""

from collections.abc import Iterator

from etl.reports import REPORTS, Report


def markdown() -> str:
    """Give a section for each view: what it counts, and its columns."""
    return "\n".join(line for report in REPORTS for line in _section(report))


def _section(report: Report) -> Iterator[str]:
    yield f"### `{report.view}`"
    yield ""
    yield f"{report.sentence} {report.counts}"
    yield ""
    yield "| column | kind | meaning |"
    yield "| --- | --- | --- |"
    for column in report.columns:
        yield f"| `{column.name}` | {column.kind} | {column.meaning} |"
    yield ""
