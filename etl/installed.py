"""Find the folders that travel with the program: scripts, settings, documentation."""

from importlib import resources
from pathlib import Path

from etl.errors import StorageError


def folder(name: str, *, holds: str, what: str) -> Path:
    """Return the folder of ``what``: inside the package (wheel), or beside it (checkout).

    It is the one that ``holds`` this file. Raises ``StorageError`` when there is neither.
    """
    package = Path(str(resources.files("etl")))
    for found in (package / name, package.parent / name):
        if (found / holds).is_file():
            return found
    msg = f"the {what} are missing from the installation in {package}."
    raise StorageError(msg, hint="Install verify-attempts-etl again.")
