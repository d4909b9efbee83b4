"""Read an age on the command line: a duration with its unit, never nothing."""

import click


class Age(click.ParamType[int]):
    """Turn ``90d`` into milliseconds; refuse a bare number, zero and more than ten years."""

    name = "age"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return milliseconds; a value that is no age is a usage error."""
        from etl.settings import parse_duration

        if isinstance(value, int):
            return value
        try:
            age = parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}.", param, ctx)
        if not age:
            self.fail(f"{value!r} would mean everything; write an age such as 30d.", param, ctx)
        return age


AGE = Age()
