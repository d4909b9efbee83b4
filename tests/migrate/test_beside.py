"""Share a database with an application that has an Alembic of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text

from etl.database import schema
from etl.rollups.tables import metadata
from tests.support.harness import ROOT

DOCS = (ROOT / "docs" / "application.md").read_text(encoding="utf-8")
RECIPE = re.findall(r"(?ms)^```python\n(.*?)^```$", DOCS)[0]
ENV = """
import os
from alembic import context
from sqlalchemy import Column, Integer, MetaData, Table, create_engine

target_metadata = MetaData()
Table("users", target_metadata, Column("id", Integer, primary_key=True))
Table("orders", target_metadata, Column("id", Integer, primary_key=True))
with create_engine(os.environ["THEIRS"]).connect() as connection:
{recipe}
    with context.begin_transaction():
        context.run_migrations()
"""
PLAIN = "context.configure(connection=connection, target_metadata=target_metadata)"
MAKO = """revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
def upgrade():
    ${upgrades if upgrades else "pass"}
def downgrade():
    ${downgrades if downgrades else "pass"}
"""


def _autogenerate(folder: Path, engine: Engine, recipe: str) -> str:
    """Let an application's Alembic propose a revision, and return its upgrade."""
    scripts = folder / "theirs"
    (scripts / "versions").mkdir(parents=True)
    (scripts / "env.py").write_text(ENV.format(recipe=re.sub("(?m)^", "    ", recipe)))
    (scripts / "script.py.mako").write_text(MAKO)
    (folder / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/theirs\n")
    _alembic("-c", str(folder / "alembic.ini"), "revision", "--autogenerate", engine=engine)
    (made,) = (scripts / "versions").glob("*.py")
    return made.read_text().partition("def upgrade")[2].partition("def downgrade")[0]


def _alembic(*words: str, engine: Engine) -> None:
    url = engine.url.render_as_string(hide_password=False)
    ran = subprocess.run(
        [sys.executable, "-m", "alembic", *words],
        env={**os.environ, "THEIRS": url, "DATABASE_URL": url},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


def test_their_alembic_leaves_our_tables_alone(engine: Engine, tmp_path: Path) -> None:
    """With the documented recipe it proposes their new table and nothing else."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY)"))
    plain = _autogenerate(tmp_path / "plain", engine, PLAIN)
    assert len(re.findall(r"op\.drop_table", plain)) >= len(metadata.tables)
    proposed = _autogenerate(tmp_path / "recipe", engine, RECIPE)
    assert re.findall(r"op\.(\w+)\('(\w+)'", proposed) == [("create_table", "orders")]


def test_the_recipe_names_all_our_tables() -> None:
    """A table that is added must be added to the recipe."""
    named = set(re.findall(r'"(\w+)"', RECIPE.partition("}")[0]))
    assert named == {*metadata.tables, schema.VERSION_TABLE}


@pytest.mark.kinds("postgresql", "second-postgresql", "mariadb")
def test_our_tables_say_whose_they_are(engine: Engine) -> None:
    """Each table has a comment that names this program, Alembic's own one too."""
    found = {
        name: inspect(engine).get_table_comment(name)["text"]
        for name in [*metadata.tables, schema.VERSION_TABLE]
    }
    assert found == dict.fromkeys(found, schema.COMMENT)
    assert schema.COMMENT.startswith("verify-attempts-etl")


def test_our_downgrade_takes_our_views_along(engine: Engine) -> None:
    """After `alembic downgrade base` only the application's tables are left, and the history's."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE users (id INTEGER PRIMARY KEY)"))
        connection.execute(text("CREATE VIEW v_theirs AS SELECT id FROM users"))
    _alembic("-c", str(ROOT / "pyproject.toml"), "downgrade", "base", engine=engine)
    assert inspect(engine).get_view_names() == ["v_theirs"]
    assert set(inspect(engine).get_table_names()) == {"users", schema.VERSION_TABLE}
