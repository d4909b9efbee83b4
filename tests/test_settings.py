"""Hold the settings to their order, their units, and their silence about secrets."""

import logging
import re
import traceback
from pathlib import Path

import pytest
from pydantic import SecretStr
from twilio.rest import Client  # type: ignore[import-untyped]

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


@pytest.mark.parametrize("name", ["settle_after", "price_grace"])
def test_nothing_settles_after_it_is_forgotten(name: str) -> None:
    """What the API has forgotten cannot be looked at: neither wait is longer than its memory."""
    given = {"VERIFY_ETL_RETENTION": "5d", "VERIFY_ETL_PRICE_GRACE": "5d"}
    assert load(environ=given).price_grace == 5 * 86_400_000
    with pytest.raises(ConfigError, match="settle_after and refresh_round together"):
        load(environ={**given, "VERIFY_ETL_SETTLE_AFTER": "119.5h"})
    given["VERIFY_ETL_PRICE_GRACE"] = given[f"VERIFY_ETL_{name.upper()}"] = "6d"
    with pytest.raises(ConfigError, match=f"{name} must not be longer than retention"):
        load(environ=given)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("VERIFY_ETL_ALOWANCE", "VERIFY_ETL_ALLOWANCE"),
        ("VERIFY_ETL_CONFIGURATION", "VERIFY_ETL_CONFIG"),
        ("VERIFY_ETL_DATABASE_URL", "DATABASE_URL"),
        ("VERIFY_ETL_AUTH_TOKEN", "TWILIO_AUTH_TOKEN"),
        ("verify_etl_page_size", "VERIFY_ETL_PAGE_SIZE"),
    ],
)
def test_an_unknown_variable_is_an_error(variable: str, meant: str) -> None:
    """A slip in a name of ours is refused with the near name, beside all that is wrong, unquoted."""
    with pytest.raises(ConfigError) as caught:
        load(environ={variable: "hidden", "VERIFY_ETL_CONCURRENCY": "many"})
    assert f"{variable}: there is no such setting (did you mean {meant}?)" in str(caught.value)
    assert "concurrency (from VERIFY_ETL_CONCURRENCY)" in str(caught.value)
    assert "hidden" not in str(caught.value)
    with pytest.raises(ConfigError):
        load(environ={variable: "5"})
    assert load(environ={variable: " "}) == Settings()


@pytest.mark.parametrize("name", ["alowance", "ALLOWANCE", "VERIFY_ETL_ALLOWANCE"])
def test_an_unknown_name_in_a_file_is_an_error(tmp_path: Path, name: str) -> None:
    """A file gets the same help, also with the environment's name in it."""
    with pytest.raises(ConfigError, match=r"no such setting \(did you mean allowance"):
        load(environ={}, file=write(tmp_path, f"{name} = 5\n"))


def test_what_is_not_ours_is_left_alone() -> None:
    """Variables of other programs, and of this program's tests, are none of our settings."""
    environ = {"VERIFY_ETL_TEST_SCALE": "1", "TWILIO_PHONE_NUMBER": "x", "VERIFY_OTHER": "x"}
    assert load(environ=environ) == Settings()


