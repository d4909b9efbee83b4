"""Describe the tables: columns, named constraints, indexes, and what each column means.

The migrations build the database, never this file; a test holds the two equal. Other programs read
these tables and insert into ``attempt_queue``. So names and meanings are a contract.

A SID's life, as ``attempt_queue.state``::

    pending --claim--> leased --final answer--> settled
                         |----can still change--> refresh --due--> pending
                         |----failure that passes--> retry --due--> pending
                         |----given back, or the lease ran out--> pending
                         '----permanent or exhausted--> dead --a person's retry--> pending

    pending, retry, refresh, dead --seen on a list page--> settled, refresh
"""

from functools import partial
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from etl.database.types import BigKey, Moment, Money, Now

REVISION: Final = "0006"
"""The schema's revision that this version of the program needs."""

VERSION_TABLE: Final = "verify_etl_version"
"""Alembic's table. It has its own name, for the database is often the application's."""

COMMENT: Final = "verify-attempts-etl keeps this table; verify-etl db upgrade changes it."
"""Stands at each table, where a database has comments."""

CK_QUEUE_STATE: Final = "ck_attempt_queue_state"
UQ_QUEUE_SID: Final = "uq_attempt_queue_sid"
IX_QUEUE_CLAIM: Final = "ix_attempt_queue_claim"
IX_QUEUE_DUE: Final = "ix_attempt_queue_due"
IX_CREATED: Final = "ix_attempts_date_created"
IX_VERIFICATION: Final = "ix_attempts_verification_sid"

metadata = MetaData()


def _zero(name: str, kind: Any = BigInteger, *, nullable: bool = False) -> Column[Any]:  # noqa: ANN401 - any integer type
    return Column(name, kind, nullable=nullable, server_default=text("0"))


# Of the queues. Others write NULL for a default; a run reads it so (``etl/queue/defaults.py``).
_unset = partial(_zero, nullable=True)


attempt_queue = Table(
    "attempt_queue",
    metadata,
    # First in, first out.
    Column("id", BigKey, primary_key=True, autoincrement=True),
    # Compared exactly. Any text is accepted: the job parks nonsense, the inserter is not refused.
    Column("sid", String(64), nullable=False),
    # Whose credentials; '' is the only account.
    Column("account", String(64), server_default=text("''")),
    # pending, leased, retry, refresh, settled, dead; see the picture above.
    Column("state", String(16), server_default=text("'pending'")),
    # retry, refresh: not before; leased: end of the lease.
    _unset("due_at"),
    # When the API forgets it (created + retention); 0 = age unknown.
    _unset("expires_at"),
    # Fencing token, +1 at every claim.
    _unset("claim_no"),
    # Failures in a row; good fetches; leases that ran out in a row.
    _unset("attempts", Integer),
    _unset("fetches", Integer),
    _unset("lost_leases", Integer),
    # Why it rests: final, last_known, not_found, expired, malformed_sid, ...
    Column("outcome", String(32)),
    # For people.
    Column("leased_by", String(128)),
    Column("last_error", String(500)),
    Column("source", String(255)),
    Column("enqueued_at", Moment, server_default=Now()),
    Column("settled_at", Moment),
    CheckConstraint(
        "state IN ('pending', 'leased', 'retry', 'refresh', 'settled', 'dead')",
        name=CK_QUEUE_STATE,
    ),
    UniqueConstraint("sid", name=UQ_QUEUE_SID),
    Index(IX_QUEUE_CLAIM, "account", "state", "expires_at", "id"),
    Index(IX_QUEUE_DUE, "state", "due_at"),
    sqlite_autoincrement=True,
)

