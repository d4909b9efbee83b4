"""Hold the few expressions that the databases spell differently.

Every function takes SQL and returns SQL. No text here holds a colon before a word or a percent
sign: drivers read those as parameters.
"""

# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound
# ruff: noqa: D102 - the protocol says once what each function gives

from typing import Final, Protocol

from etl.sql.spans import FIRST_YEAR_S


class Dialect(Protocol):
    """Spell what differs."""

    name: str

    def day(self, at: str, offset_s: int = 0) -> str:
        """Give the calendar day of a moment, in UTC or so many seconds east of it."""

    def readable(self, at: str) -> str:
        """Say whether a moment is one: others may have written what is none, or no year of ours."""

    def odd(self, at: str, table: str) -> str:
        """Say of an indexed column of moments which are none, NULL left out, and read few rows."""

    def seconds(self, at: str) -> str:
        """Give the whole seconds from 1970 to a moment."""

    def instant(self, epoch_s: int | str) -> str:
        """Give the moment so many seconds after 1970, to compare a stored one with."""

    def number(self, seconds: str, length_s: int) -> str:
        """Give how many whole stretches of a length fit into seconds since 1970."""

    def start(self, seconds: str, length_s: int) -> str:
        """Round seconds since 1970 down to the beginning of a stretch of so many."""

    def bound(self, moment: str) -> str:
        """Make of a moment that is written or bound what a stored one is compared with quickly."""

    def nested(self, table: str, alias: str, condition: str) -> str:
        """Join a table by an index, row by row of what stands before, and in no other way."""

    def nested_left(self, table: str, alias: str, condition: str) -> str:
        """Do the same, keeping rows that find nothing; what is found is one row at most."""

    def hour(self, hour_no: str) -> str:
        """Give the beginning of an hour, UTC, from the hours since 1970."""

    def moment(self, epoch_ms: str) -> str:
        """Give the moment so many milliseconds after 1970."""

    def millionths(self, amount: str) -> str:
        """Give an amount as an integer of millionths."""

    def money(self, millionths: str) -> str:
        """Give the amount back, exact to six decimals."""

    def money_ratio(self, millionths: str, count: str) -> str:
        """Divide an amount, rounded half away from zero to six decimals; NULL without a count."""

    def ratio(self, part: str, whole: str) -> str:
        """Divide two counts, rounded half up to six decimals; NULL when the whole is zero."""

    def exact(self, column: str) -> str:
        """Compare and sort a text by its code points, whatever the database's language."""

    def channels(self, attempts: str) -> str:
        """List the channels of a verification `f` in order, from its attempts `a`."""


def _start(seconds: str, length_s: int, divide: str) -> str:
    # Before 1970 a division would round up.
    return f"(({seconds} + {FIRST_YEAR_S}) {divide} {length_s} * {length_s} - {FIRST_YEAR_S})"


class _Decimals:
    """Divide in decimals: 12 digits go into the division, so that rounding it once is exact."""

    def money(self, millionths: str) -> str:
        return f"{millionths} * 0.000001"

    def money_ratio(self, millionths: str, count: str) -> str:
        return f"ROUND(CAST({millionths} AS DECIMAL(38, 12)) / NULLIF({count}, 0)) * 0.000001"

    def ratio(self, part: str, whole: str) -> str:
        return f"ROUND(CAST({part} AS DECIMAL(38, 12)) / NULLIF({whole}, 0), 6)"


