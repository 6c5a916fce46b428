"""What a handler gets (`Request`) and gives back (`Response`); how it streams or takes the connection over.

May import wire.http and the kinds of errors. Knows nothing of Docker's objects.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from tsunagu import __version__
from tsunagu.model.errors import InvalidParameter
from tsunagu.wire.http import MULTIPLEXED_STREAM, RAW_STREAM, RequestHead

if TYPE_CHECKING:
    from .app import App
    from .hijack import Hijacked

API_VERSION = (1, 51)
MIN_API_VERSION = (1, 24)
JSON_LIMIT = 4 << 20  # bytes of a JSON body

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"

Headers = tuple[tuple[bytes, bytes], ...]

# Every answer carries these. Builder-Version 1 makes docker's client use the classic builder protocol, not BuildKit.
STANDARD: Headers = (
    (b"Api-Version", b"%d.%d" % API_VERSION),
    (b"Docker-Experimental", b"false"),
    (b"Ostype", b"linux"),
    (b"Server", f"Tsunagu/{__version__} (linux)".encode()),
)

_encode = msgspec.json.Encoder().encode


class Response(NamedTuple):
    """A complete answer."""

    status: int
    headers: Headers
    body: bytes


_JSON_HEADERS: Headers = (*STANDARD, (b"Content-Type", JSON))
_TEXT_HEADERS: Headers = (*STANDARD, (b"Content-Type", TEXT))


def json_response(value: object, status: int = 200) -> Response:
    """Answer with `value` as JSON; a newline follows, as Go's encoder writes it."""
    return Response(status, _JSON_HEADERS, _encode(value) + b"\n")


def text_response(text: str, extra: Headers = ()) -> Response:
    return Response(200, (*_TEXT_HEADERS, *extra), text.encode())


def empty_response(status: int = 204) -> Response:
    return Response(status, STANDARD, b"")


Handler = Coroutine[Any, Any, "Response | None"]
Answer = Response | Handler
HandlerFunction = Callable[["Request"], Answer]


class Channel(Protocol):
    """The part of a connection that a request may use."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body; raises ConnectionError when the client goes away in the middle."""

    def start(self, status: int, headers: Headers) -> None:
        """Send the head of a streamed answer now."""

    async def write(self, data: bytes) -> None:
        """Send one piece now, waiting while the client is behind; raises ConnectionError once it is gone."""

    def hijack(self, content_type: bytes, *, is_upgrade: bool) -> Hijacked:
        """Leave HTTP."""


class Request:
    """One request. `path` is without version prefix and percent-decoded; `words` are the parts the route names."""

    __slots__ = (
        "_channel",
        "_query",
        "_query_text",
        "app",
        "headers",
        "is_cancellable",
        "is_streaming",
        "method",
        "path",
        "version",
        "words",
    )

    app: App

    def __init__(self, head: RequestHead, channel: Channel) -> None:
        target = head.target
        if not target.startswith("/"):  # absolute form, RFC 9112 §3.2.2
            parts = urlsplit(target)
            target = f"{parts.path or '/'}?{parts.query}"
        path, _, self._query_text = target.partition("?")
        self.path = unquote(path) if "%" in path else path
        self.method = head.method
        self.headers = head.headers
        self.version: tuple[int, int] = API_VERSION
        self.words: dict[str, str] = {}
        self.is_cancellable = False
        self.is_streaming = False
        self._query: dict[str, list[str]] | None = None
        self._channel = channel

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"

    # ---- query

    def values(self, name: str) -> list[str]:
        """Return every value of a query parameter, in order."""
        if self._query is None:
            self._query = {}
            if self._query_text:
                for key, value in parse_qsl(self._query_text, keep_blank_values=True):
                    self._query.setdefault(key, []).append(value)
        return self._query.get(name, [])

    def text(self, name: str, default: str = "") -> str:
        found = self.values(name)
        return found[0] if found else default

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Docker's booleans: everything is true but an empty value, 0, no, false and none."""
        found = self.values(name)
        if not found:
            return default
        return found[0].strip().lower() not in ("", "0", "no", "false", "none")

    def number(self, name: str) -> int | None:
        """Return a whole number, None when absent; raises InvalidParameter in the words of Go's strconv."""
        text = self.text(name)
        if not text:
            return None
        try:
            return int(text)
        except ValueError as error:
            raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax') from error

    # ---- body

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives."""
        return self._channel.chunks()

    async def body(self, limit: int = JSON_LIMIT) -> bytes:
        """Return the whole body; raises InvalidParameter above `limit` bytes."""
        pieces, size = [], 0
        async for chunk in self._channel.chunks():
            size += len(chunk)
            if size > limit:
                raise InvalidParameter(f"request body is larger than {limit} bytes")
            pieces.append(chunk)
        return b"".join(pieces)

    async def json(self, *, is_optional: bool = False) -> dict[str, Any]:
        """Return the body as a JSON object; raises InvalidParameter in Docker's words. `{}` if optional and absent."""
        body = await self.body()
        content_type = self.headers.get("content-type", "")
        if not body.strip():
            if is_optional:
                return {}
            raise InvalidParameter("invalid JSON: got EOF while reading request body")
        if content_type.partition(";")[0].strip().lower() != "application/json":
            raise InvalidParameter(f"unsupported Content-Type header ({content_type}): must be 'application/json'")
        try:
            value = msgspec.json.decode(body)
        except (ValueError, RecursionError) as error:  # msgspec's DecodeError, bad UTF-8, absurd nesting
            raise InvalidParameter(f"invalid JSON: {error}") from error
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InvalidParameter(f"invalid JSON: expected an object, got {type(value).__name__}")
        return value

    # ---- streamed answers

    def stream(self, content_type: bytes = JSON, status: int = 200, extra: Headers = ()) -> None:
        """Send the head of a streamed answer at once; `write` follows."""
        self._channel.start(status, (*STANDARD, (b"Content-Type", content_type), *extra))
        self.is_streaming = True

    async def write(self, data: bytes) -> None:
        """Send one piece of a streamed answer at once; raises ConnectionError once the client is gone."""
        await self._channel.write(data)

    async def write_json(self, value: object) -> None:
        """Send one JSON value and a newline."""
        await self._channel.write(_encode(value) + b"\n")

    def stream_type(self, *, has_tty: bool) -> bytes:
        """Return the content type of raw container output: told apart since API 1.42."""
        return RAW_STREAM if has_tty or self.version < (1, 42) else MULTIPLEXED_STREAM

    def hijack(self, *, has_tty: bool) -> Hijacked:
        """Take the connection over; the head of the answer is sent at once and nothing else can run in between.

        The body must have been read. Docker's client upgrades; older ones expect a bare 200 and the raw connection.
        """
        is_upgrade = "upgrade" in self.headers
        content_type = self.stream_type(has_tty=has_tty) if is_upgrade else RAW_STREAM
        return self._channel.hijack(content_type, is_upgrade=is_upgrade)
