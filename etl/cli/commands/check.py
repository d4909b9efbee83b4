"""``verify-etl check``: one line for a monitor."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import click
from sqlalchemy import Connection

from etl.allowance.slots import Allowance
from etl.cli.commands.status import span
from etl.cli.context import Context
from etl.cli.types import AGE, Since
from etl.cli.words import counted
from etl.database.times import clock
from etl.database.transact import check_revision, transact
from etl.errors import Exit, sentence
from etl.final import DAY_MS
from etl.queue import health
from etl.queue.health import Health
from etl.queue.status import iso


@dataclass(frozen=True, slots=True)
class Problem:
    """Say one thing that is wrong, and what to do."""

    check: str
    message: str
    mend: str


@click.command()
@click.option("--since", type=Since(), help="Dead SIDs count from then.  [default: ever]")
@click.option(
    "--max-age", type=AGE, default=DAY_MS, metavar="AGE",
    help="How long a SID may wait to be fetched.  [default: 1d]",
)  # fmt: skip
@click.option(
    "--last-run", type=AGE, default=DAY_MS, metavar="AGE",
    help="How long ago the last good run may be.  [default: 1d]",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (help cli).")
@click.pass_obj
def check(
    context: Context, *, since: int | None, max_age: int, last_run: int, as_json: bool
) -> None:
    """Exit with 65 and one line if SIDs are dead, wait too long or will be lost, or no run ends well.

    It sends no request. With -q it prints nothing when all is well.

    \b
    Example:
      verify-etl check --since 1d --max-age 2h --last-run 1h
    """
    settings = context.settings()

    def work(connection: Connection) -> tuple[Health, int]:
        check_revision(connection)
        now = clock(connection)
        found = health.read(
            connection,
            allowance=Allowance.of(settings),
            retention=settings.retention,
            page_size=settings.page_size,
            dead_since=since,
            now=now,
        )
        return found, now

    with context.database(settings, read_only=True) as engine:
        found, now = transact(engine, work, doing="reading the queue")
    wrong = list(problems(found, now=now, since=since, max_age=max_age, last_run=last_run))
    code = Exit.DATA if wrong else Exit.OK
    if as_json:
        click.echo(json.dumps(_document(found, wrong, code)))
    elif wrong:
        click.echo(". ".join(f"{each.message} {each.mend}" for each in wrong))
    elif not context.quiet:
        click.echo(f"All is well: {_waiting(found, now)}, {_ran(found, now)}.")
    raise click.exceptions.Exit(code)


def problems(
    found: Health, *, now: int, since: int | None, max_age: int, last_run: int
) -> Iterator[Problem]:
    """Judge what was read, the worst first."""
    if lost := found.ahead.lost:
        sids = f"{counted(lost, 'SID')} {'is' if lost == 1 else 'are'}"
        said = f"{'Up to ' if found.ahead.at_most else ''}{sids} forgotten before their turn."
        yield Problem("lost", said, "See: verify-etl status")
    if found.ran_at is None or now - found.ran_at > last_run:
        said = sentence(_ran(found, now))
        if found.last_error:
            said += f" The last one ended: {found.last_error}"
        yield Problem("last_run", said, "See: verify-etl runs")
    if found.waiting_since is not None and now - found.waiting_since > max_age:
        yield Problem("waiting", sentence(_waiting(found, now)), "Run: verify-etl run")
    if dead := sum(found.dead.values()):
        why = ", ".join(f"{count:,} {of or 'no reason given'}" for of, count in found.dead.items())
        when = f" since {iso(since)}" if since is not None else ""
        said = f"{counted(dead, 'SID')} {'is' if dead == 1 else 'are'} dead{when} ({why})."
        yield Problem("dead", said, "To try them again: verify-etl retry --all")


def _waiting(found: Health, now: int) -> str:
    if found.waiting_since is None:
        return "nothing waits"
    return f"the SID that waits longest has waited {span(max(now - found.waiting_since, 0) / 1000)}"


def _ran(found: Health, now: int) -> str:
    if found.ran_at is None:
        return "no run has ended well yet"
    return f"the last good run ended {span(max(now - found.ran_at, 0) / 1000)} ago"


def _document(found: Health, wrong: list[Problem], code: Exit) -> dict[str, Any]:
    return {
        "exit_code": int(code),
        "problems": [asdict(each) for each in wrong],
        "dead": found.dead,
        "waiting_since": iso(found.waiting_since),
        "lost_before_turn": found.ahead.lost,
        "at_most": found.ahead.at_most,
        "last_good_run": iso(found.ran_at),
        "last_error": found.last_error,
    }
