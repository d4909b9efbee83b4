"""Do long work in many short transactions."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine

from etl.database.transact import check_revision, transact


class Step(Protocol):
    """Name the key after which the next step begins, None at the end."""

    @property
    def last(self) -> Any: ...  # noqa: ANN401, D102 - any key


S = TypeVar("S", bound=Step)


def in_steps(
    engine: Engine, step: Callable[[Connection, Any], S], first: object, *, doing: str
) -> Iterator[S]:
    """Yield what each step did; ``first`` is the key before all others."""
    after = first
    while after is not None:

        def work(connection: Connection, after: object = after) -> S:
            check_revision(connection)
            return step(connection, after)

        done = transact(engine, work, doing=doing)
        yield done
        after = done.last
