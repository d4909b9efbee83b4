"""Start PgBouncer in transaction mode between the program and a PostgreSQL."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import URL

from tests.support.harness import until

SESSIONS: Final = 2
"""Sessions of the server that all clients share, fewer than one worker's connections."""

_CONFIG: Final = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
logfile = {folder}/log
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 500
"""


@contextmanager
def pooler(url: URL) -> Iterator[URL]:
    """Give the address by which PgBouncer leads to the database of ``url``; stop it at the end."""
    path = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        pytest.fail("Pools are tested with PgBouncer: apt-get install -y pgbouncer", pytrace=False)
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    folder.chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = free.getsockname()[1]
    (folder / "users").write_text(f'"{url.username}" ""\n', encoding="ascii")
    config = _CONFIG.format(
        host=url.host, port=url.port or 5432, listen=listen, folder=folder, sessions=SESSIONS
    )
    (folder / "ini").write_text(config, encoding="ascii")
    # It refuses to run as root.
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [path, "-q", *user, str(folder / "ini")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
        with suppress(OSError), socket.create_connection(("127.0.0.1", listen)):
            return True
        return False

    try:
        until(answers)
        yield url.set(host="127.0.0.1", port=listen)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)
