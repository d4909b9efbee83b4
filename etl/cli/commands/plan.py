"""``verify-etl plan``: say what ``run`` would do and cost."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import click
from sqlalchemy import Connection

from etl.allowance.slots import Allowance, accounts_of, taken
from etl.cli import table
from etl.cli.context import Context
from etl.cli.words import counted
from etl.database.times import clock, moment
from etl.database.transact import check_revision, transact
from etl.decide.plan import plan as make_plan
from etl.decide.values import Plan, Strategy, Sweep, Window
from etl.queue.status import minutes as needed
from etl.queue.waiting import read_density, read_waiting

if TYPE_CHECKING:
    from etl.settings import Settings

_AT_LEAST = "at least "


@click.command()
@click.option(
    "--strategy",
    type=click.Choice(["auto", "fetch", "sweep"]),
    default="auto",
    show_default=True,
    help="Plan this way.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def plan(context: Context, *, strategy: Strategy, as_json: bool) -> None:
    """Show what run would do, what it costs, and what the other way would cost; send nothing.

    \b
    Example:
      verify-etl plan
    """
    show(context, context.settings(), strategy=strategy, as_json=as_json)


def show(
    context: Context,
    settings: "Settings",
    *,
    strategy: Strategy,
    as_json: bool,
    limit: int | None = None,
) -> None:
    """Print the plan for all that waits; with ``limit``, for so many SIDs fetched singly."""
    allowance = Allowance.of(settings)

    def work(connection: Connection) -> tuple[Plan, int, list[int]]:
        check_revision(connection)
        now = clock(connection)
        waiting = read_waiting(
            connection,
            accounts=accounts_of(settings.account_sid),
            retention=settings.retention,
            now=now,
            due=True,
        )
        density = read_density(
            connection,
            waiting,
            account=settings.account_sid,
            retention=settings.retention,
            now=now,
        )
        way = strategy if limit is None else "fetch"
        made = make_plan(waiting, density, page_size=settings.page_size, now=now, strategy=way)
        named = waiting.verifications
        made = made if limit is None else _limited(made, limit, named)
        return made, named, taken(connection, allowance, now)

    with context.database(settings, read_only=True) as engine:
        made, named, used = transact(engine, work, doing="reading the queue")

    def minutes(requests: int) -> float:
        return needed(requests, allowance, used)

    if as_json:
        click.echo(json.dumps(_as_dict(made, minutes)))
        return
    for line in _words(made, named, minutes, limit=limit):
        click.echo(table.wrapped("", line, indent=0))


def _words(
    made: Plan, named: int, minutes: Callable[[int], float], *, limit: int | None
) -> Iterator[str]:
    """Say the plan for a person, a line at a time."""
    yield from _lines(made, named)
    yield f"In all {_in_all(made, minutes)}."
    # Pages are a guess where nothing says how many attempts there are; single fetches never are.
    least = _AT_LEAST if made.guessed else ""
    ways = [("By single fetches alone:", "", made.fetch_only)]
    ways += [("By the list alone:", least, made.sweep_only)] if limit is None else []
    for way, about, requests in ways:
        yield f"{way} {about}{counted(requests, 'request')}, {_time(minutes(requests))}."


def _in_all(made: Plan, minutes: Callable[[int], float]) -> str:
    """Say what the plan costs; a range where an answer of the Summary decides."""
    if made.least < made.most:
        times = list(dict.fromkeys((_time(minutes(made.least)), _time(minutes(made.most)))))
        asks = "one Summary" if len(made.ask) == 1 else f"{len(made.ask)} Summaries"
        return (
            f"{made.least:,} to {counted(made.most, 'request')}, {' to '.join(times)}; "
            f"the run asks {asks} to know"
        )
    least = _AT_LEAST if made.guessed and made.sweeps else ""
    return f"{least}{counted(made.requests, 'request')}, {_time(minutes(made.requests))}"


def _time(minutes: float) -> str:
    if not minutes:
        return "at once"
    return f"about {minutes:,.0f} min" if minutes >= 1 else f"about {math.ceil(minutes * 60)} s"


def _limited(made: Plan, limit: int, verifications: int) -> Plan:
    """Cut a plan of single requests to so many SIDs. Verifications do not count."""
    singly = min(limit, made.fetches - verifications) + verifications
    return replace(
        made, fetches=singly, requests=singly, least=singly, most=singly, fetch_only=singly
    )


def _lines(made: Plan, named: int) -> list[str]:
    least = _AT_LEAST if made.guessed else ""
    lines = [
        f"Ask the Summary of {moment(ask.start):%Y-%m-%d %H:%M} to {moment(ask.end):%Y-%m-%d %H:%M}"
        " UTC first: 1 request; its answer may change the plan."
        for ask in made.ask
    ]
    lines += [
        f"List {moment(sweep.start):%Y-%m-%d %H:%M} to {moment(sweep.end):%Y-%m-%d %H:%M} UTC: "
        f"{least}{counted(sweep.pages, 'page')}, about {counted(round(sweep.finds), 'SID')}."
        for sweep in made.sweeps
    ]
    also = f", up to {min(named, made.fetches):,} of them Verifications" if named else ""
    return [*lines, f"Fetch singly: {counted(made.fetches, 'SID')}{also if made.fetches else ''}."]


def _as_dict(made: Plan, minutes: Callable[[int], float]) -> dict[str, object]:
    return {
        "requests": made.requests,
        "minutes": round(minutes(made.requests), 1),
        "least": made.least,
        "least_minutes": round(minutes(made.least), 1),
        "most": made.most,
        "most_minutes": round(minutes(made.most), 1),
        "fetches": made.fetches,
        "sweeps": [{**_span(s), "pages": s.pages, "finds": round(s.finds)} for s in made.sweeps],
        "asks": [_span(ask) for ask in made.ask],
        "fetch_only": made.fetch_only,
        "sweep_only": made.sweep_only,
        "guessed": made.guessed,
    }


def _span(window: Sweep | Window) -> dict[str, str]:
    ends = {"from": window.start, "to": window.end}
    return {
        name: moment(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        for name, at in ends.items()
    }
