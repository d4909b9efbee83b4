"""Run the program in a terminal of a chosen width, and read what it draws."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.harness import PATIENCE_S

CONTROL = re.compile(r"[^\n\r\t -~\u00a0-\uffff]")


@dataclass(frozen=True)
class Shown:
    """Hold what came to the terminal, as sent."""

    code: int
    raw: str

    @property
    def lines(self) -> list[str]:
        """Give the lines as they stand in the end, what was drawn over left out."""
        return [_final(line) for line in self.raw.replace("\r\n", "\n").split("\n")]

    @property
    def frames(self) -> list[str]:
        """Give everything that was drawn, what was drawn over included."""
        return [part.rstrip() for part in re.split(r"\r\n|\r|\n", self.raw) if part.strip()]


def in_terminal(*args: str, columns: int, env: Mapping[str, str]) -> Shown:
    """Run ``verify-etl`` with all three streams on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {name: value for name, value in env.items() if name not in {"COLUMNS", "LINES"}}
    with subprocess.Popen(
        [sys.executable, "-m", "etl", *args],
        stdin=theirs, stdout=theirs, stderr=theirs, env=kept, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        said = b"".join(iter(lambda: _read(ours), b""))
        os.close(ours)
        code = process.wait(timeout=PATIENCE_S)
    return Shown(code, said.decode())


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux's end of a terminal whose other side is closed.
        return b""


def _final(line: str) -> str:
    seen = ""
    for part in line.split("\r"):
        seen = part + seen[len(part) :]
    return seen.rstrip()
