"""Read what options say: durations, ages, moments and words."""

import time
from datetime import UTC

import click


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only
    """Turn ``90d`` into milliseconds; refuse a bare number and more than ten years."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return milliseconds; a value that is no duration is a usage error."""
        from etl.settings import parse_duration

        if isinstance(value, int):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}.", param, ctx)


class Age(Duration):
    """Turn ``90d`` into milliseconds; refuse zero as well."""

    name = "age"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return milliseconds; a value that is no age is a usage error."""
        age = super().convert(value, param, ctx)
        if not age:
            self.fail(f"{value!r} would mean everything; write an age such as 30d.", param, ctx)
        return age


DURATION = Duration()
AGE = Age()


class Since(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only
    """Read a day, a time (UTC unless it says otherwise), or how long ago, as the reports do."""

    name = "TIME"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return epoch milliseconds; raise ``OptionError`` for what is none of these."""
        from etl.reports.window import moment

        del ctx
        if isinstance(value, int):
            return value
        option = param.opts[0] if param else self.name
        return round(moment(str(value), option=option, zone=UTC, now_s=time.time()) * 1000)


def check_order(since: float | None, until: float | None) -> None:
    """Raise a usage error unless the window has a beginning before its end."""
    if since is not None and until is not None and until <= since:
        msg = "--since must be before --until."
        raise click.UsageError(msg)


class Word(click.types.StringParamType):
    """Refuse bytes of no encoding and NUL: they are in no column, and drivers would raise."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Return it, or fail as click does."""
        text = str(super().convert(value, param, ctx))
        if "\0" in text or text != text.encode(errors="replace").decode():
            self.fail(f"{text!r} is not text.", param, ctx)
        return text
