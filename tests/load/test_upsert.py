import threading
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, select

from etl.database.schema import TRACKED, attempt_changes, attempt_channel_data, attempts
from etl.database.times import moment_ms
from etl.load import upsert
from etl.records import Attempt, Fetched
from tests.support.harness import PATIENCE_S
from tests.support.queue_rows import NOW, attempt, execute, sid

FULL = attempt(
    account_sid="AC1", service_sid="VA1", verification_sid="VE1", channel="sms",
    conversion_status="converted", price_amount=Decimal("-0.0075"), price_currency="USD",
    date_created=datetime(2026, 11, 1, 12, 30, 15, 123_000, UTC),
    date_updated=datetime(2026, 11, 1, 12, 31, 0, 1_000, UTC),
    url="https://verify.example/VL1", destination="+15551234567", destination_prefix="+155512",
    country="US", mcc="310", mnc="004", carrier="Télé \N{PILE OF POO}", locale="en",
    status="delivered", message_status="sent", call_status="done", error_code="60410",
    code_length=6, extra={"x": [1, "é\N{PILE OF POO}", None, {"y": 1.5}], "_attempt": {"k": True}},
)  # fmt: skip
OTHER: dict[str, Any] = dict.fromkeys(TRACKED, "other") | {
    "price_amount": Decimal(2),
    "price_currency": "EUR",
}


def write(engine: Engine, found: Attempt, sent_at: int = NOW, *, final: bool = False) -> int:
    """Merge and upsert one attempt in a transaction of its own."""
    with engine.begin() as connection:
        known = upsert.known(connection, [found.sid]).get(found.sid)
        return upsert.write(connection, [(upsert.merge(Fetched(found, sent_at), known), final)])


def stored(engine: Engine, number: int = 1) -> tuple[Attempt, int, int, bool]:
    """Read an attempt back, with its first and newest fetch and whether it is final."""
    statement = select(attempts, attempt_channel_data).join(attempt_channel_data)
    with engine.connect() as connection:
        row = connection.execute(statement.where(attempts.c.sid == sid(number))).mappings().one()
    values = {name: row[name] for name in Attempt._fields if name != "warnings"}
    for name in ("date_created", "date_updated"):
        if values[name] is not None:
            values[name] = values[name].replace(tzinfo=values[name].tzinfo or UTC)
    return Attempt(**values), row["first_fetched_at"], row["fetched_at"], row["is_final"]


def changes(engine: Engine) -> list[tuple[str, str | None, str | None, int]]:
    """Read the changes in the order in which they were noted."""
    columns = ("field", "old_value", "new_value", "seen_at")
    statement = select(*(attempt_changes.c[n] for n in columns)).order_by(attempt_changes.c.id)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(statement)]


def test_every_field_has_a_column_and_every_column_a_field() -> None:
    """Nothing that ``transform`` reads is left out, nor does a column stay empty."""
    columns = {*attempts.c.keys(), *attempt_channel_data.c.keys()} - {"attempt_sid"}
    own = {"first_fetched_at", "fetched_at", "is_final"}
    assert columns - own == {*Attempt._fields} - {"warnings"}


@pytest.mark.parametrize("found", [FULL, attempt()], ids=["full", "bare"])
def test_an_attempt_reads_back_as_it_was_written(engine: Engine, found: Attempt) -> None:
    """Every field makes the round trip, JSON and milliseconds included, and nothing has changed."""
    assert write(engine, found, final=True) == 0
    assert stored(engine) == (found, NOW, NOW, True)
    assert changes(engine) == []


@pytest.mark.parametrize(
    "price",
    ["0", "-0.0075", "0.000001", "-0.000001", "999999999.999999", "-123456789.123456",
     "123456789012", "0.1", "1.10",
     "1E-6", "1.5E+3", "0E-6"],
)  # fmt: skip
def test_prices_are_exact(engine: Engine, price: str) -> None:
    """Fifteen digits and six decimals come back as they were sent, and are no change."""
    found = attempt(price_amount=Decimal(price))
    write(engine, found)
    assert stored(engine)[0].price_amount == Decimal(price)
    assert write(engine, found, NOW + 1) == 0


@pytest.mark.parametrize("micro", [0, 1_000, 999_000, 500_000])
@pytest.mark.parametrize("year", [1970, 2026, 2099])
def test_times_keep_their_milliseconds(engine: Engine, year: int, micro: int) -> None:
    """A time for people is the same millisecond on every database."""
    when = datetime(year, 12, 31, 23, 59, 59, micro, UTC)
    write(engine, attempt(date_created=when))
    with engine.connect() as connection:
        raw = connection.execute(select(attempts.c.date_created)).scalar_one()
    assert moment_ms(raw) == round(when.timestamp() * 1000)


def test_the_newest_fetch_wins(engine: Engine) -> None:
    """A later request replaces all but the first fetch's time, whatever ``date_updated`` says."""
    write(engine, FULL)
    newer = attempt()._replace(channel="call", price_amount=Decimal(1), extra={"n": 1})
    write(engine, newer, NOW + 5, final=True)
    assert stored(engine) == (newer, NOW, NOW + 5, True)


@pytest.mark.parametrize("sent_at", [NOW - 1, NOW])
def test_an_older_or_equal_fetch_writes_nothing(engine: Engine, sent_at: int) -> None:
    """No result is older than what it replaces, nor is a change noted."""
    write(engine, FULL, final=True)
    assert write(engine, FULL._replace(**OTHER), sent_at) == 0
    assert (stored(engine), changes(engine)) == ((FULL, NOW, NOW, True), [])


