"""The resolver's state, and what each batch of control messages does to it.

A batch is collected until its `Commit` and then put in force between two queries, so that nobody ever sees half of a
change. All state can be thrown away and fed again by the engine. Imports `wire` and the resolver's own modules.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from weakref import WeakValueDictionary

from tsunagu.wire import control, dns

from . import answers, tables
from .answers import Subnets
from .batch import Batch
from .forward import Forwarder, Request
from .journal import Journal
from .loop import Loop
from .sandbox import Sandbox, Sight
from .tables import NetworkTable
from .upstream import Pool

Key = tuple[tuple[str, ...], tuple[tuple[str, str, str], ...]]  # networks and links of a view


class Server:
    """Networks, sandboxes and the batch in the making."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.networks: dict[str, NetworkTable] = {}
        self.sandboxes: dict[str, Sandbox] = {}
        self._network_names: dict[str, bytes] = {}
        self._batch: list[tuple[control.Message, list[socket.socket]]] = []
        self._stale: set[str] = set()  # sandboxes whose view must be built anew at the end of the batch
        self._touched: set[str] = set()  # networks that changed in this batch
        self._has_new_subnets = False
        self.subnets = Subnets()
        self.host = Pool()
        self._buffers = Batch()
        # Shared by all sandboxes of one sight, so that a change of a network costs one clearing.
        self._sights: WeakValueDictionary[Key, Sight] = WeakValueDictionary()
        self._forwarder = Forwarder(loop)
        self._queries = self._dropped = 0  # of sandboxes that are gone
        self.journal = Journal(loop)
        self._follow = control.Follow(False, [])

    def add(self, message: control.Message, sockets: list[socket.socket]) -> None:
        """Add a message to the batch."""
        self._batch.append((message, sockets))

    def abandon(self) -> None:
        """Drop an unfinished batch: the engine that sent it has gone."""
        for _, sockets in self._batch:
            for sock in sockets:
                sock.close()
        self._batch.clear()

    def commit(self) -> None:
        """Put the batch in force."""
        batch, self._batch = self._batch, []
        for message, sockets in batch:
            self._apply(message, sockets)
        for name in [name for name, sandbox in self.sandboxes.items() if sandbox.view is None]:
            self._drop(name)
        self._forget_sights()
        for name in self._stale:
            if name in self.sandboxes:
                self._build_view(self.sandboxes[name])
        if self._has_new_subnets:
            self.subnets.replace(subnet for table in self.networks.values() for subnet in table.subnets)
        self._has_new_subnets = False
        self._stale.clear()
        self._touched.clear()

    def follow(self, wanted: control.Follow) -> None:
        """Write a journal of what these sandboxes ask, and no longer of any others."""
        self._follow = wanted
        for name, sandbox in self.sandboxes.items():
            sandbox.follow(self.journal if self._is_followed(name) else None)

    def _is_followed(self, name: str) -> bool:
        return self._follow.is_everybody or name in self._follow.sandboxes

    def counters(self) -> list[tuple[str, int]]:
        """Return totals since the process started."""
        queries = self._queries + sum(s.queries for s in self.sandboxes.values())
        return [
            ("queries", queries),
            ("sandboxes", len(self.sandboxes)),
            ("networks", len(self.networks)),
            ("faults", self.loop.faults),
            ("dropped", self._dropped + sum(s.dropped for s in self.sandboxes.values())),
            *self._forwarder.counters.items(),
        ]

    def _apply(self, message: control.Message, sockets: list[socket.socket]) -> None:
        match message:
            case control.Reset():
                self.networks, self._network_names = {}, {}
                self._sights.clear()
                for sandbox in self.sandboxes.values():
                    sandbox.view = None
            case control.Network():
                table = self.networks.get(message.network)
                if table is None:
                    table = self.networks[message.network] = NetworkTable(message.network)
                table.configure(message.name, message.ttl, message.subnets)
                if (name := dns.encode_name(message.name)) is not None:
                    self._network_names[message.network] = name
                self._networks_changed(message.network)
            case control.DropNetwork(network):
                self.networks.pop(network, None)
                self._network_names.pop(network, None)
                self._networks_changed(network)
            case control.Join(network) if network in self.networks:
                self.networks[network].join(message)
                self._touched.add(network)
            case control.Leave(network, endpoint) if network in self.networks:
                self.networks[network].leave(endpoint)
                self._touched.add(network)
            case control.Sandbox(name) if len(sockets) >= 2:
                self._drop(name)
                self.sandboxes[name] = Sandbox(name, sockets, self.subnets, self.loop, self._buffers, self._forward)
                if self._is_followed(name):
                    self.sandboxes[name].follow(self.journal)
            case control.View(name) if name in self.sandboxes:
                self.sandboxes[name].view = message
                self._stale.add(name)
            case control.Follow():
                self.follow(message)
            case control.Servers(addresses):
                self.host.set_servers(addresses)
            case control.DropSandbox(name):
                self._drop(name)
            case _:
                for sock in sockets:
                    sock.close()

    def _forget_sights(self) -> None:
        """Forget what was made from tables that have changed."""
        for key, sight in list(self._sights.items()):
            if not self._touched.isdisjoint(sight.networks):
                sight.ready.clear()
                if key[1]:  # links are copied into a table of their own
                    del self._sights[key]
        if self._touched:
            self._stale.update(
                name
                for name, s in self.sandboxes.items()
                if s.view and s.view.links and not self._touched.isdisjoint(s.view.networks)
            )

    def _networks_changed(self, network: str) -> None:
        self._has_new_subnets = True
        self._touched.add(network)
        for key in [key for key in self._sights if network in key[0]]:
            del self._sights[key]
        for name, sandbox in self.sandboxes.items():
            if sandbox.view is not None and network in sandbox.view.networks:
                self._stale.add(name)

    def _build_view(self, sandbox: Sandbox) -> None:
        view = sandbox.view
        assert view is not None
        known: Sequence[NetworkTable] = [self.networks[n] for n in view.networks if n in self.networks]
        sandbox.pool.set_servers(view.servers)
        key = (tuple(view.networks), tuple(view.links))
        sight = self._sights.get(key)
        if sight is None:
            private = tables.links(view.links, self.networks, self._network_names)
            sight = Sight(
                frozenset(view.networks),
                (private, *tables.lookup_order(known)),
                ("", *tables.lookup_networks(known)),
            )
            self._sights[key] = sight
        sandbox.sight = sight

    def _drop(self, name: str) -> None:
        sandbox = self.sandboxes.pop(name, None)
        if sandbox is not None:
            self._queries += sandbox.queries
            self._dropped += sandbox.dropped
            self._forwarder.abandon(sandbox.pool)
            sandbox.close()

    def _forward(self, sandbox: Sandbox, request: Request) -> None:
        """Decide whether, and whom, a sandbox may ask about a name that is not ours."""
        view, query = sandbox.view, request.query
        if view is None:
            request.finish(answers.refusal(query, request.limit))
            return
        if query.is_single_label and not view.forwards_single and query.qtype in (dns.A, dns.AAAA):
            request.origin = ("search", "")
            # The user chose ndots > 0: an empty answer sends libc on to its search list (Docker).
            request.finish(dns.reply(query, dns.NOERROR, (), request.limit))
            return
        pool = sandbox.pool if view.servers else self.host if view.has_external else None
        if pool is None or not pool.servers:
            request.origin = ("internal" if pool is None else "no-server", "")
            request.finish(answers.refusal(query, request.limit))
            return
        self._forwarder.submit(pool, request, sandbox.waiting - 1)
