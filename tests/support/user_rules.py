"""Refuse what the program writes, as the triggers of an application's own do."""

from typing import Final

from sqlalchemy import Engine

from tests.support.queue_rows import execute

MARKER: Final = "+15550123"
"""What each refusal quotes, as if it were a row's."""

PLPGSQL: Final = (
    "CREATE OR REPLACE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS"
    f" $$BEGIN RAISE EXCEPTION '{MARKER} %', {{row}}; END$$"
)
_RULES = {
    "sqlite": (
        [
            (
                f"CREATE TRIGGER mine BEFORE {{verb}} ON {{table}} WHEN {{when}}"
                f" BEGIN SELECT RAISE(ABORT, '{MARKER}'); END"
            ),
        ],
        ["DROP TRIGGER mine"],
    ),
    "postgresql": (
        [
            PLPGSQL,
            (
                "CREATE TRIGGER mine BEFORE {verb} ON {table} FOR EACH ROW WHEN ({when})"
                " EXECUTE FUNCTION mine()"
            ),
        ],
        ["DROP TRIGGER mine ON {table}"],
    ),
    "mysql": (
        [
            (
                f"CREATE TRIGGER mine BEFORE {{verb}} ON {{table}} FOR EACH ROW IF {{when}} THEN"
                f" SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{MARKER}'; END IF"
            ),
        ],
        ["DROP TRIGGER mine"],
    ),
}
_RULES["mariadb"] = _RULES["mysql"]


class Rule:
    """Refuse rows of a table, as a trigger or constraint of the user's does, until it is dropped."""

    def __init__(self, engine: Engine, table: str, verb: str, when: str = "") -> None:
        self._engine = engine
        self._table = table
        create, self._drop = _RULES[engine.dialect.name]
        row = "OLD" if verb == "DELETE" else "NEW"
        for statement in create:
            execute(engine, statement.format(table=table, verb=verb, when=when or "1 = 1", row=row))

    def drop(self) -> None:
        """Let everything be written again."""
        for statement in self._drop:
            execute(self._engine, statement.format(table=self._table))
