"""Part the tests: what is quick on SQLite and PostgreSQL 18, the rest, and all of them.

``--part quick`` is what `make test` runs. ``--part rest`` is what that leaves: the other kinds of
database, what takes long, and full counts of what was run at a tenth. ``--part all`` is both.
Without it, every kind that is there is used, and nothing is left out.
"""

import os
from collections.abc import Generator
from typing import Final, TypeVar

import pytest

from tests.support.databases import KINDS
from tests.support.harness import SCALE

R = TypeVar("R", pytest.TestReport, pytest.CollectReport)

QUICK: Final = ("sqlite", "postgresql")
_ASKED: Final = {"database_kind": (), "server_kind": ("sqlite",)}
"""What a test asks for to run once for each kind, and the kinds that are none of these."""

TENTH: Final = 0.1
_LONG: Final = {"chromium"}
"""What takes long to start, and is not on every machine."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the part from the command line."""
    parser.addoption(
        "--part", choices=("quick", "rest", "all"), help="the tests of `make test`, the rest, all"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Stop before the first test when a server is missing that the part needs."""
    if config.getoption("part") in {"rest", "all"} and not hasattr(config, "workerinput"):
        missing = [kind.missing() for kind in KINDS]
        if any(missing):
            raise pytest.UsageError(*filter(None, missing))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the databases, so that a missing one is seen."""
    kinds = offered(config)
    absent = [f"no {kind.name}" for kind in KINDS if kind.name not in kinds]
    return [f"databases: {', '.join([*kinds, *absent])}"]


def offered(config: pytest.Config) -> list[str]:
    """Name the kinds of database that the tests may use."""
    part = config.getoption("part")
    if part is None:
        return [kind.name for kind in KINDS if kind.present()]
    return [kind.name for kind in KINDS if part != "quick" or kind.name in QUICK]


def pytest_xdist_auto_num_workers() -> int:
    """Run two tests on each core: they wait for servers as much as they compute."""
    return 2 * (os.cpu_count() or 1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run whatever asks for a database once for each kind."""
    only = metafunc.definition.get_closest_marker("kinds")
    for name, without in _ASKED.items():
        if name in metafunc.fixturenames:
            kinds = [kind for kind in offered(metafunc.config) if kind not in without]
            if only:
                kinds = [kind for kind in kinds if kind in only.args]
            metafunc.parametrize(name, kinds, scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what belongs to the other part; what takes longest comes first."""
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("soak")
    part = config.getoption("part")
    if part is None:
        return
    wanted = [item for item in items if part == "all" or _belongs(item, part)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(wanted)])
    items[:] = sorted(wanted, key=lambda item: not _is_long(item))


def _is_long(item: pytest.Item) -> bool:
    names = set(getattr(item, "fixturenames", ()))
    return item.get_closest_marker("long") is not None or not names.isdisjoint(_LONG)


def _belongs(item: pytest.Item, part: str) -> bool:
    asked = getattr(item, "callspec", None)
    kinds = {asked.params[name] for name in _ASKED if name in asked.params} if asked else set()
    quick = kinds <= set(QUICK) and not _is_long(item)
    if part == "quick":
        return quick
    # At a tenth it would be the same once more.
    return not quick or (SCALE > TENTH and item.get_closest_marker("soak") is not None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what is skipped: a test that does not run tells nothing."""
    report = yield
    return _seen(report, item.config, expected=hasattr(report, "wasxfail"))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail what is skipped as a whole, too."""
    report = yield
    return _seen(report, collector.config)


def _seen(report: R, config: pytest.Config, *, expected: bool = False) -> R:
    if report.skipped and not expected and config.getoption("part") is not None:
        report.outcome = "failed"
        report.longrepr = f"It was skipped, and every test must run: {report.longrepr}"
    return report
