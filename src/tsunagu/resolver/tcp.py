"""DNS over TCP towards clients (RFC 7766): one small state machine per connection, all in the one loop.

A client can harm itself only: connections per sandbox are bounded (the oldest idle one makes room), a message must be
complete three seconds after its first byte was awaited (CVE-2024-8418), any malformed byte closes the stream
(CVE-2026-35406), and a client that does not read its answers is cut off.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress

from tsunagu.wire import dns

from .loop import GONE, READ, WRITE, Loop

MAX_CONNECTIONS = 64
_IDLE = 3.0
_MAX_UNSENT = 4 * 65537  # bytes of answers that wait for the client
_MAX_PENDING = 64  # queries of one connection that are being forwarded
_ACCEPTS = 16

# (query bytes, most bytes of the reply, where a later reply goes) -> reply, or None for later or never
Resolve = Callable[[bytes, int, Callable[[bytes], None]], bytes | None]


class Connections:
    """The connections of one sandbox."""

    def __init__(self, loop: Loop, listener: socket.socket, resolve: Resolve) -> None:
        self.loop = loop
        self.resolve = resolve
        self._listener = listener
        self._open: dict[int, Connection] = {}  # oldest first

    def on_ready(self, _mask: int) -> None:
        """Accept what waits, a few at a time."""
        for _ in range(_ACCEPTS):
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if len(self._open) >= MAX_CONNECTIONS:
                victim = next((c for c in self._open.values() if not c.pending), next(iter(self._open.values())))
                victim.close()
            sock.setblocking(False)
            connection = Connection(self, sock)
            self._open[sock.fileno()] = connection
            connection.start()

    def forget(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)

    def close(self) -> None:
        """Close every connection; the listening socket belongs to the sandbox."""
        for connection in list(self._open.values()):
            connection.close()


class Connection:
    """One client. Answers may go out in another order than the questions came in (RFC 7766 6.2.1.1)."""

    def __init__(self, owner: Connections, sock: socket.socket) -> None:
        self.pending = 0
        self._owner = owner
        self._loop = owner.loop
        self._socket = sock
        self._incoming = b""
        self._outgoing = b""
        self._deadline = 0.0
        self._has_ended = False  # the client has half-closed
        self._is_closed = False
        self._mask = READ

    def start(self) -> None:
        self._deadline = time.monotonic() + _IDLE
        self._loop.later(_IDLE, self._check)
        self._loop.watch(self._socket.fileno(), self._on_ready)

    def close(self) -> None:
        """Close at once. Safe to call twice."""
        if not self._is_closed:
            self._is_closed = True
            self._owner.forget(self._socket.fileno())
            self._loop.forget(self._socket.fileno())
            self._socket.close()

    def _check(self) -> None:
        if self._is_closed:
            return
        left = self._deadline - time.monotonic()
        if left <= 0 and not self.pending:
            self.close()
        else:
            # A forwarded query ends within its own budget, so this looks again only a few times.
            self._loop.later(max(left, 0.5), self._check)

    def _on_ready(self, mask: int) -> None:
        try:
            if mask & GONE:
                self.close()
            elif mask & WRITE:
                self._flush()
            if mask & ~WRITE and not self._is_closed:
                self._read()
        except OSError:
            self.close()

    def _read(self) -> None:
        try:
            data = self._socket.recv(16384)
        except BlockingIOError:
            return
        if not data:
            self._has_ended = True
            self._settle()
            return
        self._incoming += data
        at = 0
        while len(self._incoming) - at >= 2 and not self._is_closed:
            length = int.from_bytes(self._incoming[at : at + 2], "big")
            if length < dns.HEADER:
                self.close()
                return
            if len(self._incoming) - at - 2 < length:
                break
            self._answer(self._incoming[at + 2 : at + 2 + length])
            at += 2 + length
        self._incoming = self._incoming[at:]
        if not self._is_closed:
            self._flush()

    def _answer(self, data: bytes) -> None:
        """Answer one complete message; one that cannot be understood closes the stream."""
        if self.pending >= _MAX_PENDING:
            self.close()
            return
        self._deadline = time.monotonic() + _IDLE
        self.pending += 1
        reply = self._owner.resolve(data, dns.TCP_LIMIT, self._later)
        if reply is not None:
            self.pending -= 1
            self._outgoing += len(reply).to_bytes(2, "big") + reply
            if reply[3] & 15 == dns.FORMERR:
                self._has_ended = True

    def _later(self, reply: bytes) -> None:
        """A forwarded query has its answer."""
        self.pending -= 1
        if not self._is_closed:
            self._deadline = time.monotonic() + _IDLE
            self._outgoing += len(reply).to_bytes(2, "big") + reply
            try:
                self._flush()
            except OSError:
                self.close()

    def _flush(self) -> None:
        if self._outgoing:
            with suppress(BlockingIOError):
                self._outgoing = self._outgoing[self._socket.send(self._outgoing) :]
        if len(self._outgoing) > _MAX_UNSENT:
            self.close()
            return
        self._settle()

    def _settle(self) -> None:
        """Close when nothing is left to do, else wait for what is."""
        if self._has_ended and not self._outgoing and not self.pending:
            self.close()
            return
        mask = (0 if self._has_ended else READ) | (WRITE if self._outgoing else 0)
        if mask != self._mask:
            self._mask = mask
            self._loop.change(self._socket.fileno(), mask)
