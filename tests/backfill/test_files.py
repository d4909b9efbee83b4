import codecs
import csv
import errno
import gzip
import io
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.backfill.files import BLOCK_BYTES, LINE_LENGTH, replayable
from etl.backfill.lines import BadLine
from etl.errors import InputError, StorageError
from tests.support.harness import scaled
from tests.support.queue_rows import sid
from tests.support.sid_files import Entry, entries, parse

WHEN = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
GZIP_OF_NOTHING = gzip.compress(b"", mtime=0)


def reasons(folder: Path, data: bytes | str) -> list[str]:
    """Write a file, read it, and give the reasons of its bad lines."""
    parse(folder, data)
    return [item.reason for item in entries(folder / "file") if isinstance(item, BadLine)]


FORMATS = {
    "text": f"# SIDs\n{sid(1)}\n\n  {sid(2)}\t\nnonsense\n{sid(3)}\n",
    "csv": f'sid,note\n{sid(1)},"two\nlines"\n{sid(2)},é\nnonsense,x\n{sid(3)},\n',
    "jsonl": f'#\n{{"sid": "{sid(1)}"}}\n\n"{sid(2)}"\n"nonsense"\n{{"attempt_sid": "{sid(3)}"}}\n',
}
EXPECTED = [(2, sid(1)), (4, sid(2)), (5, "!"), (6, sid(3))]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "latin-1"]


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_in_every_encoding(
    tmp_path: Path, kind: str, encoding: str, end: str, *, zipped: bool
) -> None:
    """Format, encoding, line ends and compression do not change SIDs or line numbers."""
    mark = "\ufeff" if encoding.startswith("utf-16") else ""
    data = (mark + FORMATS[kind].replace("\n", end)).encode(encoding)
    assert parse(tmp_path, gzip.compress(data) if zipped else data) == EXPECTED


def test_line_ends_cut_between_blocks(tmp_path: Path) -> None:
    """A CR LF that two blocks share ends one line, and a megabyte's end ends none."""
    # Five bytes and lines of 36: the first block of 2**20 ends between a CR and its LF.
    data = "".join(f"{sid(number)}\r\n" for number in range(150_000))
    expected = [(number + 3, sid(number)) for number in range(150_000)]
    assert BLOCK_BYTES == 5 + 29_126 * 36 + 35
    assert parse(tmp_path, "\r\n#\r\n" + data) == expected


def test_gzip_members_are_one_file(tmp_path: Path) -> None:
    """Two gzip files put together are read as one."""
    data = gzip.compress(f"{sid(1)}\n".encode()) + gzip.compress(sid(2).encode())
    assert parse(tmp_path, data) == [(1, sid(1)), (2, sid(2))]


@pytest.mark.parametrize("data", [b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, GZIP_OF_NOTHING])
def test_empty_file(tmp_path: Path, data: bytes) -> None:
    """An empty file holds nothing and is no error."""
    assert parse(tmp_path, data) == []


