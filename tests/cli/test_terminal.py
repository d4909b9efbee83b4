"""Test what a person sees: narrow and wide terminals, the line of progress, pipes that close."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl.cli.commands.status import span
from etl.cli.progress import clock_of
from etl.cli.table import aligned
from etl.cli.words import counted, sized
from etl.database.engine import open_engine
from etl.errors import Exit
from etl.sandbox import Sandbox, World
from tests.support.harness import PATIENCE_S, environment, fill, verify_etl
from tests.support.terminal import CONTROL, in_terminal

WIDTHS = [40, 80, 160]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Give the environment of a database with 260 SIDs, and a sandbox that allows 100 a second."""
    url = f"sqlite:///{tmp_path_factory.mktemp('terminal')}/q.db"
    world = World(size=260)
    with Sandbox(world, limit=0) as box:
        env = environment(box, url, allowance="100", allowance_window="1s")
        assert verify_etl("db", "upgrade", env=env).returncode == 0
        engine = open_engine(url)
        fill(engine, world.sids())
        engine.dispose()
        assert verify_etl("run", "--limit", "1", env=env).returncode == 0
        yield env


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["status"], ["plan"], ["doctor"]])
def test_nothing_is_wider_than_the_terminal(
    words: list[str], columns: int, env: dict[str, str]
) -> None:
    """No line is broken by the terminal, whatever its width, and nothing but text is sent."""
    shown = in_terminal(*words, columns=columns, env=env)
    assert shown.code == 0
    # One long word, such as a SID, cannot be folded, and a line to be pasted must not be.
    long = [line.split() for line in shown.lines if len(line) > columns]
    long = [words for words in long if len(words) > 1 and words[0] != "verify-etl"]
    assert long == []
    assert CONTROL.findall(shown.raw) == []


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_demo_fits(columns: int, env: dict[str, str]) -> None:
    """The demo's tables are no wider than the terminal, and each day is one line."""
    shown = in_terminal("demo", columns=columns, env=env)
    assert shown.code == 0
    tables = shown.lines[shown.lines.index("Rows by channel") :]
    assert max(map(len, tables)) <= columns
    assert len([line for line in tables if line.strip().startswith("20")]) > 25
    for name in ("EUR", "unpriced"):
        assert any(
            name in line.split() or f"{name}," in line or f"{name}." in line for line in tables
        )


@pytest.mark.parametrize("columns", WIDTHS)
def test_progress_is_one_line_that_goes(columns: int, tmp_path: Path) -> None:
    """A watched run shows how far it is on one line, never wider than the terminal, then nothing."""
    world = World(size=260)
    url = f"sqlite:///{tmp_path}/q.db"
    with Sandbox(world, limit=0) as box:
        env = environment(box, url, allowance="100", allowance_window="1s")
        assert verify_etl("db", "upgrade", env=env).returncode == 0
        engine = open_engine(url)
        fill(engine, world.sids())
        engine.dispose()
        shown = in_terminal("run", "--strategy", "fetch", columns=columns, env=env)
    assert shown.code == 0
    *drawn, last = shown.frames
    assert last.startswith("Run 1: 260 stored")
    assert shown.lines[0] == last
    assert max(map(len, drawn)) < columns
    assert all("/260" in frame for frame in drawn[5:])
    assert any("left" in frame for frame in drawn)
    if columns > 40:
        assert any("waits for the allowance" in frame for frame in drawn)
        assert any("requests/min" in frame and "\u2501" in frame for frame in drawn)
    assert CONTROL.findall(shown.raw) == []


def test_where_nothing_waits_nothing_is_full(tmp_path: Path) -> None:
    """A run that loads attempts nobody queued draws no bar and no total of 0."""
    with Sandbox(World(size=260), limit=0) as box:
        env = environment(box, f"sqlite:///{tmp_path}/q.db", allowance="100")
        assert verify_etl("db", "upgrade", env=env).returncode == 0
        shown = in_terminal("discover", columns=80, env=env)
    assert shown.code == 0
    drawn = [frame for frame in shown.frames if "requests/min" in frame]
    assert drawn
    assert [frame for frame in drawn if "/0" in frame or "\u2501" in frame] == []


def test_not_watched_is_not_drawn(env: dict[str, str]) -> None:
    """Where stderr is no terminal, or with `-q`, a run draws nothing."""
    done = verify_etl("run", "--limit", "1", env=env)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    assert in_terminal("-q", "run", "--limit", "1", columns=80, env=env).raw == ""


@pytest.mark.parametrize("terminal", ["xterm-256color", "dumb"])
def test_no_color_anywhere(terminal: str, env: dict[str, str]) -> None:
    """No escape sequence is sent, with NO_COLOR and without."""
    for more in ({}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}):
        dressed = {**env, "TERM": terminal, **more}
        for words in (["run", "--limit", "1"], ["runs"], ["statsu"]):
            assert "\x1b" not in in_terminal(*words, columns=80, env=dressed).raw


