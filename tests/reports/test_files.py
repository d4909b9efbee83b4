"""Write a report where it was asked for, and leave in place what is no file."""

import os
import threading
from pathlib import Path

import pytest

from etl.reports.files import replaced
from tests.support.harness import PATIENCE_S


def write(output: Path | str, text: bytes = b"new") -> None:
    """Write a file as reports do."""
    with replaced(str(output)) as stream:
        stream.write(text)


def test_a_file_keeps_its_mode(tmp_path: Path) -> None:
    """An existing file keeps its mode; only its owner reads a new one, under any umask."""
    file, fresh = tmp_path / "old.csv", tmp_path / "fresh.csv"
    file.write_bytes(b"old")
    file.chmod(0o640)
    write(file)
    mask = os.umask(0o027)
    try:
        write(fresh)
    finally:
        os.umask(mask)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"new", 0o640)
    assert fresh.stat().st_mode & 0o777 == 0o600


def test_a_link_is_followed(tmp_path: Path) -> None:
    """The file that it leads to is written, and the link stays one."""
    file, link = tmp_path / "file.csv", tmp_path / "link.csv"
    file.write_bytes(b"old")
    link.symlink_to(file)
    write(link)
    assert link.is_symlink()
    assert file.read_bytes() == b"new"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    """Whoever reads a pipe gets the report, and the pipe is still one."""
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write(pipe)
    reader.join(PATIENCE_S)
    assert got == [b"new"]
    assert pipe.is_fifo()


def test_a_reader_that_takes_a_pause_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe gets the report when it is read whole, so no transaction waits for its reader."""
    pipe, got, whole = tmp_path / "pipe", [], threading.Event()
    os.mkfifo(pipe)

    def report() -> None:
        with replaced(str(pipe)) as stream:
            stream.write(b"x" * 1_000_000)
            whole.set()

    writer = threading.Thread(target=report)
    writer.start()
    waited = whole.wait(20)
    # Opening a pipe waits for its other end.
    got.append(pipe.read_bytes())
    writer.join()
    assert (waited, got) == (True, [b"x" * 1_000_000])


def test_a_dash_is_stdout(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """As everywhere else, and not a file of that name."""
    write("-")
    assert capfdbinary.readouterr().out == b"new"
    assert not Path("-").exists()
