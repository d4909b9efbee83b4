"""Resolve the settings once, into one frozen model: flag > environment > file > default.

Each setting has one environment name for all commands. Twilio's own names mean what they mean to
Twilio's tools: an API key wins over the auth token. Secrets have no flag. No repr, log or traceback
shows them, nor the database address's password.
"""

import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
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

from etl import addresses
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
    "region": "TWILIO_REGION",
    "edge": "TWILIO_EDGE",
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

FILE_NAME: Final = "VERIFY_ETL_CONFIG"
"""Names the file of settings in the environment, as ``-c`` does."""

SECRET: Final = ("auth_token", "api_secret")
"""What is never shown. Other addresses are shown without their passwords."""

_OURS: Final = "VERIFY_ETL_"
# The program's own tests are told of their servers by these.
_OF_TESTS: Final = "VERIFY_ETL_TEST_"

_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
# Ten years. Anything longer is a slip, and must fit every database with an epoch added.
_LONGEST_MS: Final = 3650 * _UNITS["d"]
_DURATION: Final = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*(ms|s|m|h|d)", re.ASCII)
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


def _check_proxy(proxy: SecretStr) -> SecretStr:
    addresses.check_proxy(proxy.get_secret_value())
    return proxy


def _check_database(url: SecretStr) -> SecretStr:
    addresses.check_database(url.get_secret_value())
    return url


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
    database_url: Annotated[SecretStr, AfterValidator(_check_database)] = SecretStr(
        DEFAULT_DATABASE_URL
    )
    api_url: Annotated[str, AfterValidator(addresses.check_api)] = DEFAULT_API_URL
    region: Annotated[str, AfterValidator(addresses.check_label)] = ""
    edge: Annotated[str, AfterValidator(addresses.check_label)] = ""
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
    def api_address(self) -> str:
        """Return where requests go: the API's address in the region, if one is set."""
        return addresses.in_region(self.api_url, self.region, self.edge) or self.api_url

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

    def _conflicts(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if self.price_grace < self.settle_after:
            pair = ("price_grace", "settle_after")
            yield pair, "price_grace must not be shorter than settle_after"
        for name in ("settle_after", "price_grace"):
            if getattr(self, name) > self.retention:
                yield (name, "retention"), f"{name} must not be longer than retention"
        if self.settle_after <= self.retention < self.settle_after + self.refresh_round:
            text = "settle_after and refresh_round together must not be longer than retention"
            yield ("settle_after", "refresh_round", "retention"), text
        if addresses.in_region(self.api_url, self.region, self.edge) is None:
            name = "region" if self.region else "edge"
            text = f"{name} ({ENVIRONMENT[name]}) goes with hosts of Twilio's: unset it, or api_url"
            yield (name, "api_url"), text
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
    """Read a TOML file of settings; relative paths in it are relative to the file.

    Raises ``ConfigError`` if it cannot be read.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        msg = f"the settings file {path} cannot be read: {error.strerror}."
        raise ConfigError(msg, hint=f"Check the path after -c, or in {FILE_NAME}.") from error
    except tomllib.TOMLDecodeError as error:
        # Not `from error`: newer Pythons attach the whole document to it.
        msg = f"the settings file {path} is not TOML: {error}."
        raise ConfigError(msg, hint="Run: verify-etl config example") from None
    except UnicodeDecodeError:
        msg = f"the settings file {path} is not UTF-8 text."
        raise ConfigError(msg, hint="Run: verify-etl config example") from None
    url, bundle = values.get("database_url"), values.get("ca_bundle")
    if isinstance(url, str):
        values["database_url"] = addresses.beside(path, url)
    if isinstance(bundle, str) and bundle:
        values["ca_bundle"] = str(path.parent / bundle)
    return values


@dataclass(frozen=True, slots=True)
class Resolved:
    """Hold the settings, and where each that was given came from."""

    settings: Settings
    origin: Mapping[str, str]


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """Merge flag > environment > file > default into ``Settings``; see ``resolve``."""
    return resolve(flags, environ=environ, file=file).settings


def resolve(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Resolved:
    """Merge flag > environment > file > default, and keep where each setting came from.

    Flags that are None and empty environment variables count as not given. Raises ``ConfigError``
    with every problem and its source.
    """
    environ = os.environ if environ is None else environ
    values, origin = _merged(flags or {}, environ, file)
    problems = list(_unknown(environ))
    unreadable: set[str] = set()
    try:
        settings = Settings.model_validate(values)
        if not problems:
            return Resolved(settings, origin)
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


def _merged(
    flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the value of each setting that was given, and where it came from."""
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if file is None and (named := environ.get(FILE_NAME, "").strip()):
        file = Path(named)
    if file is not None:
        values.update(read_file(file))
        origin.update(dict.fromkeys(values, str(file)))
    for name, variable in ENVIRONMENT.items():
        if environ.get(variable, "").strip():
            values[name] = environ[variable].strip()
            origin[name] = variable
    for name, value in flags.items():
        if value is not None:
            values[name] = value
            origin[name] = "--" + name.replace("_", "-")
    return values, origin


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    """Say which variables look like ours and are none, with the name that was meant."""
    known = {*ENVIRONMENT.values(), FILE_NAME}
    for variable in sorted(environ):
        spelled = variable.upper()
        ours = spelled.startswith(_OURS) and not spelled.startswith(_OF_TESTS)
        if ours and variable not in known and environ[variable].strip():
            # Twilio's names and DATABASE_URL have no prefix of ours.
            setting = spelled.removeprefix(_OURS).lower()
            near = ENVIRONMENT.get(setting) or _near(spelled, known)
            yield f"{variable}: there is no such setting{_meant(near)}"


def _near(name: str, known: Collection[str]) -> str | None:
    from difflib import get_close_matches  # noqa: PLC0415 - only for a slip

    return next(iter(get_close_matches(name, known, n=1)), None)


def _meant(near: str | None) -> str:
    return f" (did you mean {near}?)" if near else ""


def _problems(error: ValidationError, origin: Mapping[str, str]) -> Iterator[str]:
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        name = ".".join(map(str, detail["loc"]))
        text = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            setting = {variable: name for name, variable in ENVIRONMENT.items()}.get(name.upper())
            text = "there is no such setting" + _meant(setting or _near(name.lower(), ENVIRONMENT))
        where = f" (from {origin[name]})" if name in origin else ""
        yield f"{name}{where}: {text}" if name else text
