"""Names, on the engine's side: what is live now, told to the resolver process as small changes.

The live set is derived from worlds, never stored; a process that was started anew is told all of it. One join costs
as many names as the endpoint has. May import rules, wire and kernel; never touches a DNS packet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from socket import if_nametoindex, socket

from tsunagu.kernel.inotify import FileWatch
from tsunagu.model.container import Container
from tsunagu.model.instance import Instance
from tsunagu.model.network import Network
from tsunagu.model.world import (
    ContainerStateChanged,
    Event,
    NetworkCreated,
    NetworkRemoved,
    VolumeCreated,
    VolumeRemoved,
    World,
)
from tsunagu.rules import names
from tsunagu.rules.names import Registration, View
from tsunagu.wire import control

from .resolver_link import Link

log = logging.getLogger("tsunagu.resolver")


class Resolver:
    """Feeds the resolver process and keeps duplicates of every socket it serves.

    A container is live, that is in the tables, while anybody lives in its sandbox; one that is starting already from
    `add_sandbox` on, so that its process finds its own name in its first instruction.
    """

    def __init__(self, instance: Instance, *, resolv_conf: str = "/etc/resolv.conf") -> None:
        self._resolv_conf = resolv_conf
        self._link = Link(instance, self._feed)
        self._world = World()
        self._networks: dict[str, Network] = {}
        self._live: dict[str, dict[str, Registration]] = {}  # container id -> network id -> names
        self._views: dict[str, View] = {}
        self._sockets: dict[str, list[socket]] = {}
        self._starting: set[str] = set()
        self._servers: tuple[str, ...] = ()
        self._is_open = False  # a batch with changes has not been committed yet
        self._last = 0
        self._watch: FileWatch | None = None
        self._follow = control.Follow(False, [])
        self.on_seen: Callable[[control.Seen], None] = lambda _seen: None
        self._link.on_seen = self._seen

    async def start(self, world: World) -> None:
        """Connect to a living resolver, or start one, and tell it everything. Sockets of sandboxes that a living
        resolver serves are adopted when their container still runs. Raises KernelFailure."""
        self._world = world
        self._networks = {n.id: n for n in world.networks.values() if n.has_names}
        self._live = {c.id: found for c in world.containers.values() if (found := self._registrations(c))}
        self._servers = names.host_servers(_read(self._resolv_conf))
        await self._link.open()
        for container_id, sockets in self._link.held.items():
            container = world.containers.get(container_id)
            if container is not None and self._is_live(container):
                self._sockets[container_id] = sockets
                self._views[container_id] = names.view(world, container)
            else:
                _close(sockets)
        self._feed()
        self._watch_host_file()
        await self.settle()

    async def close(self, *, stop_process: bool) -> None:
        """Disconnect and close our duplicates. Without `stop_process` the resolver goes on answering alone."""
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch.descriptor)
            self._watch.close()
            self._watch = None
        await self._link.close(stop_process=stop_process)
        for sockets in self._sockets.values():
            _close(sockets)
        self._sockets.clear()

    def holds(self, container_id: str) -> bool:
        """True when the container's sandbox is served; a running one that is not needs new sockets (reconcile)."""
        return container_id in self._sockets

    async def add_sandbox(
        self, world: World, container_id: str, udp: socket, tcp: socket, inner: Sequence[socket] = ()
    ) -> None:
        """Serve a sandbox; the sockets belong to the resolver from now on.

        `world` may be one that is not published yet, in which the container has joined its networks. `inner` are
        unbound UDP and TCP sockets opened inside the sandbox, for the servers of --dns. In force after the next
        `settle`.
        """
        container = world.containers[container_id]
        _close(self._sockets.get(container_id, ()))
        self._sockets[container_id] = [udp, tcp, *inner]
        self._views[container_id] = names.view(world, container)
        if not container.is_running:
            self._starting.add(container_id)
        self._send_sandbox(container_id)
        self._update(container)

    async def remove_sandbox(self, container_id: str) -> None:
        """Stop serving a sandbox and close its sockets; no error when it is not served."""
        self._starting.discard(container_id)
        self._views.pop(container_id, None)
        sockets = self._sockets.pop(container_id, None)
        if sockets is not None:
            self._send(control.DropSandbox(container_id))
            _close(sockets)
        container = self._world.containers.get(container_id)
        if container is not None:
            self._update(container)
        else:
            self._replace(container_id, {})

    def publish(self, before: World, event: Event, after: World) -> None:
        """Tell the resolver what `event` changed. Never waits; `settle` does."""
        self._world = after
        match event:
            case NetworkCreated(network):
                if network.has_names:
                    self._networks[network.id] = network
                    self._send(_network_message(network))
            case NetworkRemoved(network_id):
                if self._networks.pop(network_id, None) is not None:
                    self._send(control.DropNetwork(network_id))
            case VolumeCreated() | VolumeRemoved():
                pass  # data has no names
            case _:
                container_id = event.container.id if hasattr(event, "container") else event.container_id
                if isinstance(event, ContainerStateChanged):
                    self._starting.discard(container_id)
                container = after.containers.get(container_id)
                if container is None:
                    self._replace(container_id, {})
                else:
                    self._update(container)

    async def settle(self) -> None:
        """Return when everything published so far is in force in the resolver."""
        self._commit()
        await self._link.wait(self._last)

    async def refresh(self) -> None:
        """Bring the counters in `status` up to date."""
        self._is_open = True
        await self.settle()

    def _seen(self, seen: control.Seen) -> None:
        self.on_seen(seen)

    def follow(self, wanted: control.Follow) -> None:
        """Say whose queries are told of by `on_seen`; in force after the next `settle`."""
        if wanted != self._follow:
            self._follow = wanted
            self._send(wanted)

    @property
    def servers(self) -> tuple[str, ...]:
        """The host's name servers, in order."""
        return self._servers

    @property
    def status(self) -> dict[str, object]:
        """Facts for `system info`; counters are totals of the process as of its last acknowledgement: see `refresh`."""
        return {
            "pid": self._link.pid,
            "sandboxes": len(self._sockets),
            "restarts": self._link.restarts,
            "servers": list(self._servers),
            **{key: value for key, value in self._link.counters.items() if key != "sandboxes"},
        }

    # ---- the host's servers

    def _watch_host_file(self) -> None:
        """Follow the host's resolv.conf (needs.md N6: a VPN or another Wi-Fi must not need a restart)."""
        try:
            self._watch = FileWatch(self._resolv_conf)
        except OSError as error:
            log.warning("changes of %s will not be seen error=%s", self._resolv_conf, error)
            return
        asyncio.get_running_loop().add_reader(self._watch.descriptor, self._read_host_file)

    def _read_host_file(self) -> None:
        if self._watch is None or not self._watch.has_changed():
            return
        servers = names.host_servers(_read(self._resolv_conf))
        if servers != self._servers:
            self._servers = servers
            log.info("name servers of the host changed servers=%s", " ".join(servers) or "none")
            self._send(_servers_message(servers))

    # ---- what is live

    def _registrations(self, container: Container) -> dict[str, Registration]:
        if not self._is_live(container):
            return {}
        return names.registrations(self._world, container)

    def _is_live(self, container: Container) -> bool:
        """A stopped container has joined endpoints as long as others keep its sandbox (services/sandboxes.py)."""
        return container.is_running or container.id in self._starting or any(e.is_joined for e in container.endpoints)

    def _update(self, container: Container) -> None:
        """Bring names and view of one container in line with what it is now."""
        self._replace(container.id, self._registrations(container))
        if container.id in self._sockets and self._is_live(container):
            view = names.view(self._world, container)
            if view != self._views[container.id]:
                self._views[container.id] = view
                self._send(_view_message(container.id, view))

    def _replace(self, container_id: str, wanted: dict[str, Registration]) -> None:
        live = self._live.get(container_id, {})
        for network_id, registration in live.items():
            if network_id not in wanted or wanted[network_id].endpoint_id != registration.endpoint_id:
                self._send(control.Leave(network_id, registration.endpoint_id))
        for network_id, registration in wanted.items():
            if live.get(network_id) != registration:
                self._send(_join_message(registration))
        if wanted:
            self._live[container_id] = wanted
        else:
            self._live.pop(container_id, None)

    # ---- messages

    def _feed(self) -> None:
        """Tell everything, as one batch: a reader of the old tables sees the new ones whole."""
        self._link.send(control.Reset())
        self._link.send(_servers_message(self._servers))
        for network in self._networks.values():
            self._link.send(_network_message(network))
        for registrations in self._live.values():
            for registration in registrations.values():
                self._link.send(_join_message(registration))
        for container_id in self._sockets:
            if container_id in self._link.held:
                self._link.send(_view_message(container_id, self._views[container_id]))
            else:
                self._send_sandbox(container_id)
        self._link.send(self._follow)
        self._is_open = True
        self._commit()

    def _send_sandbox(self, container_id: str) -> None:
        self._link.send(control.Sandbox(container_id), self._sockets[container_id])
        self._send(_view_message(container_id, self._views[container_id]))

    def _send(self, message: control.Message) -> None:
        """Add to the open batch; it is closed when the current callback ends, so that one commit of the engine is
        one."""
        self._link.send(message)
        if not self._is_open:
            self._is_open = True
            asyncio.get_running_loop().call_soon(self._commit)

    def _commit(self) -> None:
        if self._is_open:
            self._is_open = False
            self._last = self._link.commit()