def test_the_file_is_named_in_the_environment(tmp_path: Path) -> None:
    """VERIFY_ETL_CONFIG names the file, and ``-c`` wins over it."""
    named = write(tmp_path, "allowance = 7\n")
    other = tmp_path / "other.toml"
    other.write_text("allowance = 8\n", encoding="utf-8")
    environ = {"VERIFY_ETL_CONFIG": str(named)}
    assert load(environ=environ).allowance == 7
    assert load(environ=environ, file=other).allowance == 8
    with pytest.raises(ConfigError, match=r"cannot be read.*VERIFY_ETL_CONFIG"):
        load(environ={"VERIFY_ETL_CONFIG": str(tmp_path / "none.toml")})


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("sqlite:///q.db", "sqlite:///{0}/q.db"),
        ("sqlite:///data/q.db?timeout=5", "sqlite:///{0}/data/q.db?timeout=5"),
        ("sqlite:///../q.db", "sqlite:///{0}/../q.db"),
        ("sqlite+pysqlite:///q.db", "sqlite+pysqlite:///{0}/q.db"),
        ("sqlite:///file:q.db?mode=ro&uri=true", "sqlite:///file:{0}/q.db?mode=ro&uri=true"),
        ("sqlite:////var/q.db", "sqlite:////var/q.db"),
        ("sqlite:///file:/var/q.db?uri=true", "sqlite:///file:/var/q.db?uri=true"),
        ("postgresql://u@h/name", "postgresql://u@h/name"),
    ],
)
def test_a_path_in_a_file_is_relative_to_it(tmp_path: Path, written: str, read: str) -> None:
    """The database of a settings file is the same from every folder; the environment's is not."""
    file = write(tmp_path, f'database_url = "{written}"\nca_bundle = "own.pem"\n')
    found = load(environ={}, file=file)
    assert found.database_url.get_secret_value() == read.format(tmp_path)
    assert found.ca_bundle == str(tmp_path / "own.pem")
    given = load(environ={"DATABASE_URL": written, "VERIFY_ETL_CA_BUNDLE": "x.pem"}, file=file)
    assert (given.database_url.get_secret_value(), given.ca_bundle) == (written, "x.pem")


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:", "sqlite:///", "sqlite:///:memory:", "sqlite+pysqlite://",
     "sqlite:///file::memory:?cache=shared&uri=true", "sqlite:///file:q?mode=memory&uri=true"],
)  # fmt: skip
def test_a_database_in_memory_is_refused(url: str, tmp_path: Path) -> None:
    """A job that must last keeps nothing in memory, whoever says so."""
    for given in ({"environ": {"DATABASE_URL": url}},
                  {"environ": {}, "file": write(tmp_path, f'database_url = "{url}"')}):  # fmt: skip
        with pytest.raises(ConfigError, match="in memory is gone when the command ends"):
            load(**given)


@pytest.mark.parametrize("region", ["", "ie1", "au1"])
@pytest.mark.parametrize("edge", ["", "dublin", "sydney"])
@pytest.mark.parametrize(
    "url",
    ["https://verify.twilio.com", "https://verify.us2.twilio.com",
     "https://verify.ashburn.us2.twilio.com"],
)  # fmt: skip
def test_region_and_edge_name_the_host(region: str, edge: str, url: str) -> None:
    """The host is the one that Twilio's own client asks."""
    client = Client("AC1", "x", region=region or None, edge=edge or None, environment={})
    environ = {"TWILIO_REGION": region, "TWILIO_EDGE": edge, "VERIFY_ETL_API_URL": url}
    assert load(environ=environ).api_address == client.get_hostname(url)


def test_a_host_that_has_no_region_is_not_asked(tmp_path: Path) -> None:
    """A region is never ignored for a host of somebody else's; this machine is asked as it is."""
    environ = {"TWILIO_REGION": "ie1", "VERIFY_ETL_API_URL": "https://gateway.example.com"}
    with pytest.raises(ConfigError, match=r"region \(TWILIO_REGION\) goes with hosts of Twilio's"):
        load(environ=environ)
    with pytest.raises(ConfigError, match="TWILIO_EDGE"):
        load({"region": ""}, environ={**environ, "TWILIO_EDGE": "dublin"})
    assert load(environ={**environ, "VERIFY_ETL_API_URL": "http://127.0.0.1:1"}).api_address == (
        "http://127.0.0.1:1"
    )
    with pytest.raises(ConfigError, match=r"region.*write a name such as ie1"):
        load(environ={"TWILIO_REGION": "evil.example.com/"})


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
     "https://host:99999", "https://host:hidden", "https://verify.twilio.com/v2",
     "https://verify.twilio.com/v2/Attempts"],
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
        if secret.get_secret_value().rpartition("/")[2] not in {"", "verify-attempts.db"}
    ] == []


def test_the_example_is_complete() -> None:
    """config/example.toml names every setting with its default, and its name in the environment."""
    path = ROOT / "config" / "example.toml"
    assert set(read_file(path)) == set(Settings.model_fields)
    assert load(environ={}, file=path) == Settings(
        database_url=SecretStr(f"sqlite:///{path.parent}/verify-attempts.db")
    )
    text = path.read_text(encoding="utf-8")
    assert [name for name in ENVIRONMENT.values() if name not in text] == []
