"""Test the command line's manners: help, usage, exit codes, streams, messages."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from etl import __version__
from etl.cli import cli
from etl.errors import Exit, sentence
from etl.reports import find
from etl.sandbox import Sandbox, World
from tests.support.command_lines import parse
from tests.support.harness import ROOT, command, environment, verify_etl


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command and subcommand with its full name."""
    waiting: list[tuple[str, click.Command]] = [("", cli)]
    while waiting:
        name, command = waiting.pop()
        yield name, command
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=name)
            for below in command.list_commands(context):
                found = command.get_command(context, below)
                assert found is not None
                waiting.append((f"{name} {below}".strip(), found))


COMMANDS = dict(sorted(commands()))


def examples(command: click.Command) -> list[str]:
    """Return the example lines of a command's help."""
    _, _, after = (command.help or "").partition("Example:")
    return [line.strip() for line in after.splitlines() if line.strip().startswith("verify-etl")]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_a_sentence_and_an_example_that_works(name: str) -> None:
    """Each command's help begins with a sentence and has an example of itself that parses."""
    command = COMMANDS[name]
    first = " ".join((command.help or "").split("\n\n")[0].split())
    assert re.fullmatch(r"[A-Z].+\.", first)
    shown = examples(command)
    assert shown
    parsed = [parse(line) for line in shown]
    assert any(found.startswith(name) for found in parsed)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_says_what_it_does(name: str) -> None:
    """Each option has a help text, and no command has two of one name."""
    options = [param for param in COMMANDS[name].params if isinstance(param, click.Option)]
    assert [option.opts for option in options if not option.help] == []
    names = [each for option in options for each in (*option.opts, *option.secondary_opts)]
    assert len(names) == len(set(names))


def test_an_example_that_does_not_exist_is_found_out() -> None:
    """The parser of examples refuses unknown commands and options."""
    with pytest.raises(click.UsageError):
        parse("verify-etl bakcfill sids.txt")
    with pytest.raises(click.UsageError):
        parse("verify-etl run --no-such-option")


