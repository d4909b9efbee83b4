"""Open MariaDB and MySQL, bound their sessions, and read their errors."""

# ruff: noqa: D102 - driver.py says once what each method gives

import re
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from etl.database import bounds
from etl.database.dialects.driver import (
    NO_DATABASE,
    READ_ONLY_SERVER,
    TOO_LONG,
    Driver,
    Fault,
    Mend,
    code_of,
    refuse_old,
    refuse_unknown,
)
from etl.errors import ConfigError

_FAULTS: Final = {
    1213: Fault.BUSY, 1205: Fault.BUSY, 1020: Fault.BUSY, 1040: Fault.BUSY, 1203: Fault.BUSY,
    1969: Fault.BUSY, 3024: Fault.BUSY, 1412: Fault.BUSY, 1047: Fault.BUSY,
    1135: Fault.BUSY, 1206: Fault.BUSY, 1226: Fault.BUSY,
    0: Fault.LOST, 2003: Fault.LOST, 2006: Fault.LOST, 2013: Fault.LOST, 2014: Fault.LOST,
    1053: Fault.LOST, 1927: Fault.LOST, 1317: Fault.LOST, 4031: Fault.LOST,
    1021: Fault.STORAGE, 1114: Fault.STORAGE, 1290: Fault.STORAGE, 1836: Fault.STORAGE,
    1792: Fault.STORAGE, 1030: Fault.STORAGE, 1036: Fault.STORAGE, 1026: Fault.STORAGE,
    1180: Fault.STORAGE,
    1153: Fault.CONFIG, 2026: Fault.CONFIG, 1665: Fault.CONFIG,
    1158: Fault.LOST, 1159: Fault.LOST, 1160: Fault.LOST, 1161: Fault.LOST,
    1064: Fault.SCHEMA, 1146: Fault.SCHEMA, 1054: Fault.SCHEMA, 1142: Fault.SCHEMA, 1143: Fault.SCHEMA,
    1044: Fault.CONFIG, 1045: Fault.CONFIG, 1049: Fault.CONFIG, 1698: Fault.CONFIG,
    # Wrong values, constraints, limits, and what a trigger says: the row's own fault.
    1048: Fault.REFUSED, 1062: Fault.REFUSED, 1264: Fault.REFUSED,
    1265: Fault.REFUSED, 1292: Fault.REFUSED, 1300: Fault.REFUSED, 1364: Fault.REFUSED,
    1366: Fault.REFUSED, 1406: Fault.REFUSED, 1451: Fault.REFUSED, 1452: Fault.REFUSED,
    1644: Fault.REFUSED, 1690: Fault.REFUSED, 3140: Fault.REFUSED, 3819: Fault.REFUSED,
    4025: Fault.REFUSED,
    # As above; partitions and views of the user's, and what fails inside a trigger.
    1365: Fault.REFUSED, 1369: Fault.REFUSED, 1411: Fault.REFUSED, 1441: Fault.REFUSED,
    1442: Fault.REFUSED, 1526: Fault.REFUSED, 1586: Fault.REFUSED, 1748: Fault.REFUSED,
    1172: Fault.REFUSED, 1242: Fault.REFUSED, 1305: Fault.REFUSED, 1329: Fault.REFUSED,
    1422: Fault.REFUSED, 1456: Fault.REFUSED, 1761: Fault.REFUSED, 1762: Fault.REFUSED,
}  # fmt: skip
# A trigger's SIGNAL may carry any number, and is known by its SQLSTATE.
_CLASSES: Final = {
    "02": Fault.REFUSED, "21": Fault.REFUSED, "22": Fault.REFUSED, "23": Fault.REFUSED,
    "44": Fault.REFUSED, "45": Fault.REFUSED,
}  # fmt: skip
_SLOW: Final = TOO_LONG._replace(
    hint=TOO_LONG.hint.format(limit="max_statement_time (MySQL: max_execution_time)")
)
_MENDS: Final = {
    1969: _SLOW, 3024: _SLOW,
    1290: READ_ONLY_SERVER, 1792: READ_ONLY_SERVER, 1836: READ_ONLY_SERVER,
    1049: NO_DATABASE,
    2026: Mend(
        ConfigError,
        "no encrypted connection came about ({said})",
        "Let the server offer TLS, check ssl_ca, or leave ssl-mode out of DATABASE_URL.",
    ),
    1153: Mend(
        ConfigError,
        "a statement was larger than the server's max_allowed_packet allows ({said})",
        "Raise it, in the server's configuration too: SET GLOBAL max_allowed_packet = 16777216",
    ),
    1665: Mend(
        ConfigError,
        "the server's binary log was found to write statements, not rows ({said})",
        "Change it, in the server's configuration too: SET GLOBAL binlog_format = 'ROW'",
    ),
}  # fmt: skip
_QUOTES_THE_STATEMENT: Final = 1064
_COLUMN: Final = r"'(?P<column>[^']+)'"
_IN_COLUMN: Final = re.compile(
    r".* for column `[^`]*`\.`(?P<table>[^`]+)`\.`(?P<column>[^`]+)` at ", re.DOTALL
)
_KEY: Final = re.compile(r".* for key '(?:\w+\.)?(?P<constraint>[^']+)'$", re.DOTALL)
_FOREIGN: Final = re.compile(
    r".*constraint fails \(`[^`]*`\.`(?P<table>[^`]+)`, CONSTRAINT `(?P<constraint>[^`]+)`",
    re.DOTALL,
)
_NAMES: Final = {
    1048: re.compile(rf"Column {_COLUMN} cannot be null$"),
    1062: _KEY, 1586: _KEY,
    1264: re.compile(rf"Out of range value for column {_COLUMN} at "),
    1265: re.compile(rf"Data truncated for column {_COLUMN} at "),
    1292: _IN_COLUMN, 1366: _IN_COLUMN,
    1364: re.compile(rf"Field {_COLUMN} doesn't have a default value$"),
    1406: re.compile(rf"Data too long for column {_COLUMN} at "),
    1451: _FOREIGN, 1452: _FOREIGN,
    3819: re.compile(r"Check constraint '(?P<constraint>[^']+)' is violated"),
    4025: re.compile(r"CONSTRAINT `(?P<constraint>[^`]+)` failed for `[^`]*`\.`(?P<table>[^`]+)`$"),
}  # fmt: skip
OLDEST: Final = {"MariaDB": (10, 6, 0), "MySQL": (8, 0, 17)}
"""Older ones have no ``SKIP LOCKED``, or no collation that compares exactly."""
_TLS: Final = ("ssl_capath", "ssl_cipher", "ssl_check_hostname", "use_unicode")
"""Options that SQLAlchemy reads for PyMySQL."""
_MODES: Final = ("ssl-mode", "ssl_mode", "sslmode", "sslMode")
_INSTEAD: Final = dict.fromkeys(("ssl", "tls", "useSSL", "requireSSL"), "ssl-mode=REQUIRED")
_PACKAGES: Final = ("cryptography", "PyNaCl")
"""What PyMySQL needs for caching_sha2_password and sha256_password, and for ed25519."""
_PATIENT: Final = "verify_etl_patient"
_PATIENT_ANSWER_S: Final = 86_400
_THEIRS: Final = "verify_etl_server_settings"
_SESSION_ENDED: Final = 4031
_LOST_IN_QUERY: Final = 2013
"""PyMySQL says so, too, when it has waited for an answer as long as it may."""