def _network_message(network: Network) -> control.Network:
    subnets = [ip_network(s.subnet) for s in network.subnets]
    packed = [(n.network_address.packed, n.prefixlen) for n in subnets]
    return control.Network(network.id, network.name, network.dns_ttl, packed)


def _join_message(r: Registration) -> control.Join:
    return control.Join(
        r.network_id, r.endpoint_id, list(r.names), _packed(r.ipv4), _packed(r.ipv6), r.pointer, r.is_ready
    )


def _view_message(container_id: str, view: View) -> control.View:
    return control.View(
        container_id, list(view.networks), list(view.links), list(view.servers), view.has_external, view.forwards_single
    )


def _servers_message(servers: Sequence[str]) -> control.Servers:
    """Zones of link-local addresses (`fe80::1%eth0`) become numbers: the resolver cannot look interfaces up."""
    numbered = []
    for server in servers:
        address, _, zone = server.partition("%")
        try:
            numbered.append(f"{address}%{zone if zone.isdigit() else if_nametoindex(zone)}" if zone else address)
        except OSError:
            log.warning("name server %s skipped: no such interface", server)
    return control.Servers(numbered)


def _packed(address: str) -> bytes:
    return ip_address(address).packed if address else b""


def _close(sockets: Sequence[socket]) -> None:
    for sock in sockets:
        sock.close()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
