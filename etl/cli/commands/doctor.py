"""``verify-etl doctor``: say what is wrong, and how to mend it."""

import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import click
from sqlalchemy import Engine

from etl.allowance import slots
from etl.allowance.permits import Permits
from etl.allowance.slots import Allowance
from etl.cli import messages, table
from etl.cli.context import Context
from etl.database.dialects import dialect
from etl.database.engine import READ_ONLY
from etl.database.fitness import check_encoding
from etl.database.times import clock
from etl.database.transact import check_revision, transact
from etl.errors import (
    ApiContractBroken,
    BadBody,
    ConfigError,
    EtlError,
    Exit,
    NotFound,
    SchemaError,
    StorageError,
    Throttled,
    TransientFailure,
)
from etl.run.checks import CHECKS
from etl.run.opening import open_api

if TYPE_CHECKING:
    from etl.settings import Settings

CLOCKS_APART_MS = 10_000
"""Clocks further apart than this make tables and logs hard to compare."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Say how one thing stands; ``mend`` is what to do about a problem."""

    check: str
    ok: bool
    message: str
    mend: str = ""
    exit_code: int = 0


@click.command()
@click.option("--offline", is_flag=True, help="Send no request to the API.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array (help cli).")
@click.pass_obj
def doctor(context: Context, *, offline: bool, as_json: bool) -> None:
    """Check configuration, credentials, database, schema and clocks; say what mends each problem.

    What a run does is tried and taken back. One real request goes to the API, out of the allowance. Exits with the code that `run` would
    end with.

    \b
    Example:
      verify-etl doctor
      verify-etl doctor --offline --json
    """
    found = []
    for finding in findings(context, offline=offline):
        found.append(finding)
        if not as_json:
            mark = "ok       " if finding.ok else "PROBLEM  "
            words = f"{finding.check}: {finding.message} {finding.mend}".rstrip()
            click.echo(table.wrapped(mark, words, indent=len(mark)))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found]))
    codes = {finding.exit_code for finding in found if not finding.ok}
    # The enum stands in the order in which codes win.
    raise click.exceptions.Exit(next((code for code in Exit if code in codes), Exit.OK))


def findings(context: Context, *, offline: bool) -> Iterator[Finding]:
    """Check one thing after another. Leave out what an earlier problem hides."""
    settings: list[Settings] = []
    yield _check("configuration", lambda: settings.append(context.settings()), "it is usable.")
    if not settings:
        return
    resolved = settings[0]
    credentials = _check("credentials", resolved.credentials, "")
    if credentials.ok:
        message = f"{resolved.credentials()[2]} is set for {resolved.account_sid}."
        credentials = Finding("credentials", ok=True, message=message)
    yield credentials
    engines: list[Engine] = []
    with ExitStack() as stack:
        database = context.database(resolved)
        opened = _check("database", lambda: engines.append(stack.enter_context(database)), "")
        if not engines:
            yield opened
        for engine in engines:
            reached = yield from _database(engine)
            if not reached:
                # It was said; the request to the API goes uncounted.
                engines = []
        if not offline and credentials.ok:
            yield _api(resolved, engines)


def _database(engine: Engine) -> Generator[Finding, None, bool]:
    """Check the database; return whether it answers."""
    reading = engine.execution_options(**READ_ONLY)
    address = messages.without_secrets(engine.url.render_as_string(hide_password=True))
    clocks: list[int] = []

    def look() -> None:
        started = time.time()
        there = transact(reading, clock, doing="connecting", patience_s=0)
        clocks.append(there - int((started + time.time()) / 2 * 1000))

    reached = _check("database", look, f"{address} answers.")
    yield reached
    if not reached.ok:
        return False
    yield _check(
        "encoding",
        lambda: transact(reading, check_encoding, doing="reading the database's encoding"),
        "every text can be kept.",
    )
    schema = _check(
        "schema",
        lambda: transact(reading, check_revision, doing="reading the schema's revision"),
        "the tables are those of this version.",
    )
    yield schema
    if schema.ok:
        failed = set()
        for check in CHECKS:
            if check.needs in failed:
                continue
            tried = _check(check.name, partial(check.act, engine), check.good)
            failed |= set() if tried.ok else {check.name}
            yield tried
    yield _clock(engine, clocks[0])
    return True


def _clock(engine: Engine, ahead_ms: int) -> Finding:
    if dialect(engine).clock is None:
        return Finding("clock", ok=True, message="the database's clock is this machine's.")
    apart = f"the database's clock is {abs(ahead_ms) / 1000:.1f} s"
    apart += " ahead of this machine's." if ahead_ms > 0 else " behind this machine's."
    if abs(ahead_ms) < CLOCKS_APART_MS:
        return Finding("clock", ok=True, message=apart)
    mend = "On both machines, run: timedatectl set-ntp true"
    return Finding("clock", ok=False, message=apart, mend=mend, exit_code=Exit.CONFIG)


def _api(settings: "Settings", engines: list[Engine]) -> Finding:
    """Send the smallest request there is: a page of one attempt."""

    def ask() -> None:
        for engine in engines:
            _take_slot(engine, settings)
        now = datetime.now(UTC)
        with closing(open_api(settings)) as api:
            api.page(page_size=1, after=now - timedelta(hours=1), before=now)

    return _check("API", ask, f"{settings.api_address} accepts the credentials.")


def _take_slot(engine: Engine, settings: "Settings") -> None:
    """Count the request against the allowance, where the tables are ours."""
    allowance = Allowance.of(settings)
    try:
        transact(engine, check_revision, doing="reading the schema's revision", patience_s=0)
        if allowance.requests:
            transact(
                engine,
                lambda c: slots.open_gate(c, allowance, clock(c)),
                doing="opening the allowance",
                patience_s=0,
            )
    except (SchemaError, StorageError, ConfigError):
        return
    # Not given back: as after a crash, the slot comes free by itself.
    permits = Permits(engine, allowance, clock=clock, sleep=time.sleep)
    permits.acquire(timeout_s=5)


def _check(name: str, action: Callable[[], object], good: str) -> Finding:
    try:
        action()
    except EtlError as error:
        code = _code(error)
        message = messages.without_secrets(error.message)
        mend = error.hint or _MEND.get(code, "")
        return Finding(name, ok=False, message=message, mend=mend, exit_code=code)
    except Exception as error:  # noqa: BLE001 - a doctor reports, whatever it is
        message = messages.without_secrets(f"{type(error).__name__}: {error}")
        return Finding(name, ok=False, message=message, exit_code=Exit.BUG)
    return Finding(name, ok=True, message=good)


def _code(error: EtlError) -> Exit:
    """Return the exit code of a run that gets only such answers."""
    if isinstance(error, BadBody | ApiContractBroken):
        return Exit.PROTOCOL
    if isinstance(error, NotFound):
        # A list is never missing, its address is wrong.
        return Exit.CONFIG
    if isinstance(error, TransientFailure) and not isinstance(error, Throttled):
        return Exit.UNREACHABLE
    return error.exit_code


_MEND = {
    Exit.CONFIG: "Check VERIFY_ETL_API_URL: there is no list at this address.",
    Exit.UNREACHABLE: "Check the network, VERIFY_ETL_API_URL and VERIFY_ETL_PROXY.",
    Exit.PROTOCOL: "Check VERIFY_ETL_API_URL and VERIFY_ETL_PROXY: this is not Twilio's answer.",
    Exit.TRY_LATER: "Wait a minute, then run: verify-etl doctor",
}
