"""Stop lists without an end: pages that repeat, show nothing, or show too much."""

from collections.abc import Callable
from typing import Final, NoReturn

from etl.errors import ApiContractBroken
from etl.extract import Page

TIMES: Final = 2
SPARE: Final = 20
"""A list may show twice what the Summary counts, and these pages more.

The two never quite agree, and attempts are created meanwhile.
"""

MOST_PAGES: Final = 10_000
"""No list is followed further without a Summary: these are ten million attempts."""


class Bound:
    """Look at the pages of one list; raise ``ApiContractBroken`` if they do not end.

    ``count`` returns the most attempts the list can have, None if nobody knows. It costs a
    request: only a list that shows more than ``expected`` is worth it.
    """

    def __init__(self, count: Callable[[], int | None], *, expected: int = 0) -> None:
        self._count = count
        self._expected = expected
        self._seen: set[str] = set()

    def leads_on(self, page: Page, *, anew: bool) -> None:
        """Look at a page, ``anew`` a first one, before it is written."""
        if anew:
            self._seen.clear()
        sids = (payload.get("sid") for payload in page.payloads if isinstance(payload, dict))
        first = next((sid for sid in sids if isinstance(sid, str)), None)
        if first is None and page.next_url is not None:
            no_end("one shows nothing and leads on")
        if first in self._seen:
            no_end("one came twice")
        self._seen.add(first or "")

    def may_go_on(self, *, pages: int, seen: int) -> None:
        """Compare the attempts shown with those there are, before a further page is read."""
        if not _beyond(pages, seen, self._expected):
            return
        counted = self._count()
        self._expected = seen if counted is None else counted
        if counted is not None and _beyond(pages, seen, counted):
            no_end(f"they have shown {seen:,} attempts, where the Summary counts {counted:,}")
        if counted is None and pages >= MOST_PAGES:
            no_end(f"there have been {pages:,} of them, and no Summary can be read")


def _beyond(pages: int, seen: int, expected: int) -> bool:
    # Pages may be smaller than what was asked for, so it is their own size that counts.
    return (pages - SPARE) * seen > TIMES * expected * pages


def no_end(how: str) -> NoReturn:
    """Raise the error of a list without an end."""
    msg = f"The pages of the list of attempts do not end: {how}."
    raise ApiContractBroken(msg, hint="Check VERIFY_ETL_API_URL, and what stands in between.")
