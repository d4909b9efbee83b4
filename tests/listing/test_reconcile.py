"""Hold the rows to Twilio's own counts: what is equal, missing or otherwise, and what mends it."""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, delete, select, update

from etl.cli import cli
from etl.cli.context import Context
from etl.database.schema import attempt_channel_data as data
from etl.database.schema import attempts, sync_runs
from etl.errors import EtlError, Exit
from etl.listing.reconcile import (
    DAY_MS,
    By,
    DayLine,
    Finding,
    ReconcileOptions,
    Stored,
    Totals,
    commands,
    days,
)
from etl.sandbox import Sandbox, World
from tests.support.harness import environment, verify_etl
from tests.support.terminal import in_terminal

NOW = time.time()
MIDNIGHT = NOW // 86_400 * 86_400
TODAY = datetime.fromtimestamp(MIDNIGHT, UTC).date()
BY = {"service": attempts.c.service_sid, "channel": attempts.c.channel, "country": data.c.country}


def day(ago: int) -> str:
    """Name the UTC day so many days ago."""
    return (TODAY - timedelta(days=ago)).isoformat()


@pytest.fixture
def world() -> World:
    """Give a world of the four days before today, that stands still."""
    return World(size=400, start=MIDNIGHT - 4 * 86_400, span=4 * 86_400 - 1, static_at=NOW)


@pytest.fixture
def box(world: World) -> Iterator[Sandbox]:
    """Serve it without an allowance."""
    with Sandbox(world, limit=0) as box:
        yield box


@pytest.fixture
def env(box: Sandbox, database_url: str) -> dict[str, str]:
    """Load all of it, and give the program's environment."""
    found = environment(box, database_url)
    assert here("discover", "--since", "5d", env=found)[0] == 0
    return found


def here(*args: str, env: dict[str, str]) -> tuple[int, str]:
    """Run a command in this process, which costs a tenth; return its exit code and its stdout."""
    command = cli.get_command(click.Context(cli), args[0])
    assert command is not None
    context = Context(config=None, verbose=False, quiet=False)
    done = CliRunner().invoke(command, args[1:], obj=context, env=env)
    if isinstance(done.exception, EtlError):
        return done.exception.exit_code, done.stdout
    return done.exit_code, done.stdout


def reconcile(*args: str, env: dict[str, str], code: int = 0) -> dict[str, Any]:
    """Run ``reconcile --json`` over the world's four days; return what it printed."""
    since = () if "--since" in args else ("--since", day(4))
    ended, printed = here("reconcile", *since, "--json", *args, env=env)
    assert ended == code, printed
    found = json.loads(printed)
    assert isinstance(found, dict)
    return found


def table(*args: str, env: dict[str, str]) -> str:
    """Run ``reconcile`` and return the table, as wide as it gets."""
    return here("reconcile", *args, env={**env, "COLUMNS": "200"})[1]


def remove(engine: Engine, which: Any) -> int:
    """Delete attempts from the database; return how many."""
    with engine.begin() as connection:
        sids = connection.execute(
            select(attempts.c.sid).join(data, data.c.attempt_sid == attempts.c.sid).where(which)
        ).scalars().all()  # fmt: skip
        connection.execute(delete(data).where(data.c.attempt_sid.in_(sids)))
        connection.execute(delete(attempts).where(attempts.c.sid.in_(sids)))
    return len(sids)


def created(ago: int) -> Any:
    """Select the attempts of the UTC day so many days ago."""
    start = datetime.fromtimestamp(MIDNIGHT, UTC) - timedelta(days=ago)
    return (attempts.c.date_created >= start) & (
        attempts.c.date_created < start + timedelta(days=1)
    )


def mend(found: dict[str, Any], env: dict[str, str]) -> None:
    """Run the commands that were printed."""
    for command in found["commands"]:
        assert here(*command.split()[1:], env=env)[0] == 0


def test_what_was_loaded_is_equal(world: World, env: dict[str, str]) -> None:
    """Every day of a loaded window counts as Twilio and as the world itself do, for one request each."""
    found = reconcile("--strict", env=env)
    assert [line["day"] for line in found["lines"]] == [day(ago) for ago in (4, 3, 2, 1, 0)]
    assert (found["requests"], found["differences"], found["commands"]) == (5, 0, [])
    for line in found["lines"]:
        start = datetime.fromisoformat(line["day"]).replace(tzinfo=UTC).timestamp()
        held = [world.attempt(i, NOW) for i in range(*world.range(start, start + 86_400))]
        converted = sum(payload["conversion_status"] == "converted" for payload in held)
        counted = {
            "attempts": len(held),
            "converted": converted,
            "unconverted": len(held) - converted,
        }
        assert {name: line["twilio"][name] for name in counted} == counted
        assert {name: line["database"][name] for name in counted} == counted
        rate = round(100 * converted / len(held), 4) if held else None
        assert (line["twilio"]["rate"], line["database"]["rate"]) == (rate, rate)


