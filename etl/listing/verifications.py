"""List Verifications one by one: page by ``VerificationSid`` | transform | upsert | settle.

Each is one request, or more only if it has more attempts than a page. They are leased, a few at a
time, so that several workers share them. A crash costs the request and the rest of the leases, two
minutes at most: then a run goes on with those that are still pending.
"""

import logging
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from sqlalchemy import Connection

from etl.database.transact import check_revision, transact
from etl.errors import (
    ApiContractBroken,
    ApiUnreachable,
    BadBody,
    BodyTooLarge,
    EtlError,
    NotFound,
    TransientFailure,
)
from etl.extract import Page
from etl.final import next_look
from etl.job.stop import Interrupted
from etl.listing.endless import Bound, no_end
from etl.listing.pages import Lister
from etl.listing.requests import TRIES
from etl.queue import verifications

BATCH: Final = 20
"""So many are claimed at once: what a crash keeps waiting, and a second or more of lists."""

RENEW_S: Final = verifications.LEASE_MS / 4_000
"""Leases are renewed when they are this old before a list."""

ALL: Final = 1_000_000
REFUSALS: Final = 3
"""After so many lists that fail in a row a page tells whether the API is to blame."""

MOST_ATTEMPTS: Final = 100
"""Twilio sends a Verification's code five times; whoever still has pages after so many has no end."""

Deaf = ApiUnreachable | ApiContractBroken
_UNLISTED: Final = (TransientFailure, BadBody, BodyTooLarge, NotFound, ApiContractBroken)

_log = logging.getLogger(__name__)


