"""Do the whole job where a server, a role or a session sets otherwise what we rely on."""

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import inspect

from etl.database.engine import open_engine
from etl.database.schema import VERSION_TABLE
from tests.support.databases import Servers
from tests.support.queue_rows import execute
from tests.support.whole_job import whole_job
from tests.support.zones import no_zones

pytestmark = pytest.mark.long

POSTGRESQL = {
    "client_encoding": "LATIN1",
    "TimeZone": "Asia/Kathmandu",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "standard_conforming_strings": "off",
    "escape_string_warning": "on",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "exit_on_error": "on",
    "quote_all_identifiers": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "plan_cache_mode": "force_generic_plan",
    "synchronize_seqscans": "on",
    "enable_seqscan": "off",
    "enable_sort": "off",
    "constraint_exclusion": "off",
    "client_min_messages": "error",
    "check_function_bodies": "off",
    "row_security": "off",
    "search_path": "nowhere, public",
}
"""Every setting of a role that can change what a statement means, returns or does."""

MARIADB = {
    "sql_mode": (
        "'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,IGNORE_SPACE,ONLY_FULL_GROUP_BY,"
        "EMPTY_STRING_IS_NULL,SIMULTANEOUS_ASSIGNMENT,TIME_ROUND_FRACTIONAL,"
        "PAD_CHAR_TO_FULL_LENGTH,HIGH_NOT_PRECEDENCE,NO_ZERO_DATE,NO_ZERO_IN_DATE,"
        "NO_UNSIGNED_SUBTRACTION,REAL_AS_FLOAT,NO_AUTO_VALUE_ON_ZERO'"
    ),
    "time_zone": "'+05:45'",
    "max_join_size": "300",
    "sql_big_selects": "0",
    "sql_select_limit": "7",
    "group_concat_max_len": "4",
    "max_sort_length": "64",
    "div_precision_increment": "0",
    "sql_auto_is_null": "1",
    "sql_safe_updates": "1",
    "foreign_key_checks": "0",
    "unique_checks": "0",
    "check_constraint_checks": "0",
    "completion_type": "'CHAIN'",
    "default_storage_engine": "MyISAM",
    "lc_messages": "'de_DE'",
    "lc_time_names": "'de_DE'",
    "character_set_results": "latin1",
    "collation_connection": "utf8mb4_general_ci",
    "tx_isolation": "'SERIALIZABLE'",
    "autocommit": "1",
    "default_week_format": "3",
    "sql_quote_show_create": "0",
    "sql_buffer_result": "1",
    "join_cache_level": "0",
    "old_mode": "''",
}
"""Every variable of a session that can do so."""


@contextmanager
def _postgresql(url: str) -> Iterator[str]:
    """Log in as a role with these settings, that has rights in one schema."""
    engine = open_engine(url)
    role = f"odd{secrets.token_hex(4)}"
    execute(engine, f"CREATE ROLE {role} LOGIN")
    execute(engine, f"GRANT ALL ON SCHEMA public TO {role}")
    for name, value in POSTGRESQL.items():
        listed = value if name in {"search_path", "DateStyle"} else f"'{value}'"
        known = f"SELECT COUNT(*) FROM pg_settings WHERE name = '{name}'"
        with engine.connect() as connection:
            is_known = connection.exec_driver_sql(known).scalar()
        if is_known:
            execute(engine, f"ALTER ROLE {role} SET {name} = {listed}")
    yield engine.url.set(username=role).render_as_string(hide_password=False)
    with engine.connect() as connection:
        ours = [*inspect(connection).get_table_names()]
    assert VERSION_TABLE in ours
    execute(engine, f"REASSIGN OWNED BY {role} TO CURRENT_USER")
    execute(engine, f"DROP OWNED BY {role}")
    execute(engine, f"DROP ROLE {role}")
    engine.dispose()


@contextmanager
def _mariadb(url: str) -> Iterator[str]:
    """Begin each session as a server's init_connect would."""
    settings = ", ".join(f"{name} = {value}" for name, value in MARIADB.items())
    yield f"{url}?init_command={quote('SET SESSION ' + settings)}"


@contextmanager
def _sqlite(url: str) -> Iterator[str]:
    """Take a file that another program made in its own way: its encoding is the file's for good."""
    file = sqlite3.connect(url.removeprefix("sqlite:///"))
    file.executescript(
        "PRAGMA encoding = 'UTF-16be'; PRAGMA auto_vacuum = FULL; PRAGMA page_size = 512;"
        "CREATE TABLE theirs (sid); PRAGMA user_version = 7"
    )
    file.close()
    yield url


def test_no_setting_changes_what_we_do(
    empty_database_url: str,
    database_kind: str,
    servers: Servers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows and reports are those of a database as it comes."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGDATESTYLE", "SQL, DMY")
    odd = {"sqlite": _sqlite, "mariadb": _mariadb}.get(database_kind, _postgresql)
    plainly, oddly = tmp_path / "plain", tmp_path / "odd"
    plainly.mkdir()
    oddly.mkdir()
    with servers(database_kind).database(migrated=False) as url:
        engine = open_engine(url)
        expected = whole_job(url, engine, plainly)
        engine.dispose()
    engine = open_engine(empty_database_url)
    with odd(empty_database_url) as url, no_zones():
        actual = whole_job(url, engine, oddly, zones=False)
    engine.dispose()
    assert expected == actual
