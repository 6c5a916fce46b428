"""One sandbox: the sockets that it asks through, what it sees, and the hot path that answers it over UDP.

The socket is the identity of the asker; the source address is only where the reply goes. Imports `wire` and the
resolver's own modules.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from tsunagu.wire import dns
from tsunagu.wire.control import View

from . import answers
from .answers import Subnets
from .forward import Request
from .loop import Loop
from .tables import Table
from .tcp import Connections
from .upstream import InnerPool

DRAIN = 64  # datagrams answered in one go, so that a flood from one sandbox leaves the others their turn
_SIZE = 1536  # a query over UDP is never longer
# Bytes 2 to 12 of the plainest queries: RD, with and without AD (musl, dig), one question, no EDNS.
_PLAIN = frozenset((b"\1\0\0\1\0\0\0\0\0\0", b"\1\x20\0\1\0\0\0\0\0\0"))

Deliver = Callable[[bytes], None]
Forward = Callable[["Sandbox", Request], None]


class Sandbox:
    """Sockets and view of one network namespace. `tables` is empty until the first view."""

    def __init__(self, name: str, sockets: list[socket.socket], subnets: Subnets, loop: Loop, forward: Forward) -> None:
        self.name = name
        for sock in sockets:
            sock.setblocking(False)
        self.udp, self.tcp, *self.inner = sockets
        self.pool = InnerPool(self.inner)
        self.view: View | None = None
        self.tables: tuple[Table, ...] = ()
        self.subnets = subnets
        self.waiting = 0  # queries that are being forwarded
        self.queries = 0
        self.dropped = 0
        self._forward = forward
        self._loop = loop
        self._connections = Connections(loop, self.tcp, self.resolve)
        loop.watch(self.udp.fileno(), self.on_udp)
        loop.watch(self.tcp.fileno(), self._connections.on_ready)

    def on_udp(self, _mask: int) -> None:
        """Answer the datagrams that are waiting, at most DRAIN of them."""
        receive, send, tables = self.udp.recvfrom, self.udp.sendto, self.tables
        for _ in range(DRAIN):
            try:
                data, peer = receive(_SIZE)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier reply, reported here
            self.queries += 1
            if data[2:12] in _PLAIN:
                key = data[12:].lower()
                for table in tables:
                    found = table.get(key)
                    if found is not None:
                        reply: bytes | None = data[:2] + found[0] + data[12:] + found[1]()
                        if len(reply) > dns.UDP_LIMIT:  # type: ignore[arg-type]
                            reply = self.resolve(data, 0, None)
                        break
                else:
                    reply = self.resolve(data, 0, self._deliver_to(peer))
            else:
                reply = self.resolve(data, 0, self._deliver_to(peer))
            if reply is not None:
                try:
                    send(reply, peer)
                except OSError:
                    self.dropped += 1

    def resolve(self, data: bytes, tcp_limit: int, deliver: Deliver | None) -> bytes | None:
        """Return the reply to one query, or None when it is delivered otherwise or, over UDP, must be dropped.

        `tcp_limit` is 0 for a query over UDP. With `deliver` None it is not forwarded.
        """
        try:
            query = dns.Query(data)
        except dns.Malformed as error:
            self.dropped += 1
            if error.rcode is None and not tcp_limit:
                return None
            return dns.failure(data, dns.FORMERR if error.rcode is None else error.rcode)
        limit = tcp_limit or query.limit
        reply = answers.local(query, self.tables, self.subnets, limit)
        if reply is not None or deliver is None:
            return reply
        self.waiting += 1
        self._forward(self, Request(query, data, limit, self._counted(deliver), is_tcp=bool(tcp_limit)))
        return None

    def _counted(self, deliver: Deliver) -> Deliver:
        def finish(reply: bytes) -> None:
            self.waiting -= 1
            deliver(reply)

        return finish

    def _deliver_to(self, peer: tuple[str, int]) -> Deliver:
        def deliver(reply: bytes) -> None:
            try:
                self.udp.sendto(reply, peer)
            except OSError:
                self.dropped += 1

        return deliver

    def close(self) -> None:
        """Stop serving and close our copies of the sockets; the engine may hold others."""
        self._loop.forget(self.udp.fileno())
        self._loop.forget(self.tcp.fileno())
        self._connections.close()
        for sock in (self.udp, self.tcp, *self.inner):
            sock.close()
