"""``verify-etl discover``: load a window of attempts without a queue."""

import re
import time

import click

from etl.cli.context import Context
from etl.cli.running import build_job, carry_out, max_seconds_option


class Since(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only
    """Read a day, a time (UTC unless it says otherwise), or how long ago, as the reports do."""

    name = "TIME"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return epoch milliseconds; raise ``OptionError`` for what is none of these."""
        from zoneinfo import ZoneInfo

        from etl.reports.window import moment

        del ctx
        if isinstance(value, int):
            return value
        option = param.opts[0] if param else self.name
        utc = ZoneInfo("UTC")
        return round(moment(str(value), option=option, zone=utc, now_s=time.time()) * 1000)


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
    """  # noqa: D301 - \b is click's mark
    from etl import pipeline
    from etl.discover import Asked

    if since is not None and until is not None and until <= since:
        msg = "--since must be before --until."
        raise click.UsageError(msg)
    if service and not re.fullmatch(r"VA[0-9a-fA-F]{32}", service):
        msg = f"{service!r} is no Verify service: VA and 32 hex digits."
        raise click.UsageError(msg)
    settings = context.settings()
    job = build_job(settings, max_seconds=max_seconds)
    asked = Asked(since, until, service)
    carry_out(
        context,
        settings,
        job,
        lambda engine, api, stopping, watch: pipeline.discover(
            engine, api, job, asked, stopping=stopping, watch=watch
        ),
        as_json=as_json,
    )
