"""Replace a file only when the new one is whole."""

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from stat import S_IFREG, S_IMODE, S_ISREG
from typing import IO

from etl.errors import StorageError


@contextmanager
def replaced(output: str) -> Iterator[IO[bytes]]:
    """Lend a stream beside ``output``, and move it there at the end.

    A failure leaves the old file. An existing file keeps its mode. Only its owner can read a new
    one: it may hold phone numbers. A pipe, and ``-`` for stdout, get everything at the end, so a
    slow reader keeps no transaction open.
    Raises ``StorageError`` when it cannot be written.
    """
    if output == "-":
        with _spooled(lambda: nullcontext(sys.stdout.buffer)) as stream:
            yield stream
        return
    try:
        # Replace the target of a link, not the link.
        path = Path(output).resolve()
        mode = path.stat().st_mode if path.exists() else S_IFREG | 0o600
        if not S_ISREG(mode):
            # A pipe or /dev/null cannot be replaced.
            with _spooled(lambda: path.open("wb")) as stream:
                yield stream
            return
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _unwritten(output, error) from None
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        part.chmod(S_IMODE(mode))
        part.replace(path)
    except OSError as error:
        raise _unwritten(output, error) from None
    finally:
        part.unlink(missing_ok=True)


def _unwritten(output: str, error: OSError) -> StorageError:
    """Name the file that was asked for: the one beside it is ours, and gone."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    hint = "Make room on the disk." if full else "Check the folder and its permissions."
    return StorageError(f"{output} cannot be written: {error.strerror}.", hint=hint)


@contextmanager
def _spooled(target: Callable[[], AbstractContextManager[IO[bytes]]]) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as spool:
        yield spool
        spool.seek(0)
        with target() as stream:
            shutil.copyfileobj(spool, stream)
