"""``verify-etl discover``: load a window of attempts without a queue."""

import logging
import re
import time
from functools import partial

import click

from etl.cli.context import Context
from etl.cli.execute import carry_out, max_seconds_option
from etl.cli.types import Since, check_order
from etl.listing.discover import DiscoverOptions
from etl.run import pipeline

_HOUR_MS = 3_600_000

_log = logging.getLogger(__name__)


@click.command()
@click.option("--since", type=Since(), help="From when: a day, a time, or how long ago (7d, 2w).")
@click.option("--until", type=Since(), help="To when, exclusive.  [default: now]")
@click.option("--service", default="", metavar="VA...", help="Only this Verify service.")
@max_seconds_option
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
@click.pass_obj
def discover(
    context: Context,
    *,
    since: int | None,
    until: int | None,
    service: str,
    max_seconds: float | None,
    as_json: bool,
) -> None:
    """List the account's attempts of a window and load them all; no queue of SIDs is needed.

    Then fetches what is due for its refresh, so that this is all that cron needs. Without --since
    it goes on at the first gap after the earliest window that was listed whole, with an hour's
    overlap; the first time it loads all that the API remembers.

    \b
    Example:
      verify-etl discover --since 7d
    """
    check_order(since, until)
    settings = context.settings()
    _check_reach(since, until, settings.retention)
    if service and not re.fullmatch(r"VA[0-9a-fA-F]{32}", service):
        msg = f"{service!r} is no Verify service: VA and 32 hex digits."
        raise click.UsageError(msg)
    asked = DiscoverOptions(since, until, service)
    act = partial(pipeline.discover, asked=asked)
    carry_out(context, settings, act, as_json=as_json, max_seconds=max_seconds)


def _check_reach(since: int | None, until: int | None, retention: int) -> None:
    """Refuse a window of the future, and say when nothing, or only part, of one can be listed."""
    now = int(time.time() * 1000)
    if since is not None and since > now:
        msg = "--since lies in the future: nothing has been created then yet."
        raise click.UsageError(msg)
    forgets = f"The API forgets attempts after {retention / (24 * _HOUR_MS):,.3g} days"
    if until is not None and until <= now - retention:
        _log.warning("%s: nothing from before --until is left.", forgets)
    # What "30d" meant a moment ago is no cut.
    elif since is not None and since < now - retention - _HOUR_MS:
        _log.warning("%s: what is older is not listed.", forgets)