class MariadbDriver(Driver):
    """Open MariaDB."""

    name = "mariadb+pymysql"
    package = "PyMySQL"

    def address(self, url: URL) -> URL:
        from pymysql.connections import Connection as Opened  # noqa: PLC0415 - an extra

        if "host" in url.query:
            msg = "DATABASE_URL names several hosts, and only PostgreSQL's can."
            raise ConfigError(msg, hint="Name one host.")
        url = _with_tls(url)
        # Its ``ssl`` is no text.
        known = {*signature(Opened).parameters, *_TLS} - {"ssl"}
        refuse_unknown(url, known, _INSTEAD)
        return url.update_query_dict({"charset": "utf8mb4"})

    def listen(self, engine: Engine) -> None:
        super().listen(engine)
        event.listen(engine, "do_connect", _log_in)

    def options(self) -> dict[str, Any]:
        answer_s = bounds.ANSWER_S
        return {
            "isolation_level": "READ COMMITTED",
            "connect_args": {
                "connect_timeout": 10, "read_timeout": answer_s, "write_timeout": answer_s,
            },
        }  # fmt: skip

    def connected(self, connection: Any, record: Any) -> None:  # noqa: ANN401 - the driver's
        name, version = _version(connection.get_server_info())
        refuse_old(name, version, OLDEST[name])
        with connection.cursor() as cursor:
            # What is looked at would be cut, too.
            cursor.execute(f"SET SESSION sql_select_limit = {_UNBOUNDED}")
            cursor.execute(_LOOK)
            found = {name.lower(): value for name, value in cursor.fetchall()}
            limits = [(name, value) for name, value in found.items() if name not in _RULES]
            bounded = session_bounds(record.info, limits, patient=False)
            rules = [f"{name} = {value}" for name, value in _RULES.items() if name in found]
            cursor.execute(", ".join([bounded, *rules]))

    def begin(self, connection: Connection) -> None:
        # It knows no bounds of one transaction. A pool hands a session out for the one and the other.
        patient, info = bounds.is_patient(connection), connection.info
        if info.get(_PATIENT, False) != patient:
            connection.exec_driver_sql(session_bounds(info, patient=patient))
            driver: Any = connection.connection.driver_connection
            answer_s = _PATIENT_ANSWER_S if patient else bounds.ANSWER_S
            driver._read_timeout = answer_s  # noqa: SLF001 - PyMySQL has no other way to change it
            info[_PATIENT] = patient

    def raised(self, cause: Any) -> bool:  # noqa: ANN401 - any driver's
        return isinstance(code_of(cause), int)

    def fault(self, error: DBAPIError) -> Fault:
        if error.connection_invalidated:
            return Fault.LOST
        sqlstate = getattr(error.orig, "sqlstate", None) or ""
        return _FAULTS.get(code_of(error.orig)) or _CLASSES.get(sqlstate[:2], Fault.OTHER)

    def mend(self, cause: Any) -> Mend | None:  # noqa: ANN401 - the driver's
        code = code_of(cause)
        waited = code == _LOST_IN_QUERY and "timed out" in str(cause)
        return _SLOW if waited else _MENDS.get(code)

    def names(self, cause: Any) -> tuple[str, Mapping[str, str | None]]:  # noqa: ANN401 - the driver's
        code = code_of(cause)
        # A trigger's SIGNAL, whatever number it carries, is in its author's words.
        signalled = (getattr(cause, "sqlstate", None) or "").startswith("45")
        pattern = None if signalled else _NAMES.get(code)
        found = pattern.match(str(cause.args[-1])) if pattern else None
        return f"error {code}", found.groupdict() if found else {}

    def quotes(self, cause: Any) -> bool:  # noqa: ANN401 - the driver's
        return bool(code_of(cause) == _QUOTES_THE_STATEMENT)

    def stood_still(self, cause: Any) -> bool:  # noqa: ANN401 - the driver's
        # MariaDB only closes the connection.
        return bool(code_of(cause) == _SESSION_ENDED)


