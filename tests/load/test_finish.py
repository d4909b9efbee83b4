"""Check what a list page does to rows that were fetched, or became final, before it came."""

import pytest
from sqlalchemy import Engine, select

from etl.database.schema import attempts
from etl.final import Policy
from etl.load.finish import finish_page
from etl.records import Attempt, Done
from tests.support.queue_rows import DAY, HOUR, NOW, attempt, put, read, sid

POLICY = Policy(settle_after=DAY, price_grace=3 * DAY, refresh_round=HOUR, retention=30 * DAY)


def _finish(engine: Engine, found: Attempt, sent_at: int) -> Done:
    with engine.begin() as connection:
        return finish_page(
            connection, [found], sent_at=sent_at, policy=POLICY, accounts=("",), discover=True,
            clock=lambda _: NOW + 100 * HOUR,
        )  # fmt: skip


def test_a_page_older_than_the_fetch_leaves_the_row_alone(engine: Engine) -> None:
    """A page that was asked for before the stored fetch neither counts nor judges."""
    put(engine, {"sid": sid(1)})
    _finish(engine, attempt(), NOW)
    before = read(engine)
    late = _finish(engine, attempt(conversion_status="converted"), NOW - 20_000)
    assert (late.fetched, read(engine)) == (0, before)


def test_a_final_row_stays_final(engine: Engine) -> None:
    """Without a creation time a discovered page cannot tell the age of a row, which was settled."""
    found = attempt()._replace(price_amount=None)
    put(engine, {"sid": sid(1), "expires_at": NOW + 720 * HOUR})
    _finish(engine, found, NOW + 80 * HOUR)
    _finish(engine, found._replace(channel="call"), NOW + 90 * HOUR)
    with engine.connect() as connection:
        row = connection.execute(select(attempts)).one()
    assert (row.channel, row.is_final, row.fetched_at) == ("call", True, NOW + 90 * HOUR)
    queued = read(engine)[sid(1)]
    assert (queued.state, queued.outcome, queued.fetches) == ("settled", "final", 1)


@pytest.mark.parametrize(
    ("row", "unplanned", "ageless"),
    [
        ({"state": "pending"}, 0, 1),
        ({"state": "pending", "expires_at": NOW + DAY}, 0, 0),
        ({"state": "retry", "due_at": NOW + DAY}, 1, 0),
        ({"state": "refresh", "due_at": 1, "expires_at": NOW + DAY}, 1, 0),
        ({"state": "dead", "outcome": "not_found"}, 1, 0),
        ({"state": "leased", "due_at": NOW + DAY}, 0, 0),
        ({"sid": sid(2)}, 0, 0),
    ],
)
def test_a_page_says_what_no_plan_counted_on(
    engine: Engine, row: dict[str, object], unplanned: int, ageless: int
) -> None:
    """Plans count pending rows: whatever else a page shows is welcome and tells nothing of them."""
    put(engine, {"sid": sid(1), **row})
    done = _finish(engine, attempt(), NOW)
    assert (done.unplanned, done.ageless) == (unplanned, ageless)