class Postgresql(_Decimals):
    """Spell it for PostgreSQL; the session's time zone and the database's language do not count."""

    name = "postgresql"

    def day(self, at: str, offset_s: int = 0) -> str:
        shift = f" + INTERVAL '{offset_s} seconds'" if offset_s else ""
        return f"CAST({at} AT TIME ZONE 'UTC'{shift} AS DATE)"

    def readable(self, at: str) -> str:
        return f"{at} BETWEEN '0001-01-02' AND '9999-12-30'"

    def odd(self, at: str, table: str) -> str:
        del table
        return f"({at} < '0001-01-02' OR {at} > '9999-12-30')"

    def seconds(self, at: str) -> str:
        return f"CAST(FLOOR(EXTRACT(EPOCH FROM {at})) AS BIGINT)"

    def instant(self, epoch_s: int | str) -> str:
        return f"to_timestamp({epoch_s})"

    def number(self, seconds: str, length_s: int) -> str:
        return f"{seconds} / {length_s}"

    def start(self, seconds: str, length_s: int) -> str:
        return _start(seconds, length_s, "/")

    def bound(self, moment: str) -> str:
        return moment

    def nested(self, table: str, alias: str, condition: str) -> str:
        # OFFSET 0 is the fence: without it, guesses about ranges lead to a scan of the whole table.
        inner = f"SELECT * FROM {table} {alias} WHERE {condition} OFFSET 0"
        return f"CROSS JOIN LATERAL ({inner}) {alias}"

    def nested_left(self, table: str, alias: str, condition: str) -> str:
        inner = f"SELECT * FROM {table} {alias} WHERE {condition} OFFSET 0"
        return f"LEFT JOIN LATERAL ({inner}) {alias} ON TRUE"

    def hour(self, hour_no: str) -> str:
        return f"TIMESTAMP '1970-01-01' + {hour_no} * INTERVAL '1 hour'"

    def moment(self, epoch_ms: str) -> str:
        # Not to_timestamp: a double loses microseconds.
        return (
            f"(TIMESTAMP '1970-01-01' + {epoch_ms} * INTERVAL '1 millisecond') AT TIME ZONE 'UTC'"
        )

    def millionths(self, amount: str) -> str:
        return f"CAST({amount} * 1000000 AS BIGINT)"

    def exact(self, column: str) -> str:
        return f'{column} COLLATE "C"'

    def channels(self, attempts: str) -> str:
        del attempts
        return (
            "string_agg(COALESCE(a.channel, '?'), ',' ORDER BY a.date_created NULLS LAST, "
            f"{self.exact('a.sid')})"
        )


class Mysql(_Decimals):
    """Spell it for MariaDB and MySQL; no function here reads the session's time zone."""

    name = "mysql"

    def day(self, at: str, offset_s: int = 0) -> str:
        shift = f" + INTERVAL {offset_s} SECOND" if offset_s else ""
        return f"CAST({at}{shift} AS DATE)"

    def readable(self, at: str) -> str:
        return f"({self.seconds(at)} IS NOT NULL AND {at} >= '0001-01-01')"

    def odd(self, at: str, table: str) -> str:
        del table
        return f"{at} < '1000-01-01' AND ({self.seconds(at)} IS NULL OR {at} < '0001-01-01')"

    def seconds(self, at: str) -> str:
        return f"TIMESTAMPDIFF(SECOND, '1970-01-01', {at})"

    def instant(self, epoch_s: int | str) -> str:
        return f"TIMESTAMPADD(SECOND, {epoch_s}, '1970-01-01')"

    def number(self, seconds: str, length_s: int) -> str:
        return f"{seconds} DIV {length_s}"

    def start(self, seconds: str, length_s: int) -> str:
        return _start(seconds, length_s, "DIV")

    def bound(self, moment: str) -> str:
        return f"CAST({moment} AS DATETIME(6))"

    def nested(self, table: str, alias: str, condition: str) -> str:
        return f"STRAIGHT_JOIN {table} {alias} ON {condition}"

    def nested_left(self, table: str, alias: str, condition: str) -> str:
        return f"LEFT JOIN {table} {alias} ON {condition}"

    def hour(self, hour_no: str) -> str:
        return f"CAST(TIMESTAMPADD(HOUR, {hour_no}, '1970-01-01') AS DATETIME)"

    def moment(self, epoch_ms: str) -> str:
        return f"CAST(TIMESTAMPADD(MICROSECOND, {epoch_ms} * 1000, '1970-01-01') AS DATETIME(3))"

    def millionths(self, amount: str) -> str:
        return f"CAST({amount} * 1000000 AS SIGNED)"

    def exact(self, column: str) -> str:
        # The tables' own collation is exact.
        return column

    def channels(self, attempts: str) -> str:
        del attempts
        return (
            "GROUP_CONCAT(COALESCE(a.channel, '?') "
            "ORDER BY a.date_created IS NULL, a.date_created, a.sid SEPARATOR ',')"
        )


