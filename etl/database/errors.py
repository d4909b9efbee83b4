"""Sort a database's errors by what to do, and say them in words.

Each driver names a lost connection, a full disk and a refused row differently, and knows which
(``etl/database/dialects``). Their words are passed on where they name servers, files, tables
and rights; where they may quote a row, names take their place (``hide_values``).
"""

import re
from pathlib import Path
from typing import Final

from sqlalchemy.exc import DBAPIError

from etl.database.dialects.driver import Driver, Fault
from etl.database.names import driver_of, names_of, replace_words
from etl.database.schema import KEYED, VERSION_TABLE
from etl.errors import ConfigError, DatabaseBusy, EtlError, SchemaError, StorageError, WriteRefused

_BUILDS: Final = re.compile(r"\s*(?:CREATE|ALTER|DROP|COMMENT|GRANT|REVOKE)\b")
GRANT: Final = "Grant this user SELECT, INSERT, UPDATE and DELETE on our tables (and USAGE on their sequences)."
MEND_REFUSALS: Final = (
    "Nothing is lost and no row pays; change the constraint, trigger or column, then run it again."
)


def classify(error: DBAPIError) -> Fault:
    """Sort an error by the driver's own code.

    A row is blamed only for errors known to be a row's fault. All others are the run's, so that a
    broken server parks no rows.
    """
    error = first(error)
    driver = driver_of(error.orig)
    if driver is not None:
        fault = driver.fault(error)
        # Others' tables may have keys that are taken, too: of their triggers' making.
        own = fault is Fault.REFUSED and driver.taken_key(error.orig) in KEYED
        return Fault.KEYS if own else fault
    return Fault.LOST if error.connection_invalidated else Fault.REFUSED


def first(error: DBAPIError) -> DBAPIError:
    """Return the error that ended a transaction, not the failed end of its savepoint.

    On a full disk SQLite rolls everything back; so does MariaDB at a deadlock. The savepoint is
    then gone, and ending it fails too.
    """
    found: BaseException | None = error
    while found is not None and _NO_SAVEPOINT.search(str(found)):
        found = found.__context__
    return found if isinstance(found, DBAPIError) else error


_NO_SAVEPOINT: Final = re.compile(r"no such savepoint|SAVEPOINT \S+ does not exist")


def hide_values(error: DBAPIError) -> None:
    """Replace a database's words by names where they may quote a row.

    Tracebacks and logs repeat an exception's words.
    """
    if first(error) is not error or _quotable(error):
        return
    replace_words(error, names_of(error))


def _quotable(error: DBAPIError) -> bool:
    """Say whether a database's words name servers, files, tables and rights, and nothing else."""
    fault, driver = classify(error), driver_of(error.orig)
    if fault is Fault.OTHER:
        return bool(_BUILDS.match(error.statement or ""))
    if driver is None:
        return fault is not Fault.REFUSED
    return not (fault is Fault.REFUSED or driver.function(error.orig) or driver.quotes(error.orig))


def explain(error: DBAPIError, doing: str) -> EtlError:
    """Say a database's error in words, without any value of a row."""
    fault, error = classify(error), first(error)
    driver = driver_of(error.orig)
    said = (str(error.orig).strip().splitlines() or [fault.value])[0]
    if not _quotable(error):
        said = names_of(error)
    if fault is Fault.KEYS and driver is not None:
        return keys_taken(driver, driver.taken_key(error.orig) or "", doing)
    if driver is not None and (mend := driver.mend(error.orig)):
        return mend.error(f"While {doing}, {mend.why.format(said=said)}.", hint=mend.hint)
    if fault in {Fault.BUSY, Fault.LOST}:
        return _passing(error, fault, driver, doing, said)
    if fault in {Fault.STORAGE, Fault.OTHER}:
        file = driver.unopened(error.orig) if driver else None
        return _storage_error(doing, said, file, known=fault is Fault.STORAGE)
    if fault is Fault.SCHEMA:
        return _schema_error(doing, said)
    return _refusal(fault, doing, said)


def _refusal(fault: Fault, doing: str, said: str) -> EtlError:
    if fault is Fault.CONFIG:
        return ConfigError(
            f"While {doing}, the database refused the login ({said}).", hint="Check DATABASE_URL."
        )
    return WriteRefused(f"While {doing}, the database refused it: {said}.", hint=MEND_REFUSALS)


def _passing(
    error: DBAPIError, fault: Fault, driver: Driver | None, doing: str, said: str
) -> DatabaseBusy:
    if fault is Fault.BUSY and driver is not None:
        why = driver.busy.format(said=said)
        return DatabaseBusy(f"While {doing}, {why}.", hint="Nothing is lost; run it again.")
    if driver is not None and driver.stood_still(error.orig):
        why, hint = "ended the session, which had stood still", ""
    else:
        why, hint = "could not be reached", "check DATABASE_URL and "
    return DatabaseBusy(
        f"While {doing}, the database {why} ({said}).",
        hint=f"Nothing is lost; {hint}run it again.",
    )


def keys_taken(driver: Driver, table: str, doing: str) -> StorageError:
    """Say that a table's new keys are taken, and what mends it."""
    return StorageError(
        f"While {doing}, the sequence of {table}.id was found behind its table: it gives keys that "
        "are taken. A restore leaves it so.",
        hint="Run: verify-etl db upgrade (or, as the tables' owner: "
        f"{driver.catch_up(table)}). Nothing is lost.",
    )


def _schema_error(doing: str, said: str) -> SchemaError:
    if "denied" in said:
        return SchemaError(f"While {doing}, a table was not as expected ({said}).", hint=GRANT)
    hint = "Run: verify-etl db upgrade (or check DATABASE_URL)."
    why = (
        f"the database was found without our tables ({said})"
        if VERSION_TABLE in said
        else f"a table was not as expected ({said})"
    )
    return SchemaError(f"While {doing}, {why}.", hint=hint)


def _unopened(doing: str, said: str, name: str) -> StorageError:
    """Say why SQLite's file did not open. Its path is no secret, and often mistyped."""
    file, hint = Path(name), "Check DATABASE_URL."
    why = ""
    if not name or name.startswith((":", "file:")):
        hint += " Check the file's permissions."
    elif file.is_dir():
        why = ": it is a folder"
    elif not file.parent.is_dir():
        why, hint = f": there is no folder {file.parent}", "Check DATABASE_URL, or make the folder."
    else:
        hint = "Check the permissions of the file and its folder."
    msg = f"While {doing}, {name or 'the file'} could not be opened ({said}){why}."
    return StorageError(msg, hint=hint)


def _storage_error(doing: str, said: str, file: str | None, *, known: bool) -> StorageError:
    if file is not None:
        return _unopened(doing, said, file)
    if not known:
        msg = f"While {doing}, the database failed ({said})."
        return StorageError(msg, hint="Its log may say more; nothing is lost.")
    if "not a database" in said:
        msg = f"While {doing}, the file was found to be no database ({said})."
        return StorageError(msg, hint="Check DATABASE_URL.")
    return StorageError(
        f"While {doing}, the database could not be written ({said}).",
        hint="Check the disk's space and the file's permissions.",
    )
