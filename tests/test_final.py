"""Hold the two spellings of "final" to each other."""

from datetime import timedelta
from itertools import product
from typing import Final

from sqlalchemy import Engine, text

from etl.final import Policy, final_sql, is_final

HOUR: Final = int(timedelta(hours=1).total_seconds() * 1000)
POLICIES: Final = (Policy(), Policy(settle_after=2 * HOUR, price_grace=5 * HOUR))


def test_final_in_sql_is_final_in_python(engine: Engine) -> None:
    """At every age, with a price or without, SQL and Python say the same."""
    said: set[bool] = set()
    with engine.connect() as connection:
        for policy, price in product(POLICIES, ("0.05", "0", None)):
            edges = (0, HOUR, policy.settle_after, policy.price_grace, policy.retention)
            for age in (edge + off for edge in edges for off in (-1, 0, 1)):
                sql = final_sql(policy, age=f"({age})", price=price or "NULL")
                found = connection.execute(text(f"SELECT {sql}")).scalar()
                final = is_final(policy, sent_at=age, known_from=0, has_price=price is not None)
                assert (final, age, price) == (bool(found), age, price)
                said.add(final)
    assert said == {True, False}
