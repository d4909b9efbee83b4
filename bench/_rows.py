"""Compare rows with what the API gives for a single fetch."""

import sys
from typing import Any

from etl.records import Attempt
from etl.sandbox import World
from etl.transform.attempt import transform


def is_as_fetched(row: Any, world: World, at: float | None = None) -> bool:  # noqa: ANN401 - any row
    """Say whether a row of both tables holds what its world gives ``at`` a time."""
    held = transform(world.attempt(row.sid, at), sid=row.sid)
    return isinstance(held, Attempt) and _values(row) == _values(held)


def _values(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row or an attempt
    values = {name: getattr(row, name) for name in Attempt._fields if name != "warnings"}
    for name in ("date_created", "date_updated"):
        # SQLite gives times without their zone.
        values[name] = values[name] and values[name].replace(tzinfo=None)
    return values


if __name__ == "__main__":
    sys.exit("This is a part of the other scripts.")
