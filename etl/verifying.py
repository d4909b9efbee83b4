"""List Verifications one by one: page by ``VerificationSid`` | transform | upsert | settle.

Each is one request, or more only if it has more attempts than a page. A crash costs the request:
the next run goes on with those that are still pending.
"""

import logging
from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

from sqlalchemy import Connection

from etl import verifications
from etl.database import transact
from etl.errors import ApiUnreachable, BadBody, BodyTooLarge, EtlError, NotFound, TransientFailure
from etl.extract import Page
from etl.listing import Lister
from etl.settle import round_up
from etl.stopping import Interrupted

BATCH: Final = 100
ALL: Final = 1_000_000
REFUSALS: Final = 3
"""So many lists that are refused in a row are the API's fault."""

_log = logging.getLogger(__name__)


class Verifier:
    """List the Verifications that are due."""

    def __init__(self, lister: Lister) -> None:
        self._lister = lister
        self._parts = lister.parts
        self._heard = False

    def due(self, limit: int = ALL) -> list[str]:
        """Read which Verifications are due now."""

        def work(connection: Connection) -> list[str]:
            now = self._parts.clock(connection)
            accounts = self._parts.accounts
            return verifications.due(connection, accounts=accounts, now=now, limit=limit)

        return transact(self._parts.engine, work, doing="reading the Verifications that wait")

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
            now = self._parts.clock(connection)
            accounts, later = self._parts.accounts, self._later(now)
            verifications.cover(connection, sids, accounts=accounts, due_at=later, now=now)

        transact(self._parts.engine, work, doing="noting Verifications as listed")

    def _later(self, now: int) -> int:
        policy = self._parts.policy
        return round_up(now + policy.settle_after, policy.refresh_round)

    def run(self) -> ApiUnreachable | None:
        """List until none is due; return what is wrong when lists do not work at all.

        It is not raised, for SIDs can be fetched nevertheless. Raises ``Interrupted`` when the run
        shall end.
        """
        failed: dict[str, EtlError] = {}
        in_a_row = 0
        while sids := [sid for sid in self.due(BATCH + len(failed)) if sid not in failed]:
            for sid in sids:
                try:
                    self._list(sid)
                except (TransientFailure, BadBody, BodyTooLarge, NotFound) as error:
                    failed[sid] = error
                    in_a_row += 1
                    # A refusal may be this one's own; it must not keep the others waiting.
                    if isinstance(error, TransientFailure) or in_a_row >= REFUSALS:
                        return self._given_up(error)
                else:
                    in_a_row = 0
        return self._given_up(*failed.values()) if failed else None

    def _given_up(self, error: EtlError, *_others: EtlError) -> ApiUnreachable | None:
        if self._parts.stopping.is_set():
            raise Interrupted
        msg = "Verifications that wait could not be listed."
        hint = "The next run tries again; check the network and status."
        if self._heard:
            _log.warning("%s %s (%s)", msg, hint, error)
            return None
        unreachable = ApiUnreachable(msg, hint=hint)
        unreachable.__cause__ = error
        return unreachable

    def _list(self, sid: str) -> None:
        if self._parts.stopping.is_set():
            raise Interrupted
        call = partial(
            self._parts.api.page,
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
            if page.next_url is not None:
                call = partial(self._parts.api.next_page, page.next_url)
            return mine > 0

        self._lister.follow(lambda: (self._lister.ask(call), False), take)
        self._note(sid, found)

    def _note(self, sid: str, found: int) -> None:
        def work(connection: Connection) -> None:
            now = self._parts.clock(connection)
            due_at = None if verifications.all_final(connection, sid) else self._later(now)
            verifications.listed(connection, sid, found=found, due_at=due_at, now=now)

        transact(self._parts.engine, work, doing="noting a Verification as listed")
