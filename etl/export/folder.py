"""Hold the folder of an export: a file for each day, and a manifest of them.

Files are replaced whole. ``_manifest.json`` is written after the files: a crash in between only
means that a day is written again.
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
"""The folder of attempts with unknown creation time, as Hive, Spark and DuckDB name it."""

_PART: Final = f".{MANIFEST}.tmp"
_SAVE_EVERY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Day:
    """Describe the file of a day; ``fetched_at`` is the newest, in ms."""

    rows: int
    bytes: int
    fetched_at: int
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
            # Save after a failure too: whole days need not be written again.
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
        """Say whether the day's file exists and has this mark."""
        known = self.days.get(day)
        if known is None or known.mark != mark:
            return False
        with suppress(OSError):
            return self._file(day).stat().st_size == known.bytes
        return False

    def write(self, day: str, schema: Any, groups: Iterable[Any]) -> tuple[int, int]:  # noqa: ANN401 - pyarrow has no types
        """Write a day's file beside the old one, then replace it; return rows and bytes.

        Readers see the old file or the new one, even after a crash.
        """
        target = self._file(day)
        # Always the same name: the next write replaces what a crash leaves. Readers skip it.
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
            # A file system without locks: the user has to run one export at a time.
            return

    def _load(self) -> None:
        path = self._path / MANIFEST
        if not path.exists():
            # A crash before the first manifest leaves only this file: it is ours.
            if any(path.name != _PART for path in self._path.iterdir()):
                msg = f"{self._path} is not empty, and no export."
                raise ConfigError(msg, hint="Name a folder that is empty or not there yet.")
            # From now on the folder is known as an export's.
            self._save()
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            self.had = found["layout"]
            self.days = {day: Day(**known) for day, known in found["days"].items()}
            for day in self.days.keys() - {UNDATED}:
                # Days become paths.
                date.fromisoformat(day)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            msg = f"{path} cannot be read: it is not what an export wrote."
            raise ConfigError(msg, hint="Export into an empty folder.") from error

    def _save_now_and_then(self) -> None:
        # The manifest names every day. Written after each, it would cost more than the days.
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
