"""Serve scripted bytes on loopback, to break HTTP in ways that no HTTP server would.

Each request takes the next answer of the script, the last one again and again. An answer is the
bytes to send, or a function that is given the connection; one that returns True ends the
connection. Everything stops by itself: connections, time and threads are bounded.
"""

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any, Final, Self

Answer = bytes | Callable[[socket.socket], bool | None]

MOST_CONNECTIONS: Final = 100
PATIENCE_S: Final = 120.0
"""No thread of the server waits longer than this for anything: no client's deadline is as long."""


class RawServer:
    """Listen on a free loopback port while the ``with`` block runs.

    ``ended`` is released once for each connection that has been closed. Of more than ``most``
    connections nobody is listened to.
    """

    def __init__(
        self, *answers: Answer, tls: ssl.SSLContext | None = None, most: int = MOST_CONNECTIONS
    ) -> None:
        self._answers = answers
        self._tls = tls
        self._most = most
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.connections = 0
        self.requests: list[bytes] = []
        self.ended = threading.Semaphore(0)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        # Shutting down wakes accept and recv, which closing alone does not.
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._listener.close()

    def paths(self) -> list[str]:
        """List what was asked for: path and query of each request."""
        return [request.split(b" ", 2)[1].decode() for request in self.requests]

    def _accept(self) -> None:
        while self.connections < self._most:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(conn,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, conn: socket.socket) -> None:
        conn.settimeout(PATIENCE_S)
        self._open.add(conn)
        # The client may cut off any of it; that is what the tests are about.
        with contextlib.suppress(OSError), conn:
            if self._tls is not None:
                conn = self._tls.wrap_socket(conn, server_side=True)
                self._open.add(conn)
            with conn:
                while self._one(conn):
                    pass
        self.ended.release()

    def _one(self, conn: socket.socket) -> bool:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            data = conn.recv(65_536)
            if not data:
                return False
            request += data
        with self._lock:
            answer = self._answers[min(len(self.requests), len(self._answers) - 1)]
            self.requests.append(request)
        if isinstance(answer, bytes):
            conn.sendall(answer)
            return True
        return not answer(conn)


def http(status: int = 200, body: bytes = b"", *headers: str) -> bytes:
    """Write a whole answer, with its length."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def as_json(value: Any, status: int = 200, *headers: str) -> bytes:
    """Write a whole JSON answer."""
    return http(status, json.dumps(value).encode(), "Content-Type: application/json", *headers)


def refusal(status: int, code: int, message: str = "No", *headers: str) -> bytes:
    """Write an error as Twilio writes them."""
    return as_json({"code": code, "message": message, "status": status}, status, *headers)


def then_close(data: bytes) -> Answer:
    """Send these bytes and close the connection properly."""

    def answer(conn: socket.socket) -> bool:
        conn.sendall(data)
        return True

    return answer


def then_reset(data: bytes) -> Answer:
    """Send these bytes and reset the connection."""

    def answer(conn: socket.socket) -> bool:
        conn.sendall(data)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return True

    return answer


def drip(start: bytes, piece: bytes, *, every_s: float = 0.02) -> Answer:
    """Send these bytes, then a piece every now and then, until the client has had enough."""
    rest = threading.Event()

    def answer(conn: socket.socket) -> bool:
        conn.sendall(start)
        for _ in range(int(PATIENCE_S / every_s)):
            conn.sendall(piece)
            rest.wait(every_s)
        return True

    return answer


def flood(start: bytes, piece: bytes, *, times: int) -> Answer:
    """Send these bytes, then a piece many times as fast as the client takes it."""

    def answer(conn: socket.socket) -> bool:
        conn.sendall(start)
        for _ in range(times):
            conn.sendall(piece)
        return True

    return answer


CERTIFICATE: Final = """\
-----BEGIN CERTIFICATE-----
MIIBeDCCAR2gAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLFWHTCtjVrgu5RE
UWtYqe9Tx0mIqKSuchNb37qYV4ZDoZ2k548aTGZJB5IFpplEEvKEfbZXNxNJvhrk
GCL8aeijXjBcMBoGA1UdEQQTMBGCCWxvY2FsaG9zdIcEfwAAATAPBgNVHRMBAf8E
BTADAQH/MA4GA1UdDwEB/wQEAwIChDAdBgNVHQ4EFgQUp1dmTq43WDQCbquFnQUA
u+g1af0wCgYIKoZIzj0EAwIDSQAwRgIhALz2EmsX1HfzlAkf7VirH5DAHfxgxC68
XKGHGvdjhYhhAiEA+3dchwnwCAeMABrPAckEg8H34+O7Goo2abBoPfdgjtc=
-----END CERTIFICATE-----
"""
"""Signed by itself, for localhost and 127.0.0.1, good until 2120; the key opens nothing else."""

KEY: Final = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgmDk3dyvcu9SlakO0
lxSgl5mMpfce0ETwK74u2BNrvgehRANCAASxVh0wrY1a4LuURFFrWKnvU8dJiKik
rnITW9+6mFeGQ6GdpOePGkxmSQeSBaaZRBLyhH22VzcTSb4a5Bgi/Gno
-----END PRIVATE KEY-----
"""
