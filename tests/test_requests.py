"""Send few requests: the situations of ``bench/sweep.py`` at a tenth of their counts."""

import time

import pytest

from bench._box import serve
from bench.sweep import measure, situations


@pytest.mark.parametrize("which", range(3), ids=["day", "month", "hours"])
def test_a_sweep_costs_no_more_than_it_may(database_url: str, which: int, scale: float) -> None:
    """The server counts no more requests than the bound, and every row is as a fetch gives it."""
    situation = situations(scale, now=int(time.time()))[which]
    with serve(situation.shape) as box:
        figure = measure(situation, database_url, box)
    assert figure.wrong == 0
    assert figure.requests <= situation.most, figure
