"""HTTP/1.1 for the Engine API: bytes in, events out; answers in, bytes out. Sits on h11, does no I/O.

Two things are Docker's own and live here: the switch to a raw byte stream after `101 UPGRADED`, and the older "raw 200"
where the response has neither length nor chunking and the connection simply becomes the stream (h11 would add
`Transfer-Encoding: chunked`, so that head is written by us). May import h11 and the standard library; never opens a
socket.
"""

from __future__ import annotations

from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple

import h11

# Docker's Go server takes 1 MiB; nothing legitimate comes near (the largest is X-Registry-Auth, some KiB).
MAX_HEAD = 64 << 10

RAW_STREAM = b"application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = b"application/vnd.docker.multiplexed-stream"

Headers = tuple[tuple[bytes, bytes], ...]


class RequestHead(NamedTuple):
    """Request line and headers. Header names are lower case; repeated headers are joined by a comma and a space."""

    method: str
    target: str
    headers: dict[str, str]
    has_body: bool


class Signal(Enum):
    """Events without content."""

    END = auto()  # the request is complete
    NEED_DATA = auto()
    PAUSED = auto()  # bytes of the next request wait until this one is answered
    CLOSED = auto()  # the client has closed, nothing is under way


Event = RequestHead | bytes | Signal


class Malformed(Exception):
    """The client broke the protocol. `status` is the HTTP status to answer with before closing."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class ServerConnection:
    """One client connection, seen from the server. Feed bytes, take events, ask for the bytes of an answer."""

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._is_head_request = False
        self._is_switched = False

    def receive(self, data: bytes) -> None:
        """Take bytes from the client; b"" means that it has closed its sending side."""
        try:
            self._h11.receive_data(data)
        except RuntimeError as error:  # data after end of file: h11's rule, cannot happen on a socket
            raise Malformed(str(error), 400) from error

    def next_event(self) -> Event:
        """Return what the received bytes mean so far; raises Malformed."""
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise Malformed(str(error), error.error_status_hint) from error
        if event is h11.NEED_DATA:
            return Signal.NEED_DATA
        if event is h11.PAUSED:
            return Signal.PAUSED
        if type(event) is h11.Data:
            return bytes(event.data)
        if type(event) is h11.EndOfMessage:
            return Signal.END
        if type(event) is h11.Request:
            return self._head(event)
        return Signal.CLOSED

    def _head(self, event: h11.Request) -> RequestHead:
        if event.http_version not in (b"1.1", b"1.0"):
            raise Malformed(f"HTTP/{event.http_version.decode('latin-1')} is not spoken here", 505)
        headers: dict[str, str] = {}
        for name, value in event.headers:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self._is_head_request = event.method == b"HEAD"
        return RequestHead(event.method.decode("latin-1"), event.target.decode("latin-1"), headers, has_body)

    @property
    def buffered(self) -> int:
        """Bytes received but not yet turned into events."""
        return len(self._h11.trailing_data[0])

    @property
    def has_whole_request(self) -> bool:
        """True once the request that is being answered has arrived completely."""
        return self._h11.their_state not in (h11.IDLE, h11.SEND_BODY, h11.ERROR)

    @property
    def may_respond(self) -> bool:
        """True while no head of an answer was sent to the current request (or to unparsable bytes)."""
        return not self._is_switched and self._h11.our_state in (h11.SEND_RESPONSE, h11.IDLE)

    def continue_100(self) -> bytes:
        """Return `100 Continue` if the client waits for it before it sends the body, else b""."""
        if not self._h11.they_are_waiting_for_100_continue:
            return b""
        return self._h11.send(h11.InformationalResponse(status_code=100, headers=[])) or b""

    def head(self, status: int, headers: Headers) -> bytes:
        """Return the head of an answer; without a Content-Length header the body is chunked (HTTP/1.1)."""
        return self._h11.send(_response(status, headers)) or b""

    def data(self, chunk: bytes) -> bytes:
        """Return one piece of the body, framed; b"" stays b"" (an empty chunk would end the body)."""
        if not chunk or self._is_head_request:
            return b""
        return self._h11.send(h11.Data(data=chunk)) or b""

    def end(self) -> bytes:
        """Return the bytes that end the answer."""
        return self._h11.send(h11.EndOfMessage()) or b""

    def respond(self, status: int, headers: Headers, body: bytes) -> bytes:
        """Return a complete answer with its length. 204 and 304 have no body and no length (RFC 9110 §6.4.1)."""
        if status in (204, 304):
            return self.head(status, headers) + self.end()
        length = (b"Content-Length", str(len(body)).encode())
        return self.head(status, (*headers, length)) + self.data(body) + self.end()

    def switch(self, content_type: bytes, *, is_upgrade: bool) -> tuple[bytes, bytes]:
        """Leave HTTP: return (head of the answer, client bytes that arrived early and belong to the stream).

        The whole request must have been read. `is_upgrade` tells whether the client sent an `Upgrade` header.
        """
        if is_upgrade:
            headers = [(b"Content-Type", content_type), (b"Connection", b"Upgrade"), (b"Upgrade", b"tcp")]
            head = (
                self._h11.send(h11.InformationalResponse(status_code=101, headers=headers, reason=b"UPGRADED")) or b""
            )
        else:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: " + content_type + b"\r\n\r\n"
        self._is_switched = True
        return head, self._h11.trailing_data[0]

    def next_cycle(self) -> bool:
        """Make ready for the next request; False when the connection has to be closed instead."""
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            return True
        return False


_REASONS = {
    200: b"OK",
    201: b"Created",
    204: b"No Content",
    304: b"Not Modified",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    409: b"Conflict",
    413: b"Content Too Large",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    503: b"Service Unavailable",
    505: b"HTTP Version Not Supported",
}


@lru_cache(maxsize=1024)
def _response(status: int, headers: Headers) -> h11.Response:
    """Validating a head costs h11 40 µs, and few different ones exist (events are immutable, so they may be shared)."""
    return h11.Response(status_code=status, headers=list(headers), reason=_REASONS.get(status, b""))
