"""Create the tables.

Import nothing of `etl` here: the program moves on, history does not.
"""

from typing import Any, Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: Final = "0001"
down_revision: Final = None
branch_labels: Final = None
depends_on: Final = None

BIG_KEY: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")
MOMENT: Final = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=3), "mysql", "mariadb")


def upgrade() -> None:
    """Create the queue, the results, the allowance, the sweeps and the history of runs."""
    _create_queue()
    _create_verification_queue()
    _create_attempts()
    _create_channel_data()
    _create_changes()
    _create_slots()
    _create_sweeps()
    _create_runs()
    _create_reports()


def downgrade() -> None:
    """Drop them all."""
    for table in (
        "report_views",
        "verification_fees",
        "sync_runs",
        "sweeps",
        "api_slots",
        "attempt_changes",
        "attempt_channel_data",
        "attempts",
        "verification_queue",
        "attempt_queue",
    ):
        op.drop_table(table)


def _create_queue() -> None:
    _create(
        "attempt_queue",
        sa.Column("id", BIG_KEY, primary_key=True, autoincrement=True),
        sa.Column("sid", sa.String(64), nullable=False),
        sa.Column("account", sa.String(64), nullable=False, server_default=sa.text("''")),
        sa.Column("state", sa.String(16), nullable=False, server_default=sa.text("'pending'")),
        _zero("due_at", sa.BigInteger),
        _zero("expires_at", sa.BigInteger),
        _zero("claim_no", sa.BigInteger),
        _zero("attempts", sa.Integer),
        _zero("fetches", sa.Integer),
        _zero("lost_leases", sa.Integer),
        sa.Column("outcome", sa.String(32)),
        sa.Column("leased_by", sa.String(128)),
        sa.Column("last_error", sa.String(500)),
        sa.Column("source", sa.String(255)),
        sa.Column("enqueued_at", MOMENT, nullable=False, server_default=_now()),
        sa.Column("settled_at", MOMENT),
        sa.CheckConstraint(
            "state IN ('pending', 'leased', 'retry', 'refresh', 'settled', 'dead')",
            name="ck_attempt_queue_state",
        ),
        sa.UniqueConstraint("sid", name="uq_attempt_queue_sid"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_attempt_queue_claim", "attempt_queue", ["account", "state", "expires_at", "id"]
    )
    op.create_index("ix_attempt_queue_due", "attempt_queue", ["state", "due_at"])


def _create_verification_queue() -> None:
    _create(
        "verification_queue",
        sa.Column("id", BIG_KEY, primary_key=True, autoincrement=True),
        sa.Column("sid", sa.String(64), nullable=False),
        sa.Column("account", sa.String(64), nullable=False, server_default=sa.text("''")),
        sa.Column("state", sa.String(16), nullable=False, server_default=sa.text("'pending'")),
        _zero("due_at", sa.BigInteger),
        _zero("tries", sa.Integer),
        _zero("found", sa.Integer),
        sa.Column("source", sa.String(255)),
        sa.Column("enqueued_at", MOMENT, nullable=False, server_default=_now()),
        sa.Column("listed_at", MOMENT),
        sa.CheckConstraint(
            "state IN ('pending', 'listed', 'missing')", name="ck_verification_queue_state"
        ),
        sa.UniqueConstraint("sid", name="uq_verification_queue_sid"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_verification_queue_due", "verification_queue", ["state", "due_at", "id"])


def _create_attempts() -> None:
    _create(
        "attempts",
        sa.Column("sid", sa.String(64), primary_key=True),
        sa.Column("account_sid", sa.String(64)),
        sa.Column("service_sid", sa.String(64)),
        sa.Column("verification_sid", sa.String(64)),
        sa.Column("channel", sa.String(64)),
        sa.Column("conversion_status", sa.String(64)),
        sa.Column("price_amount", sa.Numeric(18, 6)),
        sa.Column("price_currency", sa.String(3)),
        sa.Column("date_created", MOMENT),
        sa.Column("date_updated", MOMENT),
        sa.Column("url", sa.Text),
        sa.Column("first_fetched_at", sa.BigInteger, nullable=False),
        sa.Column("fetched_at", sa.BigInteger, nullable=False),
        sa.Column("is_final", sa.Boolean, nullable=False),
    )
    op.create_index("ix_attempts_date_created", "attempts", ["date_created"])
    op.create_index("ix_attempts_verification_sid", "attempts", ["verification_sid"])


def _create_channel_data() -> None:
    _create(
        "attempt_channel_data",
        sa.Column(
            "attempt_sid",
            sa.String(64),
            sa.ForeignKey(
                "attempts.sid", name="fk_attempt_channel_data_attempt_sid", ondelete="CASCADE"
            ),
            primary_key=True,
        ),
        sa.Column("destination", sa.String(320)),
        sa.Column("destination_prefix", sa.String(7)),
        sa.Column("country", sa.String(64)),
        sa.Column("mcc", sa.String(16)),
        sa.Column("mnc", sa.String(16)),
        sa.Column("carrier", sa.String(255)),
        sa.Column("locale", sa.String(64)),
        sa.Column("status", sa.String(64)),
        sa.Column("message_status", sa.String(64)),
        sa.Column("call_status", sa.String(64)),
        sa.Column("error_code", sa.String(64)),
        sa.Column("code_length", sa.Integer),
        sa.Column("extra", sa.JSON),
    )


def _create_changes() -> None:
    _create(
        "attempt_changes",
        sa.Column("id", BIG_KEY, primary_key=True, autoincrement=True),
        sa.Column(
            "attempt_sid",
            sa.String(64),
            sa.ForeignKey(
                "attempts.sid", name="fk_attempt_changes_attempt_sid", ondelete="CASCADE"
            ),
            nullable=False,
        ),
        sa.Column("field", sa.String(32), nullable=False),
        sa.Column("old_value", sa.String(64)),
        sa.Column("new_value", sa.String(64)),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_attempt_changes_attempt_sid", "attempt_changes", ["attempt_sid", "seen_at"])


def _create_slots() -> None:
    _create(
        "api_slots",
        sa.Column("account", sa.String(64), primary_key=True),
        sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("free_at", sa.BigInteger, nullable=False),
    )


def _create_sweeps() -> None:
    _create(
        "sweeps",
        sa.Column("id", BIG_KEY, primary_key=True, autoincrement=True),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("window_from", sa.BigInteger, nullable=False),
        sa.Column("window_to", sa.BigInteger, nullable=False),
        sa.Column("scope", sa.String(255), nullable=False, server_default=sa.text("''")),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("page_size", sa.Integer, nullable=False),
        sa.Column("next_page", sa.Text),
        _zero("pages", sa.Integer),
        _zero("seen", sa.BigInteger),
        _zero("matched", sa.BigInteger),
        _zero("claim_no", sa.BigInteger),
        _zero("due_at", sa.BigInteger),
        sa.Column("leased_by", sa.String(128)),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_sweeps_state", "sweeps", ["account", "state", "due_at"])


def _create_runs() -> None:
    _create(
        "sync_runs",
        sa.Column("id", BIG_KEY, primary_key=True, autoincrement=True),
        sa.Column("command", sa.String(32), nullable=False),
        sa.Column("account", sa.String(64), nullable=False, server_default=sa.text("''")),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("worker", sa.String(128), nullable=False),
        sa.Column("asked", sa.JSON, nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
        sa.Column("did", sa.JSON),
        sa.Column("exit_code", sa.Integer),
        sa.Column("error", sa.String(500)),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_sync_runs_started_at", "sync_runs", ["started_at"])


def _create_reports() -> None:
    _create(
        "verification_fees",
        sa.Column("channel", sa.String(64), primary_key=True, server_default=sa.text("''")),
        sa.Column("country", sa.String(64), primary_key=True, server_default=sa.text("''")),
        sa.Column("currency", sa.String(3), primary_key=True),
        sa.Column("valid_from", sa.Date, primary_key=True),
        sa.Column("amount", sa.Numeric(18, 6), nullable=False),
    )
    _create(
        "report_views",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
    )


def _create(name: str, *parts: Any, **options: Any) -> None:  # noqa: ANN401 - as create_table's
    for dialect in ("mysql", "mariadb"):
        # InnoDB: row locks and SKIP LOCKED. The collation: a SID is compared exactly, upper and
        # lower case and trailing blanks included, which no default collation does.
        options[f"{dialect}_engine"] = "InnoDB"
        options[f"{dialect}_charset"] = "utf8mb4"
        options[f"{dialect}_collate"] = _exact_collation()
    op.create_table(name, *parts, **options)


def _exact_collation() -> str:
    # A `mysql://` address may lead to a MariaDB, and a connection then knows; written SQL has only
    # the name to go by.
    mariadb = getattr(op.get_context().dialect, "is_mariadb", False)
    return "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"


def _now() -> sa.TextClause:
    # UTC whatever the inserter's session says; SQLite's and PostgreSQL's own always are.
    if op.get_context().dialect.name in {"mysql", "mariadb"}:
        return sa.text("(UTC_TIMESTAMP(3))")
    return sa.text("CURRENT_TIMESTAMP")


def _zero(name: str, kind: type[sa.Integer]) -> sa.Column[int]:
    return sa.Column(name, kind, nullable=False, server_default=sa.text("0"))