@pytest.mark.parametrize("header", ["sid", "SID", ' "Sid" ', '"attempt_sid"', "Attempt SID"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_headers(tmp_path: Path, header: str, delimiter: str) -> None:
    """The SID's column is found by its name, whatever its case and the delimiter."""
    rows = [["id", header, "date_created"], ["1", sid(1), "2026-11-20 10:00:00+00:00"]]
    data = "\n".join(delimiter.join(row) for row in rows)
    parse(tmp_path, data)
    assert entries(tmp_path / "file") == [Entry(sid(1), WHEN, 2)]


@pytest.mark.parametrize("dated", ["dateCreated", "DateCreated", "Date Created", "date_created"])
def test_a_date_is_known_by_any_spelling(tmp_path: Path, dated: str) -> None:
    """Names in camel case mean the same, in CSV and in JSON."""
    texts = (json.dumps({"sid": sid(1), dated: f"{WHEN}"}), f"sid,{dated}\n{sid(1)},{WHEN}")
    for line, data in enumerate(texts, 1):
        parse(tmp_path, data)
        assert entries(tmp_path / "file") == [Entry(sid(1), WHEN, line)]


def test_csv_prefers_the_attempt_column(tmp_path: Path) -> None:
    """A Verification's own SID beside the attempt's is not mistaken for it."""
    data = f"# export\nsid,attempt_sid\nVE{1:032x},{sid(1)}\n,\n,,\nVE{1:032x}\n"
    assert parse(tmp_path, data) == [(3, sid(1)), (6, "!")]


def test_csv_numbers_after_embedded_newlines(tmp_path: Path) -> None:
    """A quoted newline moves the numbers of the lines after it, and not of its own."""
    data = f'sid,note\nbad,"1\n2\n3"\n{sid(1)},"a\n"\nbad,"\n\n"\n"{sid(2)}","say ""x"""\n'
    assert parse(tmp_path, data) == [(2, "!"), (5, sid(1)), (7, "!"), (10, sid(2))]


def test_csv_quote_that_never_closes(tmp_path: Path) -> None:
    """A stray quote costs its own line at most, and a sloppy one nothing."""
    lines = [f'{sid(1)},"never closed', f'{sid(2)},"a" b', f'x,"never closed {sid(3)}']
    lines += [f"{sid(number)},fine" for number in range(4, 9_000)]
    found = parse(tmp_path, "sid,note\n" + "\n".join(lines))
    good = [(number + 1, sid(number)) for number in range(1, 9_000) if number != 3]
    assert found == sorted([*good, (4, "!")])


def test_csv_quote_that_never_closes_over_many_lines(tmp_path: Path) -> None:
    """A record that goes on for ever, quote after quote, ends and the next ones are read."""
    data = f'sid,note\n{sid(1)},"x\n' + '","x\n' * 5_000 + f'"\n{sid(2)},fine\n'
    found = parse(tmp_path, data)
    assert (2, sid(1)) in found
    assert (5_004, sid(2)) in found


def test_json_attempts_of_a_verification(tmp_path: Path) -> None:
    """Each attempt that a Verification lists counts, with the time it was sent."""
    sent = [
        {"time": "2026-11-20T10:00:00Z", "channel": "sms", "attempt_sid": sid(1)},
        {"time": "2026-11-20T11:00:00+01:00", "channel": "call", "attempt_sid": sid(2)},
        {"time": None, "channel": "call"},
        "not an object",
    ]
    verification = {"sid": f"VE{1:032x}", "send_code_attempts": sent}
    empty = {"sid": f"VE{1:032x}", "send_code_attempts": []}
    data = f"{json.dumps(verification)}\n{json.dumps(empty)}\n"
    parse(tmp_path, data)
    assert entries(tmp_path / "file") == [
        Entry(sid(1), WHEN, 1),
        Entry(sid(2), WHEN, 1),
        BadLine(1, "holds no SID"),
        BadLine(1, "holds no SID"),
    ]


def test_csv_headers_in_camel_case(tmp_path: Path) -> None:
    """A CSV file may name its columns as JSON does."""
    parse(tmp_path, f"attemptSid,dateCreated\n{sid(1)},2026-11-20T10:00:00Z\n")
    assert entries(tmp_path / "file") == [Entry(sid(1), WHEN, 2)]


NO_SID = [
    "null", "7", "[]", "{}", '{"sid": 7}', '{"sid": null}', "{", '{"sid": "', "[" * 60_000, "9" * 5_000
]  # fmt: skip


@pytest.mark.parametrize("line", NO_SID, ids=range(len(NO_SID)))
def test_json_lines_without_a_sid(tmp_path: Path, line: str) -> None:
    """What is no attempt is one bad line, whatever JSON makes of it."""
    assert parse(tmp_path, f'"{sid(1)}"\n{line}\n"{sid(2)}"') == [
        (1, sid(1)),
        (2, "!"),
        (3, sid(2)),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-20T10:00:00Z", WHEN),
        ("2026-11-20T10:00:00.000Z", WHEN),
        ("2026-11-20 10:00:00", WHEN),
        ("2026-11-20T12:00:00+02:00", WHEN),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("yesterday", None),
        ("1763632800", None),
        (1763632800, None),
        ([], None),
        ({"a": 1}, None),
    ],
)
def test_dates(tmp_path: Path, value: object, expected: datetime | None) -> None:
    """A date that cannot be read leaves the SID good and its age unknown."""
    parse(tmp_path, json.dumps({"sid": sid(1), "date_created": value}))
    assert entries(tmp_path / "file") == [Entry(sid(1), expected, 1)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"VE{1:032x}", f"'VE{1:032x}' is a Verification SID, not an attempt's"),
        (f"SM{1:032x}", f"'SM{1:032x}' is a Message SID, not an attempt's"),
        (f"vl{1:032x}", f"'vl{1:032x}' is not VL and 32 hex digits"),
        ("VL12", "'VL12' is not VL and 32 hex digits"),
        (f"{sid(1)},x", f"'{sid(1)}' and more; a CSV file needs a header with a sid column"),
        ("\u0412L1", r"'\u0412L1' is not VL and 32 hex digits"),
        ("+1 555 0100 200", "'(hidden)' is not VL and 32 hex digits"),
        ("x 15550100200 me@example.org", "'x (hidden) (hidden)' is not VL and 32 hex digits"),
        ("0" * 32, "'(hidden)' is not VL and 32 hex digits"),
        ('""', "holds no SID"),
        ("z" * 100, f"'{'z' * 55}...' is not VL and 32 hex digits"),
        (f"{sid(1)}\0", f"'{sid(1)}\\x00' is not VL and 32 hex digits"),
    ],
)
def test_reasons(tmp_path: Path, line: str, reason: str) -> None:
    """A bad line is quoted in ASCII, cut, and without personal data or tokens."""
    # Past what is looked at to tell text from binary.
    before = f"{sid(1)}\n" * (LINE_LENGTH // 35 + 1)
    assert reasons(tmp_path, before + line) == [reason]


@given(data=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@settings(max_examples=scaled(300))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Whatever a file holds, it is read, or refused in words."""
    path = tmp_path_factory.getbasetemp() / "any"
    for content in (data, b"sid,x\n" + data, b'{"sid": "x"}\n' + data):
        path.write_bytes(content)
        try:
            found = entries(path)
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017 - either is right
        else:
            lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n") + 1
            assert all(1 <= item.line <= lines for item in found)


@settings(max_examples=scaled(100))
@given(rows=st.lists(st.tuples(st.text(st.sampled_from('ab",;\n '), max_size=8), st.booleans())))
def test_any_csv(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, bool]]) -> None:
    """What Python's csv module writes is read back, each SID on the line it stands on."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["note", "sid"])
    expected = []
    for number, (note, good) in enumerate(rows):
        expected.append((text.getvalue().count("\n") + 1, sid(number) if good else "!"))
        writer.writerow([note, sid(number) if good else "bad"])
    assert parse(tmp_path_factory.getbasetemp(), text.getvalue()) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 5_000,
        b"SQLite format 3\0" + bytes(100_000),
        bytes(1_000_000),
        bytes(range(128, 256)) * 10,
        gzip.compress(gzip.compress(sid(1).encode(), mtime=0), mtime=0),
        sid(1).encode("utf-16-le"),
        codecs.BOM_UTF16_LE + b"\x00\xd8" * 1_000,
        codecs.BOM_UTF16_BE + f"{sid(1)}\n".encode("utf-16-be")[:-1],
        b"[\n" + f'"{sid(1)}",\n'.encode() * 100,
    ],
)
def test_no_list_of_sids(tmp_path: Path, data: bytes) -> None:
    """A file that is no list of SIDs is one error that names it, not a million bad lines."""
    with pytest.raises(InputError, match=str(tmp_path / "file")):
        parse(tmp_path, data)


