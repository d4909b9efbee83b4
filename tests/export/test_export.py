"""Keep a folder of Parquet files equal to the rows, and write only what changed."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from pyarrow import parquet
from sqlalchemy import Engine, delete, select, update

from etl.database.schema import attempt_channel_data as data
from etl.database.schema import attempts
from etl.errors import ConfigError
from etl.export import UNDATED, ExportOptions, export, rows
from etl.export.folder import FILE
from etl.load import redact
from etl.sandbox import World
from tests.support.export_world import DAYS, SENT, counts, exported, ours, store

SECOND = (datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC))


@pytest.mark.parametrize("destination", [False, True])
def test_the_files_hold_the_rows(destination: bool, filled: Engine, folder: Path) -> None:  # noqa: FBT001 - a case
    """Every value of every row is in the file of its day, exactly, in order."""
    done = ours(filled, folder, destination=destination)
    assert (counts(done), done.rows) == ((4, 0, 0), 300)
    assert sorted(exported(folder)) == [*DAYS, UNDATED]
    held = {row["price_amount"] for day in exported(folder).values() for row in day}
    assert {Decimal("-0.000001"), None} <= held
    # What no attempt costs may be a number.
    assert (Decimal("123456789.123456") in held) is destination


def test_types_are_exact(filled: Engine, folder: Path) -> None:
    """Prices are decimals of 18 digits and 6 places, times UTC milliseconds, flags booleans."""
    ours(filled, folder)
    types = {
        field.name: str(field.type)
        for field in parquet.read_schema(folder / f"day={DAYS[0]}" / FILE)
    }
    assert types.pop("price_amount") == "decimal128(18, 6)"
    assert types.pop("code_length") == "int32"
    assert {types.pop(name) for name in ("converted", "final")} == {"bool"}
    times = ("date_created", "date_updated", "first_fetched_at", "fetched_at")
    assert {types.pop(name) for name in times} == {"timestamp[ms, tz=UTC]"}
    assert set(types.values()) == {"string"}
    assert "destination" not in types


def test_no_personal_data_unless_asked_for(filled: Engine, folder: Path) -> None:
    """Without --with-destination neither a number nor an address is in any file, extra included."""
    ours(filled, folder)
    plain = json.dumps(exported(folder), default=str)
    assert "4915112345678" not in plain
    assert "ab@example.com" not in plain
    ours(filled, folder, full=True, destination=True)
    told = json.dumps(exported(folder), default=str)
    assert told.count("+4915112345678") == 2
    assert "ab@example.com" in told


def _fetch_again(engine: Engine, world: World) -> None:
    store(engine, world, [150], sent_at=SENT + 10_000, channel="rbm")


def _fetch_late(engine: Engine, world: World) -> None:
    # Sent before others of its day were, and written after they were exported.
    with engine.begin() as connection:
        newest = connection.execute(
            select(attempts.c.fetched_at).where(attempts.c.sid == world.sid(150))
        ).scalar_one()
    store(engine, world, [150], sent_at=newest + 1, channel="rbm")


def _remove_one(engine: Engine, world: World) -> None:
    with engine.begin() as connection:
        connection.execute(delete(data).where(data.c.attempt_sid == world.sid(150)))
        connection.execute(delete(attempts).where(attempts.c.sid == world.sid(150)))


@pytest.mark.parametrize("change", [_fetch_again, _fetch_late, _remove_one])
def test_only_days_that_changed_are_written(
    change: Callable[[Engine, World], None], filled: Engine, world: World, folder: Path
) -> None:
    """A second export writes nothing; after a change of one row it writes that row's day."""
    ours(filled, folder)
    inodes = {file: file.stat().st_ino for file in folder.glob("day=*/*")}
    assert counts(ours(filled, folder)) == (0, 4, 0)
    assert {file: file.stat().st_ino for file in folder.glob("day=*/*")} == inodes
    change(filled, world)
    assert counts(ours(filled, folder)) == (1, 3, 0)
    changed = [file for file, inode in inodes.items() if file.stat().st_ino != inode]
    assert [file.parent.name for file in changed] == [f"day={DAYS[1]}"]