class Verifications:
    """List the Verifications that are due."""

    def __init__(self, lister: Lister) -> None:
        self._lister = lister
        self._tools = lister.tools
        self._heard = False
        # By SID until when, and since when (monotonic).
        self._held: dict[str, int] = {}
        self._held_since = 0.0

    def due(self) -> list[str]:
        """Read which Verifications are due now, and lease none."""

        def work(connection: Connection) -> list[str]:
            now = self._tools.clock(connection)
            accounts = self._tools.accounts
            return verifications.due(connection, accounts=accounts, now=now, limit=ALL)

        return transact(self._tools.engine, work, doing="reading the Verifications that wait")

    def covered(self, shown: Collection[str]) -> None:
        """Note Verifications as listed that a sweep of everything has shown.

        They must have been due before it started: its pages pass by what comes later. A crash
        costs a list each of those that are not noted yet.
        """
        sids = sorted(shown)
        for start in range(0, len(sids), verifications.CHUNK):
            self._cover(sids[start : start + verifications.CHUNK])

    def _cover(self, sids: Sequence[str]) -> None:
        def work(connection: Connection) -> None:
            now = self._tools.clock(connection)
            accounts, later = self._tools.accounts, self._later(now)
            verifications.cover(connection, sids, accounts=accounts, due_at=later, now=now)

        transact(self._tools.engine, work, doing="noting Verifications as listed")

    def _later(self, now: int) -> int:
        return next_look(self._tools.policy, known_from=now, now=now)

    def run(self) -> Deaf | None:
        """List until none is due but others'; return what is wrong when lists do not work.

        None at all does, or one has no end. It is not raised, for SIDs can be fetched nevertheless.
        Raises ``Interrupted`` when the run shall end. Whatever ends it, what was claimed and could
        not be listed is given back.
        """
        try:
            return self._list_all()
        finally:
            # If that fails, too, the leases run out by themselves.
            with suppress(Exception):
                self._give_back()

    def _list_all(self) -> Deaf | None:
        failed: dict[str, EtlError] = {}
        in_a_row = 0
        while claimed := self._claim():
            for sid in claimed:
                # A lease of one that has failed may have run out, and another's be ours again.
                if sid in failed or not self._keep(sid):
                    continue
                error = self._failure(sid, tries=1 if in_a_row else TRIES)
                if error is None:
                    in_a_row = 0
                else:
                    failed[sid] = error
                    # A list without end says nothing of the others.
                    in_a_row += not isinstance(error, ApiContractBroken)
                # They may be their own fault, and must not keep the others waiting.
                if in_a_row >= REFUSALS:
                    if error is not None and not self._lists_work():
                        return self._given_up(error)
                    in_a_row = 0
                if not in_a_row:
                    self._put_off(failed)
        if in_a_row and self._lists_work():
            self._put_off(failed)
        return self._given_up(*failed.values()) if failed else None

    def _failure(self, sid: str, *, tries: int) -> EtlError | None:
        """List one Verification; return why it could not be."""
        try:
            self._list(sid, tries=tries)
        except _UNLISTED as error:
            return error
        return None

    def _lists_work(self) -> bool:
        """Say whether the API is not to blame: a page that depends on no Verification can be read."""
        first = partial(self._tools.api.page, page_size=1, after=None, before=None)
        with suppress(*_UNLISTED):
            self._lister.ask(first, tries=1)
            self._heard = True
            return True
        return False

    # ---- leases

    def _claim(self) -> list[str]:
        """Lease the next few; none: what still waits is being listed by others."""
        tried: list[dict[str, int]] = []
        since = time.monotonic()

        def work(connection: Connection) -> dict[str, int]:
            check_revision(connection)
            now = self._tools.clock(connection)
            for lost in tried:
                # A commit whose answer was lost may have leased some that nobody would list.
                verifications.put_off(connection, lost, due_at=now)
            accounts = self._tools.accounts
            tried.append(verifications.claim(connection, accounts=accounts, now=now, limit=BATCH))
            return tried[-1]

        claimed = transact(self._tools.engine, work, doing="claiming Verifications")
        self._held |= claimed
        self._held_since = since
        return list(claimed)

    def _keep(self, sid: str) -> bool:
        """Renew the leases when they are old; say whether this one still holds.

        One list may take longer than its lease, after a 429 for example. Whoever claims the batch
        meanwhile lists it: that costs the one request that is under way, for the rest is left to it.
        """
        since = time.monotonic()
        if since - self._held_since >= RENEW_S:
            until = 0

            def work(connection: Connection) -> dict[str, int]:
                nonlocal until
                until = until or self._tools.clock(connection) + verifications.LEASE_MS
                return verifications.put_off(connection, self._held, due_at=until)

            self._held = transact(self._tools.engine, work, doing="keeping Verifications")
            self._held_since = since
        return sid in self._held

    def _give_back(self) -> None:
        """Make due what was not listed: behind the others, whom what fails must not keep waiting."""

        def work(connection: Connection) -> None:
            now = self._tools.clock(connection)
            verifications.put_off(connection, self._held, due_at=now)

        if self._held:
            transact(self._tools.engine, work, doing="giving Verifications back", patience_s=5)
            self._held = {}

    def _put_off(self, failed: Collection[str]) -> None:
        """Let those that alone are to blame wait, so that the next run does not begin with them."""
        blamed = {sid: self._held[sid] for sid in failed if sid in self._held}

        def work(connection: Connection) -> None:
            later = self._tools.clock(connection) + verifications.AGAIN_MS
            verifications.put_off(connection, blamed, due_at=later)

        if blamed:
            transact(self._tools.engine, work, doing="putting Verifications off")
            for sid in blamed:
                del self._held[sid]

    def _given_up(self, error: EtlError, *others: EtlError) -> Deaf | None:
        if self._tools.stop.is_set():
            raise Interrupted
        for broken in (error, *others):
            if isinstance(broken, ApiContractBroken):
                return broken
        msg = "Verifications that wait could not be listed."
        hint = "The next run tries again; check the network and status."
        if self._heard:
            _log.warning("%s %s (%s)", msg, hint, error)
            return None
        unreachable = ApiUnreachable(msg, hint=hint)
        unreachable.__cause__ = error
        return unreachable

    def _list(self, sid: str, *, tries: int) -> None:
        if self._tools.stop.is_set():
            raise Interrupted
        call = partial(
            self._tools.api.page,
            page_size=self._lister.page_size, after=None, before=None, verification_sid=sid,
        )  # fmt: skip
        store = partial(self._lister.store, discover=True)
        found = 0

        def take(page: Page) -> bool:
            nonlocal call, found
            # A list that ignores the filter must not make others' attempts this one's.
            mine = self._lister.take(page, store, only=lambda a: a.verification_sid == sid)
            self._heard = True
            found += mine
            if page.next_url is not None and found > MOST_ATTEMPTS:
                no_end(f"one Verification has {found:,} attempts")
            if page.next_url is not None:
                call = partial(self._tools.api.next_page, page.next_url)
            return mine > 0

        read = partial(self._lister.ask, tries=tries)
        self._lister.follow(lambda: (read(call), False), take, Bound(lambda: None))
        self._note(sid, found)

    def _note(self, sid: str, found: int) -> None:
        def work(connection: Connection) -> None:
            now = self._tools.clock(connection)
            due_at = None if verifications.all_final(connection, sid) else self._later(now)
            lease = self._held[sid]
            verifications.listed(connection, sid, found=found, due_at=due_at, lease=lease, now=now)

        transact(self._tools.engine, work, doing="noting a Verification as listed")
        del self._held[sid]