verification_queue = Table(
    "verification_queue",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    # A Verification's SID (VE...), for applications that keep no attempts' SIDs.
    Column("sid", String(64), nullable=False),
    Column("account", String(64), server_default=text("''")),
    # pending: to be listed, not before due_at; a worker that lists it moves due_at by two minutes.
    # listed: all its attempts are stored and final. missing: the API knows no attempt of it.
    Column("state", String(16), server_default=text("'pending'")),
    _unset("due_at"),
    # Lists in a row without an attempt; attempts on the last list.
    _unset("tries", Integer),
    _unset("found", Integer),
    Column("source", String(255)),
    Column("enqueued_at", Moment, server_default=Now()),
    Column("listed_at", Moment),
    CheckConstraint(
        "state IN ('pending', 'listed', 'missing')", name="ck_verification_queue_state"
    ),
    UniqueConstraint("sid", name="uq_verification_queue_sid"),
    Index("ix_verification_queue_due", "state", "due_at", "id"),
    sqlite_autoincrement=True,
)

# Of a column of an attempt ``doc`` is what the report of attempts says; what is ``_TRACKED`` has
# each change that is seen kept in ``attempt_changes``.
_TRACKED: Final = {"tracked": True}

attempts = Table(
    "attempts",
    metadata,
    Column("sid", String(64), primary_key=True, doc="The attempt."),
    Column("account_sid", String(64), doc="The Twilio account."),
    Column("service_sid", String(64), doc="The Verify service."),
    Column("verification_sid", String(64), doc="The verification it belongs to."),
    # Lower case, never constrained: the set has changed several times.
    Column("channel", String(64), doc="sms, call, email, whatsapp, rbm, ...", info=_TRACKED),
    Column("conversion_status", String(64), doc="As the API says it, lower case.", info=_TRACKED),
    Column(
        "price_amount", Money, doc="Without the fee for a successful verification.", info=_TRACKED
    ),
    Column("price_currency", String(3), doc="The currency of price_amount.", info=_TRACKED),
    Column("date_created", Moment, doc="When the attempt was made."),
    Column("date_updated", Moment, doc="When Twilio last changed it."),
    Column("url", Text, doc="The attempt's address in the API."),
    # When the first and the newest request for it were sent, epoch milliseconds.
    Column("first_fetched_at", BigInteger, nullable=False, doc="When it was first asked for."),
    Column("fetched_at", BigInteger, nullable=False, doc="When it was last asked for."),
    Column("is_final", Boolean, nullable=False, doc="Neither price nor conversion can change."),
    Index(IX_CREATED, "date_created"),
    Index(IX_VERIFICATION, "verification_sid"),
)

attempt_channel_data = Table(
    "attempt_channel_data",
    metadata,
    Column(
        "attempt_sid",
        String(64),
        ForeignKey("attempts.sid", name="fk_attempt_channel_data_attempt_sid", ondelete="CASCADE"),
        primary_key=True,
    ),
    # The payload's `to`, and its first seven characters.
    Column("destination", String(320), doc="Number or address: personal data."),
    Column("destination_prefix", String(7), doc="`+` and six digits."),
    Column("country", String(64), doc="ISO code of the destination."),
    Column("mcc", String(16), doc="Mobile country code."),
    Column("mnc", String(16), doc="Mobile network code."),
    Column("carrier", String(255), doc="The carrier's name."),
    Column("locale", String(64), doc="The language of the message."),
    Column("status", String(64), doc="confirmed, unconfirmed, expired.", info=_TRACKED),
    Column("message_status", String(64), doc="delivered, undelivered, sent, ...", info=_TRACKED),
    Column("call_status", String(64), doc="completed, busy, no-answer, ...", info=_TRACKED),
    # NULL for 0, "0" and "".
    Column("error_code", String(64), doc="Twilio's code; NULL: no error.", info=_TRACKED),
    Column("code_length", Integer, doc="Digits of the code."),
    # Unknown keys of `channel_data` as sent; unknown top-level keys under `_attempt`.
    Column("extra", JSON(none_as_null=True), doc="What the API sent beyond these, as JSON."),
)

TRACKED: Final = tuple(
    column.name
    for table in (attempts, attempt_channel_data)
    for column in table.c
    if column.info.get("tracked")
)
"""The columns whose changes ``attempt_changes`` keeps."""