@pytest.mark.parametrize("words", [["--help"], ["status"], ["runs"], ["db", "upgrade", "--sql"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_may_leave(words: list[str], unbuffered: str, env: dict[str, str]) -> None:
    """When stdout's reader is gone before the first byte, there is no traceback and no failure."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "etl", *words], stdout=write, stderr=subprocess.PIPE, text=True,
        env={**env, "PYTHONUNBUFFERED": unbuffered}, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (Exit.OK, "")


def test_head_gets_its_line(env: dict[str, str]) -> None:
    """`| head -1` prints one line, and the pipe's other side ends well and silently."""
    line = f"set -o pipefail; {sys.executable} -m etl db upgrade --sql | head -1"
    done = subprocess.run(
        ["bash", "-c", line], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


def test_a_file_that_may_not_grow_is_said(env: dict[str, str], tmp_path: Path) -> None:
    """Output that cannot be written ends with 74 and a sentence."""
    with (tmp_path / "out").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "etl", "status", "--json"], stdout=full, text=True,
            stderr=subprocess.PIPE, env=env, check=False, timeout=PATIENCE_S,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        )  # fmt: skip
    assert done.returncode == Exit.IO
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_nothing(closed: str, env: dict[str, str]) -> None:
    """With stdin, stdout or stderr closed, as some supervisors do, a command still ends with 0."""
    for words in ("status", "report attempts --format csv"):
        line = f"{sys.executable} -m etl {words} {closed}"
        done = subprocess.run(
            ["sh", "-c", line],
            env=env,
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "how", [{"LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
            {"PYTHONIOENCODING": "ascii:strict"}],
)  # fmt: skip
def test_a_poor_encoding_ends_nothing(how: dict[str, str], env: dict[str, str]) -> None:
    """What the encoding lacks is spelled out, on both streams."""
    poor = {k: v for k, v in env.items() if not k.startswith("LC_")} | how
    done = verify_etl("db", "current", "--help", env=poor)
    assert (done.returncode, done.stderr) == (0, "")
    assert "current" in done.stdout
    slip = verify_etl("prune", "--settled-before", "d\u00fcnn", env=poor)
    assert (slip.returncode, "Traceback" in slip.stderr) == (Exit.USAGE, False)


def test_json_is_ascii_and_one_line(env: dict[str, str]) -> None:
    """What programs read is one line of plain ASCII, whatever the encoding."""
    done = verify_etl("status", "--json", env=env)
    assert done.stdout.count("\n") == 1
    assert done.stdout.isascii()
    assert json.loads(done.stdout)["states"].keys() >= {"pending", "settled"}


def test_a_table_that_does_not_fit() -> None:
    """Columns that may be spared go first, then each row becomes a block."""
    names, rows = ("name", "count", "note"), [("one", 1_234, None), ("two", 5, "x" * 12)]
    assert aligned(names, rows, columns=80)[0] == [
        "name  count  note", "one   1,234", "two       5  " + "x" * 12,
    ]  # fmt: skip
    spared, left_out = aligned(names, rows, columns=15, spare=("note",))
    assert spared == ["name  count", "one   1,234", "two       5"]
    assert left_out == ["note"]
    blocks, _ = aligned(names, rows, columns=8, spare=("note",))
    assert blocks[:3] == ["name   one", "count  1,234", ""]


def test_counts_are_written_for_people() -> None:
    """One is one, and a size is in the largest unit that tells something."""
    said = [counted(number, "SID") for number in (0, 1, 2_000)]
    assert said == ["0 SIDs", "1 SID", "2,000 SIDs"]
    said = [sized(octets) for octets in (1, 999, 12_345, 1_234_567_890)]
    assert said == ["1 byte", "999 bytes", "12.3 kB", "1,234.6 MB"]


def test_times_are_written_for_people() -> None:
    """Time left is a clock, a length of time is in the unit that tells enough."""
    assert [clock_of(s) for s in (0, 41.2, 5_280, 273_600)] == [
        "0:00", "0:42", "1:28:00", "3 d 04:00",
    ]  # fmt: skip
    assert [span(s) for s in (0.2, 61, 720, 9_000, 604_800)] == [
        "less than 1 s", "61 s", "about 12 min", "about 2 h", "about 7 d",
    ]  # fmt: skip


def test_a_narrow_history_of_runs_names_what_it_leaves_out(env: dict[str, str]) -> None:
    """Columns that do not fit are named below the table; where all do, nothing is said."""
    verify_etl("run", "--limit", "1", env=env)
    shown = in_terminal("runs", columns=40, env=env)
    assert max(map(len, shown.lines[:2])) <= 40
    assert "Left out for want of width: " in " ".join(filter(None, shown.lines[2:]))
    assert "Left out" not in in_terminal("runs", columns=160, env=env).raw
    assert "dead" in shown.lines[0]


def test_a_pipe_gets_every_column(env: dict[str, str]) -> None:
    """`runs | cat` is no terminal of 80 columns, unless COLUMNS says so."""
    assert verify_etl("run", "--limit", "1", env=env).returncode == 0
    piped = verify_etl("runs", env={k: v for k, v in env.items() if k != "COLUMNS"})
    assert piped.stdout.split()[:9] == [
        "run", "command", "started", "seconds", "exit", "requests", "fetched", "final", "dead",
    ]  # fmt: skip
    assert piped.stderr == ""
    assert "Left out" in verify_etl("runs", env={**env, "COLUMNS": "40"}).stderr
