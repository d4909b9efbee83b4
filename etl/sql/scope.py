"""Say which rows a SELECT reads, and how it counts them.

A view reads every row, counts in days of UTC and keeps every key. A report is the same SELECT in
another scope, so both give the same numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import dedent, indent
from typing import Final

from etl.database.dialects import Dialect
from etl.sql.spans import DAY_S, HOUR_S

__all__ = ["DAY_S", "HOUR_S", "UTC", "Offset", "Scope", "Statement", "tidy"]


@dataclass(frozen=True, slots=True)
class Offset:
    """Hold a zone's seconds east of UTC, until a moment (None: for ever)."""

    seconds: int
    until: int | None = None


UTC: Final = (Offset(0),)


@dataclass(frozen=True, slots=True)
class Statement:
    """Hold a SELECT in parts: its common table expressions, and its body."""

    ctes: tuple[tuple[str, str], ...]
    body: str

    def sql(self) -> str:
        """Write it as one statement."""
        if not self.ctes:
            return tidy(self.body)
        parts = [f"{name} AS (\n{indent(tidy(text), '    ')}\n)" for name, text in self.ctes]
        return "WITH " + ", ".join(parts) + "\n" + tidy(self.body)


@dataclass(frozen=True, slots=True)
class Scope:
    """Narrow a SELECT. Its values are bound when it runs.

    ``since`` and ``until`` are seconds since 1970, perhaps with a fraction. ``by`` None keeps every
    key. ``attempts`` and ``channel_data`` are the tables, or subqueries in their place. ``raw``
    reads no roll-up; set it with a subquery. ``as_of`` (epoch milliseconds) reads the rows as known
    then. ``seen_since`` keeps only later news. ``names`` are the window's parameters.
    """

    dialect: Dialect
    since: float | None = None
    until: float | None = None
    services: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    zone: tuple[Offset, ...] = UTC
    by: tuple[str, ...] | None = None
    attempts: str = "attempts"
    channel_data: str = "attempt_channel_data"
    as_of: int | None = None
    seen_since: int | None = None
    raw: bool = False
    names: tuple[str, str] = ("since", "until")

    def kept(self, keys: Iterable[str], always: str = "") -> list[str]:
        """Give the keys that this scope keeps; one may be kept ``always``."""
        return [key for key in keys if self.by is None or key in self.by or key == always]

    def day(self, at: str) -> str:
        """Give the day of a moment in the scope's zone."""
        if len(self.zone) == 1:
            return self.dialect.day(at, self.zone[0].seconds)
        cases = "".join(
            f" WHEN {at} < {self.dialect.instant(offset.until)} "
            f"THEN {self.dialect.day(at, offset.seconds)}"
            for offset in self.zone
            if offset.until is not None
        )
        return f"CASE{cases} ELSE {self.dialect.day(at, self.zone[-1].seconds)} END"

    def source(self, columns: Sequence[str], where: Sequence[str] = ()) -> str:
        """Write a SELECT from attempts `a` and channel data `d`."""
        return "\n".join(
            [
                "SELECT",
                "    " + ",\n    ".join(columns),
                f"FROM {self.attempts} a",
                f"LEFT JOIN {self.channel_data} d ON d.attempt_sid = a.sid",
                self.where(where),
            ]
        )

    def where(self, conditions: Sequence[str]) -> str:
        """Write a WHERE, or nothing."""
        return "WHERE " + "\n  AND ".join(conditions) if conditions else ""

    def window(self, at: str) -> list[str]:
        """Keep moments from `since` (inclusive) to `until` (exclusive), never NULL."""
        since, until = self.names
        found = [f"{at} >= @{since}@"] if self.since is not None else []
        return found + ([f"{at} < @{until}@"] if self.until is not None else [])

    def only(self, service: str, channel: str, country: str) -> list[str]:
        """Keep the services, channels and countries asked for."""
        return [*self.only_fixed(service, country), *self.only_channels(channel)]

    def only_fixed(self, service: str, country: str) -> list[str]:
        """Keep the services and countries asked for: what an attempt keeps for its whole life."""
        return [
            *_any_of(service, "service", len(self.services)),
            *_any_of(country, "country", len(self.countries)),
        ]

    def only_channels(self, channel: str) -> list[str]:
        """Keep the channels asked for."""
        return _any_of(channel, "channel", len(self.channels))

    def rows(self) -> list[str]:
        """Keep the attempts asked for."""
        return [
            *self.window("a.date_created"),
            *self.only("a.service_sid", "a.channel", "d.country"),
        ]

    def select(self, keys: Sequence[str], measures: Sequence[str], source: str) -> str:
        """Write SELECT … GROUP BY for these keys and measures."""
        lines = "SELECT\n    " + ",\n    ".join([*keys, *measures]) + f"\nFROM {source}"
        return lines + (f"\nGROUP BY {', '.join(keys)}" if keys else "\nHAVING COUNT(*) > 0")


def _any_of(column: str, name: str, count: int) -> list[str]:
    places = ", ".join(f"@{name}_{number}@" for number in range(count))
    return [f"{column} IN ({places})"] if count else []


def tidy(text: str) -> str:
    """Remove Python's indentation and empty lines from SQL."""
    return "\n".join(line.rstrip() for line in dedent(text).splitlines() if line.strip())
