"""Report how complete the data is: not final, not priced, still waiting, lost."""

# ruff: noqa: S608 - the SQL is put together from this package's own text; values are bound

from typing import Final

from etl.reports.model import Column, ColumnKind, Report
from etl.rollups.facts import FRESHNESS_FACTS
from etl.rollups.read import read, whole
from etl.sql.scope import Scope, Statement

# name -> (meaning, condition on the facts)
_ATTEMPTS: Final = {
    "attempts": ("Attempts in the database", "attempts > 0"),
    "final": ("Neither price nor conversion can change", "final = 1"),
    "not_final": ("Price or conversion can still change", "final = 0"),
    "unpriced": ("No price known", "priced = 0"),
    "unpriced_final": ("No price known, and none will come", "final = 1 AND priced = 0"),
    "no_date": ("The creation time is not known", "first_at IS NULL"),
    "no_verification": ("The verification is not known", "verified = 0"),
}
QUEUE: Final = {
    "waiting": ("Queued, to be fetched", "q.state IN ('pending', 'leased')"),
    "to_retry": ("Failed, to be fetched again", "q.state = 'retry'"),
    "to_refresh": ("Fetched, to be looked at again", "q.state = 'refresh'"),
    "last_known": (
        "Will not become final, the API forgot them",
        "q.state = 'settled' AND q.outcome = 'last_known'",
    ),
    "lost": (
        "Never seen, and the API does not know them",
        "q.state = 'dead' AND q.outcome IN ('expired', 'not_found')",
    ),
    "dead": (
        "Given up for another reason",
        "q.state = 'dead' AND (q.outcome IS NULL OR q.outcome NOT IN ('expired', 'not_found'))",
    ),
}
"""Name -> (meaning, condition on attempt_queue `q`)."""


def _totals(
    measures: dict[str, tuple[str, str]], table: str, count: str, oldest: str, newest: str
) -> str:
    """Count, and find the oldest and the newest, in one pass."""
    columns = ",\n    ".join(
        f"SUM(CASE WHEN {condition} THEN {count} ELSE 0 END) AS {name},\n"
        f"    MIN(CASE WHEN {condition} THEN {oldest} END) AS {name}_oldest,\n"
        f"    MAX(CASE WHEN {condition} THEN {newest} END) AS {name}_newest"
        for name, (_, condition) in measures.items()
    )
    return f"SELECT\n    {columns}\nFROM {table}"


def _rows(measures: dict[str, tuple[str, str]], totals: str, first: int) -> str:
    """Turn the columns of the totals into rows."""
    names = " UNION ALL ".join(
        f"SELECT {first + place} AS place, '{name}' AS measure, '{meaning}' AS meaning"
        for place, (name, (meaning, _)) in enumerate(measures.items())
    )

    def pick(ending: str) -> str:
        return " ".join(f"WHEN '{name}' THEN t.{name}{ending}" for name in measures)

    return f"""SELECT m.place, m.measure, m.meaning,
    COALESCE(CASE m.measure {pick("")} END, 0) AS number,
    CASE m.measure {pick("_oldest")} END AS oldest,
    CASE m.measure {pick("_newest")} END AS newest
FROM {totals} t
CROSS JOIN ({names}) m"""


def _freshness(scope: Scope) -> Statement:
    names = (*FRESHNESS_FACTS.rollup.keys, *FRESHNESS_FACTS.rollup.measures)
    facts = read(whole(scope), FRESHNESS_FACTS, {}, names, by_day=False)
    attempts = _totals(_ATTEMPTS, "facts", "attempts", "first_at", "last_at")
    ctes, body = (*facts, ("attempt_totals", attempts)), _rows(_ATTEMPTS, "attempt_totals", 1)
    if scope.as_of is not None:
        # The queue keeps no history.
        return Statement(ctes, body)
    queue = _totals(QUEUE, "attempt_queue q", "1", "q.enqueued_at", "q.enqueued_at")
    body += "\nUNION ALL\n" + _rows(QUEUE, "queue_totals", 1 + len(_ATTEMPTS))
    return Statement((*ctes, ("queue_totals", queue)), body)


FRESHNESS: Final = Report(
    name="freshness",
    sentence="How complete the data is: not final, not priced, still waiting, lost.",
    counts=(
        "One row for each measure. Those of attempts count rows and give the oldest and newest "
        "date_created; those of the queue count SIDs and give enqueued_at."
    ),
    columns=(
        Column("place", ColumnKind.COUNT, "The order to read them in.", spare=2),
        Column("measure", ColumnKind.TEXT, "Its name."),
        Column("meaning", ColumnKind.TEXT, "What it counts."),
        Column("number", ColumnKind.COUNT, "How many."),
        Column("oldest", ColumnKind.TIME, "The oldest of them.", spare=1),
        Column("newest", ColumnKind.TIME, "The newest of them.", spare=1),
    ),
    select=_freshness,
    filters=frozenset(),
    order=("place",),
)
