"""Say what one raw row adds to each roll-up. Only here do reports count.

A roll-up is the sum of these rows. A report reads either.
"""

# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound

from collections.abc import Mapping, Sequence
from typing import Final

from etl.database.schema import IX_CREATED, IX_VERIFICATION
from etl.rollups import cubes
from etl.rollups.read import IS_UNKNOWN_MARKED, Facts, Over, Times, Which, attempts, hidden, timed
from etl.sql.expressions import (
    IS_CONVERTED,
    IS_DELIVERED,
    IS_NOT_FINAL,
    IS_PRICED,
    IS_UNDELIVERED,
    earlier,
)
from etl.sql.scope import Scope

_KEYS: Final = {
    "service_sid": "a.service_sid",
    "channel": "a.channel",
    "country": "d.country",
    "currency": "a.price_currency",
    "mcc": "d.mcc",
    "mnc": "d.mnc",
    "carrier": "d.carrier",
    "error_code": "d.error_code",
    "destination_prefix": "d.destination_prefix",
}
_COUNTS: Final = {
    "attempts": "1",
    "converted": IS_CONVERTED,
    "not_final": IS_NOT_FINAL,
    "delivered": IS_DELIVERED,
    "undelivered": IS_UNDELIVERED,
    "priced": f"CASE WHEN {IS_PRICED} THEN 1 ELSE 0 END",
    "first_at": "a.date_created",
    "last_at": "a.date_created",
}


def _counted(scope: Scope) -> Mapping[str, str]:
    del scope
    return _KEYS | _COUNTS


def _costs(scope: Scope) -> Mapping[str, str]:
    # A verification is paid for once: its first converted attempt counts.
    other = (
        f"SELECT 1 FROM {scope.attempts} b WHERE b.verification_sid = a.verification_sid "
        f"AND b.conversion_status = 'converted' AND {earlier(scope.dialect, 'b', 'a')}"
    )
    once = f"a.conversion_status = 'converted' AND NOT EXISTS ({other})"
    millionths = scope.dialect.millionths("a.price_amount")
    spent = f"CASE WHEN {IS_CONVERTED} = 0 THEN {millionths} ELSE 0 END"
    return {
        **_KEYS,
        **_COUNTS,
        "millionths": f"CASE WHEN {IS_PRICED} THEN {millionths} END",
        "unconverted_millionths": f"CASE WHEN {IS_PRICED} THEN {spent} END",
        "conversions": f"CASE WHEN {once} THEN 1 ELSE 0 END",
    }


def _fresh(scope: Scope) -> Mapping[str, str]:
    del scope
    return {
        **_COUNTS,
        "final": "CASE WHEN a.is_final THEN 1 ELSE 0 END",
        "verified": "CASE WHEN a.verification_sid IS NULL THEN 0 ELSE 1 END",
    }


def _steps(scope: Scope, over: Over, times: Times, names: Sequence[str]) -> str:
    """Give each attempt its number and the outcome of its verification."""
    went_on = "converted = 0 AND attempt_no < tries"
    gave_up = "converted = 0 AND attempt_no = tries"
    first = "WHEN attempt_no = 1"
    known = {
        "attempts": "1",
        "went_on": f"CASE WHEN {went_on} THEN 1 ELSE 0 END",
        "gave_up": f"CASE WHEN {gave_up} THEN 1 ELSE 0 END",
        "succeeded": f"CASE {first} THEN success ELSE 0 END",
        "tries": f"CASE {first} THEN tries ELSE 0 END",
        "retried": f"CASE {first} AND tries > 1 THEN 1 ELSE 0 END",
        "unsettled": f"CASE {first} THEN open ELSE 0 END",
    }
    columns = timed(scope, times, "first_at")
    columns += [f"{known.get(name, name)} AS {name}" for name in names]
    # A verification may begin in the window and go on after it. It was fetched whole; filter now.
    where = [*scope.window("first_at"), *scope.only("service_sid", "channel", "country")]
    if over.which is Which.SPANS:
        dialect = scope.dialect
        start = dialect.start(dialect.seconds("first_at"), over.length)
        where.append(f"{start} IN (SELECT s.start FROM spans s)")
    elif over.which is Which.UNKNOWN:
        where.append("first_at IS NULL")
    listed = ",\n    ".join(columns)
    return f"SELECT\n    {listed}\nFROM (\n{_numbered(scope, over)}\n) steps\n{scope.where(where)}"


