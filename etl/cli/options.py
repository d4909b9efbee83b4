"""Hold the options that several commands share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Shared:
    """Describe an option once; a command takes it as a decorator, a report as an object."""

    names: tuple[str, ...]
    help: str

    def option(self) -> click.Option:
        """Make the option."""
        return click.Option([*self.names], default=False, help=self.help)

    def __call__(self, command: F) -> F:
        """Decorate a command with it."""
        return click.option(*self.names, default=False, help=self.help)(command)


WITH_DESTINATION: Final = Shared(
    ("--with-destination/--without-destination", "destination"),
    "Whether numbers and addresses, which are personal data, go with it.  [default: without]",
)
