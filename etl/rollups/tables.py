"""Make the roll-ups' tables from their descriptions. Most runs need none.

They share the other tables' metadata. Import it from here to have all tables.
"""

from sqlalchemy import BigInteger, Column, Integer, Table

from etl.database.schema import COMMENT, attempt_channel_data, attempts, metadata
from etl.database.types import Moment
from etl.rollups.cubes import ROLLUPS, Rollup

__all__ = ["metadata", "rollups"]


def _rollup(rollup: Rollup) -> Table:
    known = {**attempts.c, **attempt_channel_data.c, "currency": attempts.c.price_currency}
    return Table(
        rollup.table,
        metadata,
        # A stretch: its length and its start in seconds, UTC. Then a running number, for keys may
        # be NULL.
        Column("length_s", Integer, primary_key=True, autoincrement=False),
        Column("start", BigInteger, primary_key=True, autoincrement=False),
        Column("place", Integer, primary_key=True, autoincrement=False),
        *(Column(name, known[name].type) for name in rollup.keys if name in known),
        *(Column(name, Integer, nullable=False) for name in rollup.keys if name not in known),
        *(Column(name, Integer, nullable=False) for name in rollup.counts),
        *(Column(name, BigInteger) for name in rollup.amounts),
        *(Column(name, Moment) for name in ("first_at", "last_at") if rollup.bounded),
        # Rows are kept in the order of reading.
        sqlite_with_rowid=False,
        comment=COMMENT,
    )


rollups = {rollup.name: _rollup(rollup) for rollup in ROLLUPS}
"""The roll-ups' tables by name; see `cubes`."""
