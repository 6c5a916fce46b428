"""Where questions are forwarded to: servers with a memory of who is silent, the sockets to ask them through, kept
replies.

Two kinds of pool: the host's servers are asked from here, in the host's network namespace, through a new socket
each; the servers of --dns are asked through sockets that the engine opened inside the sandbox, used again and again.
Every question goes out from a fresh random port with a fresh random id. Imports `wire` and the resolver's own modules.
"""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from tsunagu.wire import dns

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
_PORT = 53
_FIRST_HOLD, _LAST_HOLD = 10.0, 60.0  # seconds that a silent server is tried last
_MAX_LIFETIME, _MAX_NEGATIVE = 60, 5  # seconds that a reply is kept at most
_MAX_KEPT = 4096  # bytes of one reply
_libc = ctypes.CDLL(None, use_errno=True)


class Upstream:
    """One server. `is_silent` while it is on hold for not having answered; any answer ends that."""

    def __init__(self, address: str) -> None:
        host, _, scope = address.partition("%")
        self.address = address
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.target: tuple[str, int] | tuple[str, int, int, int] = (host, _PORT)
        if self.family == socket.AF_INET6:
            self.target = (host, _PORT, 0, int(scope) if scope.isdigit() else 0)
        self.has_failed = False  # it did not answer the last time it was asked
        self._held_until = 0.0
        self._hold = _FIRST_HOLD

    @property
    def is_silent(self) -> bool:
        return time.monotonic() < self._held_until

    def answered(self) -> None:
        self.has_failed = False
        self._held_until, self._hold = 0.0, _FIRST_HOLD

    def failed(self) -> None:
        """It gave no answer: it is tried last for a while, longer each time."""
        self.has_failed = True
        self._held_until = time.monotonic() + self._hold
        self._hold = min(_LAST_HOLD, self._hold * 2)


class Kept:
    """Replies kept for their lifetime, at most `limit` of them; the oldest goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._replies: dict[object, tuple[float, float, bytes, list[int]]] = {}

    def get(self, key: object) -> bytes | None:
        """Return a kept reply with its TTLs counted down, or None."""
        found = self._replies.get(key)
        if found is None:
            return None
        now = time.monotonic()
        expires, since, data, ttls = found
        if now >= expires:
            del self._replies[key]
            return None
        return dns.aged(data, ttls, int(now - since))

    def put(self, key: object, data: bytes, scan: dns.Scan) -> None:
        """Keep a reply as long as it may be, not at all when that is 0 or it is big."""
        lifetime = min(scan.lifetime, _MAX_LIFETIME if data[6:8] != b"\0\0" else _MAX_NEGATIVE)
        if lifetime <= 0 or len(data) > _MAX_KEPT:
            return
        self._replies.pop(key, None)
        if len(self._replies) >= self._limit:
            del self._replies[next(iter(self._replies))]
        now = time.monotonic()
        self._replies[key] = (now + lifetime, now, data, scan.ttls)

    def clear(self) -> None:
        self._replies.clear()


class Pool:
    """A list of servers and the sockets to reach them. This one asks from the resolver's own namespace."""

    def __init__(self, limit: int = 2048) -> None:
        self.servers: list[Upstream] = []
        self.kept = Kept(limit)

    def set_servers(self, addresses: Sequence[str]) -> None:
        """Replace the servers; those that stay keep their memory, kept replies go."""
        if list(addresses) == [s.address for s in self.servers]:
            return
        old = {server.address: server for server in self.servers}
        self.servers = [old.get(address) or Upstream(address) for address in addresses]
        self.kept.clear()

    def preference(self) -> list[Upstream]:
        """Return the servers in the order to ask: as configured, silent ones last."""
        return sorted(self.servers, key=lambda server: server.is_silent)

    def borrow(self, server: Upstream, kind: int, waiter: Callable[[], None]) -> socket.socket | None:
        """Return an unconnected, non-blocking socket; None when all are lent out, `waiter` is called then once one
        is back.

        Raises OSError when none can be had.
        """
        return socket.socket(server.family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def give_back(self, sock: socket.socket) -> None:
        """Take a socket back. It must no longer be watched."""
        sock.close()


class InnerPool(Pool):
    """Asks from inside a sandbox, through sockets that were opened there. They are never closed here."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        super().__init__(limit=256)
        self._free = list(sockets)
        self._lent: set[socket.socket] = set()
        self._waiters: deque[Callable[[], None]] = deque()

    def borrow(self, server: Upstream, kind: int, waiter: Callable[[], None]) -> socket.socket | None:
        """See Pool; raises OSError when the sandbox has no socket of that kind at all."""
        for at, sock in enumerate(self._free):
            if sock.family == server.family and sock.type == kind:
                self._lent.add(sock)
                return self._free.pop(at)
        if not any(sock.family == server.family and sock.type == kind for sock in self._lent):
            raise OSError("no socket of that family in the sandbox")
        self._waiters.append(waiter)
        return None

    def give_back(self, sock: socket.socket) -> None:
        """Disconnect, so that the next question gets a new random port, and lend to the next in line."""
        _disconnect(sock)
        if sock.type == UDP:
            with suppress(OSError):
                for _ in range(64):
                    sock.recv(1)  # what came too late for the last question
        self._lent.discard(sock)
        self._free.append(sock)
        # One waiter may be over, or wait for another kind of socket: each is asked once.
        for _ in range(len(self._waiters)):
            if not self._free:
                return
            self._waiters.popleft()()


def _disconnect(sock: socket.socket) -> None:
    """connect(2) to AF_UNSPEC: forgets the peer and gives the automatic port back; resets a TCP connection."""
    _libc.connect(sock.fileno(), (ctypes.c_char * 16)(), 16)


def random_id() -> bytes:
    """Return the two bytes of a query id."""
    return os.urandom(2)
