"""Turn whatever ends a command into one sentence and its exit code."""

import contextlib
import difflib
import errno
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import click

from etl.cli import messages
from etl.errors import EtlError, Exit, StorageError, sentence

EXITS = {
    Exit.CONFIG: "configuration or schema",
    Exit.CREDENTIALS: "credentials refused",
    Exit.IO: "disk or I/O",
    Exit.UNREACHABLE: "API unreachable",
    Exit.PROTOCOL: "the API broke its own rules",
    Exit.TRY_LATER: "try later (throttled, busy)",
    Exit.DATA: "data (bad lines, dead rows)",
    Exit.OK: "done, or nothing to do",
    Exit.BUG: "a bug",
    Exit.USAGE: "usage",
    Exit.SIGINT: "ended by SIGINT",
    Exit.SIGTERM: "ended by SIGTERM",
}
"""Exit codes and their meaning. Of several that apply, the first wins."""


class StdoutClosed(Exception):
    """Our output's reader has left, as in ``| head``."""


def words_of_exits() -> str:
    """Write the table of exit codes for ``--help``."""
    lines = [f"  {code.value:>3}  {words}" for code, words in EXITS.items()]
    return "\n".join(["\b", "Exit codes, the first that applies:", *lines])


def ended(action: Callable[[], object]) -> int:
    """Run a command to its end, say what went wrong, return the exit code."""
    _speak_safely()
    try:
        code = action()
        if sys.stdout is not None:
            sys.stdout.flush()
    except (StdoutClosed, BrokenPipeError):
        code = Exit.OK
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException as error:
        code = _refused(error)
    except (click.Abort, KeyboardInterrupt):
        code = Exit.SIGINT
    except EtlError as error:
        code = _failed(error, error)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        said = StorageError(
            f"Reading or writing{where} failed: {error.strerror or error}.",
            hint="Make room on the disk." if full else "Check the path and its permissions.",
        )
        code = _failed(said, error)
    except Exception as error:  # noqa: BLE001 - what nobody foresaw still gets its sentence
        bug = EtlError(f"A bug: {type(error).__name__}: {error}.", hint="Run with -v, report it.")
        code = _failed(bug, error)
    _let_go_of_stdout()
    return int(code) if isinstance(code, int) else Exit.OK


def _speak_safely() -> None:
    """Survive a closed output, and characters that the terminal lacks."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as we run
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _let_go_of_stdout() -> None:
    """Flush for the last time. A failure now must not come again while Python exits."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _failed(error: EtlError, origin: BaseException) -> int:
    log = logging.getLogger("etl")
    if not logging.getLogger().handlers:
        messages.set_up(verbose=False, quiet=False, log_format="text")
    log.debug("The traceback:", exc_info=origin)
    why = [messages.without_secrets(line) for line in messages.causes(origin)]
    fields = {"exit_code": int(error.exit_code), "hint": error.hint, "causes": why}
    text = "\n".join([str(error), *(f"  because of {line}" for line in why)])
    log.error("%s", text, extra={"fields": fields})
    return error.exit_code


def _refused(error: click.ClickException) -> int:
    """Say what is wrong with the command line, and name its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return error.exit_code
    said = error.format_message()
    context = getattr(error, "ctx", None)
    if context is not None:
        if "Did you mean" not in said:
            said += _near(said, context)
        said = f"{sentence(said)} Try: {context.command_path} --help"
    if not logging.getLogger().handlers:
        # The options before the command were not read to their end.
        json_asked = "--log-format=json" in sys.argv or "json" in sys.argv[1:3]
        messages.set_up(verbose=False, quiet=False, log_format="json" if json_asked else "text")
    fields = {"exit_code": error.exit_code}
    logging.getLogger("etl").error("%s", said, extra={"fields": fields})
    return error.exit_code


def _near(said: str, context: click.Context) -> str:
    named = re.match(r"No such command '(.+?)'", said)
    if named is None or not isinstance(context.command, click.Group):
        return ""
    near = difflib.get_close_matches(named[1], context.command.list_commands(context), n=3)
    if not near:
        return f" There are: {', '.join(context.command.list_commands(context))}."
    return f" Did you mean {' or '.join(near)}?"
