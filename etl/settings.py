"""Resolve the settings once, into one frozen model: flag > environment > file > default.

Each setting has one environment name for all commands. Twilio's own names mean what they mean to
Twilio's tools: an API key wins over the auth token. Secrets have no flag. No repr, log or traceback
shows them, nor the database address's password.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from etl.errors import ConfigError
from etl.final import Policy

DEFAULT_DATABASE_URL: Final = "sqlite:///verify-attempts.db"
DEFAULT_API_URL: Final = "https://verify.twilio.com"
ENVIRONMENT: Final = {
    "account_sid": "TWILIO_ACCOUNT_SID",
    "auth_token": "TWILIO_AUTH_TOKEN",
    "api_key": "TWILIO_API_KEY",
    "api_secret": "TWILIO_API_SECRET",
    "database_url": "DATABASE_URL",
    "api_url": "VERIFY_ETL_API_URL",
    "allowance": "VERIFY_ETL_ALLOWANCE",
    "allowance_window": "VERIFY_ETL_ALLOWANCE_WINDOW",
    "concurrency": "VERIFY_ETL_CONCURRENCY",
    "settle_after": "VERIFY_ETL_SETTLE_AFTER",
    "price_grace": "VERIFY_ETL_PRICE_GRACE",
    "refresh_round": "VERIFY_ETL_REFRESH_ROUND",
    "retention": "VERIFY_ETL_RETENTION",
    "page_size": "VERIFY_ETL_PAGE_SIZE",
    "proxy": "VERIFY_ETL_PROXY",
    "ca_bundle": "VERIFY_ETL_CA_BUNDLE",
}
"""The setting's name in a file -> its name in the environment."""

_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
# Ten years. Anything longer is a slip, and must fit every database with an epoch added.
_LONGEST_MS: Final = 3650 * _UNITS["d"]
_DURATION: Final = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*(ms|s|m|h|d)", re.ASCII)
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_ACCOUNT_SID: Final = re.compile(r"AC[0-9a-fA-F]{32}", re.ASCII)


def parse_duration(value: object) -> int:
    """Read ``90s``, ``15m``, ``24h``, ``30d`` or ``250ms`` as milliseconds.

    Raises ``ValueError`` for anything else and for more than ten years. A bare number is refused,
    too: days read as minutes have cost others whole syncs.
    """
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        msg = "write a duration with its unit, such as 90s, 15m, 24h or 30d"
        raise ValueError(msg)
    milliseconds = round(float(match[1]) * _UNITS[match[2]])
    if milliseconds > _LONGEST_MS:
        msg = "no duration may be longer than 3650d"
        raise ValueError(msg)
    return milliseconds


def _check_api_url(url: str) -> str:
    # urlsplit's ValueError (a bad port, a bad address) may quote the address.
    msg = "write https://HOST, or http:// to this machine only"
    try:
        parts = urlsplit(url)
        port_is_legal = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(msg) from None
    secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    extra = parts.username or parts.password or parts.query or parts.fragment
    if not secure or not parts.hostname or extra or not port_is_legal:
        raise ValueError(msg)
    return url


def _check_proxy(proxy: SecretStr) -> SecretStr:
    # It may hold a password, so it is not repeated.
    if not proxy.get_secret_value():
        return proxy
    msg = "write http://HOST:PORT"
    try:
        parts = urlsplit(proxy.get_secret_value())
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError(msg) from None
    if not usable:
        raise ValueError(msg)
    return proxy


def _check_account_sid(sid: str) -> str:
    if sid and not _ACCOUNT_SID.fullmatch(sid):
        msg = "write AC and 32 hex digits"
        raise ValueError(msg)
    return sid


def _refuse_boolean(value: object) -> object:
    # Python's True is 1, and `true` would be an allowance of 1.
    if isinstance(value, bool):
        msg = "write a whole number"
        raise ValueError(msg)  # noqa: TRY004 - pydantic turns only this into a message
    return value


Duration = Annotated[int, BeforeValidator(parse_duration)]
"""Milliseconds, written with a unit."""

Count = Annotated[int, BeforeValidator(_refuse_boolean)]
"""A whole number."""


_POLICY: Final = Policy()


