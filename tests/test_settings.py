"""Hold the settings to their order, their units, and their silence about secrets."""

import logging
import re
import traceback
from pathlib import Path

import pytest
from pydantic import SecretStr

from etl.errors import ConfigError
from etl.settings import ENVIRONMENT, Settings, load, parse_duration, read_file

ROOT = Path(__file__).parent.parent
ACCOUNT = "AC" + "0" * 32
SECRETS = {
    "TWILIO_AUTH_TOKEN": "hidden-token",
    "TWILIO_API_SECRET": "hidden-secret",
    "DATABASE_URL": "postgresql://user:hidden-password@host/db",
    "VERIFY_ETL_PROXY": "http://user:hidden-proxy@host:3128",
}


def write(folder: Path, text: str) -> Path:
    """Write a settings file."""
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_setting_has_an_environment_name() -> None:
    """Each setting has one flat name in the environment, and no name is left over."""
    assert set(ENVIRONMENT) == set(Settings.model_fields)
    assert len(set(ENVIRONMENT.values())) == len(ENVIRONMENT)


def test_defaults() -> None:
    """Without flags, environment and file, the defaults hold."""
    assert load(environ={}) == Settings()


def test_precedence(tmp_path: Path) -> None:
    """A flag wins over the environment, that over the file, that over the default."""
    file = write(tmp_path, "allowance = 1\nconcurrency = 1\npage_size = 1\n")
    environ = {"VERIFY_ETL_ALLOWANCE": "2", "VERIFY_ETL_CONCURRENCY": "2"}
    found = load({"allowance": 3}, environ=environ, file=file)
    shown = (found.allowance, found.concurrency, found.page_size, found.settle_after)
    assert shown == (3, 2, 1, 86_400_000)


@pytest.mark.parametrize("name", sorted(ENVIRONMENT))
def test_empty_is_not_given(name: str) -> None:
    """A variable that is empty or blank, and a flag that is None, leave the default."""
    assert load({name: None}, environ={ENVIRONMENT[name]: "  "}) == Settings()


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("250ms", 250),
        ("90s", 90_000),
        ("15m", 900_000),
        ("24h", 86_400_000),
        ("30d", 2_592_000_000),
        ("1.5h", 5_400_000),
        (" 2 m ", 120_000),
        ("0s", 0),
    ],
)
def test_durations(text: str, milliseconds: int) -> None:
    """A duration is a number and a unit."""
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    "value",
    [
        "90",
        90,
        1.5,
        "",
        "h",
        "-1h",
        "1w",
        "1 hour",
        "1h30m",
        "\u0661s",
        "9" * 400 + "d",
        "3651d",
        True,
    ],
)
def test_what_is_no_duration(value: object) -> None:
    """A bare number, a sign, an unknown unit or more than ten years are refused."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


def test_every_problem_at_once(tmp_path: Path) -> None:
    """Fields, unknown names and contradictions are reported together, each with its origin."""
    file = write(tmp_path, 'colour = "red"\nsettle_after = 24\nallowance = true\n')
    environ = {
        "TWILIO_ACCOUNT_SID": "AC1",
        "TWILIO_API_KEY": "SK1",
        "VERIFY_ETL_API_URL": "http://example.com",
        "VERIFY_ETL_PRICE_GRACE": "1h",
    }
    with pytest.raises(ConfigError) as caught:
        load({"page_size": 1001}, environ=environ, file=file)
    said = str(caught.value)
    for expected in (
        f"colour (from {file}): there is no such setting",
        f"settle_after (from {file}): write a duration",
        f"allowance (from {file}): write a whole number",
        "account_sid (from TWILIO_ACCOUNT_SID): write AC and 32 hex digits",
        "api_url (from VERIFY_ETL_API_URL): write https://",
        "page_size (from --page-size)",
        "api_key and api_secret go together",
    ):
        assert expected in said
    # settle_after could not be read: nothing is said about what it would contradict.
    assert "shorter" not in said


def test_contradiction() -> None:
    """The wait for a price cannot end before the wait for everything else."""
    with pytest.raises(ConfigError, match="price_grace must not be shorter than settle_after"):
        load(environ={"VERIFY_ETL_PRICE_GRACE": "1h"})


@pytest.mark.parametrize(
    "url",
    ["https://verify.twilio.com", "https://host:8443", "http://127.0.0.1:8000", "http://[::1]:1",
     "http://localhost"],
)  # fmt: skip
def test_api_urls(url: str) -> None:
    """Any host by https, this machine by http."""
    assert load({"api_url": url}, environ={}).api_url == url


@pytest.mark.parametrize(
    "url",
    ["http://verify.twilio.com", "http://127.0.0.1.example.com", "https://", "verify.twilio.com",
     "https://user:hidden@host", "https://host?x=1", "https://host#x", "ftp://host", "http://[::1",
     "https://host:99999", "https://host:hidden"],
)  # fmt: skip
def test_refused_api_urls(url: str) -> None:
    """Credentials are sent to no other machine in the clear, and the address is not repeated."""
    with pytest.raises(ConfigError, match="api_url") as caught:
        load({"api_url": url}, environ={})
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["foo", "foo:3128", "http://", "http://h:99999", "socks5://h:1"])
def test_refused_proxies(proxy: str) -> None:
    """A proxy that could not be used is refused at once, and the address is not repeated."""
    with pytest.raises(ConfigError, match=r"VERIFY_ETL_PROXY.*http://HOST:PORT") as caught:
        load(environ={"VERIFY_ETL_PROXY": proxy})
    assert proxy == "http://" or proxy not in str(caught.value)


def test_the_key_wins() -> None:
    """An API key is used before the auth token, and each is called by its name."""
    token = {"TWILIO_ACCOUNT_SID": ACCOUNT, "TWILIO_AUTH_TOKEN": "t"}
    key = {"TWILIO_API_KEY": "SK1", "TWILIO_API_SECRET": "s"}
    assert load(environ=token).credentials() == (ACCOUNT, "t", "TWILIO_AUTH_TOKEN")
    assert load(environ=token | key).credentials() == ("SK1", "s", "TWILIO_API_KEY")


@pytest.mark.parametrize(
    ("environ", "names"),
    [({}, "TWILIO_ACCOUNT_SID"), ({"TWILIO_ACCOUNT_SID": ACCOUNT}, "TWILIO_API_KEY.*AUTH_TOKEN")],
)
def test_missing_credentials(environ: dict[str, str], names: str) -> None:
    """What is missing is named, with what to set."""
    with pytest.raises(ConfigError, match=names):
        load(environ=environ).credentials()


def test_secrets_are_not_shown() -> None:
    """No way of printing the settings shows a secret, the database's password included."""
    settings = load(environ=SECRETS | {"TWILIO_API_KEY": "SK1"})
    shown = [repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()]
    assert "hidden" not in " ".join(shown)
    assert settings.database_url.get_secret_value() == SECRETS["DATABASE_URL"]