def test_a_new_row_on_an_old_day_is_exported(engine: Engine, world: World, folder: Path) -> None:
    """A row that is first seen later brings its day along, and no other."""
    store(engine, world, [*range(50), *range(51, 300)])
    assert counts(ours(engine, folder)) == (4, 0, 0)
    store(engine, world, [50], sent_at=SENT - 5_000)
    assert counts(ours(engine, folder)) == (1, 3, 0)


def test_a_day_without_rows_goes(filled: Engine, world: World, folder: Path) -> None:
    """When a day's rows are deleted its folder goes; when all are, nothing stays."""
    ours(filled, folder)
    with filled.begin() as connection:
        midday = datetime(2026, 3, 3, tzinfo=UTC)
        gone = select(attempts.c.sid).where(attempts.c.date_created >= midday)
        sids = connection.execute(gone).scalars().all()
        connection.execute(delete(data).where(data.c.attempt_sid.in_(sids)))
        connection.execute(delete(attempts).where(attempts.c.sid.in_(sids)))
    assert counts(ours(filled, folder)) == (0, 3, 1)
    assert not (folder / f"day={DAYS[2]}").exists()
    with filled.begin() as connection:
        connection.execute(delete(data))
        connection.execute(delete(attempts))
    assert counts(ours(filled, folder)) == (0, 0, 3)
    assert [*folder.iterdir()] == []


def test_a_file_that_somebody_took_is_written_again(filled: Engine, folder: Path) -> None:
    """A day whose file is gone or cut is not taken for unchanged."""
    ours(filled, folder)
    (folder / f"day={DAYS[0]}" / FILE).unlink()
    (folder / f"day={DAYS[1]}" / FILE).write_bytes(b"PAR1")
    assert counts(ours(filled, folder)) == (2, 2, 0)


def test_redacted_rows_are_exported_again(filled: Engine, folder: Path) -> None:
    """What `redact` removes goes from an export with destinations at its next run."""
    ours(filled, folder, destination=True)
    with filled.begin() as connection:
        redact.redact(connection, before=2**42, after="", write=True)
    assert counts(ours(filled, folder, destination=True)) == (4, 0, 0)
    held = exported(folder)
    assert {row["destination"] for day in held.values() for row in day} == {None}
    assert "4915112345678" not in json.dumps(held, default=str)


def test_a_value_that_redact_removes_is_exported_again(filled: Engine, folder: Path) -> None:
    """An export with destinations follows a redaction that took nothing but a carrier."""
    with filled.begin() as connection:
        connection.execute(update(data).values(destination=None, extra=None))
        redact.redact(connection, before=2**42, after="", write=True)
        second = select(attempts.c.sid).where(attempts.c.date_created.between(*SECOND))
        odd = data.c.attempt_sid.in_(connection.execute(second.limit(1)).scalars().all())
        connection.execute(update(data).where(odd).values(carrier="+4915112345678"))
    ours(filled, folder, destination=True)
    with filled.begin() as connection:
        redact.redact(connection, before=2**42, after="", write=True)
    assert counts(ours(filled, folder, destination=True)) == (1, 3, 0)
    assert "4915112345678" not in json.dumps(exported(folder), default=str)


