"""The real server on a unix socket, on its own event loop in a thread, so that any client can talk to it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tsunagu.api.server import Server

from .fakes import make_app

T = TypeVar("T")


class Served:
    """A running server: `path` of its socket, the fake `app` behind it, and ways to reach into its loop."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "api.sock")
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.app: Any = self.call(lambda: make_app(directory))
        self.server = Server(self.app)
        self.run(self.server.serve(self.path))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def call(self, function: Callable[[], T]) -> T:
        async def work() -> T:
            return function()

        return self.run(work())

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(self.path)
        return client

    def raw(self, request: bytes) -> bytes:
        """Send bytes, half-close, and return everything that comes back."""
        with self.connect() as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def ask(self, method: str, target: str, body: Any = None, headers: str = "") -> tuple[int, Any]:
        """One request on its own connection: status and decoded body."""
        payload = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if payload and "content-type" not in headers.lower():
            headers += "Content-Type: application/json\r\n"
        head = f"{method} {target} HTTP/1.1\r\nHost: d\r\n{headers}Content-Length: {len(payload)}\r\n\r\n"
        with self.connect() as client:
            client.sendall(head.encode() + payload)
            return read_response(client)

    def stop(self) -> None:
        self.run(self.server.close(grace=2))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


def read_all(client: socket.socket) -> bytes:
    pieces = []
    while piece := client.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def read_head(client: socket.socket) -> bytes:
    """Read up to the empty line, and not a byte further."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = client.recv(1)
        assert piece, head
        head += piece
    return head


def read_body(client: socket.socket, head: bytes) -> bytes:
    lower = head.lower()
    if b"content-length: " in lower:
        size = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return read_exactly(client, size)
    if b"transfer-encoding: chunked" in lower:
        body = b""
        while chunk := read_chunk(client):
            body += chunk
        return body
    return b""


def read_exactly(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = client.recv(size - len(data))
        assert piece, data
        data += piece
    return data


def read_chunk(client: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\r\n"):
        line += read_exactly(client, 1)
    return read_exactly(client, int(line, 16) + 2)[:-2]


def read_response(client: socket.socket) -> tuple[int, Any]:
    head = read_head(client)
    body = read_body(client, head)
    status = int(head.split(b" ", 2)[1])
    if b"application/json" in head and body.strip():
        lines = [json.loads(line) for line in body.splitlines()]
        return status, lines[0] if len(lines) == 1 else lines
    return status, body


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path)
    yield server
    server.stop()
