"""Ask a report about the past: `--as-of` and `--seen-since`."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final

import click
from sqlalchemy import Connection

from etl.reports.model import Column, ColumnKind, Report
from etl.reports.query import Question, Rows
from etl.reports.window import moment
from etl.sql.as_of import AsOf, first_known

if TYPE_CHECKING:
    from etl.settings import Settings

_log = logging.getLogger(__name__)

AS_OF: Final = "As it was known at this day, time (ISO 8601), or so long ago (7d)."
_SEEN: Final = "Only what became known later than this day, time, or so long ago."


def options(report: Report) -> Iterator[click.Option]:
    """Give the options about the past that a report takes."""
    if "seen" in report.filters:
        yield click.Option(["--seen-since"], metavar="WHEN", help=_SEEN)
    yield click.Option(["--as-of"], metavar="WHEN", help=AS_OF)


def asked(
    settings: "Settings",
    zone: tzinfo,
    now_s: float,
    *,
    as_of: str | None,
    seen_since: str | None = None,
) -> dict[str, Any]:
    """Read the options into fields of a question; the future is a usage error."""
    at = moment(as_of, option="--as-of", zone=zone, now_s=now_s) if as_of else None
    since = (
        moment(seen_since, option="--seen-since", zone=zone, now_s=now_s) if seen_since else None
    )
    if at is not None and at > now_s:
        msg = "--as-of is in the future, of which nothing is known"
        raise click.UsageError(msg)
    if since is not None and at is not None and since >= at:
        msg = "--seen-since must be before --as-of"
        raise click.UsageError(msg)
    past = None if at is None else AsOf(at, settings.policy)
    return {"as_of": past, "seen_since": since}


def say(connection: Connection, report: Report, as_of: AsOf, zone: tzinfo) -> None:
    """Say on stderr which moment was used, and what is not known of it."""
    if not say_moment(connection, as_of, zone):
        return
    if report.name == "freshness":
        _log.info("The queue keeps no history: its measures are left out.")
    else:
        _log.info(
            "Prices, conversions, channels, delivery and errors are those of then, all other "
            "fields today's."
        )


def say_moment(connection: Connection, as_of: AsOf, zone: tzinfo) -> bool:
    """Say on stderr which moment was used; return whether anything was known then."""
    _log.info("As known at %s.", _shown(as_of.moment, zone))
    begun = first_known(connection)
    if begun is not None and begun <= as_of.moment:
        return True
    since = "" if begun is None else f", the first request was sent at {_shown(begun, zone)}"
    _log.info("Nothing was known then%s.", since)
    return False


def _shown(at: datetime, zone: tzinfo) -> str:
    return at.astimezone(zone).isoformat(sep=" ", timespec="seconds")


def stamped(answer: Rows, question: Question, zone: tzinfo) -> Rows:
    """Put the moment before every row, so that a file says of when it is."""
    if question.as_of is None:
        return answer
    moment = question.as_of.moment.astimezone(zone)
    column = Column("as_of", ColumnKind.TIME, "The moment of which this is known.")
    rows = ((moment, *row) for row in answer.rows)
    return replace(answer, columns=(column, *answer.columns), rows=rows)
