"""Be on a machine without a time-zone database."""

import sys
import zoneinfo
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def no_zones() -> Iterator[None]:
    """Hide the system's zones and the package's, from this process and from its children."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONTZPATH", "")
        for name in {"tzdata", *(name for name in sys.modules if name.startswith("tzdata."))}:
            patched.setitem(sys.modules, name, None)
        zoneinfo.reset_tzpath(())
        zoneinfo.ZoneInfo.clear_cache()
        yield
    zoneinfo.reset_tzpath()
