"""Read shell lines as click would."""

import re
import shlex

import click

from etl.cli import cli

PAST_AN_EXAMPLE = re.compile(r"\s(?:&&|\|\||\||>|<|2>)\s")


def parse(line: str) -> str:
    """Parse a shell line that starts with verify-etl as click would; return the command's name."""
    words = shlex.split(PAST_AN_EXAMPLE.split(line)[0], comments=True)
    assert words[0] == "verify-etl"
    context = cli.make_context("verify-etl", words[1:])
    command: click.Command = cli
    name = ""
    while isinstance(command, click.Group) and context._protected_args + context.args:
        found = command.resolve_command(context, [*context._protected_args, *context.args])
        below, group, rest = found
        assert below is not None
        assert group is not None
        command = group
        name = f"{name} {below}".strip()
        context = command.make_context(below, rest, parent=context)
    return name