def test_a_folder_of_older_rules_is_written_anew(
    filled: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export without destinations that was made when more was let through is made again."""
    with monkeypatch.context() as patch:
        patch.setattr(rows, "_RULES", rows._RULES - 1)
        ours(filled, folder)
    assert counts(ours(filled, folder)) == (4, 0, 0)


def test_a_folder_with_a_number_of_columns_is_written_anew(filled: Engine, folder: Path) -> None:
    """A file that names its columns by a number is an earlier version's: it is replaced once."""
    ours(filled, folder)
    for file in folder.glob("day=*/*.parquet"):
        table = parquet.ParquetFile(file).read()
        ((key, value),) = table.schema.metadata.items()
        made = json.loads(value)
        made["layout"]["columns"] = 1
        parquet.write_table(table.replace_schema_metadata({key: json.dumps(made)}), file)
    assert counts(ours(filled, folder)) == (4, 0, 0)
    assert counts(ours(filled, folder)) == (0, 4, 0)


def test_a_folder_without_a_new_column_asks_for_full(
    filled: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the row has gained a column, a folder is refused until it is written anew."""
    with monkeypatch.context() as patch:
        patch.setattr(rows, "_COLUMNS", {n: c for n, c in rows._COLUMNS.items() if n != "url"})
        earlier = rows.layout(destination=False)
    with monkeypatch.context() as patch:
        patch.setattr(rows, "layout", lambda *, destination: earlier | {"destination": destination})
        ours(filled, folder)
    with pytest.raises(ConfigError, match=r"columns of another version\..*--full"):
        ours(filled, folder)
    assert counts(ours(filled, folder, full=True)) == (4, 0, 0)


@pytest.mark.parametrize("destination", [False, True])
def test_a_folder_of_an_earlier_version_is_written_anew(
    destination: bool,  # noqa: FBT001 - a case
    filled: Engine,
    folder: Path,
) -> None:
    """Its list goes, its NULL day gets a date, and its columns are kept."""
    ours(filled, folder, destination=destination)
    for file in folder.glob("day=*/*.parquet"):
        parquet.write_table(parquet.ParquetFile(file).read().replace_schema_metadata(None), file)
    (folder / "_manifest.json").write_text("{}")
    old = folder / "day=__HIVE_DEFAULT_PARTITION__"
    old.mkdir()
    (folder / "day=1970-01-01" / "undated-0.parquet").rename(old / FILE)
    with pytest.raises(ConfigError, match="other columns"):
        ours(filled, folder, destination=not destination)
    assert counts(ours(filled, folder, destination=destination)) == (4, 0, 0)
    assert sorted(path.name for path in folder.iterdir()) == [
        "day=1970-01-01", *(f"day={day}" for day in DAYS)
    ]  # fmt: skip


def test_a_window_leaves_other_days_alone(filled: Engine, world: World, folder: Path) -> None:
    """With bounds only their days are written or removed, and attempts of unknown time are not."""
    second = {"first": date(2026, 3, 2), "end": date(2026, 3, 3)}
    assert counts(ours(filled, folder, **second)) == (1, 0, 0)
    assert sorted(exported(folder)) == [DAYS[1]]
    assert counts(ours(filled, folder)) == (3, 1, 0)
    with filled.begin() as connection:
        connection.execute(delete(data))
        connection.execute(delete(attempts))
    assert counts(ours(filled, folder, **second)) == (0, 0, 1)
    assert sorted(exported(folder)) == [DAYS[0], DAYS[2], UNDATED]


def test_full_writes_every_day(filled: Engine, folder: Path) -> None:
    """--full writes days that did not change."""
    ours(filled, folder)
    assert counts(ours(filled, folder, full=True)) == (4, 0, 0)


def test_columns_are_not_mixed(filled: Engine, folder: Path) -> None:
    """A folder without destinations takes none, unless all of it is written anew."""
    ours(filled, folder)
    for asked in (
        ExportOptions(folder, destination=True),
        ExportOptions(folder, destination=True, full=True, first=date(2026, 3, 2)),
    ):
        with pytest.raises(ConfigError, match=r"other columns: --without-destination\..*--full"):
            export(filled, asked)
    assert counts(ours(filled, folder, full=True, destination=True)) == (4, 0, 0)
    with pytest.raises(ConfigError, match=r"other columns: --with-destination\..*--full"):
        ours(filled, folder)


def test_rows_are_read_in_small_steps(filled: Engine, folder: Path) -> None:
    """However small the steps, each row comes once, though many share one time of creation."""
    with filled.begin() as connection:
        at = datetime(2026, 3, 1, 12, tzinfo=UTC)
        connection.execute(
            update(attempts).where(attempts.c.date_created < at).values(date_created=at)
        )
        late = datetime(2026, 3, 3, tzinfo=UTC)
        connection.execute(
            update(attempts).where(attempts.c.date_created > late).values(date_created=None)
        )
    ours(filled, folder, step=7, group=20)
    read = parquet.ParquetFile(folder / f"day={DAYS[0]}" / FILE).metadata
    sizes = [read.row_group(i).num_rows for i in range(read.num_row_groups)]
    assert len(sizes) >= 4
    assert set(sizes[:-1]) == {21}