class Settings(BaseModel):
    """Hold every resolved setting. All durations are in milliseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    account_sid: Annotated[str, AfterValidator(_check_account_sid)] = ""
    auth_token: SecretStr = SecretStr("")
    api_key: str = ""
    api_secret: SecretStr = SecretStr("")
    database_url: SecretStr = SecretStr(DEFAULT_DATABASE_URL)
    api_url: Annotated[str, AfterValidator(_check_api_url)] = DEFAULT_API_URL
    allowance: Annotated[Count, Field(ge=0, le=100_000)] = 100
    allowance_window: Annotated[Duration, Field(gt=0)] = 60_000
    concurrency: Annotated[Count, Field(ge=1, le=256)] = 16
    settle_after: Duration = _POLICY.settle_after
    price_grace: Duration = _POLICY.price_grace
    refresh_round: Annotated[Duration, Field(gt=0)] = _POLICY.refresh_round
    retention: Annotated[Duration, Field(gt=0)] = _POLICY.retention
    page_size: Annotated[Count, Field(ge=1, le=1000)] = 1000
    proxy: Annotated[SecretStr, AfterValidator(_check_proxy)] = SecretStr("")
    ca_bundle: str = ""

    @property
    def policy(self) -> Policy:
        """Return the ages at which things settle."""
        return Policy(self.settle_after, self.price_grace, self.refresh_round, self.retention)

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        # `load` names the unreadable fields. Rules that involve them are not judged.
        unreadable = set(info.context or ())
        problems = [text for names, text in self._conflicts() if not unreadable & set(names)]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _conflicts(self) -> Iterator[tuple[tuple[str, str], str]]:
        if self.price_grace < self.settle_after:
            pair = ("price_grace", "settle_after")
            yield pair, "price_grace must not be shorter than settle_after"
        if bool(self.api_key) != bool(self.api_secret.get_secret_value()):
            pair = ("api_key", "api_secret")
            yield pair, "api_key and api_secret go together: set both or neither"

    def secrets(self) -> tuple[str, ...]:
        """Return what no message may show."""
        proxy = urlsplit(self.proxy.get_secret_value()).password or ""
        return (
            self.auth_token.get_secret_value(), self.api_secret.get_secret_value(),
            proxy, unquote(proxy),
        )  # fmt: skip

    def credentials(self) -> tuple[str, str, str]:
        """Return user, password and the *name* of the credential in use. The key wins.

        Raises ``ConfigError`` with the variables to set if there is none.
        """
        if not self.account_sid:
            msg = "no account is configured:"
            raise ConfigError(msg, hint="set TWILIO_ACCOUNT_SID (AC and 32 hex digits).")
        if self.api_key:
            return self.api_key, self.api_secret.get_secret_value(), "TWILIO_API_KEY"
        if token := self.auth_token.get_secret_value():
            return self.account_sid, token, "TWILIO_AUTH_TOKEN"
        msg = f"no credential is configured for account {self.account_sid}:"
        raise ConfigError(
            msg, hint="set TWILIO_API_KEY and TWILIO_API_SECRET, or TWILIO_AUTH_TOKEN."
        )


def read_file(path: Path) -> dict[str, Any]:
    """Read a TOML file of settings. Raises ``ConfigError`` if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        msg = f"the settings file {path} cannot be read: {error.strerror}."
        raise ConfigError(msg, hint="Check the path after -c.") from error
    except tomllib.TOMLDecodeError as error:
        # Not `from error`: newer Pythons attach the whole document to it.
        msg = f"the settings file {path} is not TOML: {error}."
        raise ConfigError(msg, hint="Run: verify-etl config example") from None
    except UnicodeDecodeError:
        msg = f"the settings file {path} is not UTF-8 text."
        raise ConfigError(msg, hint="Run: verify-etl config example") from None


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """Merge flag > environment > file > default into ``Settings``.

    Flags that are None and empty environment variables count as not given. Raises ``ConfigError``
    with every problem and its source.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if file is not None:
        values.update(read_file(file))
        origin.update(dict.fromkeys(values, str(file)))
    for name, variable in ENVIRONMENT.items():
        if environ.get(variable, "").strip():
            values[name] = environ[variable].strip()
            origin[name] = variable
    for name, value in (flags or {}).items():
        if value is not None:
            values[name] = value
            origin[name] = "--" + name.replace("_", "-")
    problems: list[str] = []
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems += _problems(error, origin)
        unreadable = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
    if unreadable:
        # The readable ones may be wrong together; that is reported, too.
        readable = {name: values[name] for name in values.keys() - unreadable}
        try:
            Settings.model_validate(readable, context=unreadable)
        except ValidationError as error:
            problems += _problems(error, origin)
    # Raised out here, so that no pydantic error is attached: it holds the values.
    raise ConfigError(
        "the settings are not usable: " + "; ".join(problems) + ".",
        hint="Run: verify-etl config example",
    )


def _problems(error: ValidationError, origin: Mapping[str, str]) -> Iterator[str]:
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        name = ".".join(map(str, detail["loc"]))
        text = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            text = "there is no such setting"
        where = f" (from {origin[name]})" if name in origin else ""
        yield f"{name}{where}: {text}" if name else text