def test_a_name_may_have_a_hyphen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module and the function of a command have `_` where its name has a hyphen."""
    module = ModuleType("etl.cli.commands.two_words")
    monkeypatch.setattr(module, "two_words", click.Command("two-words"), raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("etl.cli._COMMANDS", {"two-words": "Do nothing."})
    found = cli.get_command(click.Context(cli), "two-words")
    assert found is not None
    assert found.name == "two-words"


def test_the_exit_codes_in_the_help_are_the_real_ones() -> None:
    """The table in the help lists every exit code, in the order in which they win."""
    table = run("--help").stdout.partition("Exit codes")[2]
    assert re.findall(r"(?m)^ +(\d+)  \S", table) == [str(code.value) for code in Exit]


def test_help_and_version() -> None:
    """`-h` is `--help`, for a command too, and `--version` names program and version."""
    assert run("-h").stdout == run("--help").stdout
    assert run("run", "-h").stdout.startswith("Usage: verify-etl run")
    assert run("--version").stdout == f"verify-etl, version {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["statsu"], "Did you mean status?"),
        (["run", "--limti", "3"], "Did you mean '--limit'?"),
        (["run", "--limit", "0"], "0 is not in the range x>=1"),
        (["run", "--max-seconds", "nan"], "no number of seconds"),
        (["discover", "--since", "1d", "--max-seconds", "inf"], "no number of seconds"),
        (["run", "--limit", "many"], "'many' is not a valid integer"),
        (["-v", "-q", "run"], "-v and -q exclude each other"),
        (["status", "--json=1"], "does not take a value. Try: verify-etl status --help"),
        (["db", "current", "--json=1"], "does not take a value. Try: verify-etl db --help"),
        (["run", "extra"], "extra argument (extra)"),
        (["sandbox", "--size", "10000001"], "10000001 is not in the range"),
        (["retry"], "Say which"),
        (["retry", "--all", "--outcome", "expired"], "--all goes with neither"),
        (["retry", "--outcome", "nonsense"], "There is no outcome 'nonsense'"),
        (["prune"], "Missing option '--settled-before'"),
        (["prune", "--settled-before", "90"], "write a duration with its unit"),
        (["prune", "--settled-before", "0d"], "would mean everything"),
        (["prune", "--settled-before=-5d"], "write a duration with its unit"),
        (["prune", "--settled-before", "99999d"], "no duration may be longer"),
        (["redact", "--older-than", "soon"], "write a duration with its unit"),
        (["runs", "--limit", "0"], "0 is not in the range"),
        (["sandbox", "--fault", "nonsense"], "Invalid value for '--fault': 'nonsense'"),
        (["sandbox", "--window", "60"], "Invalid value for '--window': '60': write a duration"),
    ],
)
def test_a_slip_gets_one_line(words: list[str], said: str) -> None:
    """A usage error ends with 2 and one line on stderr that says what and where to look."""
    done = run(*words)
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert re.search(r"Try: verify-etl.* --help$", done.stderr.strip())


def test_nothing_at_all_shows_the_help() -> None:
    """Without a command the help is shown, on stderr, and the exit code is that of a slip."""
    done = run()
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert done.stderr.startswith("Usage: verify-etl")


def test_an_error_as_json_is_one_object() -> None:
    """With `--log-format json` an error is one object on one line with the documented fields."""
    done = run("--log-format", "json", "status", DATABASE_URL="nonsense")
    said = json.loads(done.stderr)
    assert set(said) == {"level", "ts", "logger_name", "app_name", "message", "extra"}
    assert (said["level"], said["app_name"]) == ("error", "verify-etl")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said["ts"])
    assert (done.returncode, said["extra"]["exit_code"]) == (Exit.CONFIG, Exit.CONFIG)
    slip = json.loads(run("--log-format", "json", "statsu").stderr)
    assert (slip["level"], slip["extra"]) == ("error", {"exit_code": Exit.USAGE})


def test_each_message_as_json_is_one_object(tmp_path: Path) -> None:
    """With `--log-format json` what is said of success is an object a line, too; `-q` ends it."""
    bad = tmp_path / "sids.txt"
    bad.write_text("x\n", encoding="utf-8")
    page = str(tmp_path / "page.html")
    said = {}
    for words in (
        ["db", "upgrade"], ["db", "check"], ["db", "rollups"], ["runs"],
        ["backfill", "--skip-bad", str(bad)], ["prune", "--settled-before", "1d"],
        ["redact", "--older-than", "1d"], ["report", "html", "-o", page, "--as-of", "3h"],
    ):  # fmt: skip
        env = {"DATABASE_URL": f"sqlite:///{tmp_path}/q.db"}
        done = run("--log-format", "json", *words, **env)
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        said[words[0]] = [(line["level"], line["message"]) for line in lines]
        assert (done.returncode, bool(lines)) == (0, True), words
        quiet = run("-q", *words, **env).stderr
        assert quiet == "".join(f"{m}\n" for level, m in said[words[0]] if level == "error")
    assert said["backfill"] == [
        ("error", f"{bad}, line 1: 'x' is not VL and 32 hex digits"),
        ("info", "1 line: 0 SIDs enqueued, 0 queued already, 1 bad line left out."),
    ]
    assert ("info", "Nothing was known then.") in said["report"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the settings are not usable", "The settings are not usable."),
        ("standard input is damaged.", "Standard input is damaged."),
        ("no such file?", "No such file?"),
        ("attempt_queue has rows", "attempt_queue has rows."),
        ("attempts was exported", "attempts was exported."),
        ("no/such/x.db is damaged", "no/such/x.db is damaged."),
        ("the.csv is damaged", "the.csv is damaged."),
    ],
)
def test_a_sentence_begins_with_a_capital_letter_or_a_name(text: str, said: str) -> None:
    """Words begin with a capital letter at the beginning of a sentence, names stay as they are."""
    assert sentence(text) == said


def test_the_sandbox_says_what_it_cannot_use(tmp_path: Path) -> None:
    """A port that is taken and a file that cannot be written are the system's, no bug."""
    with Sandbox(World(size=0)) as box:
        port = box.url.rpartition(":")[2]
        taken = run("sandbox", "--size", "0", "--port", port)
    assert (taken.returncode, taken.stdout) == (Exit.IO, "")
    assert taken.stderr.startswith(f"Port {port} cannot be used: Address already in use. Choose")
    missing = f"{tmp_path}/no/sids.txt"
    refused = run("sandbox", "--size", "0", "--sids", missing)
    assert refused.returncode == Exit.IO
    assert refused.stderr.startswith(f"{missing} cannot be written: No such file or directory.")


def test_the_traceback_is_for_those_who_ask(tmp_path: Path) -> None:
    """Only `-v` shows a traceback, with its causes and without the secrets in it."""
    url = f"sqlite:///{tmp_path}/absent/q.db"
    short = run("status", DATABASE_URL=url)
    assert short.returncode == Exit.IO
    assert "Traceback" not in short.stderr
    long = run("-v", "status", DATABASE_URL=url)
    assert "Traceback" in long.stderr
    assert "sqlite3.OperationalError" in long.stderr
    assert short.stderr in long.stderr
    record = json.loads(
        run("-v", "--log-format", "json", "status", DATABASE_URL=url).stderr.splitlines()[0]
    )
    assert "Traceback" in record["exception"]


