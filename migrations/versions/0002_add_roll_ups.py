"""Add roll-ups.

Import nothing of `etl` here: the program moves on, history does not. The quarters of an hour of
all rows that are there are marked: reports read them raw until the roll-ups are made.
"""

from typing import Any, Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: Final = "0002"
down_revision: Final = "0001"
branch_labels: Final = None
depends_on: Final = None

BIG_KEY: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")
MOMENT: Final = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=3), "mysql", "mariadb")
SLICE: Final = {"service_sid": 64, "channel": 64, "country": 64}
TABLES: Final = (
    "rollup_attempts",
    "rollup_carriers",
    "rollup_errors",
    "rollup_prefixes",
    "rollup_verifications",
    "rollup_freshness",
)

SECONDS: Final = {
    "sqlite": "CAST(strftime('%s', substr(date_created, 1, 19)) AS INTEGER)",
    "postgresql": "CAST(FLOOR(EXTRACT(EPOCH FROM date_created)) AS BIGINT)",
    "mysql": "TIMESTAMPDIFF(SECOND, '1970-01-01', date_created)",
}
# From the year 1, so that a division rounds down; what has no time is in a stretch of its own.
EARLIER: Final = 62_135_596_800
UNKNOWN: Final = -86_400_000_000


def upgrade() -> None:
    """Create the tables, and mark what they do not hold yet."""
    _create(
        "rollup_marks",
        sa.Column("id", BIG_KEY, primary_key=True, autoincrement=True),
        sa.Column("start", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    _rollup(
        "rollup_attempts",
        _texts(SLICE | {"currency": 3}),
        _counts("attempts", "converted", "not_final", "priced", "conversions"),
        [
            sa.Column("millionths", sa.BigInteger),
            sa.Column("unconverted_millionths", sa.BigInteger),
        ],
        _bounds(),
    )
    _rollup(
        "rollup_carriers",
        _texts(SLICE | {"mcc": 16, "mnc": 16, "carrier": 255}),
        _counts("attempts", "converted", "not_final", "delivered", "undelivered"),
    )
    _rollup(
        "rollup_errors",
        _texts(SLICE | {"error_code": 64}),
        _counts("attempts", "converted", "not_final", "undelivered"),
    )
    _rollup(
        "rollup_prefixes",
        _texts({"destination_prefix": 7, "country": 64}),
        _counts("attempts", "converted", "not_final"),
    )
    _rollup(
        "rollup_verifications",
        _texts(SLICE),
        _counts("attempt_no", "attempts", "converted", "not_final", "went_on", "gave_up"),
        _counts("succeeded", "tries", "retried", "unsettled"),
    )
    _rollup(
        "rollup_freshness",
        _counts("final", "priced", "verified", "attempts"),
        _bounds(),
    )
    dialect = op.get_context().dialect.name
    kind = "mysql" if dialect == "mariadb" else dialect
    divided = "DIV" if kind == "mysql" else "/"
    quarter = f"({SECONDS[kind]} + {EARLIER}) {divided} 900 * 900 - {EARLIER}"
    op.execute(
        # Not bound: a colon or a percent sign means nothing to a driver without parameters.
        sa.text(
            f"INSERT INTO rollup_marks (start) SELECT DISTINCT COALESCE({quarter}, {UNKNOWN}) "  # noqa: S608 - our own text
            "FROM attempts"
        )
    )


def downgrade() -> None:
    """Drop the tables; nothing is lost that the raw rows do not say."""
    for table in (*TABLES, "rollup_marks"):
        op.drop_table(table)


def _rollup(name: str, *columns: list[sa.Column[Any]]) -> None:
    _create(
        name,
        sa.Column("length_s", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("start", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
        *(column for part in columns for column in part),
        # Kept in the order in which they are read.
        sqlite_with_rowid=False,
    )


def _texts(lengths: dict[str, int]) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.String(length)) for name, length in lengths.items()]


def _counts(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Integer, nullable=False) for name in names]


def _bounds() -> list[sa.Column[Any]]:
    return [sa.Column("first_at", MOMENT), sa.Column("last_at", MOMENT)]


def _create(name: str, *parts: Any, **options: Any) -> None:  # noqa: ANN401 - as create_table's
    for dialect in ("mysql", "mariadb"):
        options[f"{dialect}_engine"] = "InnoDB"
        options[f"{dialect}_charset"] = "utf8mb4"
        options[f"{dialect}_collate"] = _exact_collation()
    op.create_table(name, *parts, **options)


def _exact_collation() -> str:
    # As in the first revision: texts are compared exactly.
    mariadb = getattr(op.get_context().dialect, "is_mariadb", False)
    return "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
