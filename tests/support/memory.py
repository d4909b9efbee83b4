"""Keep the files of the tests in memory where there is room: most of their time went to `fsync`.

``TMPDIR`` chooses another place.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - each process makes folders of its own in it
_ROOM: Final = 4_000_000_000


def pytest_configure() -> None:
    """Choose where temporary files go, before the first is made."""
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK):
        return
    if shutil.disk_usage(_MEMORY).free >= _ROOM:
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)
