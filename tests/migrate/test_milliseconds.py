"""Change the times of an older SQLite file, and nothing else of it."""

from alembic import command
from sqlalchemy import Engine

from etl.migrate import upgrade
from etl.migrate.views import detach


def test_old_times_keep_their_milliseconds(sqlite: Engine) -> None:
    """Times of six digits and of none become times of three; those of others stay as they are."""
    at, kept = "2026-03-01 10:00:00", ["2026-03-01T10:00:00.5Z", "2026-03-01", 5, None]
    config = upgrade._config()
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE seen (sid TEXT)")
        connection.exec_driver_sql(
            "CREATE TRIGGER theirs AFTER INSERT ON attempt_queue BEGIN"
            " INSERT INTO seen VALUES (new.sid); END"
        )
        detach(connection)
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
        connection.exec_driver_sql("INSERT INTO attempt_queue (sid) VALUES ('VL1')")
        written = [at, f"{at}.123000", f"{at}.123", *kept]
        for number, value in enumerate(written):
            connection.exec_driver_sql(
                "INSERT INTO attempts (sid, date_created, first_fetched_at, fetched_at, is_final)"
                " VALUES (?, ?, 1, 1, 1)",
                (str(number), value),
            )
    upgrade.upgrade(sqlite)
    with sqlite.begin() as connection:
        connection.exec_driver_sql("INSERT INTO attempt_queue (sid) VALUES ('VL2')")
        queued = connection.exec_driver_sql("SELECT enqueued_at FROM attempt_queue").scalars().all()
        assert [len(each) for each in queued] == [23, 23]
        assert connection.exec_driver_sql("SELECT sid FROM seen").scalars().all() == ["VL1", "VL2"]
        found = connection.exec_driver_sql("SELECT date_created FROM attempts ORDER BY sid")
        assert found.scalars().all() == [f"{at}.000", f"{at}.123", f"{at}.123", *kept]
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
