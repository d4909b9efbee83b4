"""Open PostgreSQL, set each transaction up, and read its errors.

A pool between us and the server may run each of our transactions in another session. Those sessions
serve other programs, too. So nothing outlives a transaction here: no setting, no prepared statement,
no temporary table. BEGIN carries all settings, at no cost of a round trip.
"""

# ruff: noqa: D102 - driver.py says once what each method gives

import math
import re
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from etl.database import bounds
from etl.database.dialects.driver import (
    NO_DATABASE,
    READ_ONLY_SERVER,
    TOO_LONG,
    Driver,
    Fault,
    Mend,
    refuse_old,
    refuse_unknown,
)

_FAULTS: Final = {
    "40001": Fault.BUSY, "40P01": Fault.BUSY, "55P03": Fault.BUSY, "53300": Fault.BUSY,
    "57014": Fault.BUSY, "25P02": Fault.BUSY, "25P03": Fault.LOST, "25P04": Fault.BUSY,
    "40003": Fault.LOST,
    "53100": Fault.STORAGE, "25006": Fault.STORAGE, "3F000": Fault.SCHEMA,
    "28P01": Fault.CONFIG, "28000": Fault.CONFIG, "3D000": Fault.CONFIG,
}  # fmt: skip
_CLASSES: Final = {
    "08": Fault.LOST, "40": Fault.BUSY, "42": Fault.SCHEMA, "53": Fault.BUSY, "57": Fault.LOST,
    "58": Fault.STORAGE, "72": Fault.BUSY, "XX": Fault.STORAGE,
    # Wrong values, constraints, limits, and what a trigger says: the row's own fault.
    "09": Fault.REFUSED, "22": Fault.REFUSED, "23": Fault.REFUSED, "27": Fault.REFUSED,
    "38": Fault.REFUSED, "39": Fault.REFUSED, "44": Fault.REFUSED, "54": Fault.REFUSED,
    "P0": Fault.REFUSED,
}  # fmt: skip
_CONNECTION_ERRORS: Final = {"OperationalError", "ConnectionTimeout", "InterfaceError"}
_SESSION_ENDED: Final = {"25P03", "57P05"}
# The last three are PgBouncer's.
_REFUSES_THE_LOGIN: Final = (
    "authentication failed",
    "no pg_hba.conf entry",
    "no such user",
    "no such database",
    "unsupported startup parameter",
)
_DUPLICATE: Final = "23505"
_NO_MORE: Final = "2200H"
_SEQUENCE: Final = re.compile(r'sequence "(\w+)_id_seq"')
OLDEST: Final = (14, 0)
"""Older ones have no ``date_bin``."""
_UNPREPARED: Final = ("pgbouncer", "prepare_threshold", "prepareThreshold", "statement_cache_size")
"""Options that other programs need under a pooler."""
_INSTEAD: Final = {
    **dict.fromkeys(("ssl", "ssl-mode", "ssl_mode", "sslMode", "tls"), "sslmode=require"),
    **dict.fromkeys(
        ("schema", "currentSchema", "search_path"), "options=-csearch_path%3D and the schema"
    ),
}
_ABSENT: Final = re.compile(r'database "[^"]*" does not exist')
_MENDS: Final = {
    "57014": TOO_LONG._replace(hint=TOO_LONG.hint.format(limit="statement_timeout")),
    "25006": READ_ONLY_SERVER._replace(
        hint="Let DATABASE_URL name the primary, or add ?target_session_attrs=read-write to its hosts."
    ),
    "3D000": NO_DATABASE,
}
_FUNCTION: Final = re.compile(r'function "?([\w$.]+)')

