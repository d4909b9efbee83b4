"""Ask `verify-etl config show` what is in force, and where it comes from."""

import json
import os
import tomllib
from pathlib import Path

from etl.settings import Settings, load
from tests.support.harness import ROOT, command

SECRETS = {
    "TWILIO_AUTH_TOKEN": "hidden-token",
    "TWILIO_API_KEY": "SK1",
    "TWILIO_API_SECRET": "hidden-secret",
    "DATABASE_URL": "postgresql://user:hidden-password@host/db",
    "VERIFY_ETL_PROXY": "http://user:hidden-proxy@host:3128",
}


def show(*words: str, **environ: str) -> tuple[int, str, str]:
    """Show the settings; return exit code, stdout, stderr."""
    done = command(*words, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ})
    return done.returncode, done.stdout, done.stderr


def test_what_is_shown_is_a_file_of_settings(tmp_path: Path) -> None:
    """The lines printed are TOML, name every setting, and mean what is in force."""
    environ = {"VERIFY_ETL_SETTLE_AFTER": "90m", "VERIFY_ETL_ALLOWANCE": "7"}
    code, out, said = show("config", "show", **environ)
    assert (code, said, set(tomllib.loads(out))) == (0, "", set(Settings.model_fields))
    file = tmp_path / "settings.toml"
    file.write_text(out.replace("sqlite:///", f"sqlite:///{tmp_path}/"), encoding="utf-8")
    again = load(environ={}, file=file)
    assert again.model_copy(update={"database_url": Settings().database_url}) == load(
        environ=environ
    )


def test_each_setting_says_where_it_came_from(tmp_path: Path) -> None:
    """An option's file, a variable and the default are told apart; the host follows the region."""
    file = tmp_path / "settings.toml"
    file.write_text("allowance = 7\nconcurrency = 3\n", encoding="utf-8")
    environ = {"VERIFY_ETL_CONCURRENCY": "4", "TWILIO_REGION": "ie1"}
    code, out, _ = show("-c", str(file), "config", "show", "--json", **environ)
    found = {line["setting"]: (line["value"], line["from"]) for line in json.loads(out)}
    assert code == 0
    assert found["allowance"] == (7, str(file))
    assert found["concurrency"] == (4, "VERIFY_ETL_CONCURRENCY")
    assert found["page_size"] == (1000, "default (VERIFY_ETL_PAGE_SIZE)")
    assert found["api_url"] == ("https://verify.ie1.twilio.com", "TWILIO_REGION")
    named = show("config", "show", "--json", VERIFY_ETL_CONFIG=str(file), **environ)
    assert named == (0, out, "")


def test_no_secret_is_shown() -> None:
    """Secrets are masked, whatever they stand in; that one is set can be seen."""
    for form in ([], ["--json"]):
        code, out, said = show("config", "show", *form, **SECRETS)
        assert (code, "hidden" in out + said) == (0, False)
        assert "***" in out
        assert "postgresql://user:***@host/db" in out


def test_wrong_settings_are_said(tmp_path: Path) -> None:
    """What no command could use is not shown, but named."""
    code, out, said = show("config", "show", VERIFY_ETL_ALOWANCE="5")
    assert (code, out) == (78, "")
    assert (
        "VERIFY_ETL_ALOWANCE: there is no such setting (did you mean VERIFY_ETL_ALLOWANCE?)" in said
    )
