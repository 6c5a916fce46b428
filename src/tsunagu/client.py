"""A tiny synchronous client of the engine's HTTP API over its unix socket, standard library only.

Used by the command line and by compose; also usable from scripts:

    client = Client("unix:///run/tsunagu/tsunagu.sock")
    client.get("/containers/json", {"all": "1"})

It imports C modules only (`_socket`, not `socket`; no `http.client`), because a command's start-up time is mostly its
imports. It must never import the engine's layers or asyncio.
"""

from __future__ import annotations

from _socket import AF_UNIX, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, SHUT_WR, SOCK_CLOEXEC, SOCK_STREAM, socket
from errno import EACCES, EPERM

from tsunagu.jsontext import JsonError, dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    Query = Mapping[str, str | int | list[str]]

DEFAULT_HOST = "unix:///run/tsunagu/tsunagu.sock"
API_VERSION = "1.51"
_READ_SIZE = 65536
_HEAD_LIMIT = 1 << 20
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:")


class ClientError(Exception):
    """Base of what this module raises."""


class ApiError(ClientError):
    """The engine refused: `status` is the HTTP status, `message` its sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Unreachable(ClientError):
    """Nothing answers at the host. `is_forbidden` tells a permission problem from an absent engine."""

    def __init__(self, host: str, cause: OSError) -> None:
        super().__init__(f"cannot reach {host}: {cause.strerror or cause}")
        self.host = host
        self.is_forbidden = cause.errno in (EACCES, EPERM)


class UnsupportedHost(ClientError):
    """The host is no unix socket."""


class BrokenAnswer(ClientError):
    """The peer closed the connection or sent something that is not HTTP/1.1 and JSON."""


def socket_path(host: str) -> str:
    """File name of a `unix://` host. Raises UnsupportedHost, naming the scheme, for tcp, ssh and everything else."""
    if host.startswith("unix://"):
        path = host[7:]
        if path:
            return path
    elif host.startswith("/"):
        return host
    scheme = host.partition("://")[0] if "://" in host else ""
    if scheme in ("tcp", "ssh", "http", "https", "npipe", "fd"):
        raise UnsupportedHost(f"{scheme}:// hosts are not supported ({host}): the engine listens on a unix socket only")
    raise UnsupportedHost(f"unable to parse docker host `{host}`")


def quote(text: str) -> str:
    """Percent-encoding of RFC 3986, as UTF-8. Slashes and colons stay: image names have them."""
    data = text.encode("utf-8", "surrogateescape")
    if _PLAIN.issuperset(data):
        return text
    return "".join([chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in data])


def target(path: str, query: Query | None = None) -> str:
    """Request target with the API version in front; `path` must be quoted already where it holds foreign text.

    A list in `query` repeats its name, once for each element.
    """
    text = f"/v{API_VERSION}{path}"
    if query:
        pairs = [(key, one) for key, value in query.items() for one in (value if isinstance(value, list) else [value])]
        text += "?" + "&".join([f"{quote(key)}={quote(str(one))}" for key, one in pairs])
    return text


class _Connection:
    """One connection and what has been read from it but not yet used."""

    def __init__(self, host: str) -> None:
        path = socket_path(host)
        self.sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        self.buffer = bytearray()
        try:
            self.sock.connect(path)
        except OSError as error:
            self.sock.close()
            raise Unreachable(host, error) from None

    def close(self) -> None:
        self.sock.close()

    def is_idle(self) -> bool:
        """Whether the peer still holds the connection open and has sent nothing unasked."""
        try:
            self.sock.recv(1, MSG_PEEK | MSG_DONTWAIT)
        except BlockingIOError:
            return not self.buffer
        except OSError:
            return False
        return False

    def send(self, data: bytes) -> None:
        self.sock.sendall(data, MSG_NOSIGNAL)

    def fill(self) -> bool:
        """Read once more; False at the end of the stream."""
        try:
            data = self.sock.recv(_READ_SIZE)
        except ConnectionError:
            return False
        self.buffer += data
        return bool(data)

    def line(self) -> bytes:
        start = 0
        while True:
            end = self.buffer.find(b"\n", start)
            if end >= 0:
                line = bytes(self.buffer[:end]).rstrip(b"\r")
                del self.buffer[: end + 1]
                return line
            start = len(self.buffer)
            if start > _HEAD_LIMIT or not self.fill():
                raise BrokenAnswer("the engine closed the connection in the middle of its answer")

    def take(self, size: int) -> bytes:
        """At most `size` bytes, at least one."""
        if not self.buffer and not self.fill():
            raise BrokenAnswer("the engine closed the connection in the middle of its answer")
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data


class Response:
    """One answer. The body is read on demand by exactly one of `read`, `json`, `pieces` and `documents`."""

    def __init__(self, client: Client, connection: _Connection, method: str) -> None:
        self._client = client
        self.connection = connection
        line = connection.line().split(b" ", 2)
        if len(line) < 2 or not line[0].startswith(b"HTTP/1.") or not line[1].isdigit():
            raise BrokenAnswer("the answer is not HTTP: is this the engine's socket?")
        self.status = int(line[1])
        self.headers: dict[str, str] = {}
        while header := connection.line():
            name, _, value = header.partition(b":")
            self.headers[name.decode("latin-1").lower()] = value.strip().decode("latin-1")
        self._has_body = method != "HEAD" and self.status not in (204, 304) and self.status >= 200

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives."""
        connection = self.connection
        if not self._has_body:
            pass
        elif self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(connection.line().split(b";")[0], 16):
                while size:
                    data = connection.take(size)
                    size -= len(data)
                    yield data
                connection.line()
            while connection.line():
                pass
        elif "content-length" in self.headers:
            size = int(self.headers["content-length"])
            while size:
                data = connection.take(size)
                size -= len(data)
                yield data
        else:
            while connection.buffer or connection.fill():
                yield connection.take(_READ_SIZE)
            connection.close()
            return
        self._client.release(connection, self.headers.get("connection", "").lower() != "close")

    def read(self) -> bytes:
        return b"".join(self.pieces())

    def json(self) -> Any:
        body = self.read()
        try:
            return loads(body) if body.strip() else None
        except JsonError as error:
            raise BrokenAnswer(f"the engine's answer is not JSON: {error}") from None

    def documents(self) -> Iterator[Any]:
        """The JSON documents of a progress or event stream: one a line, as Docker sends them."""
        rest = b""
        for piece in self.pieces():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.strip():
                    yield loads(line)
        if rest.strip():
            yield loads(rest)

    def raise_for_status(self) -> Response:
        """Self when the status is below 400, else ApiError with the engine's sentence."""
        if self.status < 400:
            return self
        body = self.read()
        try:
            value = loads(body)
            message = value["message"] if isinstance(value, dict) else ""
        except (JsonError, KeyError):
            message = body.decode("utf-8", "replace").strip()
        raise ApiError(self.status, message or f"the engine answered with HTTP status {self.status}")


