"""Test the formats for programs, spreadsheets and people."""

import csv
import io
import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from etl.reports import Column, ColumnKind
from etl.reports.output import WRITERS, safe, write_csv, write_json, write_parquet
from etl.reports.query import Row, Rows
from etl.reports.table import draw
from tests.support.harness import ROOT

COLUMNS: Final = (
    Column("day", ColumnKind.DAY, ""),
    Column("service_sid", ColumnKind.TEXT, "", spare=2),
    Column("currency", ColumnKind.TEXT, ""),
    Column("attempts", ColumnKind.COUNT, ""),
    Column("conversion_rate", ColumnKind.RATE, ""),
    Column("attempts_per_verification", ColumnKind.RATIO, "", spare=1),
    Column("total", ColumnKind.MONEY, ""),
    Column("first_at", ColumnKind.TIME, "", spare=2),
    Column("final", ColumnKind.FLAG, ""),
)
ROWS: Final[list[Row]] = [
    (
        date(2026, 3, 1), "VA" + "1" * 32, "USD", 12345, Decimal("0.818182"), Decimal("1.250000"),
        Decimal("12.345600"), datetime(2026, 3, 1, 10, tzinfo=UTC), True,
    ),
    (None, None, None, 1, None, None, None, None, False),
    (
        date(2026, 3, 2), "=1+1", "EUR", 7, Decimal("0.000000"), Decimal("1.000000"),
        Decimal("-0.100000"), datetime(2026, 3, 2, 10, 0, 0, 500_000, tzinfo=UTC), False,
    ),
]  # fmt: skip


def _answer() -> Rows:
    return Rows(COLUMNS, iter(ROWS))


def _drawn(width: int | None) -> tuple[list[str], list[str]]:
    buffer = io.StringIO()
    left_out = draw(Console(file=buffer), COLUMNS, ROWS, currency="currency", width=width)
    return [line.rstrip() for line in buffer.getvalue().splitlines()], left_out


def test_csv_is_rfc_4180() -> None:
    """Lines end in CR LF, unknown is empty, moments and days are ISO 8601."""
    stream = io.BytesIO()
    write_csv(_answer(), stream)
    assert stream.getvalue().decode().split("\r\n") == [
        ",".join(column.name for column in COLUMNS),
        f"2026-03-01,VA{'1' * 32},USD,12345,0.818182,1.250000,12.345600,2026-03-01T10:00:00Z,true",
        ",,,1,,,,,false",
        "2026-03-02,'=1+1,EUR,7,0.000000,1.000000,-0.100000,2026-03-02T10:00:00.500000Z,false",
        "",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=cmd()", "'=cmd()"), ("+1+1", "'+1+1"), ("-2+3", "'-2+3"), ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"), ("\rx", "'\rx"), ("-0.5", "-0.5"), ("+573003003030", "+573003003030"),
        ("", ""), ("sms", "sms"), ("a=b", "a=b"), ("-", "'-"), ("+1 555", "'+1 555"),
        ("+1\n", "'+1\n"),
    ],
)  # fmt: skip
def test_a_spreadsheet_reads_no_formula(text: str, expected: str) -> None:
    """An apostrophe disarms what is not a plain number."""
    assert safe(text) == expected


SIGNS = (
    *"=+-@",
    # Full width, small, raised, lowered; minus, hyphens and dashes, Hebrew's plus, two equals signs.
    *"\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u207c\u207a\u207b\u208c\u208a\u208b",
    *"\u2212\u2010\u2011\u2012\u2013\u2014\u2015\ufb29\u2a75",
)
UNSEEN = (
    *("", " ", "\t", "\r", "\n", "\r\n", "\v", "\0", "\x7f", "\xa0", "\xad", "\u3000", "\u2028"),
    # Zero width, order of writing, variants, and what is blank without being a blank.
    *("\u200b", "\u200d", "\u2060", "\ufeff", "\u202e", "\ufe0f", "\u034f", "\u3164", "\u2800"),
    " \u200b\t\xa0",
)


