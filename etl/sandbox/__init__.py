"""Run a local Verify Attempts API: a seeded world of attempts behind Twilio's HTTP interface.

    from etl.sandbox import Sandbox, World

    with Sandbox(World(seed=1, size=1000)) as box:
        box.faults.add("error:503:share=0.1")
        ...  # talk to box.url with box.account_sid and box.auth_token
        assert box.stats()["peak_in_window"] <= 100

It listens on 127.0.0.1 only. It imports nothing else of etl, and so can check it.
"""

from .faults import Fault, Faults
from .server import Sandbox
from .spoil import KINDS
from .world import World

__all__ = ["KINDS", "Fault", "Faults", "Sandbox", "World"]
