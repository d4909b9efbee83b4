"""Put a file in place when it is whole, so that nobody reads half of one."""

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
    """Lend a stream beside ``output`` and move it there at the end; a failure leaves the old file.

    A file that is there keeps its mode; a new one is its owner's alone, for it may hold numbers.
    What is no file, and ``-``, which is stdout, gets all of it at the end: its reader may take a
    pause, for which no transaction stays open. Raises ``StorageError`` when it cannot be written.
    """
    if output == "-":
        with _spooled(lambda: nullcontext(sys.stdout.buffer)) as stream:
            yield stream
        return
    try:
        # Through links: what they lead to is meant.
        path = Path(output).resolve()
        mode = path.stat().st_mode if path.exists() else S_IFREG | 0o600
        if not S_ISREG(mode):
            # A pipe, or /dev/null: it must stay what it is.
            with _spooled(lambda: path.open("wb")) as stream:
                yield stream
            return
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        msg = f"{output} cannot be written: {error.strerror}."
        raise StorageError(msg, hint="Check the folder and its permissions.") from error
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        part.chmod(S_IMODE(mode))
        part.replace(path)
    except OSError as error:
        msg = f"{output} cannot be written: {error.strerror}."
        raise StorageError(msg, hint="Check the disk's space.") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _spooled(target: Callable[[], AbstractContextManager[IO[bytes]]]) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as spool:
        yield spool
        spool.seek(0)
        with target() as stream:
            shutil.copyfileobj(spool, stream)
