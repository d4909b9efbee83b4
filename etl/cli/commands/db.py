"""``verify-etl db``: build, show and check the tables and views."""

import json
import logging

import click
from sqlalchemy import Connection

from etl.cli.context import Context
from etl.cli.words import counted
from etl.database.bounds import PATIENT
from etl.database.transact import check_revision, transact
from etl.errors import SchemaError
from etl.migrate import upgrade as schema
from etl.rollups import refresh

_log = logging.getLogger(__name__)


@click.group()
def db() -> None:
    """Build, show and check the tables.

    \b
    Example:
      verify-etl db upgrade
    """


@db.command()
@click.option("--sql", is_flag=True, help="Print the SQL of the whole schema; connect to nothing.")
@click.option("--views", is_flag=True, help="Make every view again, even one that looks right.")
@click.pass_obj
def upgrade(context: Context, *, sql: bool, views: bool) -> None:
    """Bring the tables and views to what this version needs; do nothing when they are.

    A view that is missing or cannot be read is made again in any case.

    What other programs have in the same database stays untouched. With --sql the kind of database
    is read off DATABASE_URL (mysql:// is MySQL, mariadb:// is MariaDB).

    \b
    Example:
      verify-etl db upgrade
      verify-etl db upgrade --sql > schema.sql
      verify-etl db upgrade --views
    """
    settings = context.settings()
    if sql:
        url = settings.database_url.get_secret_value()
        click.echo(schema.upgrade_sql(url), nl=False)
        return
    with context.database(settings, create=True) as engine:
        done = schema.upgrade(engine, views=views)
        if days := refresh.refresh(engine, policy=settings.policy):
            done.append(f"roll-ups: {counted(days, 'day')}")
    for line in done:
        _log.info("%s", line)
    _log.info("The schema is at %s%s.", schema.head(), "" if done else ", nothing to do")


@db.command()
@click.option("--all", "everything", is_flag=True, help="Sum every day anew, marked or not.")
@click.pass_obj
def rollups(context: Context, *, everything: bool) -> None:
    """Bring the roll-ups up to date, which reports read in place of millions of rows.

    Every run does this for days that have settled. After changing or deleting attempts by hand,
    say --all: nobody else can know of it.

    \b
    Example:
      verify-etl db rollups
      verify-etl db rollups --all
    """

    def work(connection: Connection) -> None:
        check_revision(connection)
        if everything:
            refresh.mark_everything(connection)

    settings = context.settings()
    with context.database(settings) as engine:
        patient = engine.execution_options(**PATIENT)
        transact(patient, work, doing="marking days to sum")
        days = refresh.refresh(engine, policy=settings.policy, everything=True)
    _log.info("%s summed.", counted(days, "day"))


@db.command()
@click.option("--json", "as_json", is_flag=True, help='Print {"current": …, "head": …}.')
@click.pass_obj
def current(context: Context, *, as_json: bool) -> None:
    """Print the revision of the tables, `none` when there are none.

    \b
    Example:
      verify-etl db current --json
    """
    with context.database(context.settings()) as engine:
        found = schema.current(engine)
    click.echo(json.dumps(_revisions(found)) if as_json else found or "none")


@db.command()
@click.option(
    "--json", "as_json", is_flag=True, help='Print {"current": …, "head": …, "broken_views": […]}.'
)
@click.pass_obj
def check(context: Context, *, as_json: bool) -> None:
    """Exit with 78 unless the tables are those of this version and every view can be read.

    \b
    Example:
      verify-etl db check && verify-etl run
    """
    with context.database(context.settings()) as engine:
        found = schema.current(engine)
        broken = schema.check_views(engine) if found == schema.head() else []
    if as_json:
        click.echo(json.dumps({**_revisions(found), "broken_views": broken}))
    schema.check(found)
    if broken:
        msg = f"views are missing or cannot be read: {', '.join(broken)}."
        raise SchemaError(msg, hint="Run: verify-etl db upgrade --views")
    _log.info("The schema is at %s, as this version needs it.", found)


def _revisions(found: str | None) -> dict[str, str | None]:
    return {"current": found, "head": schema.head()}
