"""Hold the sources to the house rules that no other tool checks."""

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
CODE = sorted(
    path
    for folder in ("etl", "migrations", "tests", "bench")
    for path in (ROOT / folder).rglob("*.py")
)
# Texts of other people are left as they are.
TEXTS = sorted(
    path
    for path in (*CODE, *ROOT.glob("*.*"), *ROOT.glob("Makefile"), *ROOT.glob(".ci/*"))
    if path.is_file()
) + sorted(
    path for folder in ("docs", "config", "constraints") for path in (ROOT / folder).rglob("*.*")
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = {
    canonicalize_name(name): version
    for name, _, version in (
        line.partition("==")
        for line in (ROOT / "constraints" / "dev.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
}
# Installed only with an extra that is too large for development.
ABSENT = {"pyarrow"}


def name_of(path: Path) -> str:
    """Name a file as seen from the root."""
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield each function of a file, those of classes and functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_files_are_short() -> None:
    """No file is longer than 400 lines."""
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in CODE}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_functions_are_short() -> None:
    """No function is longer than 60 lines, docstring included."""
    found = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path in CODE
        for node in functions(path)
        if (node.end_lineno or 0) - node.lineno >= 60
    ]
    assert found == []


def test_every_exemption_has_a_reason() -> None:
    """A `noqa` and a `type: ignore` name their rule, and a `noqa` says why."""
    found = [
        f"{name_of(path)}:{number}"
        for path in CODE
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if ("# noqa" in line and not re.search(r"# noqa: [A-Z]+\d+(, ?[A-Z]+\d+)* - \S", line))
        or ("# type: ignore" in line and "# type: ignore[" not in line)
    ]
    assert found == []


def test_every_test_has_a_sentence() -> None:
    """Each test's docstring is one sentence."""
    found = []
    for path in (path for path in CODE if path.name.startswith("test_")):
        for node in functions(path):
            doc = ast.get_docstring(node) or ""
            sentence = doc.replace("\n", " ")
            if node.name.startswith("test_") and not sentence.endswith("."):
                found.append(f"{name_of(path)}:{node.lineno} {node.name}")
    assert found == []


def test_tests_share_through_support_alone() -> None:
    """No file imports a file of tests or of fixtures: what is shared stands in tests/support."""
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and re.match(r"tests(\.\w+)*\.(test_\w+|conftest)$", node.module or "")
    ]
    assert found == []


def test_measurements_and_tests_stand_alone() -> None:
    """No file of bench imports the tests, and no test imports a file of bench."""
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and {path.relative_to(ROOT).parts[0], (node.module or "").partition(".")[0]}
        == {"bench", "tests"}
    ]
    assert found == []


def fixtures(path: Path) -> dict[str, str]:
    """Name the fixtures that a file defines, with what they give."""
    return {
        node.name: re.sub(r"Iterator\[(.*)\]", r"\1", ast.unparse(node.returns or node))
        for node in functions(path)
        if any("pytest.fixture" in ast.unparse(each) for each in node.decorator_list)
    }


def test_a_fixture_means_one_thing() -> None:
    """What a folder's conftest.py gives, no file in or below that folder calls something else."""
    found = [
        f"{name_of(path)}: {name}"
        for shared in CODE
        if shared.name == "conftest.py"
        for path in CODE
        if path != shared and path.is_relative_to(shared.parent)
        for name in fixtures(shared).keys() & fixtures(path).keys()
    ]
    assert found == []


def test_fixtures_of_one_name_give_one_type() -> None:
    """A fixture's name stands for the same type in every file."""
    types: dict[str, set[str]] = {}
    for path in CODE:
        for name, given in fixtures(path).items():
            types.setdefault(name, set()).add(given)
    assert {name: found for name, found in types.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    "word",
    # Written apart, so that this file does not hold them.
    "pypi·org pythonhosted·org /ro|ot/ /ho|me/ /wo|rk/ /Us|ers/ TO|DO FIX|ME XX|X".split(),  # noqa: SIM905 - nine words
)
def test_unwanted_words(word: str) -> None:
    """No file names a package registry's host or a folder of one machine, or is left unfinished."""
    word = word.replace("·", ".").replace("|", "")
    pattern = re.compile(rf"(?<![\w.:]){re.escape(word)}")
    found = [name_of(path) for path in TEXTS if pattern.search(path.read_text(encoding="utf-8"))]
    assert found == []


def asked_by_name(node: ast.AST) -> list[ast.expr]:
    """Give what is compared, matched or looked up by."""
    if isinstance(node, ast.Compare):
        return [node.left, *node.comparators]
    if isinstance(node, ast.Match):
        return [node.subject]
    if isinstance(node, ast.Dict):
        return [key for key in node.keys if key is not None]
    return [node.slice] if isinstance(node, ast.Subscript) else []


def test_databases_differ_in_one_room() -> None:
    """Outside `etl/database` no module asks which database it has: the dialect says what it can."""
    name = re.compile(r"\bdialect(\(\w+\))?\.name|backend_name|'(sqlite|postgresql|mysql|mariadb)'")
    found = [
        f"{name_of(path)}:{each.lineno}"
        for path in CODE
        if path.is_relative_to(ROOT / "etl") and not path.is_relative_to(ROOT / "etl" / "database")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for each in asked_by_name(node)
        if name.search(ast.unparse(each))
    ]
    assert found == []


def test_errors_are_raised() -> None:
    """Each error of the tree that has no kinds below it is raised somewhere in the program."""
    tree = ast.parse((ROOT / "etl" / "errors.py").read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    bases = {base.id for node in classes for base in node.bases if isinstance(base, ast.Name)}
    leaves = {node.name for node in classes} - bases - {"Exit"}
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "etl").rglob("*.py")
        if path.name != "errors.py"
    )
    assert {name for name in leaves if not re.search(rf"\b{name}\(", sources)} == set()


def test_development_is_pinned() -> None:
    """The dev group is pinned exactly, to what the constraints say."""
    group = PROJECT["dependency-groups"]["dev"]
    pinned = {canonicalize_name(Requirement(line).name): line.partition("==")[2] for line in group}
    assert pinned == {name: PINS.get(name) for name in pinned}


def test_the_closure_is_pinned() -> None:
    """Everything the project needs, and what that needs, is pinned to what is installed."""
    extras = PROJECT["project"]["optional-dependencies"]
    waiting = [
        Requirement(line)
        for line in (
            *PROJECT["project"]["dependencies"],
            *(line for name, lines in extras.items() if name != "all" for line in lines),
            *PROJECT["dependency-groups"]["dev"],
        )
    ]
    seen: dict[str, str] = {}
    wrong = []
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in ABSENT or (name in seen and not requirement.extras):
            continue
        seen[name] = metadata.version(name)
        if PINS.get(name) != seen[name] or not requirement.specifier.contains(seen[name]):
            wrong.append(f"{requirement}: installed {seen[name]}, pinned {PINS.get(name)}")
        waiting += needed_by(name, requirement.extras)
    assert wrong == []


def needed_by(name: str, extras: set[str]) -> Iterator[Requirement]:
    """Yield what an installed distribution requires here, with these extras."""
    for line in metadata.requires(name) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement
