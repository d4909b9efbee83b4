"""Bring the reports' views to this version's text.

Views are code, not history. ``report_views`` remembers the text of each, and that it is ours.
PostgreSQL replaces a view in place: its grants stay, and so do other people's views on it. Where
columns change it is dropped and created again, and one that somebody's view needs stops the
upgrade. Other databases look views up by name, so there each is dropped and created.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from etl.database.dialects import dialect
from etl.database.dialects.driver import Fault
from etl.database.errors import classify
from etl.database.names import names_of
from etl.database.schema import report_views
from etl.errors import SchemaError
from etl.migrate.grants import read_rights, restore
from etl.reports.views import comment_statements, create_statements

_OPTIONS: Final = text(
    "SELECT ' WITH (' || array_to_string(reloptions, ', ') || ')' FROM pg_class"
    " WHERE oid = to_regclass(quote_ident(current_schema()) || '.' || :name)"
)
_COLUMNS_DIFFER: Final = "42P16"
_OTHERS_DEPEND: Final = "2BP01"


def refuse_taken(connection: Connection) -> None:
    """Raise ``SchemaError`` when something that is not ours has the name of one of our views."""
    wanted = dict(create_statements(connection.dialect.name))
    rows = _digests(connection)
    standing = _standing(connection, wanted)
    taken = [name for name, is_view in standing.items() if not (is_view and name in rows)]
    if taken:
        msg = f"the database has what is not ours under the names of our views: {', '.join(taken)}."
        hint = "Rename it, or give verify-attempts-etl a database or schema of its own."
        raise SchemaError(msg, hint=f"{hint} Nothing was changed.")


def drop_views(connection: Connection) -> None:
    """Drop every view of ours."""
    _drop(connection, _ours(connection))


def detach(connection: Connection) -> None:
    """Let no view of ours stand on a table, so that a revision may change any of them."""
    if dialect(connection).views_by_name:
        drop_views(connection)
        return
    for name in _ours(connection):
        # Until ``renew``, the view reads itself: it keeps its columns and stands on no table.
        _replace(connection, name, f" AS TABLE {name}")


def broken(connection: Connection) -> dict[str, str]:
    """Select nothing from each view; return those that cannot be read or are missing, and why.

    A view breaks when its maker's account is dropped (MariaDB and MySQL, error 1449), or when
    somebody changed what it reads.
    """
    found = {}
    standing = _ours(connection)
    for name, _ in create_statements(connection.dialect.name):
        if name not in standing:
            found[name] = "missing"
            continue
        try:
            with connection.begin_nested():
                connection.exec_driver_sql(f"SELECT * FROM {name} LIMIT 0")  # noqa: S608 - our own name
        except DBAPIError as error:
            if classify(error) not in {Fault.SCHEMA, Fault.OTHER}:
                raise
            if "denied" in str(error.orig):
                # It is there; that this user may not read it is the owner's wish.
                continue
            found[name] = names_of(error)
    return found


def check(connection: Connection) -> None:
    """Raise ``SchemaError`` unless every view can be read."""
    if found := broken(connection):
        name, why = next(iter(found.items()))
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        msg = f"the view {name} cannot be read ({why}){more}."
        raise SchemaError(msg, hint="Run: verify-etl db upgrade --views")


def renew(connection: Connection, *, everything: bool) -> list[str]:
    """Replace views whose text changed or that are broken, or all; drop those the code lost.

    Return what was done, in lines. Raises ``SchemaError`` when another view depends on one whose
    columns change.
    """
    wanted = dict(create_statements(connection.dialect.name))
    comments = dict(comment_statements(connection.dialect.name))
    rows = _digests(connection)
    standing = _ours(connection)
    unread = wanted if everything else broken(connection)
    gone = [name for name in rows if name not in wanted]
    _drop(connection, [name for name in gone if name in standing])
    _forget(connection, gone)
    made = [
        name for name, create in wanted.items() if name in unread or rows[name] != _digest(create)
    ]
    if dialect(connection).views_by_name:
        _drop(connection, [name for name in made if name in standing])
    for name in made:
        # MariaDB commits here: a cut leaves a row without its view, which the next upgrade makes.
        _forget(connection, [name])
        connection.execute(report_views.insert().values(name=name, digest=_digest(wanted[name])))
        _create(connection, name, wanted[name])
        if name in comments:
            connection.exec_driver_sql(comments[name])
    lines = (("views", made), ("views dropped", gone))
    return [f"{what}: {', '.join(names)}" for what, names in lines if names]


def _create(connection: Connection, name: str, create: str) -> None:
    if dialect(connection).views_by_name:
        connection.exec_driver_sql(create)
        return
    try:
        with connection.begin_nested():
            _replace(connection, name, create.removeprefix(f"CREATE VIEW {name}"))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _COLUMNS_DIFFER:
            raise
        rights = read_rights(connection, name)
        _drop(connection, [name])
        connection.exec_driver_sql(create)
        restore(connection, name, rights)


def _replace(connection: Connection, name: str, body: str) -> None:
    # PostgreSQL forgets the options that are not named.
    options = connection.scalar(_OPTIONS, {"name": name}) or ""
    connection.exec_driver_sql(f"CREATE OR REPLACE VIEW {name}{options}{body}")


def written(dialect_name: str) -> list[str]:
    """Return the statements that create all views in a new database."""
    comments = dict(comment_statements(dialect_name))
    statements: list[str] = []
    for name, create in create_statements(dialect_name):
        statements.append(
            f"INSERT INTO {report_views.name} (name, digest) VALUES ('{name}', '{_digest(create)}')"  # noqa: S608 - our own names
        )
        statements.append(create)
        statements += [comments[name]] if name in comments else []
    return statements


def _digests(connection: Connection) -> dict[str, str]:
    schema = dialect(connection).schema(connection)
    if not inspect(connection).has_table(report_views.name, schema):
        return {}
    rows = connection.execute(report_views.select().order_by(report_views.c.name))
    return {row.name: row.digest for row in rows}


def _standing(connection: Connection, names: Iterable[str]) -> dict[str, bool]:
    """Say which of the names are taken in the connection's schema, and whether by a view."""
    rows = connection.execute(text(dialect(connection).standing))
    found = {name: bool(view) for name, view in rows}
    return {name: found[name] for name in names if name in found}


def _ours(connection: Connection) -> list[str]:
    rows = _digests(connection)
    return [name for name, is_view in _standing(connection, rows).items() if is_view]


def _drop(connection: Connection, names: list[str]) -> None:
    """Drop views, none of them with what depends on it."""
    try:
        for name in names:
            quoted = connection.dialect.identifier_preparer.quote(name)
            connection.exec_driver_sql(f"DROP VIEW {quoted}")
    except DBAPIError as error:
        said = getattr(getattr(error.orig, "diag", None), "message_detail", None)
        if getattr(error.orig, "sqlstate", None) != _OTHERS_DEPEND or not said:
            raise
        msg = f"our views cannot be replaced: {'; '.join(said.splitlines())}."
        hint = "Drop what depends on our view, run verify-etl db upgrade, and create it again."
        raise SchemaError(msg, hint=f"{hint} Nothing was changed.") from error


def _forget(connection: Connection, names: list[str]) -> None:
    connection.execute(report_views.delete().where(report_views.c.name.in_(names)))


def _digest(statement: str) -> str:
    return hashlib.sha256(statement.encode()).hexdigest()
