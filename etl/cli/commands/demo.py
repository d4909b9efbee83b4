"""``verify-etl demo``: the whole job, once, against the local sandbox."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
from sqlalchemy import Engine, text

from etl.backfill.enqueue import load_file
from etl.cli import table
from etl.cli.commands.run import run_now
from etl.cli.context import Context
from etl.cli.words import counted
from etl.migrate.upgrade import upgrade
from etl.sandbox import Sandbox, World
from etl.settings import load

SIDS = 100
"""As many as the allowance sends at once: the demo does not wait for a second window."""

_BY_CHANNEL = """
SELECT channel, COUNT(*), SUM(CASE WHEN conversion_status = 'converted' THEN 1 ELSE 0 END),
       SUM(CASE WHEN is_final THEN 1 ELSE 0 END)
FROM attempts GROUP BY channel ORDER BY COUNT(*) DESC, channel
"""
# SQLite keeps amounts as REAL: whole millionths are summed, and divided once.
_BY_DAY = """
SELECT SUBSTR(date_created, 1, 10), COUNT(*),
       100.0 * SUM(CASE WHEN conversion_status = 'converted' THEN 1 ELSE 0 END) / COUNT(*),
       SUM(CASE WHEN price_currency = 'USD' THEN CAST(ROUND(price_amount * 1e6) AS INTEGER) END) / 1e6,
       SUM(CASE WHEN price_currency = 'EUR' THEN CAST(ROUND(price_amount * 1e6) AS INTEGER) END) / 1e6,
       SUM(CASE WHEN price_amount IS NULL THEN 1 ELSE 0 END)
FROM attempts GROUP BY 1 ORDER BY 1
"""


@click.command()
@click.option("--keep", type=click.Path(file_okay=False), help="Keep the files in this folder.")
@click.pass_obj
def demo(context: Context, *, keep: str | None) -> None:
    """Show the whole job on SQLite against the local sandbox; no account is needed.

    \b
    Example:
      verify-etl demo
    """
    with tempfile.TemporaryDirectory(prefix="verify-etl-demo-") as temporary:
        folder = Path(keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        _tour(context, folder)
        if keep:
            click.echo(f"\nKept in {folder}: attempts.db, sids.txt")


def _tour(context: Context, folder: Path) -> None:
    database = folder / "attempts.db"
    database.unlink(missing_ok=True)
    sids = folder / "sids.txt"
    world = World()
    with Sandbox(world) as box:
        click.echo(f"The sandbox, a local Verify Attempts API, answers at {box.url}")
        settings = load(environ={**box.environ(), "DATABASE_URL": f"sqlite:///{database}"})
        with context.database(settings, create=True) as engine:
            upgrade(engine)
            click.echo("\n$ verify-etl db upgrade\nThe tables are there.")
            sids.write_text("\n".join(_sample(world)) + "\n", encoding="utf-8")
            loaded = load_file(
                engine, str(sids), account="", source="demo", retention_ms=settings.retention
            )
            click.echo(
                f"\n$ verify-etl backfill sids.txt\n{counted(loaded.enqueued, 'SID')} enqueued."
            )
            click.echo("\n$ verify-etl run")
            run_now(context, settings)
            _report(engine)


def _sample(world: World) -> Sequence[str]:
    """Take SIDs from all over the world's thirty days."""
    step = max(world.size // SIDS, 1)
    return [world.sid(n) for n in range(0, world.size, step)][:SIDS]


def _report(engine: Engine) -> None:
    with engine.connect() as connection:
        channels = connection.execute(text(_BY_CHANNEL)).all()
        days = connection.execute(text(_BY_DAY)).all()
    click.echo("\nRows by channel")
    _show(("channel", "rows", "converted", "final"), channels)
    click.echo("\nConversion and price per day (UTC)")
    _show(
        ("day", "rows", "rate", "USD", "EUR", "unpriced"),
        [
            (day, rows, f"{rate:.1f}%", _amount(usd), _amount(eur), unpriced)
            for day, rows, rate, usd, eur, unpriced in days
        ],
    )


def _show(names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    named = [(row[0] or "(none)", *row[1:]) for row in rows]
    spare = ("unpriced", "EUR", "final")
    room = table.room()
    columns = None if room is None else room - 2
    lines, gone = table.aligned(names, named, columns=columns, spare=spare)
    for line in lines:
        click.echo(f"  {line}" if line else "")
    if gone:
        click.echo(table.wrapped("", f"Left out for want of width: {', '.join(gone)}.", indent=2))


def _amount(amount: float | None) -> str:
    return "" if amount is None else f"{amount:.4f}"
