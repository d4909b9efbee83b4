"""Take words from the command line that a database can be asked for."""

import click


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
