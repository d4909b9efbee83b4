"""Write messages on stderr, as text or JSON, without secrets and control codes."""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from urllib.parse import quote, quote_plus

SHORTEST_SECRET: Final = 4
"""Shorter ones would also match in ordinary words."""

_secrets: set[str] = set()
_ADDRESS: Final = re.compile(r"(://[^\s:/@]*):[^\s@]+@")
_OPTION: Final = re.compile(r"(?i)([?&][\w-]*(?:password|passwd|pwd|secret|token)=)[^&\s]+")


def hide(secrets: Iterable[str]) -> None:
    """Never write these."""
    long = [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]
    # In addresses they are percent-encoded, in either way.
    _secrets.update(long, map(quote_plus, long), (quote(secret, safe="") for secret in long))


def without_secrets(text: str) -> str:
    """Replace secrets, and what an address names as one, by ``***``."""
    # The longest first: one may be the start of another.
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _OPTION.sub(r"\1***", _ADDRESS.sub(r"\1:***@", text))


def causes(error: BaseException) -> Iterator[str]:
    """Yield the causes of an error, nearest first, one line each. Say nothing twice."""
    said = str(error)
    seen = {id(error)}
    cause = _cause(error)
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        lines = str(getattr(cause, "orig", None) or cause).strip().splitlines()
        line = lines[0][:300] if lines else ""
        if not line or line not in said:
            yield f"{type(cause).__name__}: {line}".rstrip(": ")
            said += line
        cause = _cause(cause)


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


class TextFormatter(logging.Formatter):
    """Write the message, and any traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Leave out secrets, and control characters except line ends and tabs."""
        text = without_secrets(super().format(record))
        return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)


class JsonFormatter(logging.Formatter):
    """Write one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Give level, ts (UTC), logger_name, app_name, message, extra, and any exception."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "level": record.levelname.lower(),
            "ts": f"{stamp}.{int(record.msecs):03d}Z",
            "logger_name": record.name,
            "app_name": "verify-etl",
            "message": without_secrets(record.getMessage()),
            "extra": getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


class Handler(logging.StreamHandler[Any]):
    """Write to stderr, after clearing the line of progress."""

    clear: Callable[[], None] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        if Handler.clear is not None:
            Handler.clear()
        # As it is now: while a bar is drawn, its own stream writes above it.
        self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Do nothing: there is nobody to tell."""


def set_up(*, verbose: bool, quiet: bool, log_format: str) -> None:
    """Send our messages to stderr, and the warnings of libraries."""
    hide(os.environ.get(name, "") for name in ("TWILIO_AUTH_TOKEN", "TWILIO_API_SECRET"))
    handler = Handler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    logging.getLogger("etl").setLevel(level)
    # It quotes answers that it cannot read. The run names the error's class instead.
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
    for library in () if verbose else ("psycopg", "sqlalchemy.pool"):
        # They report each lost connection. It is tried again, and the run says what is final.
        logging.getLogger(library).setLevel(logging.CRITICAL)
