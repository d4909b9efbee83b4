"""Find and run the Alembic scripts, in a wheel and in a checkout.

::

    lock | refuse what is not ours | detach the views | run the revisions | renew the views | commit

SQLite and PostgreSQL do this in one transaction. MariaDB and MySQL commit after every DDL
statement: they do it under a named lock. The next upgrade mends one that was cut off.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, select
from sqlalchemy.exc import DBAPIError

from etl.database.address import parse_url
from etl.database.bounds import PATIENT
from etl.database.dialects import dialect
from etl.database.dialects.driver import Fault
from etl.database.engine import READ_ONLY
from etl.database.errors import classify, explain
from etl.database.fitness import check_encoding, mend_engines
from etl.database.schema import KEYED, VERSION_TABLE, report_views
from etl.errors import SchemaError
from etl.installed import folder
from etl.migrate.views import broken, detach, drop_views, refuse_taken, renew, written
from etl.rollups.tables import metadata

MEND: Final = "Run: verify-etl db upgrade"


def script_location() -> Path:
    """Return the folder of the scripts; raise ``StorageError`` when the installation has none."""
    return folder("migrations", holds="env.py", what="migration scripts")


def head() -> str:
    """Return the newest revision of the scripts: the one this program needs."""
    return str(_scripts().get_current_head())


def current(engine: Engine) -> str | None:
    """Return the revision of the database, None when it has none of our tables yet.

    Raises ``DatabaseBusy``, ``StorageError`` or ``ConfigError`` when it cannot be read.
    """
    with _in_words("reading the schema's revision"), engine.connect() as connection:
        return _current(connection.execution_options(**READ_ONLY))


def check(found: str | None) -> None:
    """Raise ``SchemaError`` unless ``found`` is ``head``: missing, behind, or ahead of it."""
    if found is None:
        msg = "the database does not have the tables of verify-attempts-etl yet."
        raise SchemaError(msg, hint=f"{MEND}.")
    _refuse_unknown(found)
    if found != head():
        msg = f"the database's schema is behind: at revision {found}, this program needs {head()}."
        raise SchemaError(msg, hint=f"{MEND}.")


def check_views(engine: Engine) -> list[str]:
    """Name the views that are missing or cannot be read."""
    with _in_words("reading the views"), engine.connect() as connection:
        connection.execution_options(**READ_ONLY)
        return list(broken(connection))


def upgrade(engine: Engine, *, views: bool = False) -> list[str]:
    """Bring the database to ``head``, and its views to this version's text; return what was done.

    With ``views`` all of them are made again. The list has a line for each revision, one for views
    made, one for views dropped, and one for sequences that were behind. What is not ours stays
    untouched. Raises ``SchemaError`` for others' tables or views of our names, an
    unknown revision, a view that others need, or a refused statement. Raises ``DatabaseBusy`` when
    the database stays locked.
    """
    with exclusive(engine) as connection:
        check_encoding(connection)
        found = _current(connection)
        if found is None:
            _make_room(connection)
        else:
            _refuse_unknown(found)
        refuse_taken(connection)
        steps = list(_scripts().iterate_revisions("head", found or "base"))
        if not steps:
            _refuse_gaps(connection)
        else:
            detach(connection)
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        done = [f"{step.revision}: {step.doc}" for step in reversed(steps)]
        mended = mend_engines(connection, [VERSION_TABLE, *metadata.tables])
        done += [f"engine InnoDB: {', '.join(mended)}"] if mended else []
        return done + renew(connection, everything=views or bool(steps)) + _catch_up(connection)


def _refuse_gaps(connection: Connection) -> None:
    """Refuse a schema of the newest revision that lacks tables: no revision makes them again."""
    present = {*inspect(connection).get_table_names(), report_views.name}
    gone = [table.name for table in metadata.sorted_tables if table.name not in present]
    if gone:
        msg = f"the schema is at {head()}, but its tables are gone: {', '.join(gone)}."
        hint = f"Restore them. To begin anew, drop our other tables and {VERSION_TABLE}, then: "
        raise SchemaError(msg, hint=f"{hint}verify-etl db upgrade")


def _catch_up(connection: Connection) -> list[str]:
    """Let sequences go on after their tables' newest keys. A restore leaves them behind."""
    kind = dialect(connection)
    behind = kind.sequences_behind(connection, KEYED)
    for table in behind:
        connection.exec_driver_sql(kind.driver.catch_up(table))
    return [f"sequences: {', '.join(behind)}"] if behind else []