@pytest.mark.parametrize("keep", [0.5, 0.999])
def test_truncated_gzip(tmp_path: Path, keep: float) -> None:
    """A gzip file that was cut is refused in plain words."""
    data = gzip.compress("".join(f"{sid(number)}\n" for number in range(100_000)).encode())
    with pytest.raises(InputError, match="file is damaged: Compressed file ended before"):
        parse(tmp_path, data[: int(len(data) * keep)])


def test_damaged_gzip(tmp_path: Path) -> None:
    """A gzip file with flipped bytes is refused in plain words."""
    data = bytearray(gzip.compress(b"".join(os.urandom(16).hex().encode() for _ in range(9_999))))
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    with pytest.raises(InputError, match="file is damaged: "):
        parse(tmp_path, bytes(data))


@pytest.mark.parametrize("name", ["missing", "folder", "/proc/self/mem"])
def test_unreadable(tmp_path: Path, name: str) -> None:
    """What is missing, a folder, or fails in mid-read is an error that names it."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match=f"{name} cannot be read: "):
        entries(tmp_path / name)


def test_pipe_is_read_twice(tmp_path: Path) -> None:
    """A named pipe is copied, so that it can be read again."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = "".join(f"{sid(number)}\n" for number in range(50_000))
    writer = threading.Thread(target=pipe.write_text, args=(text,))
    writer.start()
    found = entries(pipe)
    writer.join()
    assert found == [Entry(sid(number), None, number + 1) for number in range(50_000)]


