"""Put SIDs into the queue, a file at a time and a batch in one transaction each.

::

    source | check: every line, counted | load: batches of rows | INSERT, what is there untouched

``check`` reads a whole file before ``load`` enqueues any of it. After a crash or an error, the same
command enqueues what is missing and changes nothing else.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from etl.backfill.files import Source, replayable
from etl.backfill.lines import ATTEMPTS, VERIFICATIONS, BadLine, Block, SidKind
from etl.database.dialects import dialect
from etl.database.errors import hide_values
from etl.database.schema import attempt_queue as q
from etl.database.times import clock
from etl.database.transact import check_revision, transact
from etl.errors import InputError
from etl.queue import attempts, verifications

BATCH: Final = 50_000
"""Rows in one transaction: long enough for speed, short enough for others and for memory."""

FIRST_BAD: Final = 20
"""Bad lines that are kept to be shown; the others are counted."""

QueueRow = tuple[str, int]
"""A SID and when the API forgets it (epoch milliseconds; 0 = not known)."""

OnProgress = Callable[[int, int], None]
"""Is told how many bytes of how many have been read."""

_SOURCE_LENGTH: Final = 255
_DAY_MS: Final = 86_400_000


def enqueue(connection: Connection, rows: Sequence[QueueRow], *, account: str, source: str) -> int:
    """Insert rows in their order, leave those that are there untouched; return how many were new.

    A SID may come twice. ``source`` is for people and cut to its column.
    """
    source = source[:_SOURCE_LENGTH]
    if not rows:
        return 0
    try:
        return dialect(connection).enqueue(connection, q, rows, account, source)
    except connection.dialect.loaded_dbapi.Error as error:
        # Of what SQLAlchemy did not execute: as it comes from all else.
        wrapped = DBAPIError("COPY", None, error)
        hide_values(wrapped)
        raise wrapped from error


@dataclass(frozen=True, slots=True)
class Checked:
    """Count what a file holds: lines of any kind, good SIDs, bad lines, unreadable dates."""

    lines: int
    good: int
    bad: int
    undated: int
    first_bad: tuple[BadLine, ...]


@dataclass(frozen=True, slots=True)
class Loaded(Checked):
    """Count what came of a file: ``already`` were queued before, or came twice in the file.

    ``final`` were settled at once, since their attempts are loaded and final.
    """

    enqueued: int
    already: int
    final: int


def load_file(  # noqa: PLR0913 - a load is these facts
    engine: Engine,
    path: str,
    *,
    account: str,
    source: str,
    retention_ms: int,
    skip_bad: bool = False,
    progress: OnProgress | None = None,
) -> Loaded:
    """Check one file (``-``: standard input) and enqueue it, whole or without its bad lines.

    Raises ``InputError`` for bad lines without ``skip_bad``, and what ``load`` raises.
    """
    with replayable(path) as file:
        checked = check(file, progress)
        if checked.bad and not skip_bad:
            raise refusal([checked])
        return load(
            engine,
            file,
            checked,
            account=account,
            source=source,
            retention_ms=retention_ms,
            progress=progress,
        )


def refusal(files: Sequence[Checked], kind: SidKind = ATTEMPTS) -> InputError:
    """Say that bad lines stopped everything, and what to do."""
    bad, lines = sum(file.bad for file in files), sum(file.lines for file in files)
    hint = "Mend them, or leave them out with --skip-bad."
    prefixes = {line.prefix for file in files for line in file.first_bad}
    if kind is ATTEMPTS and VERIFICATIONS.prefix in prefixes:
        hint += " SIDs of Verifications are for --verifications."
    elif kind is VERIFICATIONS and ATTEMPTS.prefix in prefixes:
        hint += " SIDs of attempts go without --verifications."
    return InputError(
        f"{bad:,} of {lines:,} lines hold no {kind.name} SID; nothing was enqueued.", hint=hint
    )


def check(file: Source, progress: OnProgress | None = None) -> Checked:
    """Read a whole file and count. Raises ``StorageError`` or ``InputError`` naming it."""
    lines = good = bad = undated = 0
    first_bad: list[BadLine] = []
    for block in _watched(file, progress):
        lines += block.lines
        good += len(block.sids)
        bad += len(block.bad)
        undated += block.undated
        first_bad += block.bad[: FIRST_BAD - len(first_bad)]
    return Checked(lines, good, bad, undated, tuple(first_bad))


def load(  # noqa: PLR0913 - a load is these facts
    engine: Engine,
    file: Source,
    checked: Checked,
    *,
    account: str,
    source: str,
    retention_ms: int,
    progress: OnProgress | None = None,
    batch: int = BATCH,
) -> Loaded:
    """Enqueue a checked file in its order, its bad lines left out; ``source`` labels the rows.

    Raises ``InputError`` when the file has changed since the check. Committed batches stay.
    """

    def settle(connection: Connection) -> int:
        sids = [sid for sid, _ in rows]
        ids = attempts.known_final(connection, accounts=[account], sids=sids)
        return attempts.settle_known(connection, ids, clock(connection)) if ids else 0

    def work(connection: Connection) -> int:
        check_revision(connection)
        if file.kind is VERIFICATIONS:
            sids = [sid for sid, _ in rows]
            return verifications.enqueue(connection, sids, account=account, source=source)
        # No attempt was created tomorrow: such a date is wrong, and the age not known.
        latest = clock(connection) + retention_ms + _DAY_MS
        if any(at > latest for _, at in rows):
            credible = [(sid, at if at <= latest else 0) for sid, at in rows]
            return enqueue(connection, credible, account=account, source=source)
        return enqueue(connection, rows, account=account, source=source)

    seen = new = final = 0
    for rows in _batches(file, retention_ms, progress, batch):
        new += transact(engine, work, doing=f"enqueueing {file.name}")
        if file.kind is ATTEMPTS:
            final += transact(engine, settle, doing="settling attempts that are final already")
        seen += len(rows)
    if seen != checked.good:
        msg = f"{file.name} changed while it was read."
        raise InputError(msg, hint="Run it again; what is queued stays queued once.")
    return Loaded(
        lines=checked.lines,
        good=checked.good,
        bad=checked.bad,
        undated=checked.undated,
        first_bad=checked.first_bad,
        enqueued=new,
        already=seen - new,
        final=final,
    )


def _batches(
    file: Source, retention_ms: int, progress: OnProgress | None, batch: int
) -> Iterator[list[QueueRow]]:
    rows: list[QueueRow] = []
    for block in _watched(file, progress):
        if block.created:
            rows.extend(
                (sid, 0 if moment is None else int(moment.timestamp() * 1000) + retention_ms)
                for sid, moment in zip(block.sids, block.created, strict=True)
            )
        else:
            rows.extend(zip(block.sids, repeat(0)))
        while len(rows) >= batch:
            yield rows[:batch]
            del rows[:batch]
    if rows:
        yield rows


def _watched(file: Source, progress: OnProgress | None) -> Iterator[Block]:
    for block in file.blocks():
        if progress is not None:
            progress(block.offset, file.size)
        yield block
