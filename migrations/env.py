"""Run the revisions on a lent connection, or write their SQL.

The program lends a connection that is locked and in a transaction (``etl.migrate.upgrade``); ``alembic``
in a checkout gets the same one, for the database that the settings name. With ``--sql`` nothing is
connected.
"""

from typing import Any

from alembic import command, context
from alembic.ddl.mysql import MariaDBImpl, MySQLImpl
from alembic.runtime.environment import NameFilterParentNames, NameFilterType
from sqlalchemy import Connection, Table

from etl.database.dialects import dialect
from etl.database.schema import VERSION_TABLE
from etl.rollups.tables import metadata


def ours(name: str | None, kind: NameFilterType, _parents: NameFilterParentNames) -> bool:
    """Keep autogenerate to our own tables: the database is often the application's."""
    return kind != "table" or name in metadata.tables


class Mysql(MySQLImpl):
    """Give Alembic's table row locks, whatever the server's default engine: roll-ups lock its row."""

    __dialect__ = "mysql"

    def version_table_impl(self, **options: Any) -> Table:  # noqa: ANN401 - as Alembic gives them
        """Describe the table."""
        table = super().version_table_impl(**options)
        table.dialect_kwargs[f"{self.__dialect__}_engine"] = "InnoDB"
        return table


class Mariadb(Mysql, MariaDBImpl):
    """Do the same on MariaDB."""

    __dialect__ = "mariadb"


OPTIONS: dict[str, Any] = {
    "target_metadata": metadata,
    "version_table": VERSION_TABLE,
    "include_name": ours,
    # SQLite alters a table by copying it.
    "render_as_batch": True,
}


def run_offline() -> None:
    """Write the SQL for the dialect that was asked for."""
    name = context.config.attributes.get("dialect") or _configured_dialect()
    sqlite = name == "sqlite"
    context.configure(
        dialect_name=name,
        literal_binds=True,
        # Alembic doubts that SQLite has transactional DDL; it has, when BEGIN is written out.
        transactional_ddl=dialect(name).ddl_in_transactions,
        **OPTIONS,
    )
    write = context.get_context().impl.static_output
    if sqlite:
        # Inside a transaction this would be ignored, and copying a table would cascade.
        write("PRAGMA foreign_keys = OFF;\n")
    with context.begin_transaction():
        context.run_migrations()
    if sqlite:
        write("PRAGMA foreign_keys = ON;\n")


def run_online(connection: Connection) -> None:
    """Run the revisions inside the transaction of ``connection``."""
    context.configure(connection=connection, **OPTIONS)
    context.run_migrations()


def run_from_the_alembic_command() -> None:
    """Open, lock and run as ``verify-etl db upgrade`` does, in a checkout."""
    from etl import settings  # noqa: PLC0415 - only this road needs them
    from etl.database.engine import open_engine  # noqa: PLC0415 - only this road needs them
    from etl.migrate.upgrade import exclusive  # noqa: PLC0415 - only this road needs them
    from etl.migrate.views import drop_views  # noqa: PLC0415 - only this road needs them

    engine = open_engine(settings.load().database_url.get_secret_value())
    with exclusive(engine) as connection:
        if getattr(context.config.cmd_opts, "cmd", (None,))[0] is command.downgrade:
            # They stand on the tables. `verify-etl db upgrade` makes them again.
            drop_views(connection)
        run_online(connection)


def _configured_dialect() -> str:
    from etl import settings  # noqa: PLC0415 - only the alembic command needs them
    from etl.database.address import parse_url  # noqa: PLC0415 - only the alembic command needs them

    url = settings.load().database_url.get_secret_value()
    return parse_url(url).get_backend_name()


if context.is_offline_mode():
    run_offline()
elif (lent := context.config.attributes.get("connection")) is not None:
    run_online(lent)
else:
    run_from_the_alembic_command()
