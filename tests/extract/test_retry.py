"""Retry in one place: exact numbers of tries, permits and waits."""

import contextlib
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from etl.errors import (
    ApiContractBroken,
    BadBody,
    CredentialsRefused,
    EtlError,
    NotFound,
    Throttled,
    TransientFailure,
    Unreachable,
)
from etl.extract import Api, patiently
from tests.support.raw_server import RawServer, as_json, http, refusal, then_close

SID = "VL" + "0123456789abcdef" * 2


class Run:
    """Count the steps of ``patiently``, with calls that fail on demand."""

    def __init__(self, *failures: Exception, budget: int = 99) -> None:
        self.failures = list(failures)
        self.budget = budget
        self.log: list[str] = []
        self.waits: list[float] = []

    def call(self) -> str:
        """Fail, as long as a failure is left."""
        self.log.append("call")
        if self.failures:
            raise self.failures.pop(0)
        return "done"

    def permit(self) -> None:
        """Grant a slot."""
        self.log.append("permit")

    def sleep(self, seconds: float) -> None:
        """Wait for nothing."""
        self.log.append("sleep")
        self.waits.append(seconds)

    def may_retry(self) -> bool:
        """Spend one of the budget."""
        self.log.append("ask")
        self.budget -= 1
        return self.budget >= 0

    def go(self, call: Callable[[], object] | None = None, tries: int = 3) -> object:
        """Call patiently."""
        return patiently(
            call or self.call,
            permit=self.permit,
            sleep=self.sleep,
            may_retry=self.may_retry,
            tries=tries,
        )


AGAIN = ["ask", "sleep", "permit", "call"]


def test_success_asks_for_nothing() -> None:
    """A call that succeeds is called once."""
    run = Run()
    assert run.go() == "done"
    assert run.log == ["call"]


def test_failure_is_tried_again_with_a_permit_each() -> None:
    """Before each further try, the budget is asked, time passes, a slot is taken: in this order."""
    run = Run(TransientFailure("1"), Unreachable("2"))
    assert run.go() == "done"
    assert run.log == ["call", *AGAIN, *AGAIN]


def test_last_error_is_raised_as_it_is() -> None:
    """After the last try nothing more is asked, and its own error comes out."""
    failures = [TransientFailure(str(n)) for n in range(4)]
    run = Run(*failures)
    with pytest.raises(TransientFailure) as caught:
        run.go()
    assert caught.value is failures[2]
    assert run.log == ["call", *AGAIN, *AGAIN]


@pytest.mark.parametrize("tries", [1, 2, 5])
def test_tries_are_counted(tries: int) -> None:
    """``tries`` is the number of calls in all."""
    run = Run(*(TransientFailure("x") for _ in range(9)))
    with pytest.raises(TransientFailure):
        run.go(tries=tries)
    assert run.log == ["call", *AGAIN * (tries - 1)]


def test_budget_ends_it() -> None:
    """Without a budget there is no second try, and no slot is taken for it."""
    run = Run(TransientFailure("1"), TransientFailure("2"), budget=1)
    with pytest.raises(TransientFailure, match="2"):
        run.go()
    assert run.log == ["call", *AGAIN, "ask"]


@pytest.mark.parametrize(
    "error",
    [Throttled("x"), NotFound("x"), BadBody("x"), CredentialsRefused("x"), ApiContractBroken("x")],
)
def test_other_errors_are_not_tried_again(error: EtlError) -> None:
    """Only what passes is tried again, at the first try and later."""
    run = Run(error)
    with pytest.raises(type(error)):
        run.go()
    assert run.log == ["call"]
    run = Run(TransientFailure("1"), error)
    with pytest.raises(type(error)):
        run.go()
    assert run.log == ["call", *AGAIN]


def test_permit_may_abort() -> None:
    """An error of the permit ends it, without a call."""
    run = Run(TransientFailure("1"))

    def permit() -> None:
        msg = "the run ends"
        raise Throttled(msg)

    with pytest.raises(Throttled, match="The run ends"):
        patiently(run.call, permit=permit, sleep=run.sleep, may_retry=run.may_retry)
    assert run.log == ["call", "ask", "sleep"]


def test_waits_are_jittered_and_bounded() -> None:
    """Waits differ, grow to 8 s at most, and start within half a second."""
    run = Run(*(TransientFailure("x") for _ in range(200)), budget=999)
    with pytest.raises(TransientFailure):
        run.go(tries=200)
    assert 0 <= run.waits[0] <= 0.5
    assert 0 <= run.waits[1] <= 1
    assert max(run.waits) <= 8
    assert len(set(run.waits)) > 100
    assert max(run.waits) > 4


def test_patience_costs_next_to_nothing() -> None:
    """A call that succeeds enters nothing but itself: no retry is set up for it."""
    run = Run()
    entered: list[str] = []

    def note(frame: FrameType, what: str, _detail: object) -> None:
        if what == "call":
            entered.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        run.go(run.call)
    finally:
        sys.setprofile(None)
    assert entered == ["go", "patiently", "call"]


def _api(server: RawServer) -> Api:
    return Api(server.url, user="u", password="p", credential_name="K", user_agent="t")


@pytest.mark.parametrize(
    ("answers", "requests"),
    [
        ([http(503)], 3),
        ([then_close(b"")], 3),
        ([http(503), as_json({})], 2),
        ([http(500), http(502), as_json({})], 3),
        ([refusal(429, 20429)], 1),
        ([refusal(404, 20404)], 1),
        ([refusal(401, 20003)], 1),
        ([http(503), refusal(429, 20429)], 2),
        ([http(200, b"<html>")], 1),
        ([http(302, b"", "Location: /")], 1),
    ],
)
def test_server_sees_exactly_these_requests(answers: list[bytes], requests: int) -> None:
    """No layer below retries on its own: the server counts as many requests as we do."""
    with RawServer(*answers) as server:
        api = _api(server)
        run = Run()
        with contextlib.suppress(EtlError):
            run.go(lambda: api.attempt(SID))
        api.close()
        assert len(server.requests) == requests
    assert run.log.count("permit") == requests - 1
