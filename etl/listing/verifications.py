"""List Verifications one by one: page by ``VerificationSid`` | transform | upsert | settle.

Each is one request, unless it has more attempts than a page. A crash costs the request.
"""

import logging
from contextlib import suppress
from functools import partial
from typing import Final

from etl.errors import ApiContractBroken, ApiUnreachable, EtlError
from etl.job.stop import Interrupted
from etl.listing.due import DueVerifications
from etl.listing.endless import Bound, no_end
from etl.listing.pages import Pages
from etl.listing.requests import TRIES, UNREADABLE

REFUSALS: Final = 3
"""After so many failures in a row a page tells whether the API is to blame."""

MOST_ATTEMPTS: Final = 100
"""Twilio sends a code five times. A Verification that goes on after so many has no end."""

Deaf = ApiUnreachable | ApiContractBroken
_UNLISTED: Final = (*UNREADABLE, ApiContractBroken)

_log = logging.getLogger(__name__)


class Verifications:
    """List the Verifications that are ``due``."""

    def __init__(self, pages: Pages, due: DueVerifications) -> None:
        self._pages = pages
        self._tools = pages.tools
        self._due = due
        self._heard = False

    def run(self) -> Deaf | None:
        """List until only others' leases remain; return what is wrong when lists do not work.

        It is not raised, for SIDs can be fetched nevertheless. Raises ``Interrupted`` when the run
        shall end. At the end, leases of Verifications that were not listed are given back.
        """
        try:
            return self._list_all()
        finally:
            # If that fails, too, the leases run out by themselves.
            with suppress(Exception):
                self._due.give_back()

    def _list_all(self) -> Deaf | None:
        failed: dict[str, EtlError] = {}
        in_a_row = 0
        while claimed := self._due.claim():
            for sid in claimed:
                # A lease of one that has failed may have run out, and another's be ours again.
                if sid in failed or not self._due.keep(sid):
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
                    self._due.put_off(failed)
        if in_a_row and self._lists_work():
            self._due.put_off(failed)
        return self._given_up(*failed.values()) if failed else None

    def _failure(self, sid: str, *, tries: int) -> EtlError | None:
        """List one Verification; return why it could not be."""
        try:
            self._list(sid, tries=tries)
        except _UNLISTED as error:
            return error
        return None

    def _lists_work(self) -> bool:
        """Say whether the API is not to blame: it shows a page of no Verification."""
        first = partial(self._tools.api.page, page_size=1, after=None, before=None)
        with suppress(*_UNLISTED):
            self._pages.requests.ask(first, tries=1)
            self._heard = True
            return True
        return False

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
        pages, api = self._pages, self._tools.api
        call = partial(
            api.page, page_size=pages.size, after=None, before=None, verification_sid=sid
        )
        store = partial(pages.store, discover=True)
        bound = Bound(lambda: None)
        found, mine = 0, 1
        while mine:
            page = pages.requests.ask(call, tries=tries)
            bound.leads_on(page, anew=False)
            # A list that ignores the filter must not make others' attempts this one's.
            _, mine = pages.take(page, store, only=lambda a: a.verification_sid == sid)
            self._heard = True
            self._tools.watch(self._tools.counts)
            found += mine
            if page.next_url is None:
                break
            if found > MOST_ATTEMPTS:
                no_end(f"one Verification has {found:,} attempts")
            call = partial(api.next_page, page.next_url)
        self._due.listed(sid, found=found)
