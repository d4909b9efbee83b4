"""Read SIDs from JSON: values one after the other, in arrays, on one line or on many.

Twilio's own shapes are known: pages of a list, Verifications with their attempts, Event Streams.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

from etl.backfill.lines import ATTEMPTS, BadLine, Block, SidKind, quote, snake
from etl.errors import InputError

VALUE_LENGTH: Final = 8 << 20
"""A longer value is a bad one. An array may be longer: its items are read one by one."""

# What stands between values: blanks, commas, an array's brackets, and comments.
_BETWEEN: Final = re.compile(r"(?:[\s\ufeff,\[\]]|#[^\n]*\n)*")
_COMMENT: Final = re.compile(r"#[^\n]*")
_DECODER: Final = json.JSONDecoder()


def documents(name: str, chunks: Iterator[str], kind: SidKind) -> Iterator[Block]:
    """Yield the SIDs of a text that comes in chunks. After a bad value, go on with the next line.

    Raises ``InputError`` for an array that is not closed: the rest of the file is missing.
    """
    text, at, line, more = "", 0, 1, True
    opened = bad = 0
    while more:
        chunk = next(chunks, "")
        more = bool(chunk)
        text, at = text[at:] + (chunk or "\n"), 0
        found = Block(kind=kind)
        while (start := _BETWEEN.match(text, at).end()) < len(text):  # type: ignore[union-attr] # it matches nothing, too
            taken, end = _taken(text, start, kind)
            if more and end in {-1, len(text)} and len(text) - start < VALUE_LENGTH:
                break
            number = line + found.lines + text.count("\n", at, start)
            if end < 0:
                end = text.find("\n", start)
                end = len(text) if end < 0 else end
                reason = f"{quote(text[start:end].rstrip())} is not a whole JSON value"
                found.bad.append(BadLine(number, reason))
            for sid, created in taken:
                found.take(sid, created, number)
            found.lines += text.count("\n", at, end)
            opened += _opened(text, at, start)
            at = end
        opened += _opened(text, at, start)
        bad += len(found.bad)
        found.lines += text.count("\n", at, start)
        line, at = line + found.lines, start
        yield found

    if opened > 0 and not bad:
        msg = f"{name} ends in the middle of a JSON array."
        raise InputError(msg, hint="Copy or save it again; nothing of it is used.")


def _opened(text: str, start: int, end: int) -> int:
    """Count the arrays that begin between two values, less those that end."""
    between = _COMMENT.sub("", text[start:end])
    return between.count("[") - between.count("]")


def _taken(text: str, start: int, kind: SidKind) -> tuple[list[tuple[object, object]], int]:
    """Read the value that begins here, and say where it ends; -1: it is none, or not whole."""
    try:
        value, end = _DECODER.raw_decode(text, start)
        return [*members(value, kind)], end
    except (ValueError, RecursionError):
        return [], -1


def members(value: object, kind: SidKind) -> Iterator[tuple[object, object]]:
    """Give SID and time of each attempt in a JSON value; a Verification's own SID is none."""
    if isinstance(value, list) and value:
        for item in value:
            yield from members(item, kind)
        return
    if not isinstance(value, Mapping):
        yield value, None
        return
    known = {snake(name): item for name, item in value.items()}
    sent = known.get("send_code_attempts") if kind is ATTEMPTS else None
    best, other = kind.columns
    if isinstance(listed := known.get("attempts", sent), list):
        for item in listed:
            yield from members(item if isinstance(item, Mapping) else {}, kind)
    elif best not in known and isinstance(event := known.get("data"), Mapping):
        yield from members(event, kind)
    else:
        yield known.get(best, known.get(other)), known.get("date_created", known.get("time"))
