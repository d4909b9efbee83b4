"""Read files of SIDs in constant memory: plain text, CSV, JSON, gzip of each, pipes.

::

    bytes | gunzip | text | whole lines | detect the format | Block

A file's content decides what it is, never its name. A bad line is a value (``BadLine``). A file
without SIDs raises ``InputError``, an unreadable one ``StorageError``.
"""

import codecs
import csv
import gzip
import io
import json
import os
import re
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import IO, Any, Final

from etl.backfill.documents import documents, members
from etl.backfill.lines import ATTEMPTS, BLANK, BadLine, Block, SidKind, quote, snake
from etl.errors import InputError, StorageError

BLOCK_BYTES: Final = 1 << 20
LINE_LENGTH: Final = 1 << 16
"""A longer line is a bad one. No more of it is held."""
STDIN: Final = "-"

_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Text has no control bytes but tab, line ends, form feed and escape.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_WRONG_SHARE: Final = 0.2
_OVERLONG: Final = f"is longer than {LINE_LENGTH // 1024} KB"
# What begins with a bracket or a brace, after blanks and comments.
_JSON: Final = re.compile(r"(?:[\s\ufeff]|#[^\n]*\n)*[\[{]")
_CSV_ROWS: Final = 16_384
# Past so many lines, a quote is taken for one that never closes.
_RECORD_LINES: Final = 4096
# An error for strict CSV, inside a quote and outside.
_UNREADABLE: Final = '"x"y'


@dataclass(frozen=True, slots=True)
class Source:
    """Be a file of ``size`` bytes that can be read again; ``name`` is for messages."""

    name: str
    path: str | int
    size: int
    kind: SidKind = ATTEMPTS

    def blocks(self) -> Iterator[Block]:
        """Yield the file's lines in order, about a megabyte at a time.

        Raises ``StorageError`` if it cannot be read, ``InputError`` if it is damaged or binary.
        """
        descriptor = isinstance(self.path, int)
        with _reading(self.name), open(self.path, "rb", closefd=not descriptor) as raw:
            raw.seek(0)
            zipped = raw.peek(2).startswith(b"\x1f\x8b")
            stream: Any = gzip.GzipFile(fileobj=raw) if zipped else raw
            text = _decoded(self.name, stream)
            chunks = iter(partial(text.read, BLOCK_BYTES), "")
            head = next(chunks, "")
            whole = chain([head], chunks)
            is_json = _JSON.match(head)
            read = (
                documents(self.name, whole, self.kind)
                if is_json
                else _parse(_whole_lines(whole), self.kind)
            )
            for block in read:
                block.offset = raw.tell()
                yield block


@contextmanager
def replayable(path: str, kind: SidKind = ATTEMPTS) -> Iterator[Source]:
    """Make a file, pipe or ``-`` (standard input) readable more than once while this is open.

    A pipe is copied to a nameless temporary file, which never outlives this process. Raises
    ``StorageError`` naming the file.
    """
    if path != STDIN:
        with _reading(path):
            found = os.stat(path)  # noqa: PTH116 - as it is named in messages
        if stat.S_ISREG(found.st_mode):
            yield Source(path, path, found.st_size, kind)
            return
    # Unbuffered: what a full disk refused must not be tried again, and raise, when it is closed.
    with tempfile.TemporaryFile(buffering=0) as spool:
        name = "standard input" if path == STDIN else path
        yield Source(name, spool.fileno(), _copy(path, name, spool), kind)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Say in words what goes wrong with a file."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        msg = f"{name} is damaged: {error}."
        raise InputError(msg, hint="Copy or save it again; nothing of it is used.") from error
    except OSError as error:
        msg = f"{name} cannot be read: {error.strerror or error}."
        raise StorageError(msg, hint="Check the path and its permissions.") from error


def _copy(path: str, name: str, spool: IO[bytes]) -> int:
    with _reading(name):
        if path == STDIN and sys.stdin is None:
            raise OSError(0, "it is closed")
        with nullcontext(sys.stdin.buffer) if path == STDIN else open(path, "rb") as pipe:  # noqa: PTH123 - as it is named
            for chunk in iter(partial(pipe.read, BLOCK_BYTES), b""):
                _write(spool, chunk, name)
    return spool.tell()


def _write(spool: IO[bytes], rest: bytes, name: str) -> None:
    try:
        while rest:
            rest = rest[spool.write(rest) :]
    except OSError as error:
        msg = f"{name} cannot be copied to {tempfile.gettempdir()}: {error.strerror}."
        raise StorageError(msg, hint="Free space there, or set TMPDIR.") from error


def _decoded(name: str, stream: Any) -> io.TextIOWrapper:  # noqa: ANN401 - a file, or gzip's
    """Decode by the mark at the start. Refuse a file whose beginning cannot be text.

    A few bytes may be no UTF-8: another column's Latin-1 does a SID no harm.
    """
    head = stream.read(LINE_LENGTH)
    stream.seek(0)
    if head.startswith(_UTF16):
        return io.TextIOWrapper(stream, "utf-16")
    wrong = codecs.utf_8_decode(head, "replace")[0].count("\ufffd")
    if wrong > _WRONG_SHARE * len(head) or _CONTROL.search(head):
        msg = f"{name} is not a text file."
        raise InputError(msg, hint="Give text, CSV or JSON lines, in UTF-8 or gzip of that.")
    return io.TextIOWrapper(stream, "utf-8-sig", "replace")


