"""Check what an upgrade says of tables that somebody dropped."""

import pytest
from sqlalchemy import Engine

from etl.errors import SchemaError
from etl.migrate.upgrade import upgrade
from tests.support.queue_rows import execute


def test_a_table_that_is_gone_is_named(engine: Engine) -> None:
    """`db upgrade` never says "nothing to do" where a table of the newest schema is missing."""
    assert upgrade(engine) == []
    execute(engine, "DROP TABLE sweeps")
    with pytest.raises(SchemaError, match=r"its tables are gone: sweeps\. Restore them"):
        upgrade(engine)
