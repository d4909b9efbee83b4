"""Define the types of columns that databases store differently."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import Any, Final

import sqlalchemy
from sqlalchemy import BigInteger, ColumnElement, DateTime, Integer, Numeric, TypeDecorator
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from etl.database.dialects import DIALECTS, Dialect

BigKey: Final = BigInteger().with_variant(Integer, "sqlite")
"""An autoincrement key: SQLite gives one to INTEGER only."""


def _ours(dialect: sqlalchemy.Dialect) -> Dialect | None:
    """Say what a dialect of SQLAlchemy is to us; its default one, for SQL to be read, is nothing."""
    return DIALECTS.get(dialect.name)


class Moment(TypeDecorator[datetime]):
    """Store a time for people, UTC: TIMESTAMPTZ, DATETIME(3), or text on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sqlalchemy.Dialect) -> TypeEngine[Any]:
        """Store it as the database does best."""
        ours = _ours(dialect)
        return dialect.type_descriptor(ours.moment_type() if ours else DateTime(timezone=True))

    def bind_processor(self, dialect: sqlalchemy.Dialect) -> Callable[[Any], Any] | None:
        """Spell a time."""
        ours = _ours(dialect)
        return (ours and ours.moment_speller()) or super().bind_processor(dialect)

    def result_processor(
        self, dialect: sqlalchemy.Dialect, coltype: object
    ) -> Callable[[Any], Any] | None:
        """Read a time."""
        ours = _ours(dialect)
        return (ours and ours.moment_reader()) or super().result_processor(dialect, coltype)


class Now(ColumnElement[datetime]):
    """Be the time of a statement, as the default of a ``Moment``."""

    inherit_cache = True


@compiles(Now)
def _now(_element: Now, compiler: SQLCompiler, **_options: Any) -> str:  # noqa: ANN401 - as SQLAlchemy calls it
    ours = _ours(compiler.dialect)
    return ours.now if ours else Dialect.now


class Money(TypeDecorator[Decimal]):
    """Store an exact amount in NUMERIC(18,6).

    SQLite keeps it as a REAL, which holds 15 digits exactly: it is bound as a float and read back
    through the shortest decimal that means that float. Views there sum integer millionths.
    """

    impl = Numeric(18, 6)
    cache_ok = True

    def load_dialect_impl(self, dialect: sqlalchemy.Dialect) -> TypeEngine[Any]:
        """Let SQLite deal in floats."""
        ours = _ours(dialect)
        return dialect.type_descriptor(ours.amount_type if ours else Numeric(18, 6))

    def process_result_value(self, value: Any, dialect: sqlalchemy.Dialect) -> Decimal | None:  # noqa: ANN401 - as the driver gives it
        """Return a ``Decimal`` of any number, and nothing of what SQLite keeps that is none."""
        del dialect
        if value is None or isinstance(value, Decimal):
            return value
        number = isinstance(value, int | float) and isfinite(value)
        return Decimal(repr(value)) if number else None
