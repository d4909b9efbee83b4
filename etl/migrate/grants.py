"""Carry what was granted on a view over to the one that replaces it, on PostgreSQL.

Elsewhere there is nothing to carry: SQLite grants nothing, and MariaDB and MySQL keep a grant by
the view's name whether or not the view is there (SHOW GRANTS is the same after DROP VIEW).
"""

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, text

from etl.database.dialects import dialect

# The owner's own privileges come with owning. PUBLIC is grantee 0.
_GRANTS: Final = text("""
SELECT a.privilege_type, quote_ident(t.attname), a.is_grantable,
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE CAST(CAST(a.grantee AS regrole) AS text) END
FROM pg_class c
JOIN (SELECT oid AS id, NULL AS attname, relacl AS acl FROM pg_class
      UNION ALL
      SELECT attrelid, attname, attacl FROM pg_attribute WHERE NOT attisdropped) t ON t.id = c.oid
CROSS JOIN LATERAL aclexplode(t.acl) a
WHERE c.oid = to_regclass(:name) AND a.grantee <> c.relowner
""")
_OWNER: Final = text("""
SELECT CAST(CAST(relowner AS regrole) AS text), array_to_string(reloptions, ', ')
FROM pg_class WHERE oid = to_regclass(:name)
""")
_COLUMNS: Final = text("""
SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = to_regclass(:name) AND attnum > 0
""")


@dataclass(frozen=True)
class Grant:
    """Name one privilege, on the view or one column of it, all in SQL's own spelling."""

    privilege: str
    column: str | None
    grantable: bool
    grantee: str


@dataclass(frozen=True)
class Rights:
    """Hold who owns a view, what was granted on it, and its options (``security_invoker``)."""

    owner: str
    options: str | None
    grants: list[Grant] = field(default_factory=list)


Grants = dict[str, Rights]
"""What is to be restored, by the view's name."""


def read_grants(connection: Connection, names: list[str]) -> Grants:
    """Read what is granted on the views."""
    if dialect(connection).views_by_name:
        return {}
    return {name: _rights(connection, name) for name in names}


def restore(connection: Connection, name: str, grants: Grants) -> None:
    """Give the new view its predecessor's owner, options and grants, and no others."""
    if name not in grants:
        return
    old = grants[name]
    if old.owner != _rights(connection, name).owner:
        _run(connection, f"ALTER VIEW {name} OWNER TO {old.owner}")
    if old.options:
        _run(connection, f"ALTER VIEW {name} SET ({old.options})")
    # Default privileges may have given what was taken from the old view.
    for grantee in {grant.grantee for grant in _rights(connection, name).grants}:
        _run(connection, f"REVOKE ALL ON {name} FROM {grantee}")
    columns = {None, *connection.execute(_COLUMNS, {"name": name}).scalars()}
    for grant in old.grants:
        # A column that the new text no longer has takes its grants with it.
        if grant.column in columns:
            what = f"{grant.privilege} ({grant.column})" if grant.column else grant.privilege
            option = " WITH GRANT OPTION" if grant.grantable else ""
            _run(connection, f"GRANT {what} ON {name} TO {grant.grantee}{option}")


def _run(connection: Connection, statement: str) -> None:
    # A role's name may hold a colon.
    connection.execute(text(statement.replace(":", r"\:")))


def _rights(connection: Connection, name: str) -> Rights:
    owner, options = connection.execute(_OWNER, {"name": name}).one()
    rows = connection.execute(_GRANTS, {"name": name})
    return Rights(owner, options, [Grant(*row) for row in rows])
