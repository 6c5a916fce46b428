"""A pretended engine for tests of the client side: a thread per connection, answers by path, requests recorded.

It answers what a test gave it and nothing else (404 with Docker's error form), so that a wrong request is seen.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SOURCE = str(Path(__file__).resolve().parents[2] / "src")
ID = "c" * 64


class Request(NamedTuple):
    method: str
    path: str  # without the API version and the query
    query: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One connection: what a handler may read and write."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")

    def answer(self, status: int, body: object = None, content_type: str = "application/json") -> None:
        """One whole answer. The API version in it is what Docker's client takes from a ping."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\nApi-Version: 1.51\r\nContent-Type: {content_type}\r\n"
        if status not in (204, 304):
            head += f"Content-Length: {len(data)}\r\n"
        self.sock.sendall(head.encode() + b"\r\n" + data)

    def start_chunks(self, content_type: str = "application/json") -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.sock.sendall(head.encode())

    def chunk(self, data: bytes) -> None:
        self.sock.sendall(b"%x\r\n%b\r\n" % (len(data), data))

    def upgrade(self, *, is_multiplexed: bool = True) -> None:
        kind = "multiplexed" if is_multiplexed else "raw"
        self.sock.sendall(
            f"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.{kind}-stream\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        )

    def frame(self, stream: int, data: bytes) -> None:
        self.sock.sendall(bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data)

    def read_to_end(self) -> bytes:
        return self.file.read()


Handler = Callable[[Request, Connection], object]


class CannedEngine:
    """`routes`: "METHOD /path" -> JSON value (200), (status, value), or a function of request and connection.

    A function that returns a value other than None answers with it; None means that it has answered itself, and the
    connection is closed after a hijack.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.host = f"unix://{path}"
        self.routes: dict[str, Any] = {}
        self.requests: list[Request] = []
        self.failures: list[BaseException] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._connections:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def lines(self) -> list[str]:
        """The requests as "METHOD /path?query", in the order of arrival."""
        return [f"{one.method} {one.path}{'?' + one.query if one.query else ''}" for one in self.requests]

    def body(self, path: str) -> Any:
        return next(one.json() for one in self.requests if one.path == path)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        connection = Connection(sock)
        try:
            while (request := _read(connection)) is not None:
                self.requests.append(request)
                if not self._answer(request, connection):
                    break
        except OSError:
            pass  # the client has gone, as it may
        except BaseException as error:
            self.failures.append(error)
            raise
        finally:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _answer(self, request: Request, connection: Connection) -> bool:
        found = self.routes.get(f"{request.method} {request.path}", (404, {"message": f"no route {request.path}"}))
        if callable(found):
            found = found(request, connection)
            if found is None:
                return False
        status, value = found if isinstance(found, tuple) else (200, found)
        connection.answer(status, value)
        return True


def _read(connection: Connection) -> Request | None:
    line = connection.file.readline().decode()
    if not line:
        return None
    method, target, _ = line.split(" ")
    headers = {}
    while (header := connection.file.readline().decode().strip()) != "":
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(connection.file.readline(), 16):
            body += connection.file.read(size)
            connection.file.readline()
        connection.file.readline()
    elif "content-length" in headers:
        body = connection.file.read(int(headers["content-length"]))
    path, _, query = target.partition("?")
    if path.startswith("/v1."):
        path = "/" + path.split("/", 2)[2]
    else:
        assert path == "/_ping", path  # the one request that Docker's client sends without a version
    return Request(method, path, query, headers, body)


class Result(NamedTuple):
    code: int
    out: str
    err: str


def command(*words: str) -> list[str]:
    """The command line as the launcher starts it: an interpreter without `site`."""
    code = f"import sys; sys.path.insert(0, {SOURCE!r}); from tsunagu.cli.main import main; main()"
    return [sys.executable, "-IS", "-c", code, *words]


def tsunagu(engine: CannedEngine | None, *words: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> Result:
    """Run a command to its end against an engine."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/root", "TZ": "UTC"} | (env or {})
    if engine is not None:
        environment["DOCKER_HOST"] = engine.host
    done = subprocess.run(command(*words), input=stdin, capture_output=True, env=environment, timeout=60, check=False)
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[CannedEngine]:
    engine = CannedEngine(str(directory / "engine.sock"))
    try:
        yield engine
        assert not engine.failures
    finally:
        engine.close()
