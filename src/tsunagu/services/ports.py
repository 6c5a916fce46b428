"""Published ports of running containers: reserved on the host, then in the rules; given back in the reverse order.

The sockets live here, as long as their container runs and this engine does; after a restart they are bound again for
the containers that were found running. May import kernel and rules. Must never change a container's record.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack

from msgspec.structs import replace

from tsunagu.kernel import ports as sockets
from tsunagu.kernel.network import NetworkKernel
from tsunagu.model.container import Container
from tsunagu.model.errors import KernelFailure
from tsunagu.model.network import Endpoint, PortPlan, PublishedPort
from tsunagu.model.world import EndpointsChanged, World
from tsunagu.rules import ports

from .engine import Engine
from .firewall import Firewall

log = logging.getLogger("tsunagu.ports")


class Ports:
    """Holds the ports of the host that lead to containers."""

    def __init__(self, engine: Engine, kernel: NetworkKernel, firewall: Firewall) -> None:
        self._engine = engine
        self._kernel = kernel
        self._firewall = firewall
        # By container id: what it holds; what it will not need any more; and the event that rules are ahead of.
        self._held: dict[str, sockets.Holdings] = {}
        self._obsolete: dict[str, sockets.Holdings] = {}
        self._announced: dict[str, EndpointsChanged] = {}

    async def publish(
        self, world: World, container: Container, undo: AsyncExitStack, *, is_strict: bool = True
    ) -> tuple[Endpoint, ...]:
        """Publish what a container asks for; returns its endpoints with their ports, rules in force already.

        `container` has the endpoints of `world`, the world to come. What it holds already stays, with its numbers, and
        moves to another endpoint when the gateway did. The caller commits `EndpointsChanged` with the result and calls
        `settle`; `undo` takes everything back instead. With `is_strict` a binding that no address family of the
        container can serve is an error. Raises KernelFailure in Docker's words, naming the holder of a taken port.
        """
        default_ip = self._engine.instance.bind_address
        plans = ports.plans(world, container, default_ip, is_strict=is_strict)
        opened = ports.opened(world, container, default_ip)
        held = self._held.get(container.id, {})
        if not plans and not held and not opened and not any(e.ports for e in container.endpoints):
            return container.endpoints
        missing, kept = ports.compare(plans, held)
        try:
            made = await self._kernel.reserve_ports(missing, kept)
        except sockets.PortTaken as error:
            raise self._taken(world, container, missing, error) from error
        undo.callback(self._restore, container.id, held, made)
        self._held[container.id] = {port: held[port] for port in kept} | made
        self._obsolete[container.id] = {port: one for port, one in held.items() if port not in kept}
        published = [*self._held[container.id], *opened]
        placed = ports.place(container.endpoints, ports.entrances(world, container), published)
        endpoints = tuple(replace(e, ports=placed.get(e.id, ())) for e in container.endpoints)
        event = EndpointsChanged(container.id, endpoints)
        await self._firewall.announce(event)
        self._announced[container.id] = event
        undo.push_async_callback(self._firewall.revoke, event)
        await self._kernel.forget_flows([*made, *held])
        return endpoints

    def settle(self, container_id: str) -> None:
        """The endpoints that `publish` returned are committed: give back what is not needed any more."""
        if event := self._announced.pop(container_id, None):
            self._firewall.settle(event)
        sockets.release(self._obsolete.pop(container_id, {}))

    async def close(self, container_id: str) -> None:
        """Give everything back, once the world says that nothing is published for the container. Rules go first."""
        held = self._held.pop(container_id, None)
        if held is not None:  # nothing is held for ports of routed networks, and they have rules all the same
            try:
                await self._firewall.sync()
                await self._kernel.forget_flows(held)
            finally:
                sockets.release(held)

    def held(self) -> dict[str, set[PublishedPort]]:
        """Return the ports that are really held, by container id."""
        return {
            container_id: {port for port, one in held.items() if one is None or one.fileno() >= 0}
            for container_id, held in self._held.items()
        }

    async def adopt(self, container: Container) -> None:
        """Take the ports of a container that an earlier engine started; one that is gone meanwhile is logged."""
        for port in (port for endpoint in container.endpoints for port in endpoint.ports):
            held = self._held.setdefault(container.id, {})
            if (one := held.get(port)) is not None and one.fileno() < 0:
                del held[port]
            if port in held:
                continue
            if not port.host_port:
                continue
            exact = PortPlan(
                protocol=port.protocol, container_port=port.container_port, host_ips=(port.host_ip,),
                first=port.host_port, last=port.host_port,
            )  # fmt: skip
            try:
                held |= await self._kernel.reserve_ports([exact], held)
            except sockets.PortTaken as error:
                log.warning(
                    "port of a running container was taken while no engine ran container=%s port=%s holder=%s",
                    container.name, ports.describe(port.host_ip, port.host_port), error.holder or "unknown",
                )  # fmt: skip

    def _restore(self, container_id: str, held: sockets.Holdings, made: sockets.Holdings) -> None:
        """Undo of `publish`: the container holds what it held before."""
        sockets.release(made)
        self._announced.pop(container_id, None)
        self._obsolete.pop(container_id, None)
        self._held.pop(container_id, None)
        if held:
            self._held[container_id] = held

    def _taken(
        self, world: World, container: Container, plans: Sequence[PortPlan], error: sockets.PortTaken
    ) -> KernelFailure:
        """Docker's sentence for a port that cannot be had, and who has it."""
        port = error.port
        way = ports.entrances(world, container)[port.family]
        where = ports.describe(port.host_ip, port.host_port)
        prefix = f"driver failed programming external connectivity on endpoint {container.name} ({way.id}): "
        if error.number == errno.EADDRINUSE and (owner := self._owner(container, plans, port)):
            return KernelFailure(f"{prefix}Bind for {where} failed: port is already allocated", hint=owner)
        target = ports.describe(way.ipv6 if port.family == 6 else way.ipv4, port.container_port)
        hint = ""
        if error.number == errno.EADDRINUSE:
            hint = f"{error.holder or 'another process'} has it: choose another host port, or stop that process first"
        elif error.number == errno.EADDRNOTAVAIL:
            hint = f"{port.host_ip} is no address of this host"
        return KernelFailure(
            f"{prefix}failed to bind host port for {where}:{target}/{port.protocol}: {error.words}", hint=hint
        )

    def _owner(self, container: Container, plans: Sequence[PortPlan], port: PublishedPort) -> str:
        """Say which container of ours stands in the way; "" when none does."""
        for container_id, held in self._held.items():
            if container_id != container.id and any(port.conflicts_with(one) for one in held):
                holder = self._engine.world.containers.get(container_id)
                name = holder.name if holder else container_id[:12]
                return f"container {name} has it: choose another host port, or stop {name} first"
        twice = [p for p in plans if p.protocol == port.protocol and p.first == p.last == port.host_port]
        return "this container asks for it twice" if len(twice) > 1 else ""
