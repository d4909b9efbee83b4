"""``verify-etl config``: an example of the file of settings."""

import click

from etl import installed

EXAMPLES = {
    "settings": "example",
    "fees": "fees.example",
    "finance": "finance",
    "high-volume": "high-volume",
    "shared-account": "shared-account",
}
"""The examples, and their files in ``config/``."""


@click.group()
def config() -> None:
    """Show how to write the settings.

    \b
    Example:
      verify-etl config example > settings.toml
    """


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
