"""Bring answers that nobody thought of: each is a payload or one error of the tree."""

import logging
import socket
import threading
from collections import Counter

import pytest

from etl.errors import (
    ApiContractBroken,
    BadBody,
    BodyTooLarge,
    CredentialsRefused,
    EtlError,
    NotFound,
    Throttled,
    TransientFailure,
    Unreachable,
)
from etl.extract import Api
from etl.transform.attempt import transform
from tests.support.harness import MakeApi
from tests.support.odd_answers import CANARY, SID, answer
from tests.support.raw_server import PATIENCE_S, RawServer, as_json

ANSWERS = 55_000
STEPS = 11
"""Of so many, one is asked through a proxy, and one is good: what came before must not reach it."""

KINDS = {
    *(TransientFailure, Unreachable, Throttled, CredentialsRefused, NotFound),
    *(BadBody, BodyTooLarge, ApiContractBroken),
}


class Odd:
    """Send the answer whose number stands in ``n``."""

    def __init__(self) -> None:
        self.n = 0
        self.sent = b""
        self.done = threading.Event()

    def __call__(self, conn: socket.socket) -> bool:
        """Send it; close the connection behind one that is not whole."""
        self.sent, whole = answer(self.n)
        if self.n % STEPS == 0:
            self.sent, whole = as_json({"sid": SID}), True
        conn.sendall(self.sent)
        # Behind a tunnel that was granted, TLS would wait.
        ends = not whole or self.n % STEPS == 1
        if ends:
            conn.close()
        self.done.set()
        return ends


def _ask(api: Api, n: int) -> EtlError | None:
    """Ask as the program does, and read what came of one attempt; return the error."""
    try:
        match n % 4:
            case 0:
                api.page(page_size=10, after=None, before=None)
            case 1:
                api.summary(after=None, before=None)
            case _:
                transform(api.attempt(SID).payload, sid=SID)
    except EtlError as error:
        return error
    return None


@pytest.mark.soak
def test_whatever_comes_is_a_payload_or_one_error(
    make_api: MakeApi, scale: float, caplog: pytest.LogCaptureFixture
) -> None:
    """No answer, however odd, ends in another error than the package's, or reaches the next call."""
    # As the program does: it quotes what it cannot read.
    caplog.set_level(logging.CRITICAL, "urllib3")
    odd, seen = Odd(), Counter[str]()
    count = int(ANSWERS * scale)
    with RawServer(odd, most=count + 100) as server:
        direct = make_api(server.url)
        tunnel = make_api("https://127.0.0.1:9", proxy=server.url)
        for n in range(1, count + 1):
            odd.n = n
            if n % STEPS == 0:
                assert direct.attempt(SID).payload == {"sid": SID}
                odd.done.clear()
                continue
            try:
                error = _ask(tunnel if n % STEPS == 1 else direct, n)
            except Exception as bug:  # noqa: BLE001 - any class is the finding
                pytest.fail(f"answer {n}: {bug!r} of {odd.sent[:2000]!r}")
            # A request on a connection that is about to be closed would say nothing.
            assert odd.done.wait(PATIENCE_S)
            odd.done.clear()
            assert error is None or type(error) in KINDS, f"answer {n}: {error!r} of {odd.sent!r}"
            assert CANARY[1:] not in str(error), f"answer {n}: {error}"
            seen[type(error).__name__] += 1
    assert set(seen) > {"NoneType", "TransientFailure", "BadBody", "BodyTooLarge", "Unreachable"}