def test_a_null_never_wipes_a_known_price(engine: Engine) -> None:
    """A newer fetch without a price keeps amount and currency, and takes the rest."""
    write(engine, FULL)
    write(engine, FULL._replace(price_amount=None, price_currency=None, channel="call"), NOW + 1)
    kept = stored(engine)[0]
    assert (kept.price_amount, kept.price_currency) == (Decimal("-0.0075"), "USD")
    assert changes(engine) == [("channel", "sms", "call", NOW + 1)]


@pytest.mark.parametrize("name", TRACKED)
def test_each_tracked_field_notes_its_changes(engine: Engine, name: str) -> None:
    """A change is kept with old value, new value and the time of its request."""
    write(engine, FULL)
    assert write(engine, FULL._replace(**{name: OTHER[name]}), NOW + 7) == 1
    old, new = getattr(FULL, name), OTHER[name]
    if name == "price_amount":
        old, new = "-0.007500", "2.000000"
    assert changes(engine) == [(name, old, new, NOW + 7)]


def test_a_first_value_is_a_change_from_null(engine: Engine) -> None:
    """The price that comes later is noted; untracked fields are not."""
    write(engine, FULL._replace(price_amount=None, price_currency=None, status=None))
    assert write(engine, FULL._replace(carrier="x"), NOW + 1) == 3
    assert [(field, old) for field, old, _, _ in changes(engine)] == [
        ("price_amount", None), ("price_currency", None), ("status", None),
    ]  # fmt: skip


def test_a_final_row_in_which_nothing_differs_stays_as_it_is(engine: Engine) -> None:
    """A newer fetch of a final row writes only what is new in it."""
    write(engine, FULL, final=True)
    assert write(engine, FULL._replace(price_amount=None, price_currency=None), NOW + 1) == 0
    assert stored(engine) == (FULL, NOW, NOW, True)
    assert write(engine, FULL._replace(locale="fr"), NOW + 2, final=True) == 0
    assert stored(engine) == (FULL._replace(locale="fr"), NOW, NOW + 2, True)


def test_what_another_wrote_meanwhile_is_known_whole(server: Engine) -> None:
    """Who waits for an attempt's lock sees the channel data that its holder wrote, too."""
    write(server, attempt(status="unconfirmed"))
    later = attempt(conversion_status="converted", status="confirmed")
    found: list[upsert.Known] = []

    def wait() -> None:
        with server.begin() as connection:
            found.append(upsert.known(connection, [sid(1)])[sid(1)])

    with server.begin() as connection:
        known = upsert.known(connection, [sid(1)]).get(sid(1))
        upsert.write(connection, [(upsert.merge(Fetched(later, NOW + 1), known), False)])
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
    waiting.join(PATIENCE_S)
    values = found[0].values
    assert (found[0].fetched_at, values["conversion_status"], values["status"]) == (
        NOW + 1, "converted", "confirmed",
    )  # fmt: skip


def test_channel_data_goes_with_its_attempt(engine: Engine) -> None:
    """One row of channel data for each attempt, deleted with it, and its changes too."""
    write(engine, attempt())
    write(engine, attempt(channel="sms"), NOW + 1)
    tables = ("attempt_channel_data", "attempt_changes")
    counted = [_count(engine, table) for table in tables]
    execute(engine, "DELETE FROM attempts")
    assert (counted, [_count(engine, table) for table in tables]) == ([1, 1], [0, 0])


def _count(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def test_an_attempt_without_channel_data_is_known_all_the_same(engine: Engine) -> None:
    """Should somebody delete its channel data, the price still stands and the row comes back."""
    write(engine, FULL)
    execute(engine, "DELETE FROM attempt_channel_data")
    write(engine, FULL._replace(price_amount=None), NOW + 1)
    assert stored(engine)[0] == FULL


def test_a_batch_writes_what_is_newer(engine: Engine) -> None:
    """Old and new, known and unknown attempts of one batch are told apart."""
    write(engine, attempt(1, channel="old"), NOW)
    write(engine, attempt(2, channel="old"), NOW + 9)
    with engine.begin() as connection:
        known = upsert.known(connection, [sid(n) for n in (1, 2, 3)])
        found = [Fetched(attempt(n, channel="new"), NOW + 5) for n in (1, 2, 3)]
        rows = [(upsert.merge(f, known.get(f.attempt.sid)), False) for f in found]
        assert upsert.write(connection, rows) == 1
        assert upsert.write(connection, []) == 0
    assert [stored(engine, n)[0].channel for n in (1, 2, 3)] == ["new", "old", "new"]


@pytest.mark.parametrize("first_is_newer", [True, False])
def test_two_who_insert_one_attempt_leave_the_newest(
    server: Engine, *, first_is_newer: bool
) -> None:
    """Neither saw a row to lock; the newest fetch stands, with its own channel data."""
    times = (NOW + 1, NOW) if first_is_newer else (NOW, NOW + 1)
    values = [
        attempt(channel=name, status=name, price_amount=Decimal(n))
        for n, name in enumerate(("first", "second"))
    ]
    looked = threading.Event()
    errors: list[BaseException] = []

    def second() -> None:
        try:
            with server.begin() as connection:
                known = upsert.known(connection, [sid(1)]).get(sid(1))
                looked.set()
                merged = upsert.merge(Fetched(values[1], times[1]), known)
                upsert.write(connection, [(merged, False)])
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)
            looked.set()

    thread = threading.Thread(target=second)
    with server.begin() as connection:
        assert upsert.known(connection, [sid(1)]) == {}
        thread.start()
        looked.wait(PATIENCE_S)
        upsert.write(connection, [(upsert.merge(Fetched(values[0], times[0]), None), False)])
    thread.join(PATIENCE_S)
    winner: Any = stored(server)[0]
    assert (errors, winner) == ([], values[0] if first_is_newer else values[1])
