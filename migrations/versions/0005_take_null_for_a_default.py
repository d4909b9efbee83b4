"""Take NULL for a default in the queues.

Import nothing of `etl` here: the program moves on, history does not. Object mappers send every
column, with NULL where they know nothing. A run reads NULL as the default.
"""

from typing import Any, Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: Final = "0005"
down_revision: Final = "0004"
branch_labels: Final = None
depends_on: Final = None

MOMENT: Final = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=3), "mysql", "mariadb")
_KEYS: Final[dict[str, tuple[Any, str]]] = {
    "account": (sa.String(64), "''"),
    "state": (sa.String(16), "'pending'"),
    "due_at": (sa.BigInteger(), "0"),
}
COLUMNS: Final[dict[str, dict[str, tuple[Any, str]]]] = {
    "attempt_queue": _KEYS
    | {name: (sa.BigInteger(), "0") for name in ("expires_at", "claim_no")}
    | {name: (sa.Integer(), "0") for name in ("attempts", "fetches", "lost_leases")},
    "verification_queue": _KEYS | {name: (sa.Integer(), "0") for name in ("tries", "found")},
}
NOW: Final = {
    "sqlite": "(strftime('%Y-%m-%d %H:%M:%f', 'now'))",
    "postgresql": "CURRENT_TIMESTAMP",
    "mysql": "(UTC_TIMESTAMP(3))",
    "mariadb": "(UTC_TIMESTAMP(3))",
}


def upgrade() -> None:
    """Let the columns be NULL."""
    _set(nullable=True)


def downgrade() -> None:
    """Write the defaults, and refuse NULL again."""
    for table, columns in _columns().items():
        values = ", ".join(f"{name} = COALESCE({name}, {to})" for name, (_, to) in columns.items())
        _run(f"UPDATE {table} SET {values}")  # noqa: S608 - our own text
    _set(nullable=False)


def _columns() -> dict[str, dict[str, tuple[Any, str]]]:
    now = {"enqueued_at": (MOMENT, NOW[op.get_context().dialect.name])}
    return {table: columns | now for table, columns in COLUMNS.items()}


def _set(*, nullable: bool) -> None:
    if op.get_context().dialect.name == "sqlite":
        _set_in_the_schema(nullable=nullable)
        return
    for table, columns in _columns().items():
        for name, (kind, default) in columns.items():
            op.alter_column(
                table,
                name,
                nullable=nullable,
                existing_type=kind,
                existing_server_default=sa.text(default),
            )


def _set_in_the_schema(*, nullable: bool) -> None:
    """Change the text that SQLite keeps, as in 0003: others' triggers on the table stay."""
    _run("PRAGMA writable_schema = ON")
    for table, columns in _columns().items():
        for name, (kind, default) in columns.items():
            loose = f"{name} {kind.compile(op.get_context().dialect)} DEFAULT {default}"
            old, new = (f"{loose} NOT NULL", loose) if nullable else (loose, f"{loose} NOT NULL")
            quoted = (text.replace("'", "''") for text in (old, new))
            _run(
                "UPDATE sqlite_master SET sql = replace(sql, '{}', '{}') ".format(*quoted)  # noqa: S608 - our own text
                + f"WHERE type = 'table' AND name = '{table}'"
            )
    _run("PRAGMA writable_schema = RESET")


def _run(statement: str) -> None:
    # A colon is part of a time here, and no parameter.
    op.execute(sa.text(statement.replace(":", r"\:")))
