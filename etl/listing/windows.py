"""Lease windows of creation times, one at a time."""

import time
from typing import Any, Final

from sqlalchemy import Connection

from etl.database.transact import transact
from etl.job.stop import Interrupted
from etl.job.tools import Tools
from etl.queue import windows
from etl.queue.windows import Listing

WAIT_S: Final = 2.0

RENEW_S: Final = windows.LEASE_MS / 4_000
"""A lease that is this old is renewed before a request and during a pause."""


class WindowLost(Exception):
    """Leave a window to the worker that took it over; its pages are as good."""


class WindowLease:
    """Begin, keep and end the lease of a window."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._held: Listing | None = None
        self._held_since = 0.0

    def begin(
        self, purpose: str, start: int, end: int, scope: str = "", *, page_size: int
    ) -> Listing | None:
        """Lease a new window of creation times (ms, half open); None: another worker lists of it."""

        def work(connection: Connection) -> Listing | None:
            return windows.begin(
                connection, purpose=purpose, start=start, end=end, scope=scope,
                page_size=page_size, **self._mine(connection),
            )  # fmt: skip

        return transact(self._tools.engine, work, doing="starting a window")

    def resume(self, purpose: str, scope: str | None = None) -> Listing | None:
        """Take over a window whose worker is gone, if there is one."""

        def work(connection: Connection) -> Listing | None:
            mine = self._mine(connection)
            return windows.resume(connection, purpose=purpose, scope=scope, **mine)

        return transact(self._tools.engine, work, doing="resuming a window")

    def _mine(self, connection: Connection) -> dict[str, Any]:
        tools = self._tools
        return {"account": tools.account, "worker": tools.worker, "now": tools.clock(connection)}

    def hold(self, listing: Listing | None) -> None:
        """Keep this window's lease from now on, as it was just written; None: no lease."""
        self._held, self._held_since = listing, time.monotonic()

    def keep(self) -> None:
        """Renew an old lease; raise ``WindowLost`` if another worker has it."""
        listing = self._held
        if listing is None or time.monotonic() - self._held_since < RENEW_S:
            return

        def work(connection: Connection) -> None:
            self.advance(connection, listing, now=self._tools.clock(connection))

        transact(self._tools.engine, work, doing="keeping a window")
        self._held_since = time.monotonic()

    def advance(self, connection: Connection, listing: Listing, *, now: int) -> None:
        """Write how far a window has come; raise ``WindowLost`` if another worker has it."""
        if not windows.advance(connection, listing, now=now):
            raise WindowLost

    def end(self, listing: Listing, state: str) -> None:
        """Close a window as done or abandoned."""

        def work(connection: Connection) -> None:
            windows.end(connection, listing, state, now=self._tools.clock(connection))

        transact(self._tools.engine, work, doing="closing a window")

    def let_go(self, connection: Connection, listing: Listing) -> None:
        """Give the lease up: the next run goes on where this one stopped."""
        windows.let_go(connection, listing, now=self._tools.clock(connection))

    def wait_for_others(self, scope: str) -> None:
        """Wait until no other worker lists this scope: nobody asks for its pages twice.

        Raises ``Interrupted`` when the run shall end.
        """
        tools = self._tools

        def busy(connection: Connection) -> bool:
            now = tools.clock(connection)
            return bool(windows.live(connection, account=tools.account, now=now, scope=scope))

        while transact(tools.engine, busy, doing="looking for other workers"):
            tools.counts.waiting_for = "another worker's sweep"
            tools.watch(tools.counts)
            tools.stop.sleep(WAIT_S)
            if tools.stop.is_set():
                raise Interrupted
        tools.counts.waiting_for = ""
