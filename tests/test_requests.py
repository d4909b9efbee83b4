"""Send few requests: the situations of ``bench/sweep.py`` at a tenth of their counts."""

import pytest

from tests.support.harness import measured


@pytest.mark.parametrize("which", range(3), ids=["day", "month", "hours"])
def test_a_sweep_costs_no_more_than_it_may(database_url: str, which: int, scale: float) -> None:
    """The server counts no more requests than the bound, and every row is as a fetch gives it."""
    measured("sweep.py", "--scale", str(scale), "--only", str(which), "--url", database_url)
