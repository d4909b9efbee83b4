"""Check that what messages point to is there for everyone."""

import ast
import re

import click
import pytest

from etl.cli.commands.config import EXAMPLES
from etl.errors import Exit
from tests.support.harness import ROOT, command

TOPICS = sorted(file.stem for file in (ROOT / "docs").glob("*.md"))


def texts() -> list[tuple[str, str]]:
    """Return the program's texts, with their files; of docstrings only those that are help."""
    found = []
    for path in sorted((ROOT / "etl").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        help_is_here = path.is_relative_to(ROOT / "etl" / "cli" / "commands")
        shown = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and isinstance(node.body[0], ast.Expr)
            and not (help_is_here and isinstance(node, ast.FunctionDef))
        }
        found += [
            (path.name, node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            if id(node) not in shown
        ]
    return found


def test_no_message_points_to_a_file_of_the_sources() -> None:
    """Who has the wheel has neither the folders of the sources nor a package of our name."""
    pattern = re.compile(r"(?<![\w./])(docs|config)/\w|verify-attempts-etl\[")
    found = [(name, text) for name, text in texts() if pattern.search(text)]
    assert found == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_the_file_in_the_sources(name: str) -> None:
    """`config example` prints each file of config/ as it is."""
    done = command("config", "example", name, env={})
    held = (ROOT / "config" / f"{EXAMPLES[name]}.toml").read_text(encoding="utf-8")
    assert (done.returncode, done.stdout) == (0, held)


def test_each_file_of_settings_is_an_example() -> None:
    """No file in config/ is forgotten, and the first is the one without a name."""
    assert sorted(EXAMPLES.values()) == sorted(
        file.stem for file in (ROOT / "config").glob("*.toml")
    )
    assert (
        command("config", "example", env={}).stdout
        == command("config", "example", "settings", env={}).stdout
    )


def test_the_topics_are_listed_and_printed() -> None:
    """`help` lists each file of docs/ with its title, `help TOPIC` prints it."""
    listed = command("help", env={"COLUMNS": "80"}).stdout
    assert [line.split()[0] for line in listed.splitlines()] == TOPICS
    for topic in TOPICS:
        held = (ROOT / "docs" / f"{topic}.md").read_text(encoding="utf-8")
        assert command("help", topic, env={}).stdout == held
        assert click.unstyle(held).splitlines()[0].removeprefix("# ") in listed


def test_an_unknown_topic_names_those_there_are() -> None:
    """A slip in the topic is a usage error, which lists the topics."""
    done = command("help", "nonsense", env={})
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert done.stderr == (
        f"There is no topic 'nonsense'. There are: {', '.join(TOPICS)}. "
        "Try: verify-etl help --help\n"
    )
