"""Name everything that can go wrong, in three kinds, each with the exit code it ends in.

::

    EtlError                    1   a bug, when nothing more precise fits
    ├── TryAgain               75   the same call may succeed later
    │   ├── DatabaseBusy       75   locked, deadlocked or gone for longer than we wait
    │   ├── Throttled          75   the API answered 429
    │   │   └── NoSlot         75   the allowance had no room, so that nothing was asked
    │   └── TransientFailure   75   one request failed in a way that passes
    │       └── Unreachable    75   it could not even be sent: refused, unresolved, TLS
    ├── Stop                    1   the run cannot go on; no row is to blame
    │   ├── ConfigError        78   a setting is missing or wrong
    │   ├── SchemaError        78   the tables are not those of this version
    │   ├── WriteRefused       78   a constraint, trigger or column refuses what is written
    │   ├── CredentialsRefused 77   401 or 403
    │   ├── StorageError       74   disk full, file read-only or unreadable
    │   ├── ApiUnreachable     69   the breaker is open
    │   ├── ApiContractBroken  76   the API broke its own rules (paging, origin)
    │   ├── InputError         65   lines of a file that cannot be SIDs
    │   └── OptionError         2   an option's value that cannot be read
    └── Reject                 65   this one row or answer, and no other
        ├── MalformedSid            refused before a URL is built
        ├── NotFound                404
        ├── BadBody                 not the attempt that was asked for
        └── BodyTooLarge            more decoded bytes than an attempt can have

A message says what was being done, to what, and ``hint`` what to do about it. No message carries
a body, a secret or a phone number.
"""

import re
from enum import IntEnum
from typing import ClassVar, Final


class Exit(IntEnum):
    """The exit codes, on which other programs rely. Of several, the first listed wins."""

    CONFIG = 78
    CREDENTIALS = 77
    IO = 74
    UNREACHABLE = 69
    PROTOCOL = 76
    TRY_LATER = 75
    DATA = 65
    OK = 0
    BUG = 1
    USAGE = 2
    SIGINT = 130
    SIGTERM = 143


# The words that our messages begin with. Anything else there is the name of a file, a table or a
# setting, and keeps its spelling.
_OPENING: Final = re.compile(r"(?:an?|another|no|our|standard|the|there|too) ")


def sentence(text: str) -> str:
    """Begin a text with a capital letter and end it with a full stop, so that more can follow."""
    if _OPENING.match(text):
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?", ":", ")")) else f"{text}."


class EtlError(Exception):
    """Carry a sentence for a person, and in ``hint`` what to do."""

    exit_code: ClassVar[Exit] = Exit.BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{sentence(self.message)} {self.hint}".rstrip()


class TryAgain(EtlError):
    """Report a failure that may pass."""

    exit_code = Exit.TRY_LATER


class DatabaseBusy(TryAgain):
    """Report a database that stayed locked, deadlocked or gone for as long as we wait."""


class Throttled(TryAgain):
    """Report a 429. ``retry_after_ms`` is the clamped pause, None if none was asked."""

    def __init__(self, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class NoSlot(Throttled):
    """Report that no request slot came free in time. The API was not asked."""


class TransientFailure(TryAgain):
    """Report a request that failed in a passing way (5xx, reset, time-out, short body)."""


class Unreachable(TransientFailure):
    """Report a request that could not be sent: connecting, TLS, the name or the proxy failed."""


class Stop(EtlError):
    """Report what ends the run. Leases go back and no row pays for it."""


class ConfigError(Stop):
    """Report all settings that are missing or wrong."""

    exit_code = Exit.CONFIG


class SchemaError(Stop):
    """Report tables of another version of the program."""

    exit_code = Exit.CONFIG


class WriteRefused(Stop):
    """Report what refuses our rows, by the *names* of table and constraint, never by a value."""

    exit_code = Exit.CONFIG


class CredentialsRefused(Stop):
    """Report a 401 or 403 by the *name* of the credential, never by its value."""

    exit_code = Exit.CREDENTIALS


class StorageError(Stop):
    """Report a full disk, or a file that cannot be read or written."""

    exit_code = Exit.IO


class ApiUnreachable(Stop):
    """Report an API that does not answer: refused, unresolved, TLS, a row of failures."""

    exit_code = Exit.UNREACHABLE


class ApiContractBroken(Stop):
    """Report paging or an origin that breaks the API's own rules."""

    exit_code = Exit.PROTOCOL


class InputError(Stop):
    """Report a file with lines that cannot be SIDs."""

    exit_code = Exit.DATA


class OptionError(Stop):
    """Report an option whose value cannot be read."""

    exit_code = Exit.USAGE


class Reject(EtlError):
    """Report one unusable row or answer. The others go on."""

    exit_code = Exit.DATA


class MalformedSid(Reject):
    """Report a value that is no Verification Attempt SID, before it reaches a URL."""


class NotFound(Reject):
    """Report a 404: missing, deleted, of another account, or too young to be seen."""


class BadBody(Reject):
    """Report an answer that is not the attempt: a proxy's page, cut JSON, another SID."""


class BodyTooLarge(Reject):
    """Report a body with more decoded bytes than an attempt or a page has."""
