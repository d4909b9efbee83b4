"""Read a database's address, and say which part of it is not understood.

No message repeats a value of it: a password may stand anywhere.
"""

import re
from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from etl.database.dialects import DIALECTS, dialect
from etl.errors import ConfigError

_ENCODE: Final = "Write @ as %40, # as %23, / as %2F, : as %3A and % as %25."
_HOSTS: Final = re.compile(r"([\w+]+://(?:[^@]*@)?)([^@/?,]*(?:,[^@/?,]*)+)(/[^?]*)?(?:\?(.*))?")
_PASSWORDS: Final = ("password", "passwd")


def parse_url(url: str) -> URL:
    """Read a database address; plain schemes mean psycopg 3 and PyMySQL, and so do other drivers.

    A password in the query is put where a password stands. Raises ``ConfigError``. Its message
    never shows the address.
    """
    try:
        parsed = make_url(_HOSTS.sub(_one_each, url))
    except (ArgumentError, ValueError):
        # ValueError: a '/' or '@' in the password makes its rest the port, which is quoted.
        if url.partition("?")[0].count("@") > 1:
            raise _unencoded() from None
        msg = "DATABASE_URL is not a database address."
        raise ConfigError(
            msg,
            hint="Write sqlite:///FILE, postgresql://USER@HOST/NAME or mariadb://USER@HOST/NAME. "
            f"In a password, percent-encode what is no letter or digit. {_ENCODE}",
        ) from None
    if "@" in (parsed.host or ""):
        # The rest of the password would be the host, which the driver's error would quote.
        raise _unencoded()
    parsed = parsed.set(drivername=_ours(parsed))
    for name in _PASSWORDS:
        if isinstance(given := parsed.query.get(name), str):
            parsed = parsed.set(password=given).difference_update_query([name])
    return parsed


def _one_each(found: re.Match[str]) -> str:
    """Write several hosts as SQLAlchemy reads them: each an option."""
    before, hosts, path, query = found.groups()
    options = [f"host={host}" for host in hosts.split(",")]
    return f"{before}{path or '/'}?{'&'.join([*options, *filter(None, [query])])}"


def _unencoded() -> ConfigError:
    msg = "DATABASE_URL has an @ in its password or user that is not percent-encoded."
    return ConfigError(msg, hint=_ENCODE)


def _ours(url: URL) -> str:
    """Say which driver of ours an address means: that of its kind of database."""
    kind = "postgresql" if url.drivername == "postgres" else url.get_backend_name()
    if kind not in DIALECTS:
        msg = f"DATABASE_URL names {kind!r}, which is not supported."
        raise ConfigError(msg, hint="Use SQLite, PostgreSQL, MariaDB or MySQL.")
    if "+" in url.drivername and url.drivername != dialect(kind).driver.name:
        try:
            url.get_dialect()
        except NoSuchModuleError as error:
            msg = f"DATABASE_URL names a driver that does not exist: {url.drivername}."
            hint = "Write postgresql:// or mariadb:// without a driver."
            raise ConfigError(msg, hint=hint) from error
    return dialect(kind).driver.name