def test_missing_days_are_named_with_what_loads_them(engine: Engine, env: dict[str, str]) -> None:
    """Two days without rows share one command, a third has its own, and running both mends all."""
    gone = remove(engine, created(4) | created(3) | created(1))
    found = reconcile("--strict", env=env, code=Exit.DATA)
    assert [line["finding"] for line in found["lines"]] == [
        "missing", "missing", "equal", "missing", "equal",
    ]  # fmt: skip
    assert -sum(line["difference"]["attempts"] for line in found["lines"]) == gone
    assert found["commands"] == [
        f"verify-etl discover --since {day(4)} --until {day(2)}",
        f"verify-etl discover --since {day(1)} --until {day(0)}",
    ]
    mend(found, env)
    assert reconcile("--strict", env=env)["differences"] == 0


def test_one_missing_service_is_loaded_alone(
    engine: Engine, world: World, env: dict[str, str]
) -> None:
    """By service, the command lists the one service that lacks rows, and that mends it."""
    service = world.service_sids[0]
    remove(engine, created(2) & (attempts.c.service_sid == service))
    found = reconcile("--by", "service", "--strict", env=env, code=Exit.DATA)
    differing = [
        (line["day"], line["group"]) for line in found["lines"] if line["finding"] != "equal"
    ]
    assert differing == [(day(2), None), (day(2), service)]
    assert found["commands"] == [
        f"verify-etl discover --since {day(2)} --until {day(1)} --service {service}"
    ]
    mend(found, env)
    assert reconcile("--by", "service", "--strict", env=env)["differences"] == 0


@pytest.mark.parametrize("by", BY)
def test_groups_add_up_to_the_day(by: str, engine: Engine, env: dict[str, str]) -> None:
    """By each grouping every group that the database knows is compared, and they sum to the total."""
    found = reconcile("--by", by, "--strict", env=env)
    tables = attempts.join(data, data.c.attempt_sid == attempts.c.sid)
    with engine.connect() as connection:
        statement = select(BY[by]).select_from(tables).where(created(2))
        values = connection.execute(statement).scalars().all()
    lines = [line for line in found["lines"] if line["day"] == day(2)]
    groups = {line["group"]: line["database"]["attempts"] for line in lines if not line["total"]}
    assert groups == {value: values.count(value) for value in set(values)}
    for side in ("database", "twilio"):
        total, *parts = (line[side]["attempts"] for line in lines)
        assert total == sum(parts) == len(values)


def test_an_unknown_group_is_a_remainder(engine: Engine, env: dict[str, str]) -> None:
    """Attempts of a channel that the database has never seen show as a line of no group."""
    gone = remove(engine, attempts.c.channel == "call")
    found = reconcile("--by", "channel", env=env)
    rest = [line for line in found["lines"] if not line["total"] and line["group"] is None]
    assert -sum(line["difference"]["attempts"] for line in rest) == gone
    assert {line["finding"] for line in rest} == {"missing"}


def test_changed_conversions_are_found_and_mended(engine: Engine, env: dict[str, str]) -> None:
    """A final row with another conversion differs though no row is missing; loading mends it."""
    with engine.begin() as connection:
        sid = connection.execute(
            select(attempts.c.sid).where(created(3), attempts.c.conversion_status == "converted")
        ).scalars().first()  # fmt: skip
        connection.execute(update(attempts).where(created(3)).values(is_final=True))
        connection.execute(
            update(attempts).where(attempts.c.sid == sid).values(conversion_status="unconverted")
        )
    found = reconcile("--strict", env=env, code=Exit.DATA)
    line = found["lines"][1]
    assert (line["finding"], line["expected"]) == ("changed", False)
    assert (line["difference"]["attempts"], line["difference"]["converted"]) == (0, -1)
    assert found["commands"] == [f"verify-etl discover --since {day(3)} --until {day(2)}"]
    mend(found, env)
    assert reconcile("--strict", env=env)["differences"] == 0


