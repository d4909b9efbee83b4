"""Say what a driver has to know: how to connect, and what its errors mean."""

# ruff: noqa: ARG002 - not every database needs all that it is given

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.exc import DBAPIError


class Fault(Enum):
    """Sort what a database says into what to do about it."""

    BUSY = "busy"
    LOST = "lost"
    STORAGE = "storage"
    SCHEMA = "schema"
    CONFIG = "config"
    REFUSED = "refused"
    # Nobody foresaw it: the run's, not the row's.
    OTHER = "other"


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
        """Complete an address."""
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

    def stood_still(self, cause: Any) -> bool:  # noqa: ANN401 - the driver's
        """Say whether the server names our silence as its reason."""
        return False

    def unopened(self, cause: Any) -> str | None:  # noqa: ANN401 - the driver's
        """Name the file that could not be opened, '' if it has no name; None for other errors."""
        return None


def code_of(cause: Any) -> Any:  # noqa: ANN401 - any driver's
    """Return the first word of an error: its number, if the driver has numbers."""
    return cause.args[0] if cause is not None and cause.args else None
