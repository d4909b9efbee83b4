"""Put a file in place when it is whole, so that nobody reads half of one."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IFREG, S_IMODE, S_ISREG
from typing import IO

from etl.errors import StorageError


@contextmanager
def replaced(output: str) -> Iterator[IO[bytes]]:
    """Lend a stream beside ``output`` and move it there at the end; a failure leaves the old file.

    A file that is there keeps its mode; ``-`` is stdout, and what is no file is written to as it is.
    Raises ``StorageError`` when it cannot be written.
    """
    if output == "-":
        yield sys.stdout.buffer
        return
    try:
        # Through links: what they lead to is meant.
        path = Path(output).resolve()
        mode = path.stat().st_mode if path.exists() else S_IFREG | (0o666 & ~_umask())
        if not S_ISREG(mode):
            # A pipe, or /dev/null: it must stay what it is.
            with path.open("wb") as stream:
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


def _umask() -> int:
    # It can only be read by setting it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