@pytest.mark.parametrize("unseen", UNSEEN, ids=ascii)
def test_a_formula_behind_what_is_not_seen_is_none(unseen: str) -> None:
    """A sign that may begin a formula is escaped wherever it is the first visible one."""
    texts = [f"{unseen}{sign}{rest}" for sign in SIGNS for rest in ("1+1", "SUM(A1)", "")]
    assert [safe(text) for text in texts] == [f"'{text}" for text in texts]


@pytest.mark.parametrize("text", [
    "-12", "+0.75", "-0.000001", " sms", "\u200bsms", "(=1)", "'=1", "  ", "\xdcnal=1", "\u4e2d=1",
    "\uff11-1", "1-1", "x\n=1",
])  # fmt: skip
def test_what_begins_no_formula_is_left_as_it_is(text: str) -> None:
    """Numbers stay numbers, negative ones too, and other texts stay the same."""
    assert safe(text) == text


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_text_survives_csv(texts: list[str]) -> None:
    """Quotes, commas and line breaks survive, except for the apostrophe."""
    columns = tuple(Column(f"c{number}", ColumnKind.TEXT, "") for number in range(len(texts)))
    kept = [text.encode("utf-8", "replace").decode() for text in texts]
    stream = io.BytesIO()
    write_csv(Rows(columns, iter([tuple(kept)])), stream)
    read = list(csv.reader(io.StringIO(stream.getvalue().decode(), newline="")))
    assert read[1] == [safe(text) for text in kept]


def test_json_is_a_list_of_objects() -> None:
    """Money is text, quotients are numbers, unknown is null."""
    stream = io.BytesIO()
    write_json(_answer(), stream)
    rows = json.loads(stream.getvalue())
    assert rows[0] == {
        "day": "2026-03-01", "service_sid": "VA" + "1" * 32, "currency": "USD", "attempts": 12345,
        "conversion_rate": 0.818182, "attempts_per_verification": 1.25, "total": "12.345600",
        "first_at": "2026-03-01T10:00:00Z", "final": True,
    }  # fmt: skip
    assert rows[1]["total"] is None
    assert rows[1]["final"] is False


def test_json_without_rows_is_an_empty_list() -> None:
    """A program can always parse it."""
    stream = io.BytesIO()
    write_json(Rows(COLUMNS, iter([])), stream)
    assert json.loads(stream.getvalue()) == []


def test_parquet_keeps_the_types() -> None:
    """Decimals, dates, times and nothing come back as they were."""
    parquet = pytest.importorskip("pyarrow.parquet")
    stream = io.BytesIO()
    write_parquet(_answer(), stream)
    stream.seek(0)
    rows = [tuple(row.values()) for row in parquet.read_table(stream).to_pylist()]
    assert rows == ROWS


def test_the_formats_are_documented() -> None:
    """The row of `--format` in docs/reports.md names each writer, and nothing else but `table`."""
    text = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"(?m)^\| `--format` \| (.+?);", text)
    assert re.findall(r"`(\w+)`", row) == ["table", *WRITERS]


def test_a_wide_terminal_shows_everything() -> None:
    """Numbers stand to the right, rates are percentages, money carries its currency."""
    lines, left_out = _drawn(160)
    assert not left_out
    assert [line[48:] for line in lines[-3:]] == [
        "  12,345      81.8 %          1.25  12.3456 USD  2026-03-01 10:00:00Z  yes",
        "       1           -             -            -  -                     no",
        "       7       0.0 %          1.00  -0.1000 EUR  2026-03-02 10:00:00Z  no",
    ]
    assert lines[-3].startswith("2026-03-01  VA11111111111111111111111111111111  ")


