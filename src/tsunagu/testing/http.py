"""Plain HTTP to an engine's socket, independent of the project's own client: nothing is tested with itself.

May import the standard library only.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 120.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float = TIMEOUT_SECONDS) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """Requests to one engine. Paths are without version, as `/containers/json`."""

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path

    def request(
        self, method: str, path: str, body: bytes | Path | dict[str, Any] | None = None, content_type: str = ""
    ) -> tuple[int, bytes]:
        """Send one request on a connection of its own; returns status and body. A Path is streamed from disk."""
        connection = UnixConnection(self.socket_path)
        try:
            headers = {"Content-Type": content_type or "application/json"} if body is not None else {}
            if isinstance(body, dict):
                connection.request(method, path, json.dumps(body).encode(), headers)
            elif isinstance(body, Path):
                headers["Content-Length"] = str(body.stat().st_size)
                with body.open("rb") as stream:
                    connection.request(method, path, stream, headers)
            else:
                connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON answer of a GET; RuntimeError when the status is not 200."""
        status, body = self.request("GET", path)
        if status != 200:
            raise RuntimeError(f"GET {path} answered {status}: {body!r}")
        return json.loads(body)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON answer (None when empty) of a POST; RuntimeError when the status is an error."""
        status, data = self.request("POST", path, body)
        if status >= 400:
            raise RuntimeError(f"POST {path} answered {status}: {data!r}")
        return json.loads(data) if data else None

    def raw(self, data: bytes, *, timeout: float = 10.0, closes: bool = False) -> bytes:
        """Send bytes as they are; returns what comes back until the engine closes or is silent for `timeout`."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.connect(self.socket_path)
            answer = bytearray()
            try:
                sock.sendall(data)
                if closes:
                    sock.shutdown(socket.SHUT_WR)
                while chunk := sock.recv(65536):
                    answer += chunk
            except (TimeoutError, BrokenPipeError, ConnectionResetError):
                pass
            return bytes(answer)
