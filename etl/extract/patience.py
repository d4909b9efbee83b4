"""Try again, patiently: the one retry layer above HTTP."""

from collections.abc import Callable
from typing import TypeVar

import tenacity

from etl.errors import TransientFailure

T = TypeVar("T")


def patiently(
    call: Callable[[], T],
    *,
    permit: Callable[[], object],
    sleep: Callable[[float], None],
    may_retry: Callable[[], bool],
    tries: int = 3,
) -> T:
    """Call, and call again after a ``TransientFailure``, at most ``tries`` times in all.

    Before each further try ``may_retry`` says whether the run's budget allows it. ``sleep`` waits
    for a random time of up to 0.5, 1, 2 .. 8 s (full jitter). ``permit`` blocks until the shared
    allowance grants a slot, and may raise to abort. The last error is raised as it is.
    """
    try:
        return call()
    except TransientFailure as error:
        first: list[TransientFailure] = [error]

    # Tenacity enters only after a failure, so that a successful call costs nothing more. The
    # failure counts as its first try's outcome.
    def attempt() -> T:
        if first:
            raise first.pop()
        permit()
        return call()

    def again(state: tenacity.RetryCallState) -> bool:
        failed = state.outcome is not None and isinstance(
            state.outcome.exception(), TransientFailure
        )
        # Asked last, and never after the last try: a yes takes from the run's budget.
        return failed and state.attempt_number < tries and may_retry()

    return tenacity.Retrying(
        retry=again,
        stop=tenacity.stop_after_attempt(tries),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=8),
        sleep=sleep,
        reraise=True,
    )(attempt)
