"""``verify-etl status``: how the queue stands."""

import json
from collections.abc import Iterator
from datetime import datetime

import click
from sqlalchemy import Connection

from etl.allowance.slots import Allowance
from etl.cli import table
from etl.cli.context import Context
from etl.cli.words import counted
from etl.database.times import clock
from etl.database.transact import check_revision, transact
from etl.queue import status as queue
from etl.queue.status import Status

_INDENT = 17
_SHOWN_RUNS = 3


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (help cli).")
@click.pass_obj
def status(context: Context, *, as_json: bool) -> None:
    """Show the queue by state, what is next to be lost, the time left, and the last runs.

    \b
    Example:
      verify-etl status
      verify-etl status --json
    """
    settings = context.settings()

    def work(connection: Connection) -> tuple[Status, int]:
        check_revision(connection)
        now = clock(connection)
        found = queue.read(
            connection,
            allowance=Allowance.of(settings),
            now=now,
            retention=settings.retention,
            page_size=settings.page_size,
        )
        return found, now

    with context.database(settings, read_only=True) as engine:
        found, now = transact(engine, work, doing="reading the queue")
    if as_json:
        click.echo(json.dumps(found.as_dict(), default=str))
    else:
        click.echo("\n".join(lines(found, now)))


def lines(found: Status, now: int) -> Iterator[str]:
    """Write the status for a person; ``now`` is what "in 3 h" counts from."""
    yield from _queue(found)
    yield ""
    yield _say(
        "Attempts",
        f"{found.attempts:,} stored: {found.final:,} final, {found.unpriced:,} without a price",
    )
    named = found.verifications
    if any(named.values()):
        yield _say(
            "Verifications",
            f"{named['pending']:,} to be listed, {named['listed']:,} listed, "
            f"{named['missing']:,} unknown to the API",
        )
    if found.oldest_pending:
        yield _say("Oldest pending", _when(found.oldest_pending, now))
    if found.next_due:
        yield _say("Next due", _when(found.next_due, now))
    if found.next_to_be_lost:
        yield _say("Next to be lost", _when(found.next_to_be_lost, now))
    yield _say("Left to do", _left(found))
    if found.lost_before_turn:
        yield _say("MAY BE LOST" if found.at_most else "WILL BE LOST", _loss(found))
    if found.runs:
        yield ""
        yield "Last runs"
        for run in found.runs[:_SHOWN_RUNS]:
            yield _say(f"  {run['id']}", _run(run))


def _queue(found: Status) -> Iterator[str]:
    size = max(len(f"{count:,}") for count in found.states.values())
    yield "Queue"
    for state, count in found.states.items():
        yield f"  {state:<8} {count:>{size},}"
        if state == "dead":
            for outcome, number in found.dead.items():
                yield f"           {number:>{size},} {outcome or 'no reason given'}"


def _say(label: str, text: str) -> str:
    return table.wrapped(label, text, indent=_INDENT)


def _left(found: Status) -> str:
    if not found.requests_left:
        return "nothing"
    text = counted(found.requests_left, "request")
    took = span(found.minutes_left * 60)
    if found.least_requests_left < found.requests_left:
        text = f"{found.least_requests_left:,} to {text}"
        took = f"{span(found.least_minutes_left * 60)} to {took}"
    if not found.allowance["requests"]:
        return f"{text}, without an allowance"
    return f"{text}, {took} at {_pace(found.allowance)}"


def _pace(allowance: dict[str, float]) -> str:
    window = allowance["window_s"]
    each = "a minute" if window == 60 else f"every {window:g} s"  # noqa: PLR2004 - a minute
    return f"{allowance['requests']:,} {each}"


def _loss(found: Status) -> str:
    count = found.lost_before_turn
    sids = "SID is" if count == 1 else "SIDs are"
    if found.at_most:
        return (
            f"Up to {count:,} {sids} forgotten by the API before their turn, if no list is cheaper: "
            "run asks Twilio first how much there is to list."
        )
    return (
        f"{count:,} {sids} forgotten by the API before their turn. It would take "
        f"{found.needed_allowance:,} requests instead of {_pace(found.allowance)}: ask Twilio for "
        "a higher limit and set VERIFY_ETL_ALLOWANCE, and let run go on without a pause."
    )


def _run(run: dict[str, object]) -> str:
    if run["ended_at"] is None:
        return f"{run['started_at']}  {run['command']}, not ended"
    took = span(float(str(run["seconds"] or 0)))
    text = f"{run['started_at']}  {run['command']}, {took}, exit code {run['exit_code']}"
    did = run["did"]
    if isinstance(did, dict) and isinstance(did.get("fetched"), int):
        text += f", {did['fetched']:,} fetched"
    return text


def _when(iso: str, now: int) -> str:
    seconds = (datetime.fromisoformat(iso).timestamp() * 1000 - now) / 1000
    away = span(abs(seconds))
    return f"{iso} ({'in ' + away if seconds > 0 else away + ' ago'})"


def span(seconds: float) -> str:
    """Write a length of time in the largest unit that tells enough."""
    if seconds < 1:
        return "less than 1 s"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"about {seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"
