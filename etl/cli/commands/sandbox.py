"""``verify-etl sandbox``: a local Verify Attempts API to try things with."""

import sys
from collections.abc import Iterable, Sequence

import click

from etl.cli.types import DURATION
from etl.errors import StorageError
from etl.job.stop import StopFlag
from etl.sandbox import Fault, Sandbox, World
from etl.sandbox.world import MAX_SIZE


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: any free port.")
@click.option(
    "--size", type=click.IntRange(0, MAX_SIZE), default=1000, show_default=True,
    help="How many attempts it holds.",
)  # fmt: skip
@click.option(
    "--seed", type=int, default=1, show_default=True, help="The same seed, the same world."
)
@click.option(
    "--allowance", type=click.IntRange(min=0), default=100, show_default=True,
    help="Requests in a window; 0: no limit.",
)  # fmt: skip
@click.option(
    "--window", type=DURATION, default="60s", show_default=True, help="The allowance's window."
)
@click.option(
    "--latency", type=DURATION, default="0ms", show_default=True, help="Added to every answer."
)
@click.option(
    "--loose", is_flag=True,
    help="Take filters that Twilio refuses or ignores: any channel, any SID, all for both kinds.",
)  # fmt: skip
@click.option("--fault", "faults", multiple=True, help="Such as error:503:share=0.1; repeatable.")
@click.option(
    "--sids", type=click.Path(dir_okay=False, allow_dash=True),
    help="Write the world's SIDs to this file, too.",
)  # fmt: skip
def sandbox(
    *,
    port: int,
    size: int,
    seed: int,
    allowance: int,
    window: int,
    latency: int,
    loose: bool,
    faults: tuple[str, ...],
    sids: str | None,
) -> None:
    """Serve a local Verify Attempts API until it is stopped; print the environment to copy.

    \b
    Example:
      verify-etl sandbox --port 8321 --sids sids.txt
    """
    parsed = _parsed(faults)
    world = World(seed=seed, size=size)
    if sids is not None:
        _write(sids, world.sids())
    stop = StopFlag()
    box = Sandbox(
        world, port=port, limit=allowance, window=window / 1000, latency=latency / 1000, loose=loose
    )
    for fault in parsed:
        box.faults.add(fault)
    try:
        box.start()
    except OSError as error:
        msg = f"Port {port} cannot be used: {error.strerror}."
        raise StorageError(msg, hint="Choose another with --port.") from error
    with stop.listening():
        try:
            for name, value in box.environ().items():
                click.echo(f"{name}={value}")
            sys.stdout.flush()
            while not stop.is_set():
                stop.sleep(60)
        finally:
            box.stop()


def _parsed(faults: Sequence[str]) -> list[Fault]:
    found = []
    for fault in faults:
        try:
            found.append(Fault.parse(fault))
        except ValueError as error:
            msg = f"{fault!r}: {error}."
            raise click.BadParameter(msg, param_hint="'--fault'") from error
    return found


def _write(path: str, sids: Iterable[str]) -> None:
    try:
        with click.open_file(path, "w") as stream:
            stream.writelines(f"{sid}\n" for sid in sids)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}."
        raise StorageError(msg, hint="Choose another file with --sids.") from error
