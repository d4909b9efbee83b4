"""``verify-etl help``: the documentation, for those who have the program alone."""

from typing import TYPE_CHECKING

import click

from etl.cli import table
from etl.installed import folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@click.command()
@click.argument("topic", required=False, metavar="[TOPIC]")
@click.pass_context
def help(context: click.Context, topic: str | None) -> None:  # noqa: A001 - the command's name
    """Print the documentation of a topic, or list the topics.

    \b
    Example:
      verify-etl help
      verify-etl help reports
    """
    found = _topics()
    if topic is None:
        for name, file in found.items():
            title = file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
            click.echo(table.wrapped(f"{name} ", title, indent=10))
    elif topic in found:
        click.echo(found[topic].read_text(encoding="utf-8"), nl=False)
    else:
        msg = f"There is no topic {topic!r}. There are: {', '.join(found)}."
        raise click.UsageError(msg, context)


def _topics() -> "Mapping[str, Path]":
    files = sorted(folder("docs", holds="cli.md", what="documents").glob("*.md"))
    return {file.stem: file for file in files}
