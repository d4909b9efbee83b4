"""Test how fees are read and stored."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from etl.errors import ConfigError
from etl.reports.fees import Fee, read, replace

EXAMPLE = Path(__file__).parents[2] / "config" / "fees.example.toml"
EXPECTED = [
    Fee("", "", "USD", date(1970, 1, 1), Decimal("0.050000")),
    Fee("sms", "BR", "USD", date(2026, 1, 1), Decimal("0.040000")),
]
TOML = """
[[fee]]
currency = "usd"
amount = 0.05
[[fee]]
channel = "SMS"
country = "br"
currency = "USD"
valid_from = 2026-01-01
amount = "0.04"
"""
CSV = "channel,country,currency,valid_from,amount\r\n,,USD,,0.05\r\nsms,BR,USD,2026-01-01,0.04\r\n"


@pytest.mark.parametrize(("name", "content"), [("fees.toml", TOML), ("fees.csv", "\ufeff" + CSV)])
def test_both_forms_say_the_same(tmp_path: Path, name: str, content: str) -> None:
    """TOML and CSV, with a byte order mark too, give the same fees."""
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert read(path) == EXPECTED


def test_the_example_can_be_read() -> None:
    """The file in config/ is usable as it is."""
    assert len(read(EXAMPLE)) == 3


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "it holds no fee"),
        ("[[fee]]\namount = 1", "entry 1: currency must be three letters"),
        ("[[fee]]\ncurrency = 'USD'", "entry 1: amount must be"),
        ("[[fee]]\ncurrency = 'USD'\namount = -1", "entry 1: amount must be"),
        ("[[fee]]\ncurrency = 'USD'\namount = nan", "entry 1: amount must be"),
        ("[[fee]]\ncurrency = 'USD'\namount = true", "entry 1: amount must be"),
        ("[[fee]]\ncurrency = 'USD'\namount = 0.0000001", "entry 1: amount must be"),
        ("[[fee]]\ncurrency = 'USD'\namount = 1\nvalid_from = 'May'", "entry 1: valid_from"),
        (
            "[[fee]]\ncurrency = 'USD'\namount = 1\nchanel = 'sms'",
            "it may hold no keys but channel, country",
        ),
        ("[[fees]]\ncurrency = 'USD'", "it may hold no table but [[fee]]"),
        ("fee = 3", "fees are written as"),
        ("[[fee]]\ncurrency='USD'\namount=1\n" * 2, "entry 2: it is there twice"),
        ("[[fee", "cannot be read"),
    ],
)
def test_what_is_no_fee_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    """Each message names the entry and what is wrong with it."""
    path = tmp_path / "fees.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match="file of fees") as caught:
        read(path)
    assert problem in str(caught.value)


def test_a_wrong_file_is_not_quoted(tmp_path: Path) -> None:
    """Of a file that holds anything but fees, no line gets into the message."""
    path = tmp_path / "fees.csv"
    path.write_text("bob@example.com,+15550100\n1,2\n")
    with pytest.raises(ConfigError, match="its first line must name columns") as caught:
        read(path)
    assert not {"bob", "+15550100"} & set(str(caught.value).replace("@", " ").split())


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The message names the path."""
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        read(tmp_path / "absent.toml")


def test_loading_replaces_all(reports: Engine) -> None:
    """A second load leaves nothing of the first."""
    with reports.begin() as connection:
        replace(connection, read(EXAMPLE))
        assert replace(connection, EXPECTED) == 2
        rows = connection.execute(text("SELECT channel, amount FROM verification_fees")).all()
    assert sorted((row.channel, Decimal(str(row.amount))) for row in rows) == [
        ("", Decimal("0.05")),
        ("sms", Decimal("0.04")),
    ]