def _whole_lines(chunks: Iterator[str]) -> Iterator[list[str]]:
    """Yield a block of lines at a time. Of an overlong line, keep enough to know it for one."""
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split("\n")
        if lines:
            yield lines
        rest = rest[: LINE_LENGTH + 1]
    if rest:
        yield [rest]


def _parse(blocks: Iterator[list[str]], kind: SidKind) -> Iterator[Block]:
    """Detect the format in the first block that has content, then read all in it."""
    number = 1
    read_block = None
    for lines in blocks:
        if read_block is None and (skip := _first_content(lines)) is not None:
            start = lines[skip].strip(BLANK)
            if delimiter := _delimiter(lines[skip : skip + 20], kind):
                yield _text(lines[:skip], number, kind)
                rest = chain.from_iterable(chain((lines[skip:],), blocks))
                yield from _csv(rest, delimiter, number + skip, kind)
                return
            read_block = _json if start.startswith('"') else _text
        yield (read_block or _text)(lines, number, kind)
        number += len(lines)


def _first_content(lines: list[str]) -> int | None:
    for place, line in enumerate(lines):
        text = line.strip(BLANK) if len(line) <= LINE_LENGTH else ""
        if text and not text.startswith("#"):
            return place
    return None


def _delimiter(head: list[str], kind: SidKind) -> str | None:
    """Return the delimiter with which the first record names a SID column; None: it is no CSV."""
    for delimiter in ",;\t":
        with suppress(csv.Error):
            record = next(csv.reader(map("{}\n".format, head), delimiter=delimiter, strict=True))
            if not set(kind.columns).isdisjoint(_names(record)):
                return delimiter
    return None


def _names(header: list[str]) -> list[str]:
    return [snake(name.strip(BLANK + '"')) for name in header]


def _text(lines: list[str], number: int, kind: SidKind) -> Block:
    # Much faster than one line after the other.
    if kind.pattern.findall("\n".join(lines)) == lines:
        numbers = range(number, number + len(lines))
        return Block(len(lines), lines, numbers=numbers, kind=kind)
    found = Block(len(lines), kind=kind)
    for at, text in _content(lines, number, found.bad):
        found.take(text.strip('"'), None, at)
    return found


def _json(lines: list[str], number: int, kind: SidKind) -> Block:
    found = Block(len(lines), kind=kind)
    for at, text in _content(lines, number, found.bad):
        try:
            taken = [*members(json.loads(text), kind)]
        except (ValueError, RecursionError):
            found.bad.append(BadLine(at, f"{quote(text)} is not a whole JSON value"))
            continue
        for sid, created in taken:
            found.take(sid, created, at)
    return found


def _content(lines: list[str], number: int, bad: list[BadLine]) -> Iterator[tuple[int, str]]:
    """Yield what is neither blank nor comment, with its line."""
    for at, line in enumerate(lines, number):
        if len(line) > LINE_LENGTH:
            bad.append(BadLine(at, _OVERLONG))
        elif (text := line.strip(BLANK)) and not text.startswith("#"):
            yield at, text


def _csv(lines: Iterator[str], delimiter: str, first: int, kind: SidKind) -> Iterator[Block]:
    found = Block(kind=kind)
    records = _records(lines, delimiter, first)
    names = _names(next(records)[1] or [])
    column = next(names.index(name) for name in kind.columns if name in names)
    dated = names.index("date_created") if "date_created" in names else None
    at = first
    for at, row in records:
        if at - first >= _CSV_ROWS:
            found.lines = at - first
            yield found
            found, first = Block(kind=kind), at
        if row is None:
            found.bad.append(BadLine(at, _OVERLONG))
        elif any(row):
            sid = "".join(row[column : column + 1])
            found.take(sid, None if dated is None else "".join(row[dated : dated + 1]), at)
    found.lines = at - first
    yield found


def _records(
    lines: Iterator[str], delimiter: str, number: int
) -> Iterator[tuple[int, list[str] | None]]:
    """Yield CSV records with their first line, None for an overlong line, and an empty last one.

    A quote that never closes costs its own line: the lines after it are read again.
    """
    record: list[str] = []
    again: list[str] = []

    def feed() -> Iterator[str]:
        while (line := again.pop() if again else next(lines, None)) is not None:
            record.append(line)
            whole = len(line) <= LINE_LENGTH and len(record) <= _RECORD_LINES
            yield f"{line}\n" if whole else _UNREADABLE

    while True:
        with suppress(csv.Error):
            for row in csv.reader(feed(), delimiter=delimiter, strict=True):
                yield number, row
                number += len(record)
                record.clear()
            yield number, []
            return
        alone, *rest = record
        again.extend(reversed(rest))
        record.clear()
        short = len(alone) <= LINE_LENGTH
        yield number, next(csv.reader([alone], delimiter=delimiter)) if short else None
        number += 1
