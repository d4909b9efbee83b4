"""Say what a driver has to know: how to connect, and what its errors mean."""

# ruff: noqa: ARG002 - not every database needs all that it is given

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from enum import Enum
from typing import Any, ClassVar, Final, NamedTuple

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from etl.errors import ConfigError, DatabaseBusy, EtlError, StorageError


class Fault(Enum):
    """Sort what a database says into what to do about it."""

    BUSY = "busy"
    LOST = "lost"
    STORAGE = "storage"
    SCHEMA = "schema"
    CONFIG = "config"
    REFUSED = "refused"
    # A key that the database made is there already, or it can make no more.
    KEYS = "keys"
    # Nobody foresaw it: the run's, not the row's.
    OTHER = "other"


class Mend(NamedTuple):
    """Say why the database refused something, and what helps, where its own words mislead."""

    error: type[EtlError]
    why: str
    """It may name ``{said}``, the database's own words."""
    hint: str


class Driver(ABC):
    """Connect to one kind of database, and read its errors."""

    name: ClassVar[str]
    """The driver that a plain scheme means, in SQLAlchemy's words."""

    package: ClassVar[str] = ""
    """What installs it."""

    busy: ClassVar[str] = "the database is busy ({said})"
    """What to say when another transaction is in the way."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Give the options of ``create_engine``."""

    def address(self, url: URL) -> URL:
        """Complete an address; raise ``ConfigError`` for what it cannot have."""
        return url

    def listen(self, engine: Engine) -> None:
        """Set up each new connection and each transaction of an engine."""
        # Before SQLAlchemy looks how the first connection is set.
        event.listen(engine, "connect", self.connected, insert=True)
        event.listen(engine, "begin", self.begin)

    @abstractmethod
    def connected(self, connection: Any, record: Any) -> None:  # noqa: ANN401 - the driver's
        """Tell a new connection our rules."""

    @abstractmethod
    def begin(self, connection: Connection) -> None:
        """Begin a transaction, or give it its bounds."""

    @abstractmethod
    def raised(self, cause: Any) -> bool:  # noqa: ANN401 - any driver's
        """Say whether this driver raised an error."""

    @abstractmethod
    def fault(self, error: DBAPIError) -> Fault:
        """Sort an error of this driver by its code."""

    @abstractmethod
    def names(self, cause: Any) -> tuple[str, Mapping[str, str | None]]:  # noqa: ANN401 - the driver's
        """Give an error's kind, and the table, column, constraint and function that it names."""

    def function(self, cause: Any) -> str | None:  # noqa: ANN401 - the driver's
        """Name the function in which an error was raised: a trigger's, and so the user's."""
        return None

    def quotes(self, cause: Any) -> bool:  # noqa: ANN401 - the driver's
        """Say whether an error quotes the statement."""
        return False

    def catch_up(self, table: str) -> str:
        """Write the statement that lets a table's sequence go on after its newest key.

        Empty where the database itself never gives a key that is taken.
        """
        return ""

    def mend(self, cause: Any) -> Mend | None:  # noqa: ANN401 - the driver's
        """Say what helps against an error; None where its kind says enough."""
        return None

    def taken_key(self, cause: Any) -> str | None:  # noqa: ANN401 - the driver's
        """Name the table for which the database makes keys that are taken, or none any more."""
        return None

    def stood_still(self, cause: Any) -> bool:  # noqa: ANN401 - the driver's
        """Say whether the server names our silence as its reason."""
        return False

    def unopened(self, cause: Any) -> str | None:  # noqa: ANN401 - the driver's
        """Name the file that could not be opened, '' if it has no name; None for other errors."""
        return None


TOO_LONG: Final = Mend(
    DatabaseBusy,
    "a statement took too long ({said})",
    "Nothing is lost. Ask for less (a later --since), or raise {limit} for this user.",
)
READ_ONLY_SERVER: Final = Mend(
    StorageError,
    "the database was found to take no writes: it is a standby, or its sessions are read-only"
    " ({said})",
    "Let DATABASE_URL name the primary.",
)
NO_DATABASE: Final = Mend(
    ConfigError, "there was no such database ({said})", "Create it, or correct DATABASE_URL."
)


def refuse_old(name: str, found: tuple[int, ...], oldest: tuple[int, ...]) -> None:
    """Refuse a version that cannot run our statements."""
    if found < oldest:
        have, need = (".".join(map(str, version)) for version in (found, oldest))
        msg = f"the database is {name} {have}, and this program needs {name} {need} or later."
        raise ConfigError(msg, hint=f"Upgrade {name}, or use another database in DATABASE_URL.")


def refuse_unknown(url: URL, known: Collection[str], instead: Mapping[str, str]) -> None:
    """Refuse options of an address that its driver does not know; say what to write ``instead``."""
    for name in url.query:
        if name not in known:
            near = instead.get(name) or next(
                iter(get_close_matches(name, known, n=1, cutoff=0.8)), ""
            )
            msg = f"DATABASE_URL has an option that is not understood: {name}."
            hint = f"Write {near} in its place." if near else "Leave it out."
            raise ConfigError(msg, hint=hint)


def code_of(cause: Any) -> Any:  # noqa: ANN401 - any driver's
    """Return the first word of an error: its number, if the driver has numbers."""
    return cause.args[0] if cause is not None and cause.args else None
