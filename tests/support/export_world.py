"""Make rows to export, and read from both sides what an export must hold."""

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from pyarrow import parquet
from sqlalchemy import Engine, select

from etl import privacy
from etl.database.schema import attempt_channel_data as data
from etl.database.schema import attempts
from etl.export import UNDATED, Exported, ExportOptions, export
from etl.load import upsert
from etl.records import Attempt, Fetched
from etl.sandbox import World
from etl.transform.attempt import transform

FIRST = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = ["2026-03-01", "2026-03-02", "2026-03-03"]
SENT = 1_800_000_000_000
ODD: list[dict[str, Any]] = [
    {"price": {"value": "123456789.123456", "currency": "USD"}},
    {"price": {"value": "-0.000001", "currency": "EUR"}},
    {"price": None, "channel": None, "conversion_status": None},
    {"channel_data": {"to": "ab@example.com", "carrier": 'Ünï\n"çödé"', "call": "+4915112345678"}},
    {"channel_data": {"to": "+4915112345678", "rate": 0.1, "nested": {"a": [1, None, "x"]}}},
]


def store(
    engine: Engine, world: World, indexes: Any, *, sent_at: int = SENT, **changed: Any
) -> None:
    """Write attempts as a run does, with these keys changed in what the API says."""
    found = [transform({**world.attempt(i), **changed}, sid=world.sid(i)) for i in indexes]
    fetched = [Fetched(a, sent_at + n) for n, a in enumerate(found) if isinstance(a, Attempt)]
    assert len(fetched) == len(found)
    with engine.begin() as connection:
        known = upsert.known(connection, [each.attempt.sid for each in fetched])
        merged = [upsert.merge(each, known.get(each.attempt.sid)) for each in fetched]
        upsert.write(connection, [(each, True) for each in merged])


def expected(engine: Engine, *, destination: bool) -> dict[str, list[dict[str, Any]]]:
    """Read from the tables what the files must hold, by folder."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    tables = attempts.join(data, data.c.attempt_sid == attempts.c.sid)
    with engine.connect() as connection:
        for row in connection.execute(select(attempts, data).select_from(tables)).mappings():
            held = dict(row)
            for name in ("date_created", "date_updated"):
                held[name] = held[name] and held[name].replace(tzinfo=UTC)
            for name in ("first_fetched_at", "fetched_at"):
                held[name] = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=held[name])
            price = held["price_amount"]
            held["price_amount"] = None if price is None else price.quantize(Decimal("0.000001"))
            held["final"] = held.pop("is_final")
            held["converted"] = held["conversion_status"] == "converted"
            if not destination:
                held |= privacy.attempt({**held, "extra": json.dumps(held["extra"])})
                del held["destination"]
            del held["attempt_sid"]
            created = held["date_created"]
            found[UNDATED if created is None else created.date().isoformat()].append(held)
    for held_rows in found.values():
        held_rows.sort(key=lambda held: (held["date_created"] or FIRST, held["sid"]))
    return dict(found)


def exported(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the files of a folder, by day."""
    found = {}
    for file in sorted(folder.glob("day=*/*.parquet")):
        held = parquet.ParquetFile(file).read().to_pylist()
        for row in held:
            row["extra"] = None if row["extra"] is None else json.loads(row["extra"])
        undated = file.name.startswith(UNDATED)
        found[UNDATED if undated else file.parent.name.removeprefix("day=")] = held
    return found


def ours(engine: Engine, folder: Path, **asked: Any) -> Exported:
    """Export, and hold the folder to the tables when all of it was asked for."""
    done = export(engine, ExportOptions(folder, **asked))
    if "first" not in asked and "end" not in asked:
        assert exported(folder) == expected(engine, destination=asked.get("destination", False))
    return done


def counts(done: Exported) -> tuple[int, int, int]:
    """Return days written, unchanged and removed."""
    return done.written, done.unchanged, done.removed
