"""Sum all roll-ups anew.

What counts as delivered, and which attempt a conversion stands with, has changed. Reports read the
marked quarters raw until they are summed. Import nothing of `etl` here.
"""

from typing import Final

from alembic import op

revision: Final = "0006"
down_revision: Final = "0005"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    """Mark every quarter that has been summed; more marks than needed do no harm."""
    op.execute(
        "INSERT INTO rollup_marks (start)"
        " SELECT DISTINCT start FROM rollup_attempts WHERE length_s = 900"
    )


def downgrade() -> None:
    """Mark them again: the older program counts as it did."""
    upgrade()
