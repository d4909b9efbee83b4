"""Ask the API for one attempt, a page of a list, or a summary. Raw payloads come out.

Each method of ``Api`` sends one request and never retries; ``patiently`` is the one retry layer.
Errors are sorted here, once. Try again: ``TransientFailure``, its subclass ``Unreachable``, and
``Throttled``. Stop: ``CredentialsRefused``, ``ApiContractBroken``. Reject this one: ``NotFound``,
``BadBody``, ``BodyTooLarge``, ``MalformedSid``. No message quotes a body.

A value tells the time of its answer in ``answered_at``. For an error it is the call's end, which
the caller knows. Only ``MalformedSid`` promises that nothing was sent.
"""

from etl.extract.answers import retry_after_ms
from etl.extract.api import Api, Page, Reply, Summary
from etl.extract.patience import patiently

__all__ = ["Api", "Page", "Reply", "Summary", "patiently", "retry_after_ms"]
