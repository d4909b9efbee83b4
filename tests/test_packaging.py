"""Test what is shipped, as shipped: build it, install it without development's help, run it."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from etl.database import schema
from etl.migrate.upgrade import head

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.long
SOURCES = (
    "etl", "migrations", "pyproject.toml", "README.md", "LICENSE", "tests", "config",
    "constraints", "bench", "docs", "Makefile", "CHANGELOG.md", "CONTRIBUTING.md",
)  # fmt: skip


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    """Run a command with nothing of this environment but what it needs, and return its output."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "HOME", "LANG", "TMPDIR"} or name.startswith(("PIP_", "SSL_"))
    }
    ran = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=kept | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the sources to a path with a space."""
    root = tmp_path_factory.mktemp("sources") / "a copy"
    root.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        else:
            shutil.copyfile(ROOT / name, root / name)
    return root


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and from the sdist the wheel."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, cwd=tree)
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel, with what it asks for and nothing else, and return its Python."""
    home = tmp_path_factory.mktemp("installed") / "env"
    run(sys.executable, "-m", "venv", home, cwd=built)
    python = home / "bin" / "python"
    pins = ROOT / "constraints" / "dev.txt"
    (wheel,) = built.glob("*.whl")
    run(python, "-m", "pip", "install", "--quiet", "-c", pins, wheel, cwd=built)
    return python


def tables(path: Path) -> set[str]:
    """Name the tables in an SQLite file."""
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in found if not name.startswith("sqlite_")}
    finally:
        connection.close()


def test_contents(built: Path) -> None:
    """The wheel holds the package, its scripts and its licence; the sdist what the tests read."""
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    scripts = {path.relative_to(ROOT) for path in (ROOT / "migrations").rglob("*.*")}
    expected = {f"etl/{path}" for path in scripts if "__pycache__" not in path.parts}
    texts = {f"etl/{path.relative_to(ROOT)}" for path in (ROOT / "docs").glob("*.md")}
    texts |= {f"etl/{path.relative_to(ROOT)}" for path in (ROOT / "config").glob("*.toml")}
    assert expected | texts | {"etl/py.typed", "etl/cli/commands/db.py"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"etl"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {"/".join(name.split("/")[1:]) for name in archive.getnames()}
    assert {"tests/conftest.py", "config/example.toml", "constraints/dev.txt", "Makefile"} <= packed


def test_the_wheel_runs_anywhere(installed: Path, tmp_path: Path) -> None:
    """Installed without development's packages, from another folder, the command builds tables."""
    path = tmp_path / "fresh.db"
    url = f"sqlite:///{path}"
    command = installed.parent / "verify-etl"
    run(command, "db", "upgrade", cwd=Path("/"), DATABASE_URL=url)
    assert tables(path) == {schema.VERSION_TABLE, *schema.metadata.tables}
    shown = run(command, "db", "current", cwd=Path("/"), DATABASE_URL=url)
    assert shown == f"{schema.REVISION}\n"
    run(installed, "-m", "etl", "db", "check", cwd=Path("/"), DATABASE_URL=url)
    example = run(command, "config", "example", cwd=Path("/"))
    assert example == (ROOT / "config" / "example.toml").read_text(encoding="utf-8")
    reports = run(command, "help", "reports", cwd=Path("/"))
    assert reports == (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")


def test_the_wheel_needs_no_development_package(installed: Path) -> None:
    """Each command's help works on the runtime dependencies alone."""
    listed = run(installed, "-m", "etl", "--help", cwd=Path("/"))
    rows = listed.partition("Commands:")[2].partition("Exit codes")[0]
    commands = re.findall(r"(?m)^  ([a-z]+) ", rows)
    assert "db" in commands
    for command in commands:
        assert "Usage:" in run(installed, "-m", "etl", command, "--help", cwd=Path("/"))


def test_a_missing_driver_is_said(installed: Path, tmp_path: Path) -> None:
    """Without the extra, a PostgreSQL address says what to install."""
    ran = subprocess.run(
        [str(installed), "-m", "etl", "db", "current"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": "postgresql://somebody:secret@host/db"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (78, "")
    assert "pip install 'psycopg[binary]'" in ran.stderr
    assert "secret" not in ran.stderr


def test_an_editable_install_finds_the_scripts(tree: Path, tmp_path: Path) -> None:
    """An editable install runs the scripts of the checkout, from any folder."""
    run(
        sys.executable,
        "-c",
        "import sys; from hatchling.build import build_editable as b; b(sys.argv[1])",
        tmp_path,
        cwd=tree,
    )
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "env"
    venv.create(home, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = home / "lib" / version / "site-packages"
    run(sys.executable, "-m", "zipfile", "-e", wheel, site, cwd=tmp_path)
    # The dependencies are development's own: only where the scripts are found is in question.
    (site / "zz-dependencies.pth").write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")
    shown = run(
        home / "bin" / "python",
        "-c",
        "from etl.migrate.upgrade import head, script_location; print(script_location()); print(head())",
        cwd=Path("/"),
    )
    assert shown.splitlines() == [str(tree / "migrations"), head()]
