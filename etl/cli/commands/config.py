"""``verify-etl config``: the settings, where they come from, and examples."""

import json
from pathlib import Path
from typing import Final

import click
from pydantic import SecretStr

from etl import installed
from etl.cli import messages
from etl.cli.context import Context
from etl.settings import ENVIRONMENT, SECRET, Resolved, Settings, resolve

EXAMPLES = {
    "settings": "example",
    "fees": "fees.example",
    "finance": "finance",
    "high-volume": "high-volume",
    "shared-account": "shared-account",
}
"""The examples, and their files in ``config/``."""
_DURATIONS: Final = {
    "allowance_window", "settle_after", "price_grace", "refresh_round", "retention",
}  # fmt: skip
_WIDE: Final = 48
"""Longer values do not push the rest to the right."""


@click.group()
def config() -> None:
    """Show the settings in force, and how to write them.

    \b
    Example:
      verify-etl config show
      verify-etl config example > settings.toml
    """


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array (help cli).")
@click.pass_obj
def show(context: Context, *, as_json: bool) -> None:
    """Print each setting in force as a line of a settings file; secrets are masked.

    Behind it stands where its value came from: an option, a variable, a file, or the default.

    \b
    Example:
      verify-etl -c settings.toml config show
    """
    found = resolve(file=Path(context.config) if context.config else None)
    lines = [
        {"setting": name, "value": shown(found.settings, name), "from": came_from(found, name)}
        for name in Settings.model_fields
    ]
    if as_json:
        click.echo(json.dumps(lines))
        return
    written = [f"{line['setting']} = {json.dumps(line['value'])}" for line in lines]
    size = min(max(map(len, written)), _WIDE)
    for text, line in zip(written, lines, strict=True):
        click.echo(f"{text:<{size}}  # {line['from']}")


def shown(settings: Settings, name: str) -> str | int:
    """Write a value as a file of settings has it, without any secret."""
    value = getattr(settings, name)
    if name in SECRET:
        return "***" if value.get_secret_value() else ""
    if name == "api_url":
        value = settings.api_address
    if isinstance(value, SecretStr):
        return messages.without_secrets(value.get_secret_value())
    return duration(value) if name in _DURATIONS else value


def came_from(found: Resolved, name: str) -> str:
    """Say where a setting came from: an option, a variable, a file, or nowhere."""
    if name == "api_url" and found.settings.api_address != found.settings.api_url:
        parts = [found.origin[each] for each in ("region", "edge", name) if each in found.origin]
        return ", ".join(parts)
    return found.origin.get(name, f"default ({ENVIRONMENT[name]})")


def duration(milliseconds: int) -> str:
    """Write a duration in the largest unit that keeps it whole."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


@config.command()
@click.argument("name", type=click.Choice([*EXAMPLES]), default="settings", metavar="[NAME]")
def example(name: str) -> None:
    """Print an example of a file of settings, every setting explained.

    NAME is another example: fees, finance, high-volume or shared-account.

    \b
    Example:
      verify-etl config example > settings.toml
      verify-etl config example fees > fees.toml
    """
    folder = installed.folder("config", holds="example.toml", what="examples of settings")
    file = folder / f"{EXAMPLES[name]}.toml"
    click.echo(file.read_text(encoding="utf-8"), nl=False)
