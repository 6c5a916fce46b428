"""One sandbox: the sockets that it asks through, what it sees, and the hot path that answers it over UDP.

The socket is the identity of the asker; the source address is only where the reply goes. Imports `wire` and the
resolver's own modules.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial

from tsunagu.wire import dns
from tsunagu.wire.control import View

from . import answers
from .answers import Subnets
from .batch import COUNT, SIZE, Batch
from .forward import Request
from .journal import Followed, Journal
from .loop import Loop
from .tables import Table
from .tcp import Connections
from .upstream import InnerPool

MAX_READY = 4096  # replies kept in parts for one sight; past that, all are made anew
# Indexes into a Batch: number, first byte, byte after the id, received length, length to send.
_SLOTS = tuple((i, i * SIZE, i * SIZE + 2, i * 16 + 14, i * 2 + 1) for i in range(COUNT))

Deliver = Callable[[bytes], None]
Forward = Callable[["Sandbox", Request], None]


class Sight:
    """What sandboxes on the same networks, with the same links, see: the tables in lookup order, and replies ready
    to be sent, by the lower-cased bytes of a query without its id. Whoever changes a table must clear `ready`."""

    __slots__ = ("__weakref__", "networks", "origins", "ready", "tables")

    def __init__(self, networks: frozenset[str], tables: Sequence[Table], origins: Sequence[str] = ()) -> None:
        self.networks = networks
        self.tables = tables
        self.origins = origins  # the network of each table, "" for links
        self.ready: dict[bytes, answers.Ready] = {}


class Sandbox:
    """Sockets and view of one network namespace. It sees nothing until its first view."""

    def __init__(
        self, name: str, sockets: list[socket.socket], subnets: Subnets, loop: Loop, batch: Batch, forward: Forward
    ) -> None:
        self.name = name
        for sock in sockets:
            sock.setblocking(False)
        self.udp, self.tcp, *self.inner = sockets
        self.pool = InnerPool(self.inner)
        self.view: View | None = None
        self.sight = Sight(frozenset(), ())
        self.subnets = subnets
        self.waiting = 0  # queries that are being forwarded
        self.queries = 0
        self.dropped = 0
        self._forward = self._forward_as_usual = forward
        self._loop = loop
        self.batch = batch
        self._descriptor = self.udp.fileno()
        self._connections = Connections(loop, self.tcp, self.resolve)
        loop.watch(self.udp.fileno(), self.on_udp)
        loop.watch(self.tcp.fileno(), self._connections.on_ready)

    def on_udp(self, _mask: int) -> None:
        """Answer the datagrams that are waiting, at most batch.COUNT of them."""
        batch, descriptor = self.batch, self._descriptor
        count = batch.receive(descriptor)
        buffer, view, sizes, lengths, known = batch.buffer, batch.view, batch.sizes, batch.lengths, self.sight.ready
        first = 0  # of the replies that have not been sent yet
        for i, start, at, size_at, length_at in _SLOTS[:count]:
            asked = view[at : start + sizes[size_at]].tobytes()
            found = known.get(asked)
            if found is not None:
                whole = found[3]()
                size = len(whole)
                buffer[at : at + size] = whole
                lengths[length_at] = size + 2
                continue
            found = known.get(asked.lower())
            if found is not None:  # a mixed spelling: the question stays where it is
                head, end, next_tail, _ = found
                tail = next_tail()
                buffer[at : start + 12] = head
                buffer[start + end : start + end + len(tail)] = tail
                lengths[length_at] = end + len(tail)
                continue
            reply = self.resolve(batch.data(i), 0, partial(self.send, batch.peer(i)))
            if reply is not None:
                batch.put(i, reply)
                continue
            # Nothing to send for this one: what came before it goes out now, the rest later.
            self.dropped += batch.send(descriptor, first, i - first)
            first = i + 1
        if first < count:
            self.dropped += batch.send(descriptor, first, count - first)
        self.queries += count

    def resolve(self, data: bytes, tcp_limit: int, deliver: Deliver) -> bytes | None:
        """Return the reply to one query, or None when it is delivered otherwise or, over UDP, must be dropped.

        `tcp_limit` is 0 for a query over UDP.
        """
        if tcp_limit:
            self.queries += 1
        try:
            query = dns.Query(data)
        except dns.Malformed as error:
            self.dropped += 1
            if error.rcode is None and not tcp_limit:
                return None
            return dns.failure(data, dns.FORMERR if error.rcode is None else error.rcode)
        limit = tcp_limit or query.limit
        if query.edns_version:
            return dns.reply(query, dns.NOERROR, (), limit)  # BADVERS
        sight = self.sight
        found = answers.local(query, sight.tables, self.subnets)
        if found is not None:
            made = answers.ready(query, data, found)
            if made is not None:
                if len(sight.ready) >= MAX_READY:  # somebody varies his queries; those that matter are soon back
                    sight.ready.clear()
                sight.ready[data[2:].lower()] = made
            return answers.render(query, found, limit)
        self.waiting += 1
        self._forward(self, Request(query, data, limit, self._counted(deliver), is_tcp=bool(tcp_limit)))
        return None

    def _counted(self, deliver: Deliver) -> Deliver:
        def finish(reply: bytes) -> None:
            self.waiting -= 1
            deliver(reply)

        return finish

    def send(self, peer: tuple[str, int], reply: bytes) -> None:
        try:
            self.udp.sendto(reply, peer)
        except OSError:
            self.dropped += 1

    def follow(self, journal: Journal | None) -> None:
        """Have every query written down by `journal`, or (None) by nobody.

        Other handlers take the place of the usual ones while somebody follows: the usual ones know nothing of this.
        """
        followed = Followed(self, journal, self._forward_as_usual) if journal is not None else None
        self._forward = self._forward_as_usual if followed is None else followed.forward
        self._loop.redirect(self.udp.fileno(), self.on_udp if followed is None else followed.on_udp)
        self._connections.resolve = self.resolve if followed is None else followed.resolve

    def close(self) -> None:
        """Stop serving and close our copies of the sockets; the engine may hold others."""
        self._loop.forget(self.udp.fileno())
        self._loop.forget(self.tcp.fileno())
        self._connections.close()
        for sock in (self.udp, self.tcp, *self.inner):
            sock.close()
