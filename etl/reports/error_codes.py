"""Say in short what Twilio's error codes mean.

Only codes that can end a verification attempt are here, after
https://www.twilio.com/docs/api/errors. For any other code the report shows just the number.
"""

from typing import Final

MEANINGS: Final = {
    "13224": "Call - the number is not a valid one to call",
    "13227": "Call - the country is not allowed for this account",
    "14101": "The destination is not valid",
    "20404": "The resource was not found",
    "20429": "Too many requests",
    "21211": "The destination is not a valid number",
    "21214": "The destination cannot be reached",
    "21215": "Call - the country is not allowed for this account",
    "21408": "The account may not send to this country",
    "21610": "The recipient opted out",
    "21611": "The sender has too many messages waiting",
    "21612": "This sender cannot reach this destination",
    "21614": "The destination is not a mobile number",
    "30001": "The queue overflowed",
    "30002": "The account is suspended",
    "30003": "The phone is off, or without a signal",
    "30004": "Blocked by the carrier or the recipient",
    "30005": "The number is not known or no longer in service",
    "30006": "A landline, or the carrier cannot be reached",
    "30007": "Filtered as spam by the carrier or Twilio",
    "30008": "The carrier gave no reason",
    "30010": "The price is above the limit that was set",
    "30032": "The toll-free sender is not verified",
    "30034": "The sender is not registered with US carriers",
    "30036": "Not delivered within its validity period",
    "30042": "The sender's name is blocked",
    "30450": "Blocked for a while as suspected SMS pumping",
    "32011": "Call - it could not be connected",
    "60005": "The carrier had a failure",
    "60200": "A parameter was not valid",
    "60203": "Too many attempts to send to this destination",
    "60205": "SMS does not reach landlines",
    "60410": "Prefix blocked for a while by Verify Fraud Guard",
    "60412": "Blocked as a suspected fraudulent sign-up",
    "60605": "Verify may not send to this country",
    "63003": "The recipient has no account on this channel",
    "63016": "WhatsApp - outside the window for free text",
    "63024": "The recipient is not valid on this channel",
    "63036": "The phone cannot be reached by RCS",
    "63049": "WhatsApp - Meta chose not to deliver it",
}
"""Code -> meaning."""


def meaning(code: str) -> str:
    """Write the CASE that turns a code into its meaning, or NULL."""
    cases = "\n".join(
        f"            WHEN '{number}' THEN '{text.replace(chr(39), chr(39) * 2)}'"
        for number, text in MEANINGS.items()
    )
    return f"CASE {code}\n{cases}\n        END"