# A peer that vanished without a word is noticed within a minute, not after the kernel's two hours.
_KEEPALIVE: Final = {
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


IS_SNAPSHOT: Final = "verify_etl_snapshot"
"""The execution option of a connection whose transactions see the database of one moment."""

# What a role, a database or another program of a pool may have set, and our statements rely on.
_RULES: Final = {
    "client_encoding": "UTF8",
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    # Off, it reads NULL in an array as a word.
    "array_nulls": "on",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "exit_on_error": "off",
    # A plan that is kept was made for a table of another size, and searches arrays linearly.
    "plan_cache_mode": "force_custom_plan",
    # It would compile for half a second what runs for a tenth. Forks may not have it.
    "jit": "off",
}
_SETTINGS: Final = "verify_etl_settings"
# The role's path comes first: a pool's session may have another program's, or one for this client.
_LOOK: Final = """
BEGIN;
SELECT reset_val, pg_is_in_recovery(),
    set_config('search_path', concat_ws(', ', NULLIF(reset_val, ''), NULLIF(setting, '')), true)
FROM pg_settings WHERE name = 'search_path';
SELECT name, to_regclass(quote_ident(name) || '.verify_etl_version') IS NOT NULL,
    has_schema_privilege(name, 'CREATE')
FROM unnest(current_schemas(false)) WITH ORDINALITY AS path (name, place)
WHERE name !~ '^pg_' AND name <> 'information_schema' ORDER BY place;
SELECT name, reset_val FROM pg_settings;
COMMIT
"""
"""The statements that read, in a new connection, the search path, its schemas, and all settings."""


class PostgresqlDriver(Driver):
    """Open PostgreSQL."""

    name = "postgresql+psycopg"
    package = "psycopg[binary]"

    def address(self, url: URL) -> URL:
        from psycopg import pq  # noqa: PLC0415 - an extra

        # None of our statements is prepared for longer than a transaction.
        url = url.difference_update_query(_UNPREPARED)
        known = {each.keyword.decode() for each in pq.Conninfo.get_defaults()}
        refuse_unknown(url, known, _INSTEAD)
        return url

    def options(self) -> dict[str, Any]:
        arguments = {"connect_timeout": 10, "client_encoding": "utf8", "prepare_threshold": None}
        return {"connect_args": {**arguments, **_KEEPALIVE}}

    def connected(self, connection: Any, record: Any) -> None:  # noqa: ANN401 - the driver's
        version = connection.info.server_version
        refuse_old("PostgreSQL", (version // 10_000, version % 10_000), OLDEST)
        waits = connection.wait
        connection.wait = lambda steps, *args, **options: waits(
            _answered(connection, steps, record.info), *args, **options
        )
        # The driver's own transactions are switched off: BEGIN is ours.
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(_LOOK)
            (here,), schemas, settings = _results(cursor)
        found = {name.lower(): reset for name, reset in settings}
        path = _path(schemas, here[0])
        # Another program may have made a pool's session read-only; the owner, or a standby, means it.
        writes = found.get("default_transaction_read_only") == "off" and not here[1]
        record.info[_SETTINGS] = {
            patient: f"{'READ WRITE' * writes}; {_settings(found, path, patient=patient)}"
            for patient in (False, True)
        }

    def begin(self, connection: Connection) -> None:
        options = connection.get_execution_options()
        level = "REPEATABLE READ" if IS_SNAPSHOT in options else "READ COMMITTED"
        settings = connection.info[_SETTINGS][bounds.is_patient(connection)]
        connection.exec_driver_sql(f"BEGIN ISOLATION LEVEL {level} {settings}")

    def raised(self, cause: Any) -> bool:  # noqa: ANN401 - any driver's
        return hasattr(cause, "sqlstate")

    def fault(self, error: DBAPIError) -> Fault:
        cause: Any = error.orig
        if cause.sqlstate is None:
            # psycopg has no code for a refused password or an absent database at connect time.
            said = str(cause)
            absent = "does not exist" in said and ('database "' in said or 'role "' in said)
            if absent or any(words in said for words in _REFUSES_THE_LOGIN):
                return Fault.CONFIG
            return Fault.LOST if type(cause).__name__ in _CONNECTION_ERRORS else Fault.REFUSED
        fault = _FAULTS.get(cause.sqlstate) or _CLASSES.get(cause.sqlstate[:2])
        if fault in {None, Fault.SCHEMA} and self.function(cause):
            # What a user's trigger raises, or lacks.
            return Fault.REFUSED
        return fault or (Fault.LOST if error.connection_invalidated else Fault.OTHER)

    def names(self, cause: Any) -> tuple[str, Mapping[str, str | None]]:  # noqa: ANN401 - the driver's
        kind, diag = type(cause).__name__, getattr(cause, "diag", None)
        if not diag:
            return kind, {}
        names = {
            "table": diag.table_name,
            "column": diag.column_name,
            "constraint": diag.constraint_name,
            "function": self.function(cause),
        }
        return f"{kind} {diag.sqlstate}" if diag.sqlstate else kind, names

    def function(self, cause: Any) -> str | None:  # noqa: ANN401 - the driver's
        context = getattr(getattr(cause, "diag", None), "context", None)
        found = _FUNCTION.search(context or "")
        return found and found[1]

    def catch_up(self, table: str) -> str:
        return f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), MAX(id)) FROM {table}"  # noqa: S608 - our own names

    def mend(self, cause: Any) -> Mend | None:  # noqa: ANN401 - the driver's
        if cause.sqlstate is None and _ABSENT.search(str(cause)):
            return NO_DATABASE
        return _MENDS.get(cause.sqlstate)

    def taken_key(self, cause: Any) -> str | None:  # noqa: ANN401 - the driver's
        if cause.sqlstate == _NO_MORE:
            found = _SEQUENCE.search(str(cause))
            return found and found[1]
        table = cause.diag.table_name
        is_key = cause.sqlstate == _DUPLICATE and cause.diag.constraint_name == f"{table}_pkey"
        return table if is_key else None

    def stood_still(self, cause: Any) -> bool:  # noqa: ANN401 - the driver's
        return cause.sqlstate in _SESSION_ENDED


def _results(cursor: Any) -> Iterator[list[Any]]:  # noqa: ANN401 - psycopg's
    """Give the rows of each statement that has some."""
    more: bool | None = True
    while more:
        if cursor.description:
            yield cursor.fetchall()
        more = cursor.nextset()


def _path(schemas: Sequence[tuple[str, bool, bool]], theirs: str) -> str:
    """Put our schema first on the search path: it has our version table, or else may have it.

    The rest stays, for users' triggers. Tables that some program left in a pooled session, which
    come first by default, come last. Without a schema of ours they must not become it.
    """
    ours = next((name for name, has_ours, _ in schemas if has_ours), None)
    ours = ours or next((name for name, _, may_create in schemas if may_create), None)
    if ours is None:
        return theirs
    quoted = '"' + ours.replace('"', '""') + '"'
    return ", ".join(filter(None, (quoted, theirs, "pg_temp")))


def _settings(found: Mapping[str, str | None], path: str, *, patient: bool) -> str:
    """Write the statement that gives a transaction its settings, those that the server has."""
    idle_s = bounds.idle_s(patient=patient)
    limits = {
        "lock_timeout": bounds.LOCK_S * 1000,
        "idle_in_transaction_session_timeout": idle_s * 1000,
        "statement_timeout": 0 if patient else bounds.STATEMENT_S * 1000,
        "transaction_timeout": 0 if patient else bounds.TRANSACTION_S * 1000,
        # A client that takes no more of an answer is no idle one, nor is its statement at work.
        "tcp_user_timeout": idle_s * 1000,
        "tcp_keepalives_idle": 10,
        "tcp_keepalives_interval": 5,
        "tcp_keepalives_count": 3,
    }
    # The owner's setting wins where it is lower; 0 is no bound.
    lowest = {
        name: min(filter(None, (limit, _number(found.get(name)))), default=0)
        for name, limit in limits.items()
    }
    ours = {**_RULES, **lowest, "search_path": path}
    calls = [
        f"set_config('{name}', {_literal(str(value))}, true)"
        for name, value in ours.items()
        if name in found
    ]
    return f"SELECT {', '.join(calls)}"


def _number(setting: str | None) -> int:
    return int(setting) if setting and setting.isdecimal() else 0


def _literal(value: str) -> str:
    """Quote a text, whatever the server takes a backslash for; the driver halves percent signs."""
    quoted = value.replace("\\", "\\\\").replace("'", "''").replace("%", "%%")
    return f"E'{quoted}'"


def _answered(connection: Any, steps: Any, info: dict[Any, Any]) -> Generator[Any, Any, Any]:  # noqa: ANN401 - psycopg's
    """Pass psycopg's waiting on, and give up on a peer that says nothing but keeps the line open.

    Keepalives tell of a machine that is gone, not of a proxy that has hung.
    """
    give_up = time.monotonic() + info.get(bounds.IMPATIENT, math.inf)
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > give_up:
                connection.close()
                msg = f"no answer within {info[bounds.IMPATIENT]:g} s"
                raise sys.modules["psycopg"].OperationalError(msg)
            wanted = steps.send(ready)
    except StopIteration as done:
        return done.value
