"""Hold the folder of an export: a file for each day, put in place whole, and what is in them.

``_manifest.json`` is written after the files it speaks of: a crash between the two costs a day
that is written again.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from stat import S_IMODE
from types import TracebackType
from typing import IO, Any, Final, Self

from etl.errors import ConfigError, StorageError, TryAgain

MANIFEST: Final = "_manifest.json"
FILE: Final = "part-0.parquet"
UNDATED: Final = "__HIVE_DEFAULT_PARTITION__"
"""Names the folder of attempts whose creation time is unknown, as Hive, Spark and DuckDB do."""

_PART: Final = f".{MANIFEST}.tmp"
_SAVE_EVERY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Day:
    """Say what the file of a day holds: rows, bytes, the newest ``fetched_at`` (ms), its mark."""

    rows: int
    bytes: int
    fetched_at: int
    mark: str


class Folder(AbstractContextManager["Folder"]):
    """Open, and keep to this process, a folder of an export; create one that is not there.

    Raises ``ConfigError`` for a folder that holds something else, ``TryAgain`` while another
    process writes there, ``StorageError`` when it cannot be used.
    """

    def __init__(self, path: Path, layout: dict[str, Any]) -> None:
        self._path = path
        self._layout = layout
        self._handle = -1
        self._saved_at = 0.0
        self.had: dict[str, Any] = layout
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
        try:
            # After a failure, too: the days that are whole need not be written again.
            self._save()
        except OSError as failed:
            if error is None:
                raise self._unusable(failed) from failed
        finally:
            self._close()

    @property
    def layout_differs(self) -> bool:
        """Say whether the files there have other columns."""
        return self.had != self._layout

    def adopt_layout(self) -> None:
        """Count every file as out of date."""
        self.had = self._layout
        self.days = {day: Day(0, 0, 0, "") for day in self.days}

    def has(self, day: str, mark: str) -> bool:
        """Say whether the day's file is there and holds the rows of this mark."""
        known = self.days.get(day)
        if known is None or known.mark != mark:
            return False
        with suppress(OSError):
            return self._file(day).stat().st_size == known.bytes
        return False

    def write(self, day: str, schema: Any, groups: Iterable[Any]) -> tuple[int, int]:  # noqa: ANN401 - pyarrow has no types
        """Write a day's file beside the old one and put it in its place; return rows and bytes.

        Readers see the old file or the new one, and after a crash it is one of the two.
        """
        target = self._file(day)
        # Always the same name, so that what a crash leaves is written over; no reader takes it.
        part = target.with_name(f".{FILE}.tmp")
        try:
            target.parent.mkdir(exist_ok=True)
            with _open(part, target, self._path / MANIFEST) as stream:
                rows = _write(stream, schema, groups)
                stream.flush()
                os.fsync(stream.fileno())
                size = stream.tell()
            if rows:
                part.replace(target)
                _sync(target.parent)
                _sync(self._path)
        except OSError as error:
            raise self._unusable(error) from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return rows, size

    def remember(self, day: str, written: Day) -> None:
        """Note what a day's file holds."""
        self.days[day] = written
        self._save_now_and_then()

    def remove(self, day: str) -> None:
        """Take a day's file away."""
        target = self._file(day)
        try:
            target.unlink(missing_ok=True)
            with suppress(OSError):
                target.parent.rmdir()
            _sync(self._path)
        except OSError as error:
            raise self._unusable(error) from error
        self.days.pop(day, None)
        self._save_now_and_then()

    def _file(self, day: str) -> Path:
        return self._path / f"day={day}" / FILE

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"Another export is writing to {self._path}."
            raise TryAgain(msg, hint="Run it again when that one has ended.") from error
        except OSError:
            # A file system without locks: whoever exports to it sees to it that one runs at a time.
            return

    def _load(self) -> None:
        path = self._path / MANIFEST
        if not path.exists():
            # What a crash left before the first manifest is ours, and is written over.
            if any(path.name != _PART for path in self._path.iterdir()):
                msg = f"{self._path} is not empty, and no export."
                raise ConfigError(msg, hint="Name a folder that is empty or not there yet.")
            # Before the first file: what is in here is ours from now on.
            self._save()
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            self.had = found["layout"]
            self.days = {day: Day(**known) for day, known in found["days"].items()}
            for day in self.days.keys() - {UNDATED}:
                # Paths are made of it.
                date.fromisoformat(day)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            msg = f"{path} cannot be read: it is not what an export wrote."
            raise ConfigError(msg, hint="Export into an empty folder.") from error

    def _save_now_and_then(self) -> None:
        # It names every day there is; written after each of thousands, it would cost more than they.
        if time.monotonic() - self._saved_at > _SAVE_EVERY_S:
            try:
                self._save()
            except OSError as error:
                raise self._unusable(error) from error

    def _save(self) -> None:
        days = {day: asdict(known) for day, known in sorted(self.days.items())}
        text = json.dumps({"format": "parquet", "layout": self.had, "days": days}, indent=1)
        path = self._path / MANIFEST
        part = path.with_name(_PART)
        with _open(part, path) as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
        _sync(self._path)
        self._saved_at = time.monotonic()

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _unusable(self, error: OSError) -> StorageError:
        msg = f"{self._path} cannot be written: {error.strerror or error}."
        return StorageError(msg, hint="Check the path, its permissions and the disk's space.")


def _open(part: Path, *like: Path) -> IO[bytes]:
    """Open a file for its owner alone, or for whom the first of these that is there is meant."""
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
        # After a failure it would try to close again when it is collected, and say so.
        writer.is_open = False
    return rows


def _sync(folder: Path) -> None:
    """Make a rename in a folder last."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
