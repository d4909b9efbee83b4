"""Say whose tables these are.

Import nothing of `etl` here: the program moves on, history does not. The database is often an
application's, and its tools propose to drop tables that they do not know.
"""

from typing import Final

from alembic import op

revision: Final = "0004"
down_revision: Final = "0003"
branch_labels: Final = None
depends_on: Final = None

COMMENT: Final = "verify-attempts-etl keeps this table; verify-etl db upgrade changes it."
TABLES: Final = (
    "api_slots", "attempt_changes", "attempt_channel_data", "attempt_queue", "attempts",
    "report_views", "rollup_attempts", "rollup_carriers", "rollup_errors", "rollup_freshness",
    "rollup_marks", "rollup_prefixes", "rollup_verifications", "sweeps", "sync_runs",
    "verification_fees", "verification_queue", "verify_etl_version",
)  # fmt: skip


def upgrade() -> None:
    """Comment on each table, where a database has comments."""
    if op.get_context().dialect.supports_comments:
        for table in TABLES:
            op.create_table_comment(table, COMMENT)


def downgrade() -> None:
    """Remove the comments."""
    if op.get_context().dialect.supports_comments:
        for table in TABLES:
            op.drop_table_comment(table)
