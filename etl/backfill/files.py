"""Read files of SIDs in constant memory: plain text, CSV, JSON lines, gzip of each, pipes.

::

    bytes | gunzip | to UTF-8 | to line feeds | whole lines | detect | Block

A file's content decides what it is, never its name. A bad line is a value (``BadLine``), a file
that is no list of SIDs is one ``InputError``, one that cannot be read a ``StorageError``.
"""

import codecs
import csv
import gzip
import json
import os
import re
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from operator import attrgetter
from typing import IO, Any, Final

from etl.backfill.lines import ATTEMPTS, BLANK, BadLine, Block, Entry, SidKind, quote
from etl.errors import InputError, StorageError

BLOCK_BYTES: Final = 1 << 20
LINE_BYTES: Final = 1 << 16
"""What is held of one line; a longer one is a bad line, and the rest of it is dropped."""
STDIN: Final = "-"

_BOMS: Final = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
# Text has no control bytes but tab, line ends, form feed and escape.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_WRONG_SHARE: Final = 0.2
_OVERLONG: Final = f"is longer than {LINE_BYTES // 1024} KB"
_CSV_ROWS: Final = 16_384
_RECORD_LINES: Final = 4096  # past these, a quote is taken for one that never closes


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
            chunks = iter(partial(stream.read, BLOCK_BYTES), b"")
            for block in _parse(self.name, chunks, self.kind):
                block.offset = raw.tell()
                yield block


@contextmanager
def replayable(path: str, kind: SidKind = ATTEMPTS) -> Iterator[Source]:
    """Make a file, pipe or ``-`` (standard input) readable more than once while this is open.

    What is no regular file is copied to a nameless temporary file, so that it is gone however
    this process ends. Raises ``StorageError`` naming the file.
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


def read(source: Source) -> Iterator[Entry | BadLine]:
    """Yield every attempt and every bad line, in order of lines; blanks and comments are neither."""
    for block in source.blocks():
        created = block.created or [None] * len(block.sids)
        found: list[Entry | BadLine] = [*map(Entry, block.sids, created, block.numbers), *block.bad]
        yield from sorted(found, key=attrgetter("line"))


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


def _parse(name: str, raw: Iterator[bytes], kind: SidKind) -> Iterator[Block]:
    """Detect the format in the first block that says something, then read all in it."""
    lines = _whole_lines(_line_feeds(_utf8(name, raw)))
    number = 1
    read_block = None
    for block in lines:
        if read_block is None and (found := _first_content(block)):
            skip, head = found
            start = head.strip(BLANK)
            if start.startswith("["):
                msg = f"{name} begins like a JSON array, which is not read."
                raise InputError(msg, hint="Write one JSON value a line: jq -c '.[]'")
            if delimiter := _delimiter(head, kind):
                rest = chain.from_iterable(map(bytes.splitlines, chain((block,), lines)))
                yield _text(
                    b"".join(line + b"\n" for line in block.splitlines()[:skip]), number, kind
                )
                yield from _csv(islice(rest, skip, None), delimiter, number + skip, kind)
                return
            read_block = _json if start.startswith(("{", '"')) else _text
        parsed = (read_block or _text)(block, number, kind)
        number += parsed.lines
        yield parsed


def _utf8(name: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decode by the mark at the start; a file that cannot be text is refused by its beginning.

    A few bytes that are no UTF-8 are some other column's Latin-1, and do no harm to a SID.
    """
    head = next(chunks, b"")
    if encoding := _BOMS.get(head[:2]):
        decoder = codecs.getincrementaldecoder(encoding)()
        yield from (decoder.decode(chunk).encode() for chunk in chain((head[2:],), chunks))
        yield decoder.decode(b"", final=True).encode()
        return
    start = head[:LINE_BYTES]
    wrong = codecs.getincrementaldecoder("utf-8")("replace").decode(start).count("\ufffd")
    if wrong > _WRONG_SHARE * len(start) or _CONTROL.search(start):
        msg = f"{name} is not a text file."
        raise InputError(msg, hint="Give text, CSV or JSON lines, in UTF-8 or gzip of that.")
    yield head.removeprefix(codecs.BOM_UTF8)
    yield from chunks


def _line_feeds(chunks: Iterator[bytes]) -> Iterator[bytes]:
    before = b""
    for chunk in chunks:
        # A CR LF cut between two chunks has had its line end already.
        text = chunk.removeprefix(b"\n") if before.endswith(b"\r") else chunk
        before = chunk or before
        yield text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text