def upgrade_sql(url: str) -> str:
    """Return the SQL of the whole schema for the kind of database in ``url``; connect to nothing.

    A ``mysql://`` address means MySQL, a ``mariadb://`` address MariaDB.
    """
    buffer = io.StringIO()
    config = _config(output_buffer=buffer)
    name = config.attributes["dialect"] = parse_url(url).get_backend_name()
    command.upgrade(config, "head", sql=True)
    views = [f"{statement};\n\n" for statement in written(name)]
    # The MariaDB family commits after each statement anyway.
    frame = ("BEGIN;\n\n", "COMMIT;\n") if dialect(name).ddl_in_transactions else ("", "")
    return "".join([buffer.getvalue(), frame[0], *views, frame[1]])


@contextmanager
def exclusive(engine: Engine) -> Iterator[Connection]:
    """Lend a connection in a transaction that only one upgrade can have at a time.

    Commits at the end, and rolls back on any error. A second upgrade waits, then finds nothing to
    do.
    """
    with _in_words("upgrading the schema"), engine.connect() as connection:
        connection.execution_options(**PATIENT)
        with dialect(engine).migrating(connection, metadata.tables):
            yield connection


def _make_room(connection: Connection) -> None:
    """Refuse other people's tables of our names; clear what a cut-off first upgrade left.

    Alembic creates its own table first. Without it, the tables are somebody else's. With it, they
    are what MariaDB committed before a cut: while they are empty, starting over loses nothing.
    """
    # Of our schema: others of the search path may have tables of the same names.
    schema = dialect(connection).schema(connection)
    present = set(inspect(connection).get_table_names(schema))
    found = [table for table in metadata.sorted_tables if table.name in present]
    if not found:
        return
    names = ", ".join(table.name for table in found)
    if VERSION_TABLE not in present:
        msg = f"the database has tables of another program under our names: {names}."
        raise SchemaError(msg, hint="Give verify-attempts-etl a database or schema of its own.")
    for table in found:
        # It is made again with the views.
        if table is report_views:
            continue
        if connection.execute(select(table).limit(1)).first() is not None:
            msg = f"an upgrade was cut off, and {table.name} already holds rows."
            raise SchemaError(msg, hint="Move them away, then run: verify-etl db upgrade")
    refuse_taken(connection)
    drop_views(connection)
    metadata.drop_all(connection)


def _refuse_unknown(revision: str) -> None:
    if revision in {script.revision for script in _scripts().walk_revisions()}:
        return
    msg = (
        f"the database's schema is ahead: at revision {revision}, which a newer program made; "
        f"this one knows {head()}."
    )
    raise SchemaError(msg, hint=f"Install the newest verify-attempts-etl, then: {MEND.lower()}.")


def _current(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return ", ".join(context.get_current_heads()) or None


def _config(**options: Any) -> Config:  # noqa: ANN401 - as Config takes them
    config = Config(**options)
    # A percent sign would be read as an interpolation.
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


@contextmanager
def _in_words(doing: str) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if classify(error) not in {Fault.SCHEMA, Fault.OTHER}:
            raise explain(error, doing) from error
        said = (str(error.orig).strip().splitlines() or ["no reason given"])[0]
        msg = f"While {doing}, the database refused a statement ({said})."
        hint = (
            "The user in DATABASE_URL needs the right to create tables and views, and to own ours."
        )
        raise SchemaError(msg, hint=hint) from error
