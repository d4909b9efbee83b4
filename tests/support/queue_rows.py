"""Put rows into the queue as other programs do, and read it back."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, String, event, insert, select, text, type_coerce

from etl.database.engine import open_engine
from etl.database.schema import attempt_queue as q
from etl.queue import attempts
from etl.queue import leases as leases_
from etl.records import Attempt, Lease
from tests.support.databases import Servers

NOW: Final = 1_795_000_000_000
HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR

DIGITS: Final = " UNION ALL ".join(f"SELECT {n} AS i" for n in range(10))
"""A table of ten rows that every database understands; joined with itself, of as many as wanted."""


def sid(number: int) -> str:
    """Make a well-formed SID."""
    return f"VL{number:032x}"


@contextmanager
def own_engine(servers: Servers, kind: str, *, migrated: bool = True) -> Iterator[Engine]:
    """Open an engine on a database of one kind."""
    with servers(kind).database(migrated=migrated) as url:
        engine = open_engine(url)
        yield engine
        engine.dispose()


def put(engine: Engine, *rows: dict[str, Any]) -> None:
    """Insert rows one by one, in this order, each with the columns it names."""
    with engine.begin() as connection:
        for row in rows:
            connection.execute(insert(q).values(**row))


def execute(engine: Engine, statement: str, **parameters: Any) -> None:
    """Run one statement as another program would."""
    with engine.begin() as connection:
        connection.execute(text(statement), parameters)


def read(engine: Engine) -> dict[str, Row[Any]]:
    """Return the queue by SID; ``enqueued_at`` is left out, for it may be anything."""
    columns = [column for column in q.c if column.name not in {"enqueued_at", "settled_at"}]
    rested = type_coerce(q.c.settled_at, String).is_not(None).label("rested")
    with engine.connect() as connection:
        rows: list[Any] = list(connection.execute(select(*columns, rested).order_by(q.c.id)))
        return {row.sid: row for row in rows}


def claim(
    engine: Engine,
    limit: int = 100,
    *,
    now: int = NOW,
    worker: str = "worker",
    accounts: Sequence[str] = ("",),
    holding: bool = False,
) -> list[Lease]:
    """Claim in one transaction."""
    with engine.begin() as connection:
        return attempts.claim(
            connection, accounts=accounts, worker=worker, now=now, limit=limit, holding=holding
        )


def promote(engine: Engine, now: int) -> int:
    """Promote in one transaction; return how many rows changed."""
    with engine.begin() as connection:
        return attempts.promote(connection, now).changed


def lock_leases(engine: Engine, leases: Sequence[Lease]) -> tuple[set[int], set[int]]:
    """Ask the fence in one transaction."""
    with engine.begin() as connection:
        return leases_.lock_leases(connection, leases)


def watch(engine: Engine) -> AbstractContextManager[list[tuple[str, Any]]]:
    """Note each statement that the engine runs, with its parameters."""

    @contextmanager
    def watching() -> Iterator[list[tuple[str, Any]]]:
        noted: list[tuple[str, Any]] = []

        def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
            noted.append((statement, parameters))

        event.listen(engine, "before_cursor_execute", note)
        yield noted
        event.remove(engine, "before_cursor_execute", note)

    return watching()


def attempt(number: int = 1, **fields: Any) -> Attempt:
    """Make an attempt of which nothing is known but what is given."""
    values: dict[str, Any] = {
        **dict.fromkeys(Attempt._fields),
        "sid": sid(number),
        "warnings": (),
    }
    return Attempt(**(values | fields))


def explain(engine: Engine, statement: str, parameters: Any) -> str:
    """Return the database's plan of a statement as text."""
    word = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(f"{word} {statement}", parameters)
        return "\n".join(" | ".join(map(str, row)) for row in rows)


def crowd(engine: Engine) -> None:
    """Insert 50,000 rows of which 400 wait to be claimed."""
    name = "'VL' || n" if engine.dialect.name == "sqlite" else "CONCAT('VL', n)"
    execute(
        engine,
        f"INSERT INTO attempt_queue (sid, state, expires_at, due_at) SELECT {name},"
        " CASE WHEN n % 125 = 0 THEN 'pending' WHEN n % 4 = 0 THEN 'settled'"
        " WHEN n % 4 = 1 THEN 'dead' WHEN n % 4 = 2 THEN 'refresh' ELSE 'retry' END,"
        f" CASE n % 3 WHEN 0 THEN 0 ELSE {NOW - DAY} + n * 10000 END, {NOW + DAY} + n FROM ("
        "SELECT a.i + 10 * b.i + 100 * c.i + 1000 * d.i + 10000 * e.i AS n"
        f" FROM ({DIGITS}) a, ({DIGITS}) b, ({DIGITS}) c, ({DIGITS}) d, ({DIGITS}) e"
        " WHERE e.i < 5) numbers",
    )
    analyze = "ANALYZE TABLE" if engine.dialect.name in {"mysql", "mariadb"} else "ANALYZE"
    execute(engine, f"{analyze} attempt_queue")


def impatient(engine: Engine) -> None:
    """Let the engine's connections wait for locks as short as their database can."""
    engine.dispose()
    if engine.dialect.name == "postgresql":
        # Each of our transactions has its own settings, and gets this one last.
        event.listen(
            engine, "begin", lambda c: c.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
        )
        return
    setting = {"sqlite": "PRAGMA busy_timeout = 20"}.get(
        engine.dialect.name, "SET SESSION innodb_lock_wait_timeout = 1"
    )

    def shorten(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(setting)
        cursor.close()
        connection.commit()

    event.listen(engine, "connect", shorten)


def kill(engine: Engine, connection: Connection) -> None:
    """Let the server end a connection, from another one."""
    is_postgresql = engine.dialect.name == "postgresql"
    number = "pg_backend_pid()" if is_postgresql else "CONNECTION_ID()"
    victim = connection.exec_driver_sql(f"SELECT {number}").scalar_one()
    with engine.connect() as other:
        how = "SELECT pg_terminate_backend({})" if is_postgresql else "KILL {}"
        other.exec_driver_sql(how.format(victim))


def queued(engine: Engine, *rows: dict[str, Any]) -> None:
    """Insert rows of the queue, each with a SID of its own."""
    put(engine, *({"sid": sid(number)} | row for number, row in enumerate(rows)))