def _whole_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Regroup to end in line feeds; of an overlong line enough is kept to know it for one."""
    rest = b""
    for chunk in chunks:
        lines, end, rest = (rest + chunk).rpartition(b"\n")
        if end:
            yield lines + end
        rest = rest[: LINE_BYTES + 1]
    if rest:
        yield rest + b"\n"


def _text_of(line: bytes) -> str:
    return line.decode(errors="replace").strip(BLANK)


def _first_content(block: bytes) -> tuple[int, str] | None:
    """Return how many blank and comment lines come first, and what follows, cut."""
    lines = block.splitlines()
    for skip, line in enumerate(lines):
        text = _text_of(line) if len(line) <= LINE_BYTES else ""
        if text and not text.startswith("#"):
            return skip, b"\n".join(lines[skip : skip + 20])[:LINE_BYTES].decode(errors="replace")
    return None


def _delimiter(head: str, kind: SidKind) -> str | None:
    """Return the delimiter with which the first record names a SID column; None: it is no CSV."""
    for delimiter in ",;\t":
        with suppress(csv.Error):
            record = next(csv.reader(head.split("\n"), delimiter=delimiter, strict=True))
            if not set(kind.columns).isdisjoint(_names(record)):
                return delimiter
    return None


def _names(header: list[str]) -> list[str]:
    return [name.strip(BLANK + '"').lower().replace(" ", "_") for name in header]


def _text(block: bytes, number: int, kind: SidKind) -> Block:
    count = block.count(b"\n")
    if kind.lines.fullmatch(block):
        sids = block.decode("ascii").split()
        return Block(count, sids, numbers=range(number, number + count), kind=kind)
    found = Block(count, kind=kind)
    for at, text in _content(block, number, found.bad):
        found.take(text.strip('"'), None, at)
    return found


def _json(block: bytes, number: int, kind: SidKind) -> Block:
    found = Block(block.count(b"\n"), kind=kind)
    for at, text in _content(block, number, found.bad):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            found.bad.append(BadLine(at, f"{quote(text)} is not a whole JSON value"))
            continue
        for sid, created in _members(value, kind):
            found.take(sid, created, at)
    return found


def _content(block: bytes, number: int, bad: list[BadLine]) -> Iterator[tuple[int, str]]:
    """Yield what is neither blank nor comment, with its line."""
    for at, line in enumerate(block.splitlines(), number):
        if len(line) > LINE_BYTES:
            bad.append(BadLine(at, _OVERLONG))
        elif (text := _text_of(line)) and not text.startswith("#"):
            yield at, text


def _members(value: object, kind: SidKind) -> list[tuple[object, object]]:
    """Give SID and time of each attempt in a JSON value; a Verification's own SID is none."""
    if not isinstance(value, Mapping):
        return [(value, None)]
    sent = value.get("send_code_attempts")
    if kind is not ATTEMPTS or not isinstance(sent, list):
        best, other = kind.columns
        return [(value.get(best, value.get(other)), value.get("date_created"))]
    items = [item if isinstance(item, Mapping) else {} for item in sent]
    return [(item.get("attempt_sid"), item.get("time")) for item in items]


def _csv(lines: Iterator[bytes], delimiter: str, first: int, kind: SidKind) -> Iterator[Block]:
    found, bad = Block(kind=kind), list[BadLine]()
    records = _records(lines, delimiter, first, bad)
    names = _names(next(records)[1] or [])
    column = next(names.index(name) for name in kind.columns if name in names)
    dated = names.index("date_created") if "date_created" in names else None
    for at, row in records:
        if row is None or at - first >= _CSV_ROWS:
            found.lines = at - first
            found.bad = sorted(found.bad + bad, key=attrgetter("line"))
            bad.clear()
            yield found
            found, first = Block(kind=kind), at
        if row and any(row):
            sid = "".join(row[column : column + 1])
            found.take(sid, None if dated is None else "".join(row[dated : dated + 1]), at)


def _records(
    lines: Iterator[bytes], delimiter: str, number: int, bad: list[BadLine]
) -> Iterator[tuple[int, list[str] | None]]:
    """Yield CSV records with their first line, then None; a stray quote costs its line only."""
    record: list[bytes] = []
    again: list[bytes] = []

    def feed() -> Iterator[str]:
        while (line := again.pop() if again else next(lines, None)) is not None:
            if len(line) > LINE_BYTES:
                bad.append(BadLine(number + len(record), _OVERLONG))
                line = b""
            record.append(line)
            # Every line but a record's first is inside a quote, where this is an error.
            yield '"x' if len(record) > _RECORD_LINES else line.decode(errors="replace") + "\n"

    while True:
        reader = csv.reader(feed(), delimiter=delimiter, strict=True)
        with suppress(csv.Error):
            for row in reader:
                yield number, row
                number += len(record)
                record.clear()
            yield number, None
            return
        # The first line is judged alone, however it quotes, and the others read again.
        again.extend(record[:0:-1])
        alone = record[0].decode(errors="replace")
        record.clear()
        yield number, next(csv.reader([alone], delimiter=delimiter))
        number += 1
