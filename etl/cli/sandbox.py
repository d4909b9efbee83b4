"""``verify-etl sandbox``: a local Verify Attempts API to try things with."""

import sys
from typing import TYPE_CHECKING

import click

from etl.cli.context import Context

if TYPE_CHECKING:
    from typing import TextIO


@click.command(short_help="Serve a local Verify Attempts API.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: any free port.")
@click.option(
    "--size", type=click.IntRange(min=0), default=1000, show_default=True,
    help="How many attempts it holds.",
)  # fmt: skip
@click.option(
    "--seed", type=int, default=1, show_default=True, help="The same seed, the same world."
)
@click.option(
    "--allowance", type=click.IntRange(min=0), default=100, show_default=True,
    help="Requests in a window; 0: no limit.",
)  # fmt: skip
@click.option("--window", default="60s", show_default=True, help="The allowance's window.")
@click.option("--latency", default="0ms", show_default=True, help="Added to every answer.")
@click.option("--fault", "faults", multiple=True, help="Such as error:503:share=0.1; repeatable.")
@click.option("--sids", type=click.File("w"), help="Write the world's SIDs to this file, too.")
@click.pass_obj
def sandbox(
    context: Context,
    *,
    port: int,
    size: int,
    seed: int,
    allowance: int,
    window: str,
    latency: str,
    faults: tuple[str, ...],
    sids: "TextIO | None",
) -> None:
    """Serve a local Verify Attempts API until it is stopped; print the environment to copy.

    \b
    Example:
      verify-etl sandbox --port 8321 --sids sids.txt
    """  # noqa: D301 - \b is click's mark
    del context
    from etl.sandbox import Fault, Sandbox, World
    from etl.settings import parse_duration
    from etl.stopping import Stopping

    try:
        window_s, latency_s = parse_duration(window) / 1000, parse_duration(latency) / 1000
        parsed = [Fault.parse(fault) for fault in faults]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    world = World(seed=seed, size=size)
    if sids is not None:
        sids.writelines(f"{sid}\n" for sid in world.sids())
        sids.close()
    stopping = Stopping()
    box = Sandbox(world, port=port, limit=allowance, window=window_s, latency=latency_s)
    for fault in parsed:
        box.faults.add(fault)
    try:
        box.start()
    except OSError as error:
        msg = f"Port {port} cannot be used: {error.strerror}. Choose another with --port."
        raise click.ClickException(msg) from error
    with stopping.listening():
        try:
            for name, value in box.environ().items():
                click.echo(f"{name}={value}")
            sys.stdout.flush()
            while not stopping.is_set():
                stopping.sleep(60)
        finally:
            box.stop()