def test_no_secret_is_said(tmp_path: Path) -> None:
    """A secret that turns up in an error's text is blotted out, tracebacks included."""
    secret = "correct-horse-battery"
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/{secret}/q.db", "TWILIO_AUTH_TOKEN": secret}
    for form in ("text", "json"):
        done = run("-v", "--log-format", form, "-c", f"{tmp_path}/{secret}.toml", "status", **env)
        assert done.returncode == Exit.CONFIG
        assert "***.toml" in done.stderr
        assert secret not in done.stderr + done.stdout
    url = f"postgresql://somebody:{secret}@127.0.0.1:9/none?connect_timeout=1"
    done = run("-v", "doctor", "--offline", DATABASE_URL=url)
    assert "127.0.0.1" in done.stdout
    assert secret not in done.stderr + done.stdout


@pytest.mark.parametrize("name", [name for name in COMMANDS if name])
def test_what_programs_read_is_documented(name: str) -> None:
    """Each command that prints JSON has its keys in docs/cli.md."""
    json_option = any("--json" in param.opts for param in COMMANDS[name].params)
    # A report's keys are its columns, in docs/reports.md.
    is_report = find(name.removeprefix("report ")) is not None
    assert json_option == (is_report or name in documented())


def documented() -> dict[str, set[str]]:
    """Return the keys that docs/cli.md lists for each command."""
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    found: dict[str, set[str]] = {}
    for name, body in re.findall(r"(?ms)^## ([a-z -]+) --json$(.*?)(?=^## |\Z)", text):
        same = re.search(r"^The keys of `([a-z -]+) --json`", body, re.MULTILINE)
        first = re.findall(r"(?m)^\| (`[^|]+`) \|", body)
        keys = {key for cell in first for key in re.findall(r"`([a-z_]+)`", cell)}
        found[name] = found[same[1]] if same else keys
    return found


def test_the_documented_keys_are_the_real_ones(tmp_path: Path) -> None:
    """What each command prints as JSON has exactly the keys of docs/cli.md."""
    world = World(size=3)
    url = f"sqlite:///{tmp_path}/q.db"
    lines = tmp_path / "sids.txt"
    lines.write_text("\n".join(world.sids()), encoding="utf-8")
    keys = documented()
    asked = {
        "backfill": ["backfill", str(lines)], "plan": ["plan"], "run": ["run"],
        "discover": ["discover"], "status": ["status"], "runs": ["runs"], "doctor": ["doctor"],
        "retry": ["retry", "--all"], "prune": ["prune", "--settled-before", "90d"],
        "redact": ["redact", "--older-than", "30d"], "db current": ["db", "current"],
        "db check": ["db", "check"], "reconcile": ["reconcile", "--since", "2d"],
        "export": ["export", "-o", str(tmp_path / "export")], "report": ["report"],
        "check": ["check"], "config show": ["config", "show"],
        "report fees": ["report", "fees", str(ROOT / "config" / "fees.example.toml")],
        "report html": ["report", "html", "-o", str(tmp_path / "page.html")],
    }  # fmt: skip
    assert set(asked) == set(keys)
    with Sandbox(world, limit=0) as box:
        env = environment(box, url)
        assert verify_etl("db", "upgrade", env=env).returncode == 0
        for name, words in asked.items():
            done = verify_etl(*words, "--json", env=env)
            assert done.returncode == 0, done.stderr
            assert printed_keys(done.stdout) == keys[name], name


def printed_keys(text: str) -> set[str]:
    """Return the keys of a printed object, or of the first of an array."""
    printed: Any = json.loads(text)
    return set(printed[0] if isinstance(printed, list) else printed)


def test_quiet_says_nothing_when_all_is_well(tmp_path: Path) -> None:
    """With `-q` a run that works, and what prepares it, prints nothing at all."""
    world = World(size=3)
    with Sandbox(world, limit=0) as box:
        env = environment(box, f"sqlite:///{tmp_path}/q.db")
        for words in (["db", "upgrade"], ["run"]):
            done = verify_etl("-q", *words, env=env)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``verify-etl`` without any settings but these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TWILIO_", "VERIFY_ETL_"))}
    return command(*words, env=kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"} | environ)
