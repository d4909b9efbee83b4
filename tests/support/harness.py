"""Drive the real program: processes, signals, queues filled by SQL, and the tables it must leave.

The witness is the sandbox: what it holds is what the tables must hold.
"""

import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, insert, select

from etl.cli import cli, messages
from etl.cli.exits import ended
from etl.database.schema import attempt_channel_data, attempt_queue, attempts
from etl.extract import Api
from etl.records import Attempt, State
from etl.sandbox import Sandbox, World
from etl.transform.attempt import transform

ROOT = Path(__file__).parents[2]
NOW = time.time()
SCALE = float(os.environ.get("VERIFY_ETL_TEST_SCALE", "0.1"))
"""What a long test multiplies its counts by: 0.1, or 1 for `make test-all` and `make soak`."""


PATIENCE_S = 120.0
"""The bound of every wait for a process or a server: it is for what hangs, not for what is slow."""

_REST = threading.Event()


def scaled(count: int) -> int:
    """Return how many of so many examples, kills or the like are asked for now."""
    return max(round(count * SCALE), 1)


def environment(box: Sandbox, database_url: str, **settings: str) -> dict[str, str]:
    """Return the environment of a program that talks to this sandbox and database."""
    quiet = {k: v for k, v in os.environ.items() if not k.startswith(("TWILIO_", "VERIFY_ETL_"))}
    return {
        **quiet,
        **box.environ(),
        "DATABASE_URL": database_url,
        "PYTHONPATH": str(ROOT),
        "VERIFY_ETL_ALLOWANCE": "0",
        **{f"VERIFY_ETL_{name.upper()}": value for name, value in settings.items()},
    }


def _singly(args: tuple[str, ...]) -> tuple[str, ...]:
    """Let a run that says nothing of a strategy fetch one SID a request, so that counts are plain."""
    if args[:1] == ("run",) and "--strategy" not in args:
        return ("run", "--strategy", "fetch", *args[1:])
    return args


def start(*args: str, env: Mapping[str, str], **options: Any) -> subprocess.Popen[str]:
    """Start ``verify-etl`` as a process of its own."""
    command = [sys.executable, "-m", "etl", *_singly(args)]
    return subprocess.Popen(
        command, env=dict(env), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def verify_etl(
    *args: str, env: Mapping[str, str], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run ``verify-etl`` to its end, each request for one SID unless it says how."""
    return command(*_singly(args), env=env, stdin=stdin)


def command(
    *args: str, env: Mapping[str, str], stdin: str = "", cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run ``verify-etl`` to its end with this environment and no other.

    Here, for a start costs half a second; at full counts in a process of its own, as it is used.
    """
    if SCALE >= 1:
        return subprocess.run(
            [sys.executable, "-m", "etl", *args],
            env=dict(env), text=True, capture_output=True, input=stdin, check=False,
            cwd=cwd, timeout=PATIENCE_S,
        )  # fmt: skip
    ours = {"stdin": _stream(stdin), "stdout": _stream(), "stderr": _stream()}
    with pytest.MonkeyPatch.context() as patched, _as_it_was():
        patched.chdir(cwd)
        patched.setattr(sys, "argv", ["verify-etl", *args])
        logging.getLogger().handlers.clear()
        for name, stream in ours.items():
            patched.setattr(sys, name, stream)
        for name in os.environ.keys() - env.keys():
            patched.delenv(name)
        for name, value in env.items():
            patched.setenv(name, value)
        code = ended(lambda: cli.main(args, prog_name="verify-etl", standalone_mode=False))
    said = [ours[name].buffer.getvalue().decode() for name in ("stdout", "stderr")]  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(args, code, *said)


def _stream(text: str = "") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8", write_through=True)


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Put back what the command line sets for its process: logging, secrets, the help's width."""
    loggers = [logging.getLogger(name) for name in (None, "etl", "psycopg", "sqlalchemy.pool")]
    handlers, levels = loggers[0].handlers[:], [logger.level for logger in loggers]
    secrets, width = set(messages._secrets), click.Context.formatter_class
    try:
        yield
    finally:
        loggers[0].handlers[:] = handlers
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        messages._secrets.clear()
        messages._secrets.update(secrets)
        click.Context.formatter_class = width


def in_process(*args: str) -> Result:
    """Run ``verify-etl`` in this process, its settings in the environment; leave logging as it was."""
    with _as_it_was():
        return CliRunner().invoke(cli, args)


def run_json(*args: str, env: Mapping[str, str]) -> dict[str, Any]:
    """Run ``verify-etl run --json`` and return what it printed; the exit code must be 0."""
    done = verify_etl("run", "--json", *args, env=env)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert isinstance(printed, dict)
    return printed


def measured(script: str, *args: str) -> str:
    """Run a measurement of ``bench/``, which must keep its bounds; return what it printed."""
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / script, *args],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fill(engine: Engine, sids: Iterable[str]) -> None:
    """Insert SIDs as any other program does: the SID and nothing else."""
    with engine.begin() as connection:
        connection.execute(insert(attempt_queue), [{"sid": sid} for sid in sids])


def until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds; fail after longer than any busy machine takes."""
    for _ in range(round(PATIENCE_S / 0.005)):
        if condition():
            return
        _REST.wait(0.005)
    pytest.fail("it did not happen")


def for_a_while(condition: Callable[[], bool]) -> None:
    """Assert that ``condition`` holds and goes on to: what must not happen has time to happen."""
    for _ in range(60):
        assert condition()
        _REST.wait(0.005)


def states(engine: Engine) -> dict[str, int]:
    """Count the queue's rows by state."""
    counts: dict[str, int] = {}
    with engine.connect() as connection:
        for state in connection.execute(select(attempt_queue.c.state)).scalars():
            counts[state] = counts.get(state, 0) + 1
    return counts


def assert_loaded(engine: Engine, world: World, sids: Iterable[str]) -> None:
    """Assert that the queue holds each SID once, at rest or waiting for its refresh, and that
    every row equals what the world holds of it, and that there are no other rows.
    """  # noqa: D205 - one sentence of two lines
    expected = sorted(sids)
    with engine.connect() as connection:
        queued = connection.execute(select(attempt_queue)).all()
        rows = {
            row.sid: row
            for row in connection.execute(
                select(attempts, attempt_channel_data).join(attempt_channel_data)
            )
        }
        total = len(connection.execute(select(attempts.c.sid)).all())
    assert sorted(row.sid for row in queued) == expected
    assert {row.state for row in queued} <= {State.SETTLED, State.REFRESH}
    assert sorted(rows) == expected
    assert total == len(expected)
    for sid, row in rows.items():
        held = transform(world.attempt(sid), sid=sid)
        assert isinstance(held, Attempt)
        assert values_of(row) == values_of(held)


def values_of(row: Any) -> dict[str, Any]:
    """Return the values of an attempt, or of its row in both tables; times without their zone."""
    fields = {name: getattr(row, name) for name in Attempt._fields if name != "warnings"}
    for name in ("date_created", "date_updated"):
        fields[name] = fields[name] and fields[name].replace(tzinfo=None)
    return fields


MakeApi = Callable[..., Api]