attempt_changes = Table(
    "attempt_changes",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column(
        "attempt_sid",
        String(64),
        ForeignKey("attempts.sid", name="fk_attempt_changes_attempt_sid", ondelete="CASCADE"),
        nullable=False,
    ),
    # One of TRACKED.
    Column("field", String(32), nullable=False),
    Column("old_value", String(64)),
    Column("new_value", String(64)),
    # When the request that showed the new value was sent, epoch milliseconds.
    Column("seen_at", BigInteger, nullable=False),
    Index("ix_attempt_changes_attempt_sid", "attempt_sid", "seen_at"),
    sqlite_autoincrement=True,
)

api_slots = Table(
    "api_slots",
    metadata,
    # Twilio's account SID.
    Column("account", String(64), primary_key=True),
    # 0..99 are requests of a window. GATE is the row that is locked first.
    Column("slot", Integer, primary_key=True, autoincrement=False),
    # A slot: when it may be used again. The gate: the end of the pause after a 429.
    Column("free_at", BigInteger, nullable=False),
)

sweeps = Table(
    "sweeps",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("account", String(64), nullable=False),
    # Creation times, epoch milliseconds: from (inclusive) to (exclusive, frozen at the start).
    Column("window_from", BigInteger, nullable=False),
    Column("window_to", BigInteger, nullable=False),
    # '' or the one service (VA...) that is listed.
    Column("scope", String(255), nullable=False, server_default=text("''")),
    # sweep (queued SIDs only) or discover (every attempt).
    Column("purpose", String(16), nullable=False),
    # listing, done, abandoned.
    Column("state", String(16), nullable=False),
    Column("page_size", Integer, nullable=False),
    # The page to read next; NULL is the first one.
    Column("next_page", Text),
    _zero("pages", Integer),
    _zero("seen"),
    _zero("matched"),
    _zero("claim_no"),
    # End of the lease of the worker that is listing it.
    _zero("due_at"),
    Column("leased_by", String(128)),
    Column("created_at", Moment, nullable=False),
    Column("finished_at", Moment),
    Index("ix_sweeps_state", "account", "state", "due_at"),
    sqlite_autoincrement=True,
)

sync_runs = Table(
    "sync_runs",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("command", String(32), nullable=False),
    Column("account", String(64), nullable=False, server_default=text("''")),
    Column("version", String(32), nullable=False),
    Column("worker", String(128), nullable=False),
    # Its options, without secrets.
    Column("asked", JSON, nullable=False),
    Column("started_at", Moment, nullable=False),
    # NULL while it runs, and forever if it was killed.
    Column("ended_at", Moment),
    # The counts that `run --json` prints.
    Column("did", JSON(none_as_null=True)),
    # How it ended.
    Column("exit_code", Integer),
    Column("error", String(500)),
    Index("ix_sync_runs_started_at", "started_at"),
    sqlite_autoincrement=True,
)

verification_fees = Table(
    "verification_fees",
    metadata,
    # Twilio's fee for each successful Verification, which the API's prices leave out. '' = any
    # channel, any country. The most specific row counts, then the newest.
    Column("channel", String(64), primary_key=True, server_default=text("''")),
    Column("country", String(64), primary_key=True, server_default=text("''")),
    Column("currency", String(3), primary_key=True),
    Column("valid_from", Date, primary_key=True),
    Column("amount", Money, nullable=False),
)

report_views = Table(
    "report_views",
    metadata,
    # Which text of each report's view `db upgrade` has created: SHA-256, hexadecimal.
    Column("name", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
)

rollup_marks = Table(
    "rollup_marks",
    metadata,
    # Quarters whose roll-ups are stale. Append only, with repeats: two loaders must not wait for
    # each other.
    Column("id", BigKey, primary_key=True, autoincrement=True),
    # The beginning of a quarter of an hour, seconds since 1970. UNKNOWN for an unknown time.
    Column("start", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

for _table in metadata.tables.values():
    _table.comment = COMMENT

KEYED: Final = tuple(
    name for name, table in metadata.tables.items() if table.primary_key.columns.keys() == ["id"]
)
"""The tables whose keys the database makes."""