def _numbered(scope: Scope, over: Over) -> str:
    whole = "OVER (PARTITION BY a.verification_sid)"
    order = (
        "CASE WHEN a.date_created IS NULL THEN 1 ELSE 0 END, a.date_created, "
        f"{scope.dialect.exact('a.sid')}"
    )
    columns = [
        "a.service_sid",
        "a.channel",
        "d.country",
        f"{IS_CONVERTED} AS converted",
        f"{IS_NOT_FINAL} AS not_final",
        f"MIN(a.date_created) {whole} AS first_at",
        f"COUNT(*) {whole} AS tries",
        f"MAX({IS_CONVERTED}) {whole} AS success",
        f"MAX({IS_NOT_FINAL}) {whole} AS open",
        f"ROW_NUMBER() OVER (PARTITION BY a.verification_sid ORDER BY {order}) AS attempt_no",
    ]
    return f"SELECT\n    {', '.join(columns)}\n{_of_verifications(scope, over)}"


def _of_verifications(scope: Scope, over: Over) -> str:
    """Write FROM and WHERE for all attempts of verifications that may begin in the window."""
    dialect, table, data = scope.dialect, scope.attempts, scope.channel_data
    if over.which is Which.WINDOW:
        where = ["a.verification_sid IS NOT NULL"]
        if window := scope.window("w.date_created"):
            inside = f"SELECT w.verification_sid FROM {table} w WHERE {' AND '.join(window)}"
            where.append(f"a.verification_sid IN ({inside})")
        joined = f"FROM {table} a LEFT JOIN {data} d ON d.attempt_sid = a.sid"
        return f"{joined}\n{scope.where(where)}"
    where = ["w.verification_sid IS NOT NULL"]
    if over.which is Which.SPANS:
        inside = "w.date_created >= s.lo AND w.date_created < s.hi"
        found = f"FROM spans s {dialect.nested(table, 'w', IX_CREATED, inside)}"
    else:
        where += ["w.date_created IS NULL", IS_UNKNOWN_MARKED]
        found = f"FROM {table} w"
    sids = f"SELECT DISTINCT w.verification_sid {found} {scope.where(where)}"
    same = "a.verification_sid = v.verification_sid"
    return (
        f"FROM ({sids}) v\n"
        f"{dialect.nested(table, 'a', IX_VERIFICATION, same)}\n"
        f"{dialect.nested_left(data, 'd', 'd.attempt_sid = a.sid')}"
    )


ATTEMPTS_FACTS: Final = Facts(cubes.ATTEMPTS, attempts(_costs))
CARRIERS: Final = Facts(cubes.CARRIERS, attempts(_counted))
ERRORS: Final = Facts(
    cubes.ERRORS,
    attempts(_counted, [f"(d.error_code IS NOT NULL OR {IS_UNDELIVERED} = 1)"]),
)
PREFIXES: Final = Facts(
    cubes.PREFIXES, attempts(_counted, [f"{hidden('d.destination_prefix')} IS NOT NULL"])
)
STEPS: Final = Facts(cubes.VERIFICATIONS, _steps)
FRESHNESS_FACTS: Final = Facts(cubes.FRESHNESS, attempts(_fresh, channel_data=False))

FACTS: Final = (ATTEMPTS_FACTS, CARRIERS, ERRORS, PREFIXES, STEPS, FRESHNESS_FACTS)
"""All of them."""
