"""Whatever goes wrong, the folder holds whole days, and the exit code says what it was."""

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet
from sqlalchemy import Engine

from etl.cli import cli
from etl.cli.context import Context
from etl.errors import ConfigError, EtlError, Exit, StorageError, TryAgain
from etl.export import ExportOptions, export, rows
from etl.export.folder import FILE, Folder
from etl.sandbox import World
from tests.support.export_world import DAYS, SENT, counts, expected, exported, ours, store
from tests.support.harness import PATIENCE_S, ROOT

DOCS = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_failure_leaves_whole_days(
    step: str, filled: Engine, world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever writing fails, each day is the old or the new one, and the next run completes."""
    ours(filled, folder)
    before = exported(folder)
    store(filled, world, range(300), sent_at=SENT + 10_000, channel="rbm")
    after = expected(filled, destination=False)
    failed = 0
    for countdown in range(20):
        with monkeypatch.context() as patch:
            _break(patch, step, countdown)
            try:
                export(filled, ExportOptions(folder))
            except StorageError:
                failed += 1
            else:
                break
        for day, held in exported(folder).items():
            assert held in (before[day], after[day])
    assert failed >= 1
    assert exported(folder) == after
    assert sorted(path.name for path in folder.rglob("*") if "tmp" in path.name) == []


def _break(patch: pytest.MonkeyPatch, step: str, countdown: int) -> None:
    """Let the call after so many of one kind find the disk full."""
    left = iter(range(countdown))

    def broken(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if next(left, None) is None:
                raise OSError(28, "No space left on device")
            return real(*args, **options)

        return call

    if step == "write":
        patch.setattr(
            parquet.ParquetWriter, "write_table", broken(parquet.ParquetWriter.write_table)
        )
    elif step == "fsync":
        patch.setattr(os, "fsync", broken(os.fsync))
    else:
        patch.setattr(Path, "replace", broken(Path.replace))


def test_a_killed_export_is_completed(
    filled: Engine, database_url: str, folder: Path, tmp_path: Path
) -> None:
    """After SIGKILL in the middle of a day the next export writes what is left."""
    program = tmp_path / "killed.py"
    program.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from pyarrow import parquet\n"
        "from etl.database.engine import open_engine\n"
        "from etl.export import ExportOptions, export\n"
        "real, calls = parquet.ParquetWriter.write_table, []\n"
        "def write_table(self, table):\n"
        "    calls.append(real(self, table))\n"
        "    if len(calls) == 2:\n"
        "        os.kill(os.getpid(), 9)\n"
        "parquet.ParquetWriter.write_table = write_table\n"
        "export(open_engine(sys.argv[1]), ExportOptions(Path(sys.argv[2])))\n"
    )
    done = subprocess.run(
        [sys.executable, str(program), database_url, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == -9
    assert sorted(exported(folder)) == DAYS[:1]
    ours(filled, folder)
    assert [path for path in folder.rglob("*") if "tmp" in path.name] == []


def here(*args: str, url: str) -> tuple[int, str, str]:
    """Run ``export`` in this process; return exit code, stdout and the error's sentence."""
    command = cli.get_command(click.Context(cli), "export")
    assert command is not None
    context = Context(config=None, verbose=False, quiet=False)
    done = CliRunner().invoke(command, args, obj=context, env={"DATABASE_URL": url})
    if isinstance(done.exception, EtlError):
        return done.exception.exit_code, done.stdout, str(done.exception)
    return done.exit_code, done.stdout, done.stderr


def test_the_command_says_one_line(filled: Engine, database_url: str, folder: Path) -> None:
    """The command prints what it did in one line, or as the documented keys."""
    code, said, _ = here("-o", str(folder), url=database_url)
    assert code == 0
    assert re.fullmatch(
        r"4 days written \(300 rows, [\d.]+ kB\), 0 unchanged, 0 removed in [\d.]+ s\.\n", said
    )
    code, said, _ = here("-o", str(folder), "--since", "2026-03-02", "--json", url=database_url)
    printed = json.loads(said)
    assert (code, printed["days_unchanged"], printed["directory"]) == (0, 2, str(folder))
    documented = DOCS.partition("## export --json")[2].partition("## Reading")[0]
    named = [
        name
        for row in re.findall(r"(?m)^\| (`.*?) \|", documented)
        for name in re.findall(r"`(\w+)`", row)
    ]
    assert named == list(printed)


def test_without_pyarrow_it_says_how_to_install_it(
    filled: Engine, database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra it is the configuration that lacks something, and nothing is written."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, said = here("-o", str(folder), url=database_url)
    assert (code, folder.exists()) == (Exit.CONFIG, False)
    assert "Run: pip install pyarrow" in said


def test_a_disk_that_is_full_ends_with_74(filled: Engine, database_url: str, folder: Path) -> None:
    """When a file cannot grow the exit code is 74, and no part of it stays."""
    done = subprocess.run(
        [sys.executable, "-m", "etl", "export", "-o", str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": database_url},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000)),
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (Exit.IO, "")
    assert f"{folder} cannot be written: File too large." in done.stderr
    assert list(folder.glob("day=*/*")) == []


def test_a_path_that_is_no_folder_ends_with_74(
    filled: Engine, database_url: str, tmp_path: Path
) -> None:
    """A folder that cannot be made is the disk's fault, and named."""
    (tmp_path / "file").write_text("")
    code, _, said = here("-o", str(tmp_path / "file" / "lake"), url=database_url)
    assert code == Exit.IO
    assert "file/lake cannot be written: Not a directory." in said


@pytest.mark.parametrize("name", ["thesis.doc", "day=2026-03-01", "day=x"])
def test_a_folder_of_something_else_is_left_alone(
    name: str, filled: Engine, tmp_path: Path
) -> None:
    """A folder that is not empty and no export, or with other Parquet files, is refused."""
    if name == f"day={DAYS[0]}":
        (tmp_path / name).mkdir()
        parquet.write_table(pa.table({"theirs": [1]}), tmp_path / name / FILE)
    else:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=r"is not empty, and no export|not what an export wrote"):
        export(filled, ExportOptions(tmp_path, full=True))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_two_exports_do_not_meet(filled: Engine, folder: Path) -> None:
    """While one export holds the folder another is told to come back."""
    with (
        Folder(folder, rows.layout(destination=False)),
        pytest.raises(TryAgain, match="Another export is writing"),
    ):
        export(filled, ExportOptions(folder))
    assert counts(ours(filled, folder)) == (4, 0, 0)
