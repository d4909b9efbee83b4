"""Put a file in place when it is whole, so that nobody reads half of one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from etl.errors import StorageError


@contextmanager
def replaced(output: str) -> Iterator[IO[bytes]]:
    """Lend a stream beside ``output`` and move it there at the end; a failure leaves the old file.

    Raises ``StorageError`` when it cannot be written.
    """
    path = Path(output)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        msg = f"{output} cannot be written: {error.strerror}."
        raise StorageError(msg, hint="Check the folder and its permissions.") from error
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        part.chmod(0o666 & ~_umask())
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