def test_conversions_of_young_rows_are_expected_to_differ(
    engine: Engine, env: dict[str, str]
) -> None:
    """A difference that rows which are not final explain is flagged, in the table too."""
    with engine.begin() as connection:
        sid = connection.execute(
            select(attempts.c.sid).where(created(1), attempts.c.conversion_status == "converted")
        ).scalars().first()  # fmt: skip
        values = {"conversion_status": "unconverted", "is_final": False}
        connection.execute(update(attempts).where(attempts.c.sid == sid).values(values))
    line = reconcile("--since", day(1), "--until", day(0), env=env)["lines"][0]
    assert (line["finding"], line["expected"]) == ("changed", True)
    assert line["database"]["not_final"] >= 1
    shown = table("--since", day(1), env=env)
    assert "not final yet may differ" in shown
    assert "final rows differ" not in shown


def test_rows_that_twilio_does_not_count_are_no_reason_to_load(
    world: World, env: dict[str, str]
) -> None:
    """An attempt that the API has no more is a surplus: it differs, and no command is printed."""
    world.hidden.add(world.sid(200))
    found = reconcile("--strict", env=env, code=Exit.DATA)
    assert [line["finding"] for line in found["lines"]].count("surplus") == 1
    assert found["commands"] == []


def test_without_strict_a_difference_is_no_error(engine: Engine, env: dict[str, str]) -> None:
    """A difference ends with 0 unless --strict is said; the run's row keeps the code."""
    remove(engine, created(2))
    assert reconcile(env=env)["exit_code"] == Exit.OK
    done = verify_etl("reconcile", "--since", day(4), "--strict", env={**env, "COLUMNS": "200"})
    assert (done.returncode, done.stderr) == (Exit.DATA, "")
    with engine.connect() as connection:
        statement = select(sync_runs).where(sync_runs.c.command == "reconcile")
        rows = connection.execute(statement.order_by(sync_runs.c.id)).all()
    assert [(row.exit_code, row.asked["by"]) for row in rows] == [(0, None), (65, None)]
    assert rows[0].did["requests"] == 5


def test_days_that_the_api_forgot_are_not_asked_for(engine: Engine, env: dict[str, str]) -> None:
    """Of a window that began before retention, only what is remembered costs requests."""
    with engine.begin() as connection:
        old = datetime.fromtimestamp(MIDNIGHT, UTC) - timedelta(days=32, hours=-1)
        connection.execute(update(attempts).where(created(4)).values(date_created=old))
    found = reconcile("--since", day(32), "--until", day(28), "--strict", env=env)
    assert [line["finding"] for line in found["lines"]] == ["expired"] * 3 + ["equal"]
    assert (found["requests"], found["lines"][0]["twilio"]) == (1, None)
    assert found["lines"][0]["database"]["attempts"] > 0
    shown = table("--since", day(32), "--until", day(28), env=env)
    assert "3 days begun before what the API still remembers: not asked." in shown


def test_other_accounts_do_not_count(engine: Engine, env: dict[str, str]) -> None:
    """Rows of another account in the same database are not compared with this one's Summary."""
    with engine.begin() as connection:
        connection.execute(update(attempts).where(created(2)).values(account_sid="AC" + "0" * 32))
    line = reconcile(env=env)["lines"][2]
    assert (line["database"]["attempts"], line["finding"]) == (0, "missing")


def test_attempts_of_unknown_time_are_mentioned(engine: Engine, env: dict[str, str]) -> None:
    """Rows without a creation time are in no day, and said to be."""
    with engine.begin() as connection:
        count = connection.execute(update(attempts).where(created(2)).values(date_created=None))
    assert reconcile(env=env)["undated"] == count.rowcount
    shown = table("--since", day(4), env=env)
    assert f"{count.rowcount} attempts of unknown creation time" in shown


def test_requests_keep_to_the_allowance(world: World, env: dict[str, str]) -> None:
    """More requests than the allowance wait for it: the API never answers 429."""
    with Sandbox(world, limit=3, window=1.0) as strict:
        narrow = {
            **env, **strict.environ(),
            "VERIFY_ETL_ALLOWANCE": "3", "VERIFY_ETL_ALLOWANCE_WINDOW": "1s",
        }  # fmt: skip
        found = reconcile("--by", "service", env=narrow)
        assert strict.stats()["throttled"] == 0
        assert strict.stats()["peak_seen_in_window"] == 3
    assert found["requests"] > 12