class _Broken(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def readinto(self, _buffer: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_pipe_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input that fails in mid-read, or is closed, is an error in words."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(_Broken())))
    with pytest.raises(StorageError, match="Standard input cannot be read: Input/output error"):
        entries("-")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(StorageError, match="Standard input cannot be read: it is closed"):
        entries("-")


def test_spool_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that does not fit on the disk is an error that says where."""
    monkeypatch.setattr("tempfile.TemporaryFile", partial(open, "/dev/full", "r+b"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x" * 9_000_000)))
    with pytest.raises(StorageError, match=r"cannot be copied to .*: No space left on device"):
        entries("-")


_READER = """
import resource, sys
from etl.backfill.files import replayable
good = bad = lines = 0
first = []
with replayable(sys.argv[1]) as source:
    for block in source.blocks():
        good += len(block.sids); bad += len(block.bad); lines += block.lines
        first = first or [(line.line, line.reason) for line in block.bad]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(repr((lines, good, bad, first[:1], peak)))
"""


def _measured(argument: str, feed: Iterable[bytes] = ()) -> tuple[int, int, int, list[object], int]:
    """Read in a process of its own; give lines, good, bad, the first bad, and peak memory in KB."""
    # The shell between: a process that is started directly reports its parent's peak as its own.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", _READER, argument]
    with subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1) as process:
        assert process.stdin
        assert process.stdout
        for chunk in feed:
            process.stdin.write(chunk)
        process.stdin.close()
        result = process.stdout.read()
    found = eval(result)  # noqa: S307 - our own program's repr
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize(
    "head", ["", "sid,note\n", '"' + sid(9) + '"\n'], ids=["text", "csv", "json"]
)
def test_giant_line(head: str) -> None:
    """A line of 200 MB is one bad line, dropped in constant memory, and the next is read."""
    megabyte = b"7" * 1_000_000
    tail = f"\n{json.dumps(sid(2))}\n" if head.startswith('"') else f"\n{sid(2)}\n"
    feed = [head.encode(), *[megabyte] * 200, tail.encode()]
    lines, good, bad, first, peak = _measured("-", feed)
    above = head.count("\n")
    assert (lines, good, bad) == (above + 2, 1 + head.startswith('"'), 1)
    assert first == [(above + 1, "is longer than 64 KB")]
    assert peak < 80_000


@pytest.mark.long
@pytest.mark.parametrize("kind", ["text", "bad", "csv", "gzip"])
def test_a_million_lines_in_constant_memory(tmp_path: Path, kind: str) -> None:
    """A million lines, good or bad, take no more memory than a few."""
    path = tmp_path / "file"
    mark = "x" if kind == "bad" else ""
    text = "".join(f"{sid(number)}{mark}\n" for number in range(1_000_000))
    data = f"{'sid' if kind == 'csv' else '#'}\n{text}".encode()
    path.write_bytes(gzip.compress(data, 1) if kind == "gzip" else data)
    lines, good, bad, _, peak = _measured(str(path))
    assert lines == 1_000_001
    assert (good, bad) == ((0, 1_000_000) if kind == "bad" else (1_000_000, 0))
    assert peak < 80_000


def test_speed_of_a_plain_file(tmp_path: Path) -> None:
    """Plain text is checked far faster than line by line (processor time, to be fair to others)."""
    path = tmp_path / "file"
    path.write_text("".join(f"{sid(number)}\n" for number in range(1_000_000)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with replayable(str(path)) as source:
        count = sum(len(block.sids) for block in source.blocks())
    assert count == 1_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 1_000_000 / 1_500_000
