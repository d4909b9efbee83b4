"""Check the payload at the door: which keys, of which type, how long."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StringConstraints

URL_LENGTH: Final = 2000  # The column is TEXT, which holds 65,535 bytes on MariaDB.

EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)
"""Times outside are nobody's creation time: the age of such an attempt counts as unknown."""
# What the doors let pass: codes in ASCII, so that lower case is no longer than what was sent; text
# in any script. pydantic itself refuses lone surrogates.
_ASCII: Final = r"^[\x01-\x7F]*$"
_NO_NUL: Final = r"^[^\x00]*$"


def _moment(sent: object) -> datetime:
    """Read an ISO 8601 time (naive means UTC) to the millisecond, or raise ``ValueError``."""
    if not isinstance(sent, str):
        raise ValueError  # noqa: TRY004 - pydantic reports ValueError, not TypeError
    try:
        moment = datetime.fromisoformat(sent.strip())
        if moment.tzinfo is not UTC:
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError as error:  # An offset that leads out of the years 1 to 9999.
        raise ValueError from error
    if not EARLIEST <= moment <= LATEST:
        raise ValueError
    beyond = moment.microsecond % 1000
    return moment.replace(microsecond=moment.microsecond - beyond) if beyond else moment


def _text(length: int, pattern: str, *, lower: bool = False) -> StringConstraints:
    return StringConstraints(
        strip_whitespace=True, to_lower=lower or None, max_length=length, pattern=pattern
    )


# Characters that fit the columns of etl/database/schema.py (a test compares them).
_Code = Annotated[str, _text(64, _ASCII)]
_Status = Annotated[str, _text(64, _ASCII, lower=True)]
_Network = Annotated[str, _text(16, _ASCII)]
_Carrier = Annotated[str, _text(255, _NO_NUL)]
_Destination = Annotated[str, _text(320, _NO_NUL)]
_Url = Annotated[str, _text(URL_LENGTH, _NO_NUL)]
_Currency = Annotated[str, _text(3, "^[A-Za-z]{3}$")]
_Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
_Moment = Annotated[datetime, PlainValidator(_moment)]


class _Door(BaseModel):
    """Pass what is as documented; unknown keys are not the door's business but ``_extra``'s."""

    model_config = ConfigDict(defer_build=True, frozen=True, strict=True, extra="ignore")


class TopLevel(_Door):
    """Check the keys of an attempt."""

    sid: str
    account_sid: _Code | None = None
    service_sid: _Code | None = None
    verification_sid: _Code | None = None
    channel: _Status | None = None
    conversion_status: _Status | None = None
    date_created: _Moment | None = None
    date_updated: _Moment | None = None
    url: _Url | None = None
    price: object = None
    channel_data: object = None


class ChannelData(_Door):
    """Check the keys of ``channel_data``."""

    verification_sid: _Code | None = None
    to: _Destination | None = None
    country: _Code | None = None
    # Integers are seen from live accounts, so they pass without mending.
    mcc: _Network | _Count | None = None
    mnc: _Network | _Count | None = None
    carrier: _Carrier | None = None
    locale: _Code | None = None
    status: _Status | None = None
    message_status: _Status | None = None
    call_status: _Status | None = None
    error_code: _Code | _Count | None = None
    code_length: _Count | None = None


class Price(_Door):
    """Check the keys of ``price``."""

    value: object = None
    currency: _Currency | None = None


def _texts() -> Iterator[tuple[str, StringConstraints]]:
    for door in (TopLevel, ChannelData):
        for name, field in door.model_fields.items():
            parts = (part for option in get_args(field.annotation) for part in get_args(option))
            yield from ((name, part) for part in parts if isinstance(part, StringConstraints))


TEXTS: Final = dict(_texts())
"""The fields that are mended when refused: cut to their length, in lower case where that is asked."""

DoorT = TypeVar("DoorT", bound=_Door)
TOP_KEYS: Final = frozenset(TopLevel.model_fields)
DATA_KEYS: Final = frozenset(ChannelData.model_fields)
PRICE_KEYS: Final = frozenset(Price.model_fields)
