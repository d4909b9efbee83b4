"""Hold Twilio's example payload, and what must be read of it."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from etl.records import Attempt
from etl.transform.attempt import transform

SID = "VL" + "0123456789abcdef" * 2
OTHER_SID = "VL" + "f" * 32
ACCOUNT, SERVICE, VERIFICATION, SECOND = (kind + "0" * 32 for kind in ("AC", "VA", "VE", "VF"))
URL = f"https://verify.twilio.com/v2/Attempts/{SID}"

EXAMPLE_DATA = {
    "verification_sid": VERIFICATION,
    "to": "+573003003030",
    "status": "unconfirmed",
    "message_status": "undelivered",
    "error_code": "30008",
    "country": "CO",
    "code_length": 6,
    "locale": "es",
    "mcc": "732",
    "mnc": "103",
    "carrier": "Colombia Movil (Tigo)",
}
EXAMPLE = {
    "sid": SID,
    "account_sid": ACCOUNT,
    "service_sid": SERVICE,
    "verification_sid": VERIFICATION,
    "date_created": "2020-08-11T18:36:59Z",
    "date_updated": "2020-08-11T18:37:00Z",
    "conversion_status": "unconverted",
    "channel": "sms",
    "price": {"value": "0.005", "currency": "usd"},
    "channel_data": EXAMPLE_DATA,
    "url": URL,
}
EXPECTED = Attempt(
    sid=SID,
    account_sid=ACCOUNT,
    service_sid=SERVICE,
    verification_sid=VERIFICATION,
    channel="sms",
    conversion_status="unconverted",
    price_amount=Decimal("0.005"),
    price_currency="USD",
    date_created=datetime(2020, 8, 11, 18, 36, 59, tzinfo=UTC),
    date_updated=datetime(2020, 8, 11, 18, 37, 0, tzinfo=UTC),
    url=URL,
    destination="+573003003030",
    destination_prefix="+573003",
    country="CO",
    mcc="732",
    mnc="103",
    carrier="Colombia Movil (Tigo)",
    locale="es",
    status="unconfirmed",
    message_status="undelivered",
    call_status=None,
    error_code="30008",
    code_length=6,
    extra=None,
    warnings=(),
)
NO_DATA: dict[str, Any] = dict.fromkeys(
    (
        "destination",
        "destination_prefix",
        "country",
        "mcc",
        "mnc",
        "carrier",
        "locale",
        "status",
        "message_status",
        "error_code",
        "code_length",
    )
)


def but(**changes: Any) -> Attempt:
    """Give the expected record with other values in some columns."""
    return EXPECTED._replace(**changes)


def read(payload: object) -> Attempt:
    """Transform what must turn out to be the attempt asked for."""
    attempt = transform(payload, sid=SID)
    assert isinstance(attempt, Attempt)
    return attempt


def top(**changes: object) -> Attempt:
    """Read the example with other values at the top level."""
    return read(EXAMPLE | changes)


def data(**changes: object) -> Attempt:
    """Read the example with other values in its channel data."""
    return read(EXAMPLE | {"channel_data": EXAMPLE_DATA | changes})
