"""The command line: parse, build, call one function, print.

This package builds what the pipeline is handed. Nothing below it knows of click. This module and
its imports load click and the errors only, which keeps ``--help`` fast.
"""

import gc
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Final, NoReturn

import click

from etl import __version__
from etl.cli import messages
from etl.cli.context import Context
from etl.cli.exits import StdoutClosed, ended, words_of_exits

_COMMANDS: Final = {
    "backfill": "Enqueue attempt SIDs from files, `-` being standard input.",
    "check": "Print one line for a monitor; exit with 65 if something is wrong.",
    "config": "Show the settings, where they come from, and an example.",
    "db": "Build, show and check the tables.",
    "demo": "Show the whole job; no account is needed.",
    "discover": "Load every attempt of a window; no queue is needed.",
    "doctor": "Say what is wrong, and what mends it.",
    "export": "Write the attempts to Parquet files by day.",
    "help": "Print the documentation of a topic.",
    "plan": "Show what run would do, and what it would cost.",
    "prune": "Take settled rows out of the queue.",
    "reconcile": "Compare the rows with Twilio's own counts.",
    "redact": "Remove personal data of old attempts.",
    "report": "Answer a question from the rows, or list the questions.",
    "retry": "Put dead SIDs back to pending.",
    "run": "Drain the queue: store every pending SID's attempt.",
    "runs": "Show the history of runs.",
    "sandbox": "Serve a local Verify Attempts API.",
    "status": "Show how the queue stands.",
}
"""Say in short what each command does; its module in ``commands`` bears its name, `_` for `-`."""

# click would not go below 50 columns, and the terminal would then break the lines anywhere.
_NARROW = 52


class _Narrow(click.HelpFormatter):
    """Put what an option means under it rather than beside it."""

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 14, col_spacing: int = 2
    ) -> None:
        """Write a list of terms and their meaning."""
        super().write_dl(rows, min(col_max, 14), col_spacing)


class _Lazy(click.Group):
    """Import a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands."""
        del ctx
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(import_module(f"etl.cli.commands.{name}"), name)
        assert isinstance(command, click.Command)  # noqa: S101 - for the type checker
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing one."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: object,
    ) -> click.Context:
        """Fold the help into a narrow terminal, too."""
        columns = shutil.get_terminal_size().columns
        if columns < _NARROW:
            extra["terminal_width"] = max(columns - 1, 20)
            # For the contexts of all commands, which are click's own.
            click.Context.formatter_class = _Narrow
        try:
            return super().make_context(info_name, args, parent, **extra)
        except BrokenPipeError as error:  # --help and --version are printed here
            raise StdoutClosed from error

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; click's own answer to a closed pipe would be exit code 1."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            # Of an option that takes no value, click does not say whose it is.
            error.ctx = error.ctx or _asked(ctx)
            raise
        except BrokenPipeError as error:
            raise StdoutClosed from error


def _asked(context: click.Context) -> click.Context:
    """Find the command that the arguments name first."""
    name = context.invoked_subcommand
    command = name and context.command.get_command(context, name)  # type: ignore[attr-defined]
    return click.Context(command, info_name=name, parent=context) if command else context


@click.group(
    cls=_Lazy,
    epilog=words_of_exits(),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-c", "--config", type=click.Path(), help="A TOML file of settings, as VERIFY_ETL_CONFIG."
)
@click.option("-v", "--verbose", is_flag=True, help="Say more, tracebacks included.")
@click.option("-q", "--quiet", is_flag=True, help="Speak only of trouble.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How messages on stderr are written.",
)
@click.version_option(__version__, prog_name="verify-etl")
@click.pass_context
def cli(
    ctx: click.Context,
    *,
    config: str | None,
    verbose: bool,
    quiet: bool,
    log_format: str,
) -> None:
    """Bring Twilio Verify attempts, final, into SQL for the fewest requests.

    Data goes to stdout, everything else to stderr.

    \b
    Example:
      verify-etl db upgrade
      verify-etl backfill sids.txt
      verify-etl run
    """
    if verbose and quiet:
        msg = "-v and -q exclude each other."
        raise click.UsageError(msg)
    messages.set_up(verbose=verbose, quiet=quiet, log_format=log_format)
    ctx.obj = Context(config, verbose, quiet, log_format)


def look_for_garbage_seldom() -> None:
    """Collect garbage seldom: it saves a fifth of the time to start, and some of loading.

    Imports make a hundred thousand objects, and most live to the end. A page of attempts makes
    thousands, and most go by themselves. The rest may take ten megabytes before it is found.
    """
    gc.set_threshold(20_000, 20, 50)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line. Every error becomes one sentence and its exit code."""
    look_for_garbage_seldom()
    # Pydantic would search all that is installed for plugins, and show them our settings.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    code = ended(lambda: cli.main(args, prog_name="verify-etl", standalone_mode=False))
    # The process ends: do not search what is left for garbage.
    gc.freeze()
    sys.exit(code)
