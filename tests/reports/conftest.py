"""Give the reports' tests a database with every table and view that they read."""

import pytest
from sqlalchemy import Engine


@pytest.fixture
def reports(engine: Engine) -> Engine:
    """Open a migrated database, which has the views."""
    return engine
