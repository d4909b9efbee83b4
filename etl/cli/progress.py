"""Show a person how a run goes: rows, rate, time left, and what it waits for.

One line on stderr is drawn over itself with carriage return and blanks. No other control character
is used, so it works on any terminal. What does not fit is left out, the least important first.
"""

import math
import shutil
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Self

from sqlalchemy import Engine

from etl.allowance.slots import accounts_of
from etl.cli.messages import Handler
from etl.database.engine import READ_ONLY
from etl.database.times import clock
from etl.job.counts import Counts
from etl.job.tools import Job

DRAW_EVERY_S = 0.1
RATE_OVER_S = 60.0
_BAR_AT_MOST = 30


class ProgressLine:
    """Draw a line on stderr while a person watches; do nothing otherwise."""

    def __init__(self, engine: Engine, job: Job, *, shown: bool) -> None:
        self._engine = engine
        self._job = job
        self._shown = shown
        self._total: int | None = None
        self._drawn = 0
        self._drawn_at = -math.inf
        self._requests: deque[tuple[float, int]] = deque()

    def __enter__(self) -> Self:
        if self._shown:
            # In a thread: the run does not wait for a count of a million rows.
            threading.Thread(target=self._count, name="count", daemon=True).start()
            Handler.clear = self._clear
        return self

    def __exit__(self, *_error: object) -> None:
        if self._shown:
            self._clear()
            Handler.clear = None

    def __call__(self, counts: Counts) -> None:
        """Draw how far the run is; called many times a second, drawn a few."""
        now = time.monotonic()
        if not self._shown or now - self._drawn_at < DRAW_EVERY_S:
            return
        self._drawn_at = now
        # A line that fills the last column would break on some terminals.
        columns = max(shutil.get_terminal_size().columns - 1, 1)
        self._write(self._line(counts, now, columns))

    def _line(self, counts: Counts, now: float, columns: int) -> str:
        done, total = counts.finished, self._total
        if not total or done > total:
            # Nothing waited, or more came in meanwhile: nobody knows how much is left.
            total = None
        per_minute = self._per_minute(counts, now)
        so_far = f"{done:,}" if total is None else f"{done:,}/{total:,}"
        waits = f"waits for {counts.waiting_for}" if counts.waiting_for else ""
        left = None if total is None else self._left(total - done, now - counts.started, done)
        time_left = "" if left is None else f"{clock_of(left)} left"
        rate = f"{per_minute:,.0f} requests/min"
        room = columns - len(so_far)
        kept = []
        # The most important first: what does not fit is left out.
        for part in (time_left, waits, rate):
            if part and len(part) + 2 <= room:
                kept.append(part)
                room -= len(part) + 2
        # As a person reads it: how far, how fast, how long, and why.
        line = "  ".join([so_far] + [part for part in (rate, time_left, waits) if part in kept])
        size = min(_BAR_AT_MOST, room - 2)
        if total is not None and size >= 5:  # noqa: PLR2004 - a shorter bar shows nothing
            line = f"{_bar(done, total, size)}  {line}"
        return line[:columns]

    def _per_minute(self, counts: Counts, now: float) -> float:
        """Return the requests of the last minute, or the rate so far without an allowance."""
        if not self._requests or now - self._requests[-1][0] >= 1:
            self._requests.append((now, counts.requests))
        while len(self._requests) > 1 and self._requests[1][0] <= now - RATE_OVER_S:
            self._requests.popleft()
        since, before = self._requests[0]
        if self._job.allowance.requests or now - since >= RATE_OVER_S:
            return counts.requests - before
        return counts.rate() * 60

    def _left(self, rows: int, elapsed: float, done: int) -> float:
        """Return the seconds left, by the allowance.

        Go by the speed so far without one, or where list pages bring many rows a request.
        """
        so_far = rows * elapsed / done if done else 0.0
        allowance = self._job.allowance
        if not allowance.requests or rows <= 0:
            return so_far
        window = allowance.window_ms / 1000
        started = (rows + done - 1) // allowance.requests * window - elapsed
        by_allowance = max(started, (rows - 1) // allowance.requests * window)
        fast = done > allowance.requests * (1 + elapsed / window)
        return so_far if fast else by_allowance

    def _count(self) -> None:
        from etl.queue.status import count_work

        # A count that fails costs the bar only.
        with suppress(Exception), self._engine.connect() as connection:
            reading = connection.execution_options(**READ_ONLY)
            accounts = accounts_of(self._job.account)
            total = count_work(reading, accounts, clock(reading))
            if self._job.limit is not None:
                total = min(total, self._job.limit)
            self._total = total

    def _clear(self) -> None:
        self._write("")

    def _write(self, line: str) -> None:
        blanks = " " * (self._drawn - len(line))
        end = "\r" if not line else ""
        with suppress(OSError, ValueError):
            if line or self._drawn:
                sys.stderr.write(f"\r{line}{blanks}{end}")
                sys.stderr.flush()
        self._drawn = len(line)


def _bar(done: int, total: int, size: int) -> str:
    full = size * done // total
    encoding = (getattr(sys.stderr, "encoding", "") or "").lower()
    on, off = ("\u2501", "\u2500") if "utf" in encoding else ("#", "-")
    return on * full + off * (size - full)


def clock_of(seconds: float) -> str:
    """Write seconds as 0:42, 1:28:00 or 3 d 04:00."""
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour:02}:{minute:02}"
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
