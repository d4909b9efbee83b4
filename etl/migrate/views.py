"""Bring the reports' views to this version's text: take down what differs, put up what is missing.

Views are code, not history: ``report_views`` remembers which text of each was created, and that
the view is ours. Nothing cascades: what somebody else hung on a view stops the upgrade by name. A
view is down before its row is written and put up after, so a MariaDB that was cut off anywhere
has a row without its view, which the next upgrade puts up; never a view of ours without its row.
"""

import hashlib
from collections.abc import Iterable

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from etl.database.dialects import dialect
from etl.database.schema import report_views
from etl.errors import SchemaError
from etl.migrate.grants import Grants, read_grants, restore
from etl.reports.views import comment_statements, create_statements


def take_down(connection: Connection, *, everything: bool) -> Grants:
    """Drop our views whose text changed or that the code no longer has, or every one of ours.

    Return what was granted on them, for ``put_up``. Raises ``SchemaError`` before anything is
    changed when a name is taken by what is not ours, and when something depends on a view.
    """
    wanted = dict(create_statements(connection.dialect.name))
    rows = _digests(connection)
    standing = _standing(connection, {*wanted, *rows})
    taken = [name for name in wanted if name in standing and not (standing[name] and name in rows)]
    if taken:
        msg = f"the database has what is not ours under the names of our views: {', '.join(taken)}."
        hint = "Rename it, or give verify-attempts-etl a database or schema of its own."
        raise SchemaError(msg, hint=f"{hint} Nothing was changed.")
    going = [
        name
        for name, digest in rows.items()
        if standing.get(name)
        and (everything or name not in wanted or digest != _digest(wanted[name]))
    ]
    grants = read_grants(connection, [name for name in going if name in wanted])
    _drop(connection, going)
    return grants


def put_up(connection: Connection, grants: Grants) -> list[str]:
    """Create the views that are missing, with ``grants``; return what was done, in lines."""
    wanted = dict(create_statements(connection.dialect.name))
    comments = dict(comment_statements(connection.dialect.name))
    gone = [name for name in _digests(connection) if name not in wanted]
    _forget(connection, gone)
    standing = _standing(connection, wanted)
    made = [name for name in wanted if name not in standing]
    for name in made:
        _forget(connection, [name])
        connection.execute(report_views.insert().values(name=name, digest=_digest(wanted[name])))
        connection.exec_driver_sql(wanted[name])
        if name in comments:
            connection.exec_driver_sql(comments[name])
        restore(connection, name, grants)
    lines = (("views", made), ("views dropped", gone))
    return [f"{what}: {', '.join(names)}" for what, names in lines if names]


def written(dialect_name: str) -> list[str]:
    """Return the statements that put up every view in a database that has none."""
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
    if not inspect(connection).has_table(report_views.name):
        return {}
    rows = connection.execute(report_views.select().order_by(report_views.c.name))
    return {row.name: row.digest for row in rows}


def _standing(connection: Connection, names: Iterable[str]) -> dict[str, bool]:
    """Say which of the names are taken in the connection's schema, and whether by a view."""
    rows = connection.execute(text(dialect(connection).standing))
    found = {name: bool(view) for name, view in rows}
    return {name: found[name] for name in names if name in found}


def _drop(connection: Connection, names: list[str]) -> None:
    """Drop views, none of them with what hangs on it."""
    quoted = [connection.dialect.identifier_preparer.quote(name) for name in names]
    if not names:
        return
    if dialect(connection).views_by_name:
        # Here a view is looked up by name when it is read: one that reads ours goes on to.
        for name in quoted:
            connection.exec_driver_sql(f"DROP VIEW {name}")
        return
    try:
        # All in one statement: those of ours that go may read each other.
        connection.exec_driver_sql(f"DROP VIEW {', '.join(quoted)}")
    except DBAPIError as error:
        said = getattr(getattr(error.orig, "diag", None), "message_detail", None)
        if getattr(error.orig, "sqlstate", None) != "2BP01" or not said:
            raise
        msg = f"our views cannot be replaced: {'; '.join(said.splitlines())}."
        hint = "Drop what depends on our view, run verify-etl db upgrade, and create it again."
        raise SchemaError(msg, hint=f"{hint} Nothing was changed.") from error


def _forget(connection: Connection, names: list[str]) -> None:
    connection.execute(report_views.delete().where(report_views.c.name.in_(names)))


def _digest(statement: str) -> str:
    return hashlib.sha256(statement.encode()).hexdigest()