def _version(said: str) -> tuple[str, tuple[int, ...]]:
    """Read ``8.0.36``, ``10.11.6-MariaDB`` and ``5.5.5-10.4.32-MariaDB``."""
    name = "MariaDB" if "MariaDB" in said else "MySQL"
    numbers = re.findall(r"\d+\.\d+\.\d+", said)
    # MariaDB used to put a version before its own, for replicas of old.
    number = numbers[1] if said.startswith("5.5.5-") and len(numbers) > 1 else numbers[0]
    return name, tuple(map(int, number.split(".")))


def _with_tls(url: URL) -> URL:
    """Turn the mode that hosts print into PyMySQL's options: ``?ssl-mode=REQUIRED``."""
    for name in _MODES:
        if (given := url.query.get(name)) is None:
            continue
        mode = str(given).lower().replace("_", "-")
        url = url.difference_update_query([name])
        if mode in {"verify-ca", "verify-identity", "verify-full"} and "ssl_ca" not in url.query:
            msg = f"DATABASE_URL asks for {name}={given}, and names no certificate to verify with."
            raise ConfigError(msg, hint="Add &ssl_ca=FILE.")
        if mode in {"required", "require", "verify-ca"}:
            return url.update_query_dict({"ssl_check_hostname": "false"})
        if mode in {"disabled", "disable"}:
            return url.update_query_dict({"ssl_disabled": "true"})
        if mode not in {"preferred", "prefer", "verify-identity", "verify-full"}:
            msg = f"DATABASE_URL has a {name} that is not understood."
            raise ConfigError(msg, hint="Write ssl-mode=REQUIRED.")
    return url