class Stream:
    """A hijacked connection: raw bytes both ways. `is_multiplexed`: Docker's 8-byte frame headers are used."""

    def __init__(self, response: Response) -> None:
        self.sock = response.connection.sock
        self.leftover = bytes(response.connection.buffer)
        content_type = response.headers.get("content-type", "")
        self.is_multiplexed = content_type == "application/vnd.docker.multiplexed-stream"
        self.is_raw = content_type == "application/vnd.docker.raw-stream"

    def close_write(self) -> None:
        """Half-close: tells the engine that standard input has ended."""
        try:
            self.sock.shutdown(SHUT_WR)
        except OSError:
            return  # the engine closed first; the end of the stream tells that too

    def close(self) -> None:
        self.sock.close()


class Pending:
    """A request under way on a connection of its own."""

    def __init__(self, client: Client, connection: _Connection, method: str) -> None:
        self._parts = (client, connection, method)

    def finish(self) -> Any:
        """Wait for the answer and decode it, as `Client.request` does."""
        return Response(*self._parts).raise_for_status().json()


class Client:
    """Requests to one engine. Not thread-safe; keeps one idle connection."""

    def __init__(self, host: str = DEFAULT_HOST) -> None:
        self.host = host
        self._idle: _Connection | None = None

    def close(self) -> None:
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def release(self, connection: _Connection, is_reusable: bool) -> None:
        """Take back a connection whose answer has been read."""
        if is_reusable and self._idle is None:
            self._idle = connection
        else:
            connection.close()

    def connect(self) -> None:
        """Make sure that something listens. Raises Unreachable."""
        if self._idle is None:
            self._idle = _Connection(self.host)

    def open(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: object = None,
        *,
        upload: Iterable[bytes] | None = None,
        content_type: str = "application/json",
        upgrade: bool = False,
    ) -> Response:
        """Send one request and return its answer with the body unread, whatever the status.

        `body` is a JSON value; `upload` is sent chunked instead. Raises Unreachable, UnsupportedHost, BrokenAnswer.
        """
        connection = self._send(method, path, query, body, upload, content_type, upgrade)
        return Response(self, connection, method)

    def begin(self, method: str, path: str, query: Query | None = None) -> Pending:
        """Send a request without waiting for its answer, so that several run at once. Raises Unreachable."""
        return Pending(self, self._send(method, path, query, None, None, "", False), method)

    def _send(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: object,
        upload: Iterable[bytes] | None,
        content_type: str,
        upgrade: bool,
    ) -> _Connection:
        connection, self._idle = self._idle, None
        if connection is None or not connection.is_idle():
            if connection is not None:
                connection.close()
            connection = _Connection(self.host)
        head = [f"{method} {target(path, query)} HTTP/1.1", "Host: tsunagu", "User-Agent: tsunagu-client"]
        data = b""
        if upload is not None:
            head += [f"Content-Type: {content_type}", "Transfer-Encoding: chunked"]
        elif body is not None:
            data = dumps(body).encode("utf-8", "surrogateescape")
            head += [f"Content-Type: {content_type}", f"Content-Length: {len(data)}"]
        elif method not in ("GET", "HEAD"):
            head.append("Content-Length: 0")
        if upgrade:
            head += ["Connection: Upgrade", "Upgrade: tcp"]
        text = "\r\n".join(head) + "\r\n\r\n"
        try:
            connection.send(text.encode("latin-1") + data)
            for piece in upload or ():
                if piece:
                    connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            if upload is not None:
                connection.send(b"0\r\n\r\n")
        except ConnectionError:
            # The engine may refuse before it has read everything (a bad archive): its answer says why.
            pass
        return connection

    def request(self, method: str, path: str, query: Query | None = None, body: object = None) -> Any:
        """Send a request and decode its JSON answer (None when empty). Raises ApiError for status 400 and above."""
        return self.open(method, path, query, body).raise_for_status().json()

    def get(self, path: str, query: Query | None = None) -> Any:
        return self.request("GET", path, query)

    def post(self, path: str, query: Query | None = None, body: object = None) -> Any:
        return self.request("POST", path, query, body)

    def delete(self, path: str, query: Query | None = None) -> Any:
        return self.request("DELETE", path, query)

    def hijack(self, path: str, query: Query | None = None, body: object = None) -> Stream:
        """POST with `Upgrade: tcp` (attach, exec start). Raises ApiError when the engine refuses.

        The engine answers 101, or 200 to clients of old; both hand over the raw connection.
        """
        response = self.open("POST", path, query, body, upgrade=True)
        if response.status not in (101, 200):
            response.raise_for_status()
            raise BrokenAnswer(f"the engine did not hand over the connection (HTTP status {response.status})")
        return Stream(response)
