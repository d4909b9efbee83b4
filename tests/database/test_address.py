"""Check which addresses of databases work, and what is said of those that do not."""

import sqlite3
import sys
from urllib.parse import quote

import pytest
from sqlalchemy import Engine, text

from etl.database.address import parse_url
from etl.database.dialects import mysql_driver, postgresql_driver, sqlite_driver
from etl.database.engine import open_engine
from etl.database.transact import transact
from etl.errors import ConfigError
from tests.support.harness import command
from tests.support.queue_rows import execute


def login(engine: Engine) -> None:
    """Open a connection as a command does."""
    transact(engine, lambda c: c.execute(text("SELECT 1")), doing="connecting", patience_s=0)


def with_options(engine: Engine, options: str) -> str:
    """Write an engine's address with more options."""
    url = engine.url.render_as_string(hide_password=False)
    return f"{url}{'&' if '?' in url else '?'}{options}"


@pytest.mark.parametrize(
    ("url", "part", "write"),
    [
        ("sqlite://verify.db", "names a host", "sqlite:///FILE"),
        ("sqlite:///x.db?password=s3cret", "or a user", "sqlite:///FILE"),
        ("sqlite:///x.db?mode=ro", "not understood: mode", "Leave it out"),
        ("postgresql://u@h/d?schema=s3cret", "not understood: schema", "options=-csearch_path"),
        ("postgresql://u@h/d?ssl=true", "not understood: ssl.", "sslmode=require"),
        ("postgresql://u@h/d?ssl-mode=REQUIRED", "not understood: ssl-mode", "sslmode=require"),
        ("postgresql+asyncpg://u@h/d?ssl=true", "not understood: ssl.", "sslmode=require"),
        ("postgresql://u@h/d?sslmod=require", "not understood: sslmod", "Write sslmode"),
        ("postgresql://u@h/d?connection_limit=1", "connection_limit", ""),
        ("mysql://u@h/d?ssl=true", "not understood: ssl.", "ssl-mode=REQUIRED"),
        ("mysql://u@h/d?ssl-mode=VERIFY_CA", "no certificate", "ssl_ca=FILE"),
        ("mysql://u@h/d?ssl-mode=perhaps", "ssl-mode", "REQUIRED"),
        ("mariadb://u@h1,h2/d", "several hosts", "one host"),
        ("postgresql://u:a@s3cret:b@h/d", "an @ in its password", "%40"),
        ("postgresql://u:s3cret@x@h/d", "an @ in its password", "%40"),
        ("postgresql://u:p@h:s3cret#x/d", "not a database address", "%23"),
    ],
)
def test_what_is_not_understood_is_named(url: str, part: str, write: str) -> None:
    """One sentence says which part is not understood, another what to write; no value is said."""
    with pytest.raises(ConfigError) as caught:
        open_engine(url)
    assert part in caught.value.message
    assert write in caught.value.hint
    assert "s3cret" not in str(caught.value)


@pytest.mark.kinds("postgresql", "second-postgresql")
@pytest.mark.parametrize(
    "options",
    [
        "sslmode=prefer", "pgbouncer=true", "prepare_threshold=0", "target_session_attrs=read-write",
        "connect_timeout=5", "sslmode=disable&pgbouncer=true",
    ],
)  # fmt: skip
def test_options_of_hosted_postgresql_work(engine: Engine, options: str) -> None:
    """What has an obvious meaning works on a real server."""
    opened = open_engine(with_options(engine, options))
    login(opened)
    opened.dispose()


@pytest.mark.kinds("mariadb")
@pytest.mark.parametrize("mode", ["PREFERRED", "DISABLED", "prefer"])
def test_modes_of_hosted_mysql_work(engine: Engine, mode: str) -> None:
    """The modes that a server without TLS can fulfil let the user in."""
    opened = open_engine(with_options(engine, f"ssl-mode={mode}"))
    login(opened)
    opened.dispose()


@pytest.mark.kinds("mariadb")
def test_encryption_that_is_asked_for_is_had_or_said(engine: Engine) -> None:
    """With `ssl-mode=REQUIRED` nobody logs in to a server without TLS in the clear."""
    with engine.connect() as connection:
        has_tls = connection.exec_driver_sql("SELECT @@have_ssl = 'YES'").scalar_one()
    opened = open_engine(with_options(engine, "ssl-mode=REQUIRED"))
    if has_tls:
        login(opened)
    else:
        with pytest.raises(ConfigError, match="no encrypted connection"):
            login(opened)
    opened.dispose()


@pytest.mark.kinds("second-postgresql")
def test_several_hosts_are_tried_in_turn(engine: Engine) -> None:
    """The first host refuses, the second one answers."""
    url = engine.url
    hosts = f"127.0.0.1:1,{url.host}:{url.port or 5432}"
    opened = open_engine(f"postgresql://{url.username}@{hosts}/{url.database}?connect_timeout=5")
    login(opened)
    opened.dispose()


