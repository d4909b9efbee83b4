"""Write the SQL that makes a year of attempts, the same on every kind of database."""

import re
import sys
from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, text

YEAR_S: Final = 365 * 86_400

# Whole numbers only, so that all databases make the same rows; `i` counts from 1. What belongs to
# a verification (service, country, prefix, carrier, destination) comes from its number `v`. Few
# countries, prefixes and carriers have most of the traffic, and each has a long tail.
_HASHES: Final = """
    i, v, (i * 2654435761) % 4294967296 AS h, (v * 2246822519) % 4294967296 AS g
"""
_COLUMNS: Final = """
    i, v, g, (h / 97) % 100 AS c, (h / 7919) % 1000 AS r, (g / 11) % 10 AS s,
    ((g / 65537) % 1000) * ((g / 65537) % 1000) * ((g / 65537) % 1000) / 20000000 AS n,
    ((g / 257) % 1000) * ((g / 257) % 1000) * ((g / 257) % 1000) / 10000000 AS p
"""
_CHANNEL: Final = (
    "CASE WHEN c < 80 THEN 'sms' WHEN c < 88 THEN 'whatsapp' WHEN c < 95 THEN 'call' "
    "ELSE 'email' END"
)
_CARRIER: Final = "CASE WHEN p < 3 THEN 0 WHEN p < 20 THEN 1 WHEN p < 60 THEN 2 ELSE 3 END"


def fill(connection: Connection, rows: int) -> None:
    """Fill the tables; an SQLite connection must have begun no transaction."""
    kind = connection.dialect.name
    if kind == "mariadb":
        connection.exec_driver_sql("SET sql_mode = CONCAT(@@sql_mode, ',PIPES_AS_CONCAT')")
    for statement in _statements(kind, rows):
        # MariaDB's / divides whole numbers to a fraction.
        whole = _WHOLE.sub(" DIV ", statement) if kind == "mariadb" else statement
        connection.execute(text(whole))


_WHOLE: Final = re.compile(r" / (?!1000000\.0)")


def _statements(dialect: str, rows: int) -> Iterator[str]:
    step = f"(i * {YEAR_S} / {rows})"
    if dialect == "postgresql":
        series = f"SELECT i::bigint AS i FROM generate_series(1, {rows}) i"
        sid = "lpad(to_hex((i * 2654435761) % 4294967296), 8, '0') || lpad(to_hex(i), 24, '0')"
        other = "lpad(to_hex(v), 32, '0')"
        at = f"TIMESTAMPTZ '2025-01-01 00\\:00\\:00+00' + {step} * INTERVAL '1 second'"
        country = "chr((65 + n / 5)::int) || chr((65 + n % 5)::int)"
    elif dialect == "sqlite":
        series = (
            f"SELECT * FROM (WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s "
            f"WHERE i < {rows}) SELECT i FROM s)"
        )
        sid = "printf('%08x%024x', (i * 2654435761) % 4294967296, i)"
        other = "printf('%032x', v)"
        at = f"datetime(1735689600 + {step}, 'unixepoch') || '.000'"
        country = "char(65 + n / 5) || char(65 + n % 5)"
    else:
        series = f"SELECT CAST(seq AS SIGNED) AS i FROM seq_1_to_{rows}"
        sid = "LPAD(LOWER(HEX((i * 2654435761) % 4294967296)), 8, '0') || LPAD(LOWER(HEX(i)), 24, '0')"
        other = "LPAD(LOWER(HEX(v)), 32, '0')"
        at = f"TIMESTAMPADD(SECOND, {step}, '2025-01-01')"
        country = "CHAR(65 + n / 5 USING utf8mb4) || CHAR(65 + n % 5 USING utf8mb4)"
    numbered = f"SELECT i, (i * 2) / 3 AS v FROM ({series}) x"
    source = f"FROM (SELECT {_COLUMNS} FROM (SELECT {_HASHES} FROM ({numbered}) w) y) z"
    final = f"i < {rows} * 98 / 100"
    yield f"""INSERT INTO attempts (sid, account_sid, service_sid, verification_sid, channel,
        conversion_status, price_amount, price_currency, date_created, date_updated,
        first_fetched_at, fetched_at, is_final)
    SELECT 'VL' || {sid}, 'AC00000000000000000000000000000000',
        'VA0000000000000000000000000000000' || CASE WHEN s < 6 THEN 0 WHEN s < 8 THEN 1 ELSE s END,
        'VE' || {other}, {_CHANNEL},
        CASE WHEN r < 620 THEN 'converted' ELSE 'unconverted' END,
        CASE WHEN r % 50 > 0 THEN (5000 + n * 1500) / 1000000.0 END,
        CASE WHEN r % 50 > 0 THEN 'USD' END, {at}, {at}, 0, 1, {final} {source}"""
    yield f"""INSERT INTO attempt_channel_data (attempt_sid, destination, destination_prefix,
        country, mcc, mnc, carrier, status, message_status, error_code, code_length)
    SELECT 'VL' || {sid}, CASE WHEN c < 95 THEN '+' || (10000 + n * 100 + p) || (100000 + g % 90000)
            ELSE 'u' || (g % 9000000) || '@example.com' END,
        CASE WHEN c < 95 THEN '+' || (10000 + n * 100 + p) || '1' END,
        CASE WHEN c < 95 THEN {country} END, CASE WHEN c < 95 THEN '' || (200 + n) END,
        CASE WHEN c < 95 THEN '0' || {_CARRIER} END,
        CASE WHEN c < 95 THEN 'Carrier ' || n || '-' || {_CARRIER} END, 'confirmed',
        CASE WHEN r % 20 = 0 THEN 'undelivered' ELSE 'delivered' END,
        CASE WHEN r % 20 = 0 THEN '3000' || (3 + (r / 20) % 6) END, 6 {source}"""


if __name__ == "__main__":
    sys.exit("This is a part of the other scripts.")