class Sqlite:
    """Spell it for SQLite: moments are text, amounts are REAL, so all sums are of integers."""

    name = "sqlite"

    def day(self, at: str, offset_s: int = 0) -> str:
        if offset_s:
            # Without the fraction: SQLite would round 23 h 59 min 59.9996 s into the next day.
            return f"date(substr({at}, 1, 19), '{offset_s} seconds')"
        return f"substr({at}, 1, 10)"

    def readable(self, at: str) -> str:
        # date() reads much as a date, and mends 31 February: only a date remains as it was.
        known = f"date(substr({at}, 1, 19), '+0 days')"
        return f"({known} = substr({at}, 1, 10) AND substr({at}, 1, 4) > '0000')"

    def odd(self, at: str, table: str) -> str:
        # From day to day by the index: of what is between the hours of a day, the first is looked at.
        day, next_ = "substr(w.at, 1, 10)", f"SELECT MIN({at}) FROM {table} WHERE {at} >"
        passed = (
            f"CASE WHEN NOT {self.readable('w.at')} IS TRUE THEN w.at WHEN w.at < {day} || ' 24' "
            f"THEN {day} || ' 24' WHEN w.at < {day} || 'T24' THEN {day} || 'T24' ELSE w.at END"
        )
        return (
            f"{at} IN (WITH RECURSIVE w(at) AS (SELECT MIN({at}) FROM {table} UNION ALL "
            f"SELECT ({next_} {passed}) FROM w WHERE w.at IS NOT NULL) "
            f"SELECT w.at FROM w WHERE w.at IS NOT NULL AND NOT {self.readable('w.at')} IS TRUE)"
        )

    def seconds(self, at: str) -> str:
        return f"CAST(strftime('%s', substr({at}, 1, 19)) AS INTEGER)"

    def instant(self, epoch_s: int | str) -> str:
        return f"datetime({epoch_s}, 'unixepoch')"

    def number(self, seconds: str, length_s: int) -> str:
        return f"{seconds} / {length_s}"

    def start(self, seconds: str, length_s: int) -> str:
        return _start(seconds, length_s, "/")

    def bound(self, moment: str) -> str:
        return moment

    def nested(self, table: str, alias: str, condition: str) -> str:
        # Its CROSS JOIN keeps the order.
        return f"CROSS JOIN {table} {alias} ON {condition}"

    def nested_left(self, table: str, alias: str, condition: str) -> str:
        return f"LEFT JOIN {table} {alias} ON {condition}"

    def hour(self, hour_no: str) -> str:
        return f"datetime({hour_no} * 3600, 'unixepoch')"

    def moment(self, epoch_ms: str) -> str:
        return f"datetime({epoch_ms} / 1000, 'unixepoch') || printf('.%03d000', {epoch_ms} % 1000)"

    def millionths(self, amount: str) -> str:
        # Others may write text, which compares as more than any number, or infinity.
        return (
            f"CASE WHEN {amount} BETWEEN -1e9 AND 1e9 "
            f"THEN CAST(ROUND({amount} * 1000000) AS INTEGER) END"
        )

    def money(self, millionths: str) -> str:
        return f"{millionths} / 1000000.0"

    def money_ratio(self, millionths: str, count: str) -> str:
        half = f"CASE WHEN {millionths} < 0 THEN -{count} ELSE {count} END"
        return f"((2 * {millionths} + {half}) / (2 * NULLIF({count}, 0))) / 1000000.0"

    def ratio(self, part: str, whole: str) -> str:
        return f"((2000000 * {part} + {whole}) / (2 * NULLIF({whole}, 0))) / 1000000.0"

    def exact(self, column: str) -> str:
        return column

    def channels(self, attempts: str) -> str:
        # Before 3.44 only the order of a subquery orders group_concat.
        return (
            "(SELECT group_concat(c.channel, ',') FROM (SELECT COALESCE(s.channel, '?') AS channel "
            f"FROM {attempts} s WHERE s.verification_sid = f.verification_sid "
            "ORDER BY s.date_created IS NULL, s.date_created, s.sid) c)"
        )


_DIALECTS: Final[dict[str, Dialect]] = {
    "sqlite": Sqlite(),
    "postgresql": Postgresql(),
    "mysql": Mysql(),
    "mariadb": Mysql(),
}


def dialect(name: str) -> Dialect:
    """Give the spelling for a database by SQLAlchemy's name of it."""
    return _DIALECTS[name]
