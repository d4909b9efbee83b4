"""Describe the roll-ups: what the reports add up, by stretches of time and a few keys.

The tables (``tables``), their sums (``facts``, ``refresh``) and the reading SQL (``read``) follow
from this file. A roll-up says no more than the raw rows.
"""

from dataclasses import dataclass
from typing import Final

from etl.sql.spans import DAY_S, HOUR_S, QUARTER_S

UNKNOWN: Final = -1_000_000 * DAY_S
"""The start of the stretch for an unknown time: a day before the year 1."""


@dataclass(frozen=True, slots=True)
class Rollup:
    """Describe one roll-up: a row for each stretch and combination of keys.

    ``lengths`` are the stretches' lengths in seconds. The first is made from raw rows, the others
    from it. A roll-up without quarters is read raw for another zone's days: quarters would be as
    many as the rows. ``counts`` and ``amounts`` (millionths, NULL if unknown) are added up. With
    ``bounded``, a row also has the moments of its oldest and newest attempt, `first_at` and
    `last_at`.
    """

    name: str
    keys: tuple[str, ...]
    counts: tuple[str, ...]
    amounts: tuple[str, ...] = ()
    bounded: bool = False
    lengths: tuple[int, ...] = (QUARTER_S, DAY_S)

    @property
    def table(self) -> str:
        """Return the name of its table."""
        return f"rollup_{self.name}"

    @property
    def measures(self) -> dict[str, str]:
        """Return each measure with the aggregate that merges two rows."""
        bounds = {"first_at": "MIN", "last_at": "MAX"} if self.bounded else {}
        return dict.fromkeys((*self.counts, *self.amounts), "SUM") | bounds


ATTEMPTS: Final = Rollup(
    "attempts",
    keys=("service_sid", "channel", "country", "currency"),
    counts=("attempts", "converted", "not_final", "priced", "conversions"),
    amounts=("millionths", "unconverted_millionths"),
    bounded=True,
)
CARRIERS: Final = Rollup(
    "carriers",
    keys=("service_sid", "channel", "country", "mcc", "mnc", "carrier"),
    counts=("attempts", "converted", "not_final", "delivered", "undelivered"),
    lengths=(DAY_S,),
)
ERRORS: Final = Rollup(
    "errors",
    keys=("service_sid", "channel", "country", "error_code"),
    counts=("attempts", "converted", "not_final", "undelivered"),
)
PREFIXES: Final = Rollup(
    "prefixes",
    keys=("destination_prefix", "country"),
    counts=("attempts", "converted", "not_final"),
    lengths=(HOUR_S,),
)
VERIFICATIONS: Final = Rollup(
    # By the first attempt's time and each attempt's number. The last four counts are of whole
    # verifications, and stand with their first attempt.
    "verifications",
    keys=("service_sid", "channel", "country", "attempt_no"),
    counts=(
        "attempts", "converted", "not_final", "went_on", "gave_up",
        "succeeded", "tries", "retried", "unsettled",
    ),
)  # fmt: skip
FRESHNESS: Final = Rollup(
    "freshness",
    keys=("final", "priced", "verified"),
    counts=("attempts",),
    bounded=True,
    lengths=(DAY_S,),
)

ROLLUPS: Final = (ATTEMPTS, CARRIERS, ERRORS, PREFIXES, VERIFICATIONS, FRESHNESS)
"""Every roll-up."""


def quarter(epoch_s: float) -> int:
    """Return the start of a moment's quarter of an hour."""
    return int(epoch_s // QUARTER_S) * QUARTER_S
