"""Begin and resume windows, and queue Verifications, as several tests do."""

from sqlalchemy import Connection, Engine, insert, select

from etl.database.schema import attempts
from etl.database.schema import sweeps as s
from etl.database.schema import verification_queue as v
from etl.database.times import clock
from etl.queue import windows as windows_


def resume(connection: Connection) -> windows_.Listing | None:
    """Take over whatever is free, as another worker does."""
    now = clock(connection)
    account = connection.execute(select(s.c.account).limit(1)).scalar_one()
    return windows_.resume(connection, account=account, worker="other", purpose="sweep", now=now)


def begin(
    connection: Connection, start_ms: int, account: str = "AC", *, purpose: str = "discover",
    end: int, scope: str = "", worker: str = "me",
) -> windows_.Listing:  # fmt: skip
    """Begin a window that nobody else is listing."""
    begun = attempt_to_begin(
        connection, start_ms, account, purpose=purpose, end=end, scope=scope, worker=worker
    )
    assert begun is not None
    return begun


def attempt_to_begin(
    connection: Connection, start_ms: int, account: str = "AC", *, purpose: str = "discover",
    end: int, scope: str = "", worker: str = "me",
) -> windows_.Listing | None:  # fmt: skip
    """Begin a window unless somebody else is listing part of it."""
    return windows_.begin(
        connection, account=account, worker=worker, start=start_ms, end=end, scope=scope,
        purpose=purpose, page_size=1000, now=clock(connection),
    )  # fmt: skip


REFUSED = "http://127.0.0.1:9"


def enqueue(engine: Engine, *sids: str) -> None:
    """Ask for Verifications as `backfill --verifications` does."""
    with engine.begin() as connection:
        connection.execute(insert(v), [{"sid": sid} for sid in sids])


def stored(engine: Engine) -> set[str]:
    """Return the SIDs of all attempts that are stored."""
    with engine.connect() as connection:
        return set(connection.execute(select(attempts.c.sid)).scalars())