def test_a_429_is_waited_out(world: World, env: dict[str, str]) -> None:
    """An answer 429 pauses the run and costs nothing but time."""
    with Sandbox(world, limit=2, window=1.0) as strict:
        narrow = {**env, **strict.environ(), "VERIFY_ETL_ALLOWANCE_WINDOW": "1s"}
        found = reconcile("--strict", env=narrow)
    assert (found["throttled"] > 0, found["differences"]) == (True, 0)


def test_an_api_that_is_down_ends_it(box: Sandbox, env: dict[str, str]) -> None:
    """Without an API the exit code is 69, and what was compared before is printed."""
    box.faults.add("error:503")
    assert reconcile(env=env, code=Exit.UNREACHABLE)["lines"] == []
    box.stop()
    found = reconcile("--since", day(31), env=env, code=Exit.UNREACHABLE)
    assert [line["finding"] for line in found["lines"]] == ["expired", "expired"]
    assert f"Summary of {day(29)}" in found["error"]
    done = verify_etl("reconcile", "--since", day(1), env=env)
    assert (done.returncode, done.stdout) == (Exit.UNREACHABLE, "")
    assert f"Summary of {day(1)} could not be read" in done.stderr


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_the_table_fits_the_terminal(columns: int, engine: Engine, env: dict[str, str]) -> None:
    """At any width no line is cut or broken but the commands, which must be pasted whole."""
    remove(engine, created(2))
    shown = in_terminal("reconcile", "--since", day(4), "--by", "service", columns=columns, env=env)
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown.lines]
    lines = [line for line in plain if "verify-etl discover" not in line]
    assert shown.code == 0
    assert max(map(len, lines)) <= columns
    said = "\n".join(lines)
    assert day(4) in said
    assert "missing" in said
    assert f"  verify-etl discover --since {day(2)} --until {day(1)}" in plain
    # One line for each day and service where there is room, rates where there is more.
    assert sum(line.startswith(day(2)) for line in lines) == (5 if columns > 40 else 0)
    assert ("%" in said) is (columns != 80)


def test_rates_of_nothing_are_no_number(env: dict[str, str]) -> None:
    """A day without attempts has no rate: null, and a dash in the table."""
    line = reconcile("--since", day(6), "--until", day(5), env=env)["lines"][0]
    assert (line["database"]["rate"], line["twilio"]["rate"], line["difference"]["rate"]) == (
        None, None, None,
    )  # fmt: skip
    shown = table("--since", day(6), "--until", day(5), env=env)
    assert next(line for line in shown.splitlines() if line.startswith(day(6))).split()[8:10] == [
        "-", "-",
    ]  # fmt: skip


def test_a_window_must_have_a_direction(env: dict[str, str]) -> None:
    """--until before --since is a slip."""
    assert here("reconcile", "--since", day(1), "--until", day(2), env=env)[0] == Exit.USAGE


def test_days_are_whole_and_today_ends_now() -> None:
    """A window is widened to UTC days; the last one stops at the present second."""
    now = 10 * DAY_MS + 5_999
    assert days(ReconcileOptions(8 * DAY_MS + 7, None), now) == [
        (8 * DAY_MS, 9 * DAY_MS),
        (9 * DAY_MS, 10 * DAY_MS),
        (10 * DAY_MS, 10 * DAY_MS + 5_000),
    ]
    assert days(ReconcileOptions(8 * DAY_MS, 8 * DAY_MS + 1), now) == [(8 * DAY_MS, 9 * DAY_MS)]
    assert days(ReconcileOptions(8 * DAY_MS, 9 * DAY_MS), now) == [(8 * DAY_MS, 9 * DAY_MS)]
    assert days(ReconcileOptions(11 * DAY_MS, None), now) == []


def test_a_difference_hidden_in_a_sum_is_loaded() -> None:
    """A day whose total agrees while its channels do not is loaded again."""
    stored, two = Stored(Totals(2, 1, 1)), Totals(2, 1, 1)
    lines = [
        DayLine(TODAY, 0, None, stored + stored, two + two),
        DayLine(TODAY, 0, "sms", stored + Stored(Totals(1, 0, 1)), two),
        DayLine(TODAY, 0, "rbm", stored - Stored(Totals(1, 0, 1)), two),
    ]
    lines = [
        lines[0],
        *(DayLine(TODAY, 0, x.group, x.stored, x.twilio, is_total=False) for x in lines[1:]),
    ]
    assert [line.finding for line in lines] == [Finding.EQUAL, Finding.SURPLUS, Finding.MISSING]
    tomorrow = TODAY + timedelta(days=1)
    expected = [f"verify-etl discover --since {TODAY} --until {tomorrow}"]
    assert commands(lines, By.CHANNEL) == expected