@pytest.mark.parametrize("width", [40, 50, 60, 80, 100, 160])
def test_every_width_is_kept(width: int) -> None:
    """No line is wider than the terminal, and what is left out is named."""
    lines, left_out = _drawn(width)
    assert max(map(len, lines)) <= width
    assert ("first_at" in left_out) == (width in {60, 80, 100})


def test_a_narrow_terminal_turns_the_table() -> None:
    """One value a line, and nothing is left out."""
    lines, left_out = _drawn(40)
    assert not left_out
    assert "conversion_rate            81.8 %" in lines
    assert "service_sid                VA1111…1111" in lines


@pytest.mark.parametrize("width", [40, 80, 160])
def test_a_key_stays_while_rows_differ_by_it(width: int) -> None:
    """Two services never look alike, in full, shortened or left out; one service may go."""
    columns = (*COLUMNS[:2], *COLUMNS[3:])
    usual: Row = (1, Decimal(1), Decimal(1), Decimal(1), datetime(2026, 3, 1, tzinfo=UTC), True)
    day = date(2026, 3, 1)
    services = [f"VA1111{'2' * 24}1111", f"VA1111{'3' * 24}1111"]
    for sids in (services, services[:1]):
        buffer = io.StringIO()
        rows: list[Row] = [(day, sid, *usual) for sid in sids]
        left_out = draw(Console(file=buffer), columns, rows, currency="currency", width=width)
        shown = "".join(buffer.getvalue().split())
        assert [sid for sid in sids if sid not in shown and "service_sid" not in left_out] in (
            [], services[:1],
        )  # fmt: skip
        assert "service_sid" not in left_out or len(sids) == 1
        assert max(map(len, buffer.getvalue().splitlines())) <= width


def test_a_currency_stays_where_no_amount_is_known() -> None:
    """Rows of two currencies differ, though neither has an amount."""
    columns = (COLUMNS[2], COLUMNS[3], COLUMNS[6])
    rows: list[Row] = [("USD", 1, None), ("EUR", 1, None), (None, 1, None)]
    buffer = io.StringIO()
    draw(Console(file=buffer), columns, rows, currency="currency", width=None)
    assert [line.split() for line in buffer.getvalue().splitlines()[1:]] == [
        ["1", "-", "USD"], ["1", "-", "EUR"], ["1", "-"],
    ]  # fmt: skip


def test_a_pipe_is_as_wide_as_it_needs() -> None:
    """Without a terminal nothing is cut, and there is no colour."""
    lines, left_out = _drawn(None)
    assert not left_out
    assert not any("\x1b" in line for line in lines)
    assert "VA" + "1" * 32 in "".join(lines)


def test_characters_of_two_columns_are_not_cut() -> None:
    """A Chinese name takes two columns a character, and is whole and aligned."""
    columns = (Column("carrier", ColumnKind.TEXT, ""), Column("attempts", ColumnKind.COUNT, ""))
    buffer = io.StringIO()
    rows: list[Row] = [("\u4e2d\u56fd\u79fb\u52a8", 12), ("EE", 3)]
    draw(Console(file=buffer), columns, rows, currency="currency", width=None)
    assert buffer.getvalue().splitlines() == [
        "carrier   attempts", "\u4e2d\u56fd\u79fb\u52a8        12", "EE               3",
    ]  # fmt: skip


def test_data_cannot_steer_the_terminal() -> None:
    """Control characters and markup in the data are shown, not obeyed."""
    columns = (Column("carrier", ColumnKind.TEXT, ""),)
    rows: list[Row] = [("\x1b[31mred\n[bold]x[/bold]",)]
    for width in (None, 10):
        buffer = io.StringIO()
        console = Console(file=buffer, force_terminal=True, color_system=None)
        draw(console, columns, rows, currency="currency", width=width)
        shown = "".join(buffer.getvalue().split())
        assert "[31mred" in shown
        assert "[bold]x[/bold]" in shown
        assert "\x1b[31m" not in shown
