"""Say how far the tests are and how long they will take, from how long each took the last time."""

import sys
import time
from collections.abc import Sequence
from typing import Final

import pytest

EVERY_S: Final = 20.0
"""So often a line is written where there is no terminal."""

_CACHE: Final = "verify-etl/seconds"


def pytest_configure(config: pytest.Config) -> None:
    """Take the place of the dots where several processes run the tests."""
    if config.getoption("numprocesses", None) and config.get_verbosity() == 0:
        config.pluginmanager.register(Progress(config), "progress")


class Progress:
    """Count tests as they end, and weigh those that are left by what they took before."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._terminal = sys.stdout.isatty()
        self._cache: pytest.Cache | None = getattr(config, "cache", None)
        self._known: dict[str, float] = self._cache.get(_CACHE, {}) if self._cache else {}
        self._mean = sum(self._known.values()) / len(self._known) if self._known else 0.5
        self._took: dict[str, float] = {}
        self._waiting: set[str] = set()
        self._total = self._failed = 0
        self._all = self._foreseen = 0.0
        self._began = self._written = time.monotonic()  # noqa: TID251 - time is what is told

    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Say once what is to be run: every process has found the same."""
        if self._total:
            return
        self._waiting = set(ids)
        self._total = len(ids)
        self._began = time.monotonic()  # noqa: TID251 - as below
        self._all = self._left()
        self._foreseen = self._all / max(len(self._config.getoption("tx")), 1)
        known = f"about {_words(self._foreseen)}" if self._known else "no earlier run says how long"
        self._write(f"{self._total:,} tests, {known}", stays=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Write no letter for a test: a line says how many there were, and which failed."""
        if report.failed:
            kind = "failed" if report.when == "call" else "error"
            return kind, "", kind.upper()
        return ("passed", "", "") if report.when == "call" and report.passed else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add what a test took, and name one that fails as it does."""
        self._took[report.nodeid] = self._took.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self._failed += 1
            self._write(f"FAILED {report.nodeid}", stays=True)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Say how far it is: all the time on a terminal, elsewhere now and then."""
        self._waiting.discard(nodeid)
        now = time.monotonic()  # noqa: TID251 - as above
        if self._terminal or now - self._written >= EVERY_S:
            self._written = now
            self._write(self._line(now - self._began), stays=not self._terminal)

    def _line(self, seconds: float) -> str:
        done = self._total - len(self._waiting)
        past = self._all - self._left()
        # A twentieth of what was foreseen counts as seen: the first tests alone say little.
        rate = (seconds + self._foreseen / 20) / max(past + self._all / 20, 0.001)
        failed = f", {self._failed} failed" if self._failed else ""
        return (
            f"{done:,} of {self._total:,} tests ({100 * done // max(self._total, 1)} %){failed}"
            f" in {_words(seconds)}, about {_words(rate * self._left())} left"
        )

    def _left(self) -> float:
        return sum(self._known.get(name, self._mean) for name in self._waiting)

    def _write(self, line: str, *, stays: bool) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None:
            return
        if not self._terminal:
            reporter.ensure_newline()
            reporter.write_line(line)
            return
        reporter.rewrite(line, erase=True)
        if stays:
            reporter.write("\n")

    def pytest_sessionfinish(self) -> None:
        """Keep what each test took for the next time."""
        if self._terminal:
            self._write("", stays=False)
        if self._cache:
            self._cache.set(_CACHE, self._known | self._took)


def _words(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
