"""Carry what was granted on a view over to its successor, on PostgreSQL.

Other databases need none of this: SQLite grants nothing, and MariaDB and MySQL keep a grant by the
view's name.
"""

from typing import Final

from sqlalchemy import Connection, inspect, text

_GRANTEE: Final = (
    "CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE CAST(CAST(a.grantee AS regrole) AS text) END"
)
# The owner first: it is the one who grants. Its own privileges come with owning.
_RIGHTS: Final = text(f"""
SELECT NULL, 'ALTER VIEW ' || :name || ' OWNER TO ' || CAST(relowner AS regrole)
FROM pg_class WHERE oid = to_regclass(:name)
UNION ALL
SELECT NULL, 'ALTER VIEW ' || :name || ' SET (' || array_to_string(reloptions, ', ') || ')'
FROM pg_class WHERE oid = to_regclass(:name) AND reloptions IS NOT NULL
UNION ALL
SELECT t.attname, 'GRANT ' || a.privilege_type || COALESCE(' (' || quote_ident(t.attname) || ')', '')
    || ' ON ' || :name || ' TO ' || {_GRANTEE}
    || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
FROM pg_class c
JOIN (SELECT oid AS id, NULL AS attname, relacl AS acl FROM pg_class
      UNION ALL
      SELECT attrelid, attname, attacl FROM pg_attribute WHERE NOT attisdropped) t ON t.id = c.oid
CROSS JOIN LATERAL aclexplode(t.acl) a
WHERE c.oid = to_regclass(:name) AND a.grantee <> c.relowner
""")  # noqa: S608 - our own text
_GIVEN: Final = text(f"""
SELECT DISTINCT 'REVOKE ALL ON ' || :name || ' FROM ' || {_GRANTEE}
FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
WHERE c.oid = to_regclass(:name) AND a.grantee <> c.relowner
""")  # noqa: S608 - our own text


def read_rights(connection: Connection, name: str) -> list[tuple[str | None, str]]:
    """Return the statements that give a view's owner, options and grants to the next one.

    Each stands beside the column that it is about, if it is about one.
    """
    return [(row[0], row[1]) for row in connection.execute(_RIGHTS, {"name": name})]


def restore(connection: Connection, name: str, rights: list[tuple[str | None, str]]) -> None:
    """Give the new view these rights and no others."""
    # Default privileges may have given what was taken from the old view.
    revoked = connection.execute(_GIVEN, {"name": name}).scalars().all()
    # A column that is gone takes its grants with it.
    columns = {None, *(column["name"] for column in inspect(connection).get_columns(name))}
    kept = [statement for column, statement in rights if column in columns]
    for statement in [*revoked, *kept]:
        connection.exec_driver_sql(statement)
