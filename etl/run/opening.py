"""Open what a run needs from the settings: the database, the API's client and the job."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Engine

from etl import __version__
from etl.allowance.slots import Allowance
from etl.database.engine import open_engine
from etl.extract import Api
from etl.job.tools import Job
from etl.settings import Settings

if TYPE_CHECKING:
    from etl.decide.values import Strategy


class Opened(NamedTuple):
    """Hold what ``pipeline`` takes: ``pipeline.run(*opened, stop=...)``."""

    engine: Engine
    api: Api
    job: Job


@contextmanager
def opened(
    settings: Settings,
    *,
    limit: int | None = None,
    max_seconds: float | None = None,
    strict: bool = False,
    strategy: "Strategy" = "auto",
) -> Iterator[Opened]:
    """Open all that a run needs, and close it after; nothing is connected yet.

    Raises ``ConfigError`` without credentials, ``SchemaError`` without an SQLite file.
    """
    job = Job(
        account=settings.account_sid,
        allowance=Allowance.of(settings),
        policy=settings.policy,
        concurrency=settings.concurrency,
        limit=limit,
        max_seconds=max_seconds,
        strict=strict,
        strategy=strategy,
        page_size=settings.page_size,
    )
    with closing(open_api(settings)) as api:
        engine = open_engine(settings.database_url.get_secret_value(), create=False)
        try:
            yield Opened(engine, api, job)
        finally:
            engine.dispose()


def open_api(settings: Settings) -> Api:
    """Build the client for the configured account; raise ``ConfigError`` without credentials."""
    user, password, name = settings.credentials()
    return Api(
        settings.api_address,
        user=user,
        password=password,
        credential_name=name,
        user_agent=f"verify-attempts-etl/{__version__}",
        proxy=settings.proxy.get_secret_value(),
        ca_bundle=settings.ca_bundle,
        window_s=settings.allowance_window / 1000,
    )
