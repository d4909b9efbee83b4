"""Hold the folder of an export: a file for each day, and nothing else.

Files are replaced whole. Each says in its own metadata what it was made from. A list of them beside
them would be taken for a table by some readers.
"""

import fcntl
import json
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from stat import S_IMODE
from types import TracebackType
from typing import IO, Any, Final, Self

from etl.errors import ConfigError, StorageError, TryAgain

UNDATED: Final = "undated"
"""The day of attempts with unknown creation time."""

FILE: Final = "part-0.parquet"
_UNDATED_FILE: Final = "undated-0.parquet"
# A date, so that every reader makes dates of all folders; no attempt is as old.
_UNDATED_FOLDER: Final = "day=1970-01-01"
_METADATA: Final = b"verify_attempts_etl"

# What earlier versions made: a list, which some readers took for a table, and a day that is NULL.
_OLD_LIST: Final = "_manifest.json"
_OLD_UNDATED: Final = "day=__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class Day:
    """Say what the file of a day was made from: its columns, and the mark of its rows."""

    layout: dict[str, Any]
    mark: str


class Folder(AbstractContextManager["Folder"]):
    """Open or create the folder of an export, and lock it for this process.

    Raises ``ConfigError`` for a folder of something else, ``TryAgain`` while another process
    writes there, ``StorageError`` when it cannot be used.
    """

    def __init__(self, path: Path, layout: dict[str, Any]) -> None:
        self._path = path
        self._layout = layout
        self._handle = -1
        self.days: dict[str, Day] = {}

    def __enter__(self) -> Self:
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
            self._lock()
            self._load()
        except OSError as error:
            self._close()
            raise self._unusable(error) from error
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    @property
    def differing(self) -> list[Day]:
        """Return the days whose files have other columns."""
        return [known for known in self.days.values() if known.layout != self._layout]

    def has(self, day: str, mark: str) -> bool:
        """Say whether the day's file is there, whole, and made from these columns and rows."""
        return self.days.get(day) == Day(self._layout, mark)

    def write(self, day: str, mark: str, schema: Any, groups: Iterable[Any]) -> tuple[int, int]:  # noqa: ANN401 - pyarrow has no types
        """Write a day's file beside the old one, then replace it; return rows and bytes.

        Its metadata holds the columns and ``mark``.

        Readers see the old file or the new one, even after a crash.
        """
        target = self._file(day)
        # Always the same name: the next write replaces what a crash leaves. Readers skip it.
        part = target.with_name(f".{FILE}.tmp")
        try:
            target.parent.mkdir(exist_ok=True)
            with _open(part, target, *map(self._file, sorted(self.days))) as stream:
                rows = _write(stream, schema.with_metadata(self._metadata(mark)), groups)
                stream.flush()
                os.fsync(stream.fileno())
                size = stream.tell()
            if rows:
                part.replace(target)
                _sync(target.parent)
                _sync(self._path)
                self.days[day] = Day(self._layout, mark)
        except OSError as error:
            raise self._unusable(error) from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return rows, size

    def remove(self, day: str) -> None:
        """Remove a day's file."""
        target = self._file(day)
        try:
            target.unlink(missing_ok=True)
            with suppress(OSError):
                target.parent.rmdir()
            _sync(self._path)
        except OSError as error:
            raise self._unusable(error) from error
        self.days.pop(day, None)

    def _file(self, day: str) -> Path:
        if day == UNDATED:
            return self._path / _UNDATED_FOLDER / _UNDATED_FILE
        return self._path / f"day={day}" / FILE

    def _metadata(self, mark: str) -> dict[bytes, bytes]:
        return {_METADATA: json.dumps({"layout": self._layout, "mark": mark}).encode()}

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"Another export is writing to {self._path}."
            raise TryAgain(msg, hint="Run it again when that one has ended.") from error
        except OSError:
            # A file system without locks: the user has to run one export at a time.
            return

    def _load(self) -> None:
        listed = self._path / _OLD_LIST
        for folder in sorted(self._path.iterdir()):
            if days := _days(folder.name):
                there = [day for day in days if self._file(day).exists()]
                self.days |= {day: self._read(self._file(day)) for day in there}
            elif folder.name != _OLD_UNDATED and not listed.exists() and not self.days:
                # A crash before the first file leaves folders of days only: they are ours.
                msg = f"{self._path} is not empty, and no export."
                raise ConfigError(msg, hint="Name a folder that is empty or not there yet.")
        listed.unlink(missing_ok=True)
        for old in (FILE, f".{FILE}.tmp"):
            (self._path / _OLD_UNDATED / old).unlink(missing_ok=True)
        with suppress(OSError):
            (self._path / _OLD_UNDATED).rmdir()

    def _read(self, file: Path) -> Day:
        """Read what a file was made from. A damaged one, or an earlier version's, has no mark."""
        from pyarrow import ArrowException, parquet  # noqa: PLC0415 - an extra

        try:
            schema = parquet.read_schema(file)
        except (ArrowException, OSError):
            return Day(self._layout, "")
        with suppress(KeyError, ValueError, TypeError):
            day = Day(**json.loads(schema.metadata[_METADATA]))
            # Earlier versions wrote a number there.
            if isinstance(day.layout["columns"], list):
                return day
        if not {"sid", "first_fetched_at"} <= {*schema.names}:
            msg = f"{file} is not what an export wrote."
            raise ConfigError(msg, hint="Export into an empty folder.")
        return Day({**self._layout, "destination": "destination" in schema.names}, "")

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _unusable(self, error: OSError) -> StorageError:
        msg = f"{self._path} cannot be written: {error.strerror or error}."
        return StorageError(msg, hint="Check the path, its permissions and the disk's space.")


def _days(name: str) -> list[str]:
    """Return the days whose files are in a folder of this name."""
    with suppress(ValueError):
        day = date.fromisoformat(name.removeprefix("day=")).isoformat()
        # Others may have written an attempt of that very day.
        return [day, UNDATED] if name == _UNDATED_FOLDER else [day] if name == f"day={day}" else []
    return []


def _open(part: Path, *like: Path) -> IO[bytes]:
    """Open a file with the mode of the first existing of these, else for its owner alone."""
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    mode = next((S_IMODE(path.stat().st_mode) for path in like if path.exists()), 0o600)
    # Not every file system has modes.
    with suppress(OSError):
        os.fchmod(handle, mode)
    return os.fdopen(handle, "wb")


def _write(stream: IO[bytes], schema: Any, groups: Iterable[Any]) -> int:  # noqa: ANN401 - pyarrow has no types
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    rows = 0
    writer = parquet.ParquetWriter(stream, schema, compression="zstd")
    try:
        for group in groups:
            rows += group.num_rows
            writer.write_table(group)
        writer.close()
    finally:
        # After a failure the garbage collector would close it again, with a warning.
        writer.is_open = False
    return rows


def _sync(folder: Path) -> None:
    """Make a rename in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
