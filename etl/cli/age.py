"""Read a duration on the command line: with its unit, and where it is an age, never nothing."""

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
