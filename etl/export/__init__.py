"""Keep a folder of Parquet files equal to the rows: mark each day | write what changed.

A day's mark changes whenever this program writes or deletes one of its rows. It is read before the
rows: a row that comes in between is exported twice, never lost.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from etl.database.transact import check_revision, transact
from etl.errors import ConfigError
from etl.export import rows
from etl.export.folder import UNDATED, Folder
from etl.export.rows import FetchedWindow, Mark
from etl.sql.odd import say

__all__ = ["UNDATED", "ExportOptions", "Exported", "export"]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Say what to export where: UTC days from ``first`` up to, not including, ``end``.

    A query reads ``step`` rows; about ``group`` rows are held at a time and make a row group.
    """

    folder: Path
    first: date | None = None
    end: date | None = None
    full: bool = False
    destination: bool = False
    step: int = 10_000
    group: int = 50_000

    @property
    def windowed(self) -> bool:
        """Say whether only some days are exported."""
        return self.first is not None or self.end is not None

    def holds(self, day: str) -> bool:
        """Say whether to export a day; attempts of unknown time are in no window."""
        if not self.windowed or day == UNDATED:
            return not self.windowed
        found = date.fromisoformat(day)
        return (self.first or found) <= found and (self.end is None or found < self.end)


@dataclass(slots=True)
class Exported:
    """Count what an export did."""

    written: int = 0
    unchanged: int = 0
    removed: int = 0
    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the keys that ``export --json`` prints."""
        return {
            "days_written": self.written,
            "days_unchanged": self.unchanged,
            "days_removed": self.removed,
            "rows": self.rows,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
        }


def export(engine: Engine, options: ExportOptions) -> Exported:
    """Write the days that changed since the last export, and remove days without rows.

    An interrupted export leaves every day whole, old or new. The next export goes on from there.
    Raises ``ConfigError`` without pyarrow, for a folder of something else, and for one with other
    columns. Raises ``TryAgain`` while another export writes there, ``StorageError`` when the folder
    cannot be written.
    """
    started = time.monotonic()
    rows.arrow()
    done = Exported()
    with Folder(options.folder, rows.layout(destination=options.destination)) as folder:
        other = folder.differing
        # A --full that was interrupted goes on: some files have the new columns already.
        begun = len(other) < len(folder.days) and not options.windowed
        if other and not begun and (options.windowed or not options.full):
            raise _other_columns(options, other[0].layout)
        marks = _marks(engine, options)
        for day in sorted({*marks, *filter(options.holds, folder.days)}):
            _export(engine, options, folder, day, marks.get(day), done)
    done.seconds = time.monotonic() - started
    return done


def _other_columns(options: ExportOptions, layout: dict[str, Any]) -> ConfigError:
    """Name the option by which the files there differ."""
    had = layout.get("destination")
    if had == options.destination:
        msg = f"{options.folder} was exported with the columns of another version."
        return ConfigError(msg, hint="Write all days anew with --full.")
    option = "--with-destination" if had else "--without-destination"
    msg = f"{options.folder} was exported with other columns: {option}."
    return ConfigError(msg, hint="Repeat that option, or write all days anew with --full.")


def _export(  # noqa: PLR0913, PLR0917 - a day, where to, and what is known of it
    engine: Engine,
    options: ExportOptions,
    folder: Folder,
    day: str,
    mark: Mark | None,
    done: Exported,
) -> None:
    if mark is not None and not options.full and folder.has(day, mark.text):
        done.unchanged += 1
        return
    size = count = 0
    if mark is not None:
        schema = rows.schema(destination=options.destination)
        groups = _groups(engine, day, options)
        count, size = folder.write(day, mark.text, schema, groups)
    if mark is None or not count:
        # Its rows are gone, perhaps since the mark was read.
        folder.remove(day)
        done.removed += 1
        return
    done.written += 1
    done.rows += count
    done.bytes += size


def _marks(engine: Engine, options: ExportOptions) -> dict[str, Mark]:
    window = FetchedWindow(_midnight(options.first), _midnight(options.end))

    def work(connection: Connection) -> dict[str | None, Mark]:
        check_revision(connection)
        say(connection)
        return rows.marks(connection, window, destination=options.destination)

    found = transact(engine, work, doing="looking for days that changed")
    return {day or UNDATED: mark for day, mark in found.items() if options.holds(day or UNDATED)}


def _groups(engine: Engine, day: str, asked: ExportOptions) -> Iterator[Any]:
    """Yield a day's rows in order, as tables of a row group each.

    Reads by key in short transactions, so a long export holds up no writer of SQLite.
    """
    first = None if day == UNDATED else date.fromisoformat(day)
    window = FetchedWindow(_midnight(first), _midnight(first and first + timedelta(days=1)))
    after: rows.Position | None = None
    parts: list[Any] = []
    held = 0
    while True:

        def work(connection: Connection, after: rows.Position | None = after) -> rows.Batch:
            return rows.read(
                connection, window, after, destination=asked.destination, limit=asked.step
            )

        batch = transact(engine, work, doing=f"reading the attempts of {day}")
        parts.append(batch.table)
        held += batch.table.num_rows
        if held >= asked.group or batch.last is None:
            yield rows.joined(parts)
            parts, held = [], 0
        if batch.last is None:
            return
        after = batch.last


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC)
