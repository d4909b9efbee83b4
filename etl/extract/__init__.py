"""Ask the API: one attempt, a page of a list, a summary. Raw payloads come out.

Each method of ``Api`` sends one request and retries nothing; ``patiently`` is the one retry layer.
What goes wrong is sorted here, once: try again (``TransientFailure`` and its subclass
``Unreachable``, ``Throttled``), stop (``CredentialsRefused``, ``ApiContractBroken``), reject this
one (``NotFound``, ``BadBody``, ``BodyTooLarge``, ``MalformedSid``). No message quotes a body.

When was the answer? A value says so in ``answered_at``; for an error it is when the call ended,
which the caller's clock knows. Only ``MalformedSid`` promises that nothing was sent.
"""

from etl.extract.answers import retry_after_ms
from etl.extract.api import Api, Page, Reply, Summary
from etl.extract.patience import patiently

__all__ = ["Api", "Page", "Reply", "Summary", "patiently", "retry_after_ms"]