def _log_in(dialect: Any, _record: object, args: Any, options: Any) -> Any:  # noqa: ANN401 - the driver's
    """Connect, and name the package that a way of logging in needs."""
    if isinstance(password := options.get("password"), str):
        # It would be sent as Latin-1, which has few of all characters.
        options["password"] = password.encode()
    try:
        return dialect.connect(*args, **options)
    except (RuntimeError, ImportError) as error:
        package = next((each for each in _PACKAGES if each.lower() in str(error).lower()), None)
        if package is None:
            raise
        msg = f"this user's way of logging in needs {package}, which is not installed."
        raise ConfigError(msg, hint=f"Run: pip install {package}") from error


class MysqlDriver(MariadbDriver):
    """Open MySQL."""

    name = "mysql+pymysql"

    def options(self) -> dict[str, Any]:
        # It has no bound for idle transactions alone: a session that rests as long is ended.
        return {**super().options(), "pool_recycle": bounds.IDLE_S - 5}


# In seconds. MySQL has the last two in place of MariaDB's, and bounds no statement but a SELECT.
def _ours(*, patient: bool) -> dict[str, float]:
    idle_s = bounds.idle_s(patient=patient)
    statement_s = 0 if patient else bounds.STATEMENT_S
    return {
        "idle_transaction_timeout": idle_s,
        "idle_write_transaction_timeout": idle_s,
        "idle_readonly_transaction_timeout": idle_s,
        "max_statement_time": statement_s,
        "net_read_timeout": idle_s,
        "net_write_timeout": idle_s,
        "max_execution_time": statement_s * 1000,
        "wait_timeout": idle_s,
    }


_UNBOUNDED: Final = "18446744073709551615"
# What a server, a role or ``init_connect`` may have set, and our statements rely on.
_RULES: Final = {
    "character_set_client": "utf8mb4",
    "character_set_connection": "utf8mb4",
    "character_set_results": "utf8mb4",
    "time_zone": "'+00:00'",
    # All of it: a mode may turn '' into NULL, || into OR, and a column's name into a text.
    "sql_mode": "'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
    # These cut what is read, or refuse to read much; the second takes the first one's bound away.
    "max_join_size": _UNBOUNDED,
    "sql_big_selects": "1",
    "group_concat_max_len": "1048576",
    # It compares so many bytes of a text when it sorts.
    "max_sort_length": "1024",
    "div_precision_increment": "4",
    # After an insert, ``id IS NULL`` would find the new row.
    "sql_auto_is_null": "0",
    "sql_safe_updates": "0",
    # Without them, rows come twice, or stay without their attempt.
    "foreign_key_checks": "1",
    "unique_checks": "1",
    "check_constraint_checks": "1",
    # A COMMIT could begin the next transaction, or end the session.
    "completion_type": "0",
    # MyISAM has neither transactions nor locks of rows.
    "default_storage_engine": "InnoDB",
    # Errors name columns in sentences that we read.
    "lc_messages": "'en_US'",
}
_LOOK: Final = "SHOW SESSION VARIABLES WHERE Variable_name IN ({})".format(
    ", ".join(f"'{name}'" for name in (*_ours(patient=True), *_RULES))
)
"""The statement that reads, in a new session, what we change there, where the server has it."""


def session_bounds(
    info: dict[Any, Any], rows: Iterable[Sequence[str]] = (), *, patient: bool
) -> str:
    """Write the statement that bounds a session; ``rows`` are the variables found in it."""
    theirs: dict[str, float] = info.setdefault(_THEIRS, {n: float(value) for n, value in rows})
    ours = _ours(patient=patient)
    if "idle_transaction_timeout" in theirs and not patient:
        # It would end pooled sessions, too. A migration's lock is held between its transactions.
        ours["wait_timeout"] = 0
    settings = {
        name: min(filter(None, (theirs[name], bound)), default=0)
        for name, bound in ours.items()
        if name in theirs
    }
    settings["innodb_lock_wait_timeout"] = bounds.LOCK_S
    return "SET SESSION " + ", ".join(f"{name} = {value:.15g}" for name, value in settings.items())
