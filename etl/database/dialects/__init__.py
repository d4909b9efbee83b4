"""Hold what differs between databases: two files for each kind, its SQL and its driver."""

from typing import Final

from sqlalchemy import Connection, Engine

from etl.database.dialects.base import Columns, Dialect
from etl.database.dialects.mysql import Mariadb, Mysql
from etl.database.dialects.postgresql import Postgresql
from etl.database.dialects.sqlite import Sqlite

__all__ = ["DIALECTS", "Columns", "Dialect", "dialect"]

DIALECTS: Final[dict[str, Dialect]] = {
    "sqlite": Sqlite(),
    # PyMySQL's errors have numbers, and a coarser SQLSTATE: they are known before PostgreSQL's.
    "mysql": Mysql(),
    "mariadb": Mariadb(),
    "postgresql": Postgresql(),
}
"""By SQLAlchemy's name of the kind, which is also the scheme of an address."""


def dialect(of: Connection | Engine | str) -> Dialect:
    """Give what a database speaks, or a kind of database by its name."""
    return DIALECTS[of if isinstance(of, str) else of.dialect.name]
