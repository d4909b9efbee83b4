"""Lease the Verifications that are due, and note them as listed.

They are leased a few at a time: several workers share them. A crash costs the leases, two minutes
at most. Then a run goes on with the rest.
"""

import time
from collections.abc import Callable, Collection
from typing import Final, TypeVar

from sqlalchemy import Connection

from etl.database.transact import PATIENCE_S, check_revision, transact
from etl.final import next_look
from etl.job.tools import Tools
from etl.queue import verifications

T = TypeVar("T")

BATCH: Final = 20
"""So many are claimed at once. A crash keeps them waiting; listing them takes a second or more."""

RENEW_S: Final = verifications.LEASE_MS / 4_000
"""Leases are renewed when they are this old before a list."""

ALL: Final = 1_000_000


class DueVerifications:
    """Hold the leases of one run; ``_held`` says by SID until when."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._held: dict[str, int] = {}
        self._held_since = 0.0

    def sids(self) -> list[str]:
        """Read which Verifications are due now, and lease none."""

        def work(connection: Connection, now: int) -> list[str]:
            accounts = self._tools.accounts
            return verifications.due(connection, accounts=accounts, now=now, limit=ALL)

        return self._transact(work, doing="reading the Verifications that wait")

    def covered(self, shown: Collection[str]) -> None:
        """Note Verifications as listed that a sweep of everything has shown.

        They must have been due before it started: its pages miss what comes later. After a crash
        those that are not noted yet are listed again.
        """
        sids = sorted(shown)
        for start in range(0, len(sids), verifications.CHUNK):
            chunk = sids[start : start + verifications.CHUNK]

            def work(connection: Connection, now: int, chunk: list[str] = chunk) -> None:
                accounts, later = self._tools.accounts, self._later(now)
                verifications.cover(connection, chunk, accounts=accounts, due_at=later, now=now)

            self._transact(work, doing="noting Verifications as listed")

    def claim(self) -> list[str]:
        """Lease the next few; none: what still waits is being listed by others."""
        tried: list[dict[str, int]] = []
        since = time.monotonic()

        def work(connection: Connection, now: int) -> dict[str, int]:
            check_revision(connection)
            for lost in tried:
                # A commit whose answer was lost may have leased some that nobody would list.
                verifications.put_off(connection, lost, due_at=now)
            accounts = self._tools.accounts
            tried.append(verifications.claim(connection, accounts=accounts, now=now, limit=BATCH))
            return tried[-1]

        claimed = self._transact(work, doing="claiming Verifications")
        self._held |= claimed
        self._held_since = since
        return list(claimed)

    def keep(self, sid: str) -> bool:
        """Renew the leases when they are old; say whether this one still holds.

        One list may take longer than its lease, after a 429 for example. Another worker may claim
        the batch meanwhile. That costs one request; the rest is left to that worker.
        """
        since = time.monotonic()
        if since - self._held_since >= RENEW_S:
            until = 0

            def work(connection: Connection, now: int) -> dict[str, int]:
                nonlocal until
                until = until or now + verifications.LEASE_MS
                return verifications.put_off(connection, self._held, due_at=until)

            self._held = self._transact(work, doing="keeping Verifications")
            self._held_since = since
        return sid in self._held

    def give_back(self) -> None:
        """Make due what was not listed, behind the others."""

        def work(connection: Connection, now: int) -> None:
            verifications.put_off(connection, self._held, due_at=now)

        if self._held:
            self._transact(work, doing="giving Verifications back", patience_s=5)
            self._held = {}

    def put_off(self, failed: Collection[str]) -> None:
        """Let failures wait: the next run must not begin with them."""
        blamed = {sid: self._held[sid] for sid in failed if sid in self._held}

        def work(connection: Connection, now: int) -> None:
            verifications.put_off(connection, blamed, due_at=now + verifications.AGAIN_MS)

        if blamed:
            self._transact(work, doing="putting Verifications off")
            for sid in blamed:
                del self._held[sid]

    def listed(self, sid: str, *, found: int) -> None:
        """Note one as listed, which ends its lease."""

        def work(connection: Connection, now: int) -> None:
            due_at = None if verifications.all_final(connection, sid) else self._later(now)
            lease = self._held[sid]
            verifications.listed(connection, sid, found=found, due_at=due_at, lease=lease, now=now)

        self._transact(work, doing="noting a Verification as listed")
        del self._held[sid]

    def _later(self, now: int) -> int:
        return next_look(self._tools.policy, known_from=now, now=now)

    def _transact(
        self, work: Callable[[Connection, int], T], *, doing: str, patience_s: float = PATIENCE_S
    ) -> T:
        """Run a transaction that is given the database's clock."""
        tools = self._tools

        def timed(connection: Connection) -> T:
            return work(connection, tools.clock(connection))

        return transact(tools.engine, timed, doing=doing, patience_s=patience_s)
