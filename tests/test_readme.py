"""Hold README.md to the program: its commands, its SQL, its tables, its links."""

import re
from decimal import Decimal

import pytest
from sqlalchemy import Engine, inspect, text

from etl.records import SID_PATTERN
from etl.rollups.refresh import mark_everything
from tests.support.command_lines import parse
from tests.support.harness import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
APPLICATION = (ROOT / "docs" / "application.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", README)
SHELL = [
    line[line.index("verify-etl") :]
    for kind, block in BLOCKS
    if kind in {"sh", ""}
    for line in block.splitlines()
    if re.search(r"(^|\*  )verify-etl ", line)
]
SQL = [block for kind, block in BLOCKS if kind == "sql"]
NAMED = [line for line in re.findall(r"`(verify-etl [^`]+)`", README) if "--help" not in line]


@pytest.mark.parametrize("line", [*SHELL, *NAMED])
def test_commands_exist(line: str) -> None:
    """Every command line in the README parses as click would parse it."""
    assert parse(line)


def test_there_is_something_to_hold_it_to() -> None:
    """The README shows commands, SQL and links: these tests look at something."""
    assert len(SHELL) >= 5
    assert len(SQL) >= 2
    assert "docs/design.md" in links()


@pytest.mark.parametrize("statement", SQL)
def test_sql_runs(statement: str, engine: Engine) -> None:
    """Every SQL block runs on a fresh database of each kind, an INSERT as it is spelled there."""
    if engine.dialect.name in {"mysql", "mariadb"} and "INSERT" in statement:
        spelled = re.findall(r"`(ON DUPLICATE KEY [^`]+)`", README)[0]
        statement = statement.replace("ON CONFLICT (sid) DO NOTHING", spelled)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement.replace("VL...", "VL" + "0" * 32))


@pytest.mark.parametrize("table", ["attempt_queue", "verification_queue"])
def test_a_sid_may_be_enqueued_again(engine: Engine, table: str) -> None:
    """The documented INSERT does nothing the second time, and spares the transaction."""
    found = re.findall(r"(?ms)^On ([^\n]+):\n\n```sql\n(.*?)^```$", APPLICATION)
    kind = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}.get(engine.dialect.name, "MariaDB")
    (insert,) = (sql.replace("attempt_queue", table) for kinds, sql in found if kind in kinds)
    with engine.begin() as connection:
        for sid in ("VL1", "VL2", "VL1", "VL3", "VL1"):
            connection.exec_driver_sql(insert.replace("VL...", sid))
        rows = connection.exec_driver_sql(f"SELECT sid, state, due_at FROM {table} ORDER BY sid")
        assert [tuple(row) for row in rows] == [(f"VL{n}", "pending", 0) for n in (1, 2, 3)]


def test_the_shown_sid_is_one() -> None:
    """What the test puts in place of the README's dots is a SID."""
    assert SID_PATTERN.fullmatch("VL" + "0" * 32)


def test_make_targets_exist() -> None:
    """Every `make` line names targets of the Makefile."""
    asked = re.findall(r"(?m)^make ((?:[a-z]+ )*[a-z]+)", README)
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert asked
    assert {word for line in asked for word in line.split()} <= targets


def test_tables_exist(engine: Engine) -> None:
    """The table of tables names real ones, those that everybody needs among them."""
    named = set(re.findall(r"(?m)^\| `([a-z_]+)` \|", README))
    assert named <= set(inspect(engine).get_table_names())
    assert named >= {"attempt_queue", "attempts", "attempt_channel_data", "attempt_changes"}


def test_links_lead_somewhere() -> None:
    """Every link to a file of the project leads to one."""
    assert [link for link in links() if not (ROOT / link).exists()] == []


def links() -> list[str]:
    """Return the README's links that are no addresses, without their anchors."""
    found = re.findall(r"\]\(([^)\s]+)\)", README)
    return [link.split("#")[0] for link in found if not re.match(r"[a-z]+:|#", link)]


def test_its_sum_is_exact(engine: Engine) -> None:
    """The sum that the README shows is exact where a plain SUM of the column is not."""
    rows = [
        {
            "sid": f"VL{number:032x}", "status": "converted" if number % 3 else "unconverted",
            "at": f"2026-03-{1 + number % 28:02} 10:00:00", "price": "0.0071",
        }
        for number in range(1_127)
    ]  # fmt: skip
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO attempts (sid, conversion_status, date_created, first_fetched_at, "
                "fetched_at, is_final, price_amount, price_currency, channel) VALUES "
                "(:sid, :status, :at, 1, 1, TRUE, :price, 'USD', 'sms')"
            ),
            rows,
        )
        mark_everything(connection)
        (statement,) = [block for block in SQL if "SUM(" in block]
        (found,) = connection.exec_driver_sql(statement)
    assert [str(found[0]), str(found[1]), int(found[2])] == ["sms", "USD", 1_127]
    assert f"{found[3]}".rstrip("0") == f"{1_127 * Decimal('0.0071')}"
    assert f"{found[4]}".rstrip("0") == f"{376 * Decimal('0.0071')}"