@pytest.mark.parametrize(
    "scheme", ["postgresql+psycopg2", "postgresql+asyncpg", "mysql+mysqldb", "mysql+aiomysql"]
)
def test_other_drivers_mean_ours(scheme: str) -> None:
    """An application's address works, for its driver says nothing of the database."""
    ours = parse_url(f"{scheme.partition('+')[0]}://u@h/d").drivername
    assert open_engine(f"{scheme}://u@h/d").url.drivername == ours


@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "mariadb"])
@pytest.mark.parametrize("name", ["password", "passwd"])
def test_a_password_in_the_query_is_one(scheme: str, name: str) -> None:
    """It is used, and neither an engine's repr nor doctor shows it, percent-encoded or not."""
    secret = "s3cret/+word"
    url = f"{scheme}://u@127.0.0.1:1/d?{name}={quote(secret, safe='')}"
    engine = open_engine(url)
    assert (engine.url.password, "s3cret" in repr(engine)) == (secret, False)
    done = command("-v", "doctor", "--offline", "--json", env={"DATABASE_URL": url})
    assert "127.0.0.1" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.kinds("postgresql")
def test_no_other_secret_of_an_address_is_shown(engine: Engine) -> None:
    """The key's password in `?sslpassword=` is masked where doctor shows the address."""
    url = with_options(engine, "sslpassword=s3cret")
    done = command("doctor", "--offline", env={"DATABASE_URL": url})
    assert "sslpassword=***" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr


def test_a_version_too_old_is_refused_at_the_door(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each real database is refused by name once a later version is needed."""
    monkeypatch.setattr(sqlite_driver, "OLDEST", (99, 0))
    monkeypatch.setattr(postgresql_driver, "OLDEST", (99, 0))
    monkeypatch.setattr(mysql_driver, "OLDEST", {"MariaDB": (99, 0, 0), "MySQL": (99, 0, 0)})
    url = engine.url.render_as_string(hide_password=False)
    with pytest.raises(
        ConfigError, match=r"[Tt]he database is \w+ [\d.]+, and .* 99\.0.* or later"
    ):
        login(open_engine(url))


def test_the_oldest_versions_are_those_documented() -> None:
    """README.md names the versions that the door lets in."""
    from tests.support.harness import ROOT

    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    oldest = mysql_driver.OLDEST
    assert f"PostgreSQL {postgresql_driver.OLDEST[0]}," in readme
    assert "MariaDB {}.{},".format(*oldest["MariaDB"]) in readme
    assert "MySQL {}.{}.{}".format(*oldest["MySQL"]) in readme
    assert "SQLite {}.{}".format(*sqlite_driver.OLDEST) in readme
    assert sqlite3.sqlite_version_info >= sqlite_driver.OLDEST


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("8.0.36-log", ("MySQL", (8, 0, 36))),
        ("10.11.6-MariaDB-0+deb12u1", ("MariaDB", (10, 11, 6))),
        ("5.5.5-10.4.32-MariaDB", ("MariaDB", (10, 4, 32))),
    ],
)
def test_versions_are_read(said: str, version: tuple[str, tuple[int, ...]]) -> None:
    """MariaDB's own version counts, not the one it shows to old replicas."""
    assert mysql_driver._version(said) == version


@pytest.mark.kinds("mariadb")
def test_ed25519_logs_in_or_names_its_package(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB's plugin works with PyNaCl, and without it the package is named."""
    user = f"u{(engine.url.database or '')[-20:]}"
    if not _has_plugin(engine):
        execute(engine, "INSTALL SONAME 'auth_ed25519'")
    execute(engine, f"CREATE USER {user}@'%' IDENTIFIED VIA ed25519 USING PASSWORD('p€ss')")
    execute(engine, f"GRANT ALL ON `{engine.url.database}`.* TO {user}@'%'")
    url = engine.url.set(username=user, password="p€ss").render_as_string(hide_password=False)
    try:
        opened = open_engine(url)
        login(opened)
        opened.dispose()
        monkeypatch.setattr("pymysql._auth._nacl_bindings", False)
        monkeypatch.setitem(sys.modules, "nacl", None)
        with pytest.raises(ConfigError, match="needs PyNaCl, which is not installed") as caught:
            login(open_engine(url))
        assert caught.value.hint == "Run: pip install PyNaCl"
    finally:
        execute(engine, f"DROP USER {user}@'%'")


def _has_plugin(engine: Engine) -> bool:
    with engine.connect() as connection:
        found = "SELECT 1 FROM information_schema.plugins WHERE plugin_name = 'ed25519'"
        return connection.exec_driver_sql(found).first() is not None
