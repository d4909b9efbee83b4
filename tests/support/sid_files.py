"""Read a file of SIDs line by line."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from pathlib import Path

from etl.backfill.files import Source, replayable
from etl.backfill.lines import BadLine


@dataclass(frozen=True)
class Entry:
    """Name one attempt, when it was created if the file says so, and its line."""

    sid: str
    date_created: datetime | None
    line: int


def read(source: Source) -> Iterator[Entry | BadLine]:
    """Yield every attempt and every bad line, in order of lines."""
    for block in source.blocks():
        created = block.created or [None] * len(block.sids)
        found: list[Entry | BadLine] = [*map(Entry, block.sids, created, block.numbers), *block.bad]
        yield from sorted(found, key=attrgetter("line"))


def entries(path: Path | str) -> list[Entry | BadLine]:
    """Read a file whole, twice, and hold the two readings equal."""
    with replayable(str(path)) as source:
        found = list(read(source))
        assert found == list(read(source))
    return found


def parse(folder: Path, data: bytes | str) -> list[tuple[int, str]]:
    """Write a file, read it, and give line and SID, or line and '!' for a bad one."""
    path = folder / "file"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    found = entries(path)
    return [(item.line, item.sid if isinstance(item, Entry) else "!") for item in found]
