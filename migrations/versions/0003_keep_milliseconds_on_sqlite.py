"""Keep milliseconds on SQLite.

Import nothing of `etl` here: the program moves on, history does not. Times are text there. Of six
digits the last three were zeros; Java's driver reads them as milliseconds, up to 17 minutes too
many. It refuses the times without a fraction that CURRENT_TIMESTAMP gives.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0003"
down_revision: Final = "0002"
branch_labels: Final = None
depends_on: Final = None

TIMES: Final = {
    "attempt_queue": ("enqueued_at", "settled_at"),
    "verification_queue": ("enqueued_at", "listed_at"),
    "attempts": ("date_created", "date_updated"),
    "sweeps": ("created_at", "finished_at"),
    "sync_runs": ("started_at", "ended_at"),
    "rollup_attempts": ("first_at", "last_at"),
    "rollup_freshness": ("first_at", "last_at"),
}
DEFAULTED: Final = ("attempt_queue", "verification_queue")
SECONDS: Final = "CURRENT_TIMESTAMP"
MILLISECONDS: Final = "(strftime('%Y-%m-%d %H:%M:%f', 'now'))"
# Each statement is safe to run twice, and leaves alone what others wrote in another way.
SECOND: Final = "____-__-__ __:__:__"


def upgrade() -> None:
    """Give our times three digits, and new ones as well."""
    if op.get_context().dialect.name != "sqlite":
        return
    _replace_default(SECONDS, MILLISECONDS)
    for table, columns in TIMES.items():
        for column in columns:
            _run(
                f"UPDATE {table} SET {column} = substr({column} || '.000', 1, 23) "  # noqa: S608 - our own text
                f"WHERE {column} LIKE '{SECOND}' OR {column} LIKE '{SECOND}.______'"
            )


def downgrade() -> None:
    """Give them six digits again, for the older program to compare as text."""
    if op.get_context().dialect.name != "sqlite":
        return
    _replace_default(MILLISECONDS, SECONDS)
    for table, columns in TIMES.items():
        for column in columns:
            _run(
                f"UPDATE {table} SET {column} = {column} || '000' "  # noqa: S608 - our own text
                f"WHERE {column} LIKE '{SECOND}.___'"
            )


def _replace_default(old: str, new: str) -> None:
    """Change a default where SQLite keeps it.

    Copying the table would lose the triggers that others put on it. SQLite documents this way for
    defaults; the schema's number tells other connections.
    """
    _run("PRAGMA writable_schema = ON")
    for table in DEFAULTED:
        _run(
            f"UPDATE sqlite_master SET sql = replace(sql, {_quoted(f'DEFAULT {old}')}, "  # noqa: S608 - our own text
            f"{_quoted(f'DEFAULT {new}')}) WHERE type = 'table' AND name = '{table}'"
        )
    _run("PRAGMA writable_schema = RESET")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _run(statement: str) -> None:
    # A colon is part of a time here, and no parameter.
    op.execute(sa.text(statement.replace(":", r"\:")))
