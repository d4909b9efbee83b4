"""Describe every view in Markdown, from the registry, for the documentation."""

from collections.abc import Iterator

from etl.reports import REPORTS, Report


def markdown() -> str:
    """Give one section for each view: what it counts, its columns, their kinds and meanings."""
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
