"""Answer questions from the rows: a registry of reports.

A report is one SELECT in one scope. Its view reads every row, in days of UTC. Its command can
narrow it to a window, a service, a channel or a country. It can also cut days in another zone.
"""

from typing import Final

from etl.reports.model import Column, ColumnKind, Filter, Report
from etl.reports.questions.changes import CHANGES, CHANGES_DAILY
from etl.reports.questions.conversion import ATTEMPTS_REPORT, CONVERSION_DAILY
from etl.reports.questions.cost import COST_DAILY, COST_PER_CONVERSION
from etl.reports.questions.delivery import CARRIER_PERFORMANCE, DELIVERY_ERRORS
from etl.reports.questions.fraud import FRAUD_PREFIX_HOURLY, NEW_COUNTRIES, REPEAT_DESTINATIONS
from etl.reports.questions.freshness import FRESHNESS
from etl.reports.questions.verification import (
    RETRY_FUNNEL,
    VERIFICATION_OUTCOME,
    VERIFICATION_SUCCESS_DAILY,
)

__all__ = ["REPORTS", "Column", "ColumnKind", "Filter", "Report", "find"]

REPORTS: Final[tuple[Report, ...]] = (
    CONVERSION_DAILY,
    VERIFICATION_SUCCESS_DAILY,
    RETRY_FUNNEL,
    COST_DAILY,
    COST_PER_CONVERSION,
    CARRIER_PERFORMANCE,
    DELIVERY_ERRORS,
    FRAUD_PREFIX_HOURLY,
    REPEAT_DESTINATIONS,
    NEW_COUNTRIES,
    FRESHNESS,
    CHANGES_DAILY,
    CHANGES,
    VERIFICATION_OUTCOME,
    ATTEMPTS_REPORT,
)
"""Every report, in the order of `verify-etl report`."""


def find(name: str) -> Report | None:
    """Find a report by its own name or its view's."""
    wanted = name.lower().removeprefix("v_").replace("_", "-")
    return next((report for report in REPORTS if report.name == wanted), None)