def test_errors_show_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No error, nor any error behind it, nor its traceback in the log, shows a secret."""
    word = "hid" + "den"
    file = write(
        tmp_path, f'auth_token = ["{word}-list"]\nproxy = 5\ndatabase_url = {{a = "{word}"}}'
    )
    with pytest.raises(ConfigError) as caught:
        load(environ={"VERIFY_ETL_ALLOWANCE": word, "TWILIO_API_SECRET": word}, file=file)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("etl").debug("ended by", exc_info=caught.value)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(caught.value)
    assert word not in shown
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), (b"a = [", "is not TOML"), (b"\xff\xfe", "is not UTF-8")],
)
def test_unreadable_files(tmp_path: Path, content: bytes | None, said: str) -> None:
    """A file that is missing, no TOML or no text is named."""
    path = tmp_path / "settings.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{re.escape(str(path))} {said}"):
        read_file(path)


def test_byte_order_mark(tmp_path: Path) -> None:
    """A byte order mark, which some editors write, is no obstacle."""
    path = tmp_path / "settings.toml"
    path.write_bytes(b"\xef\xbb\xbfallowance = 7\n")
    assert load(environ={}, file=path).allowance == 7


EXAMPLES = [path for path in sorted((ROOT / "config").glob("*.toml")) if "fees" not in path.name]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples_load(path: Path) -> None:
    """Each example loads, and holds no secret."""
    settings = load(environ={}, file=path)
    secrets = [value for value in vars(settings).values() if isinstance(value, SecretStr)]
    assert [
        secret
        for secret in secrets
        if secret.get_secret_value() not in {"", "sqlite:///verify-attempts.db"}
    ] == []


def test_the_example_is_complete() -> None:
    """config/example.toml names every setting with its default, and its name in the environment."""
    path = ROOT / "config" / "example.toml"
    assert set(read_file(path)) == set(Settings.model_fields)
    assert load(environ={}, file=path) == Settings()
    text = path.read_text(encoding="utf-8")
    assert [name for name in ENVIRONMENT.values() if name not in text] == []
