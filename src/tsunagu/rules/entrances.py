"""Where a container's port is offered on the host, for the words of an answer: published, on loopback only, not at all.

Imports `model` and its neighbours only; pure. Must never decide what a published port lets through: `policy` does.
"""

from __future__ import annotations

from tsunagu.model.container import Container
from tsunagu.model.network import PublishedPort
from tsunagu.model.world import World

from . import remedies
from .flows import Flow
from .sandboxes import has_live_sandbox, owner_of


def of_container(container: Container, protocol: str, port: int) -> PublishedPort | None:
    """Return where others find a container's port on the host, of all its ports (the lowest) if `port` is 0."""
    found = [
        one
        for endpoint in container.endpoints
        for one in endpoint.ports
        if one.host_port
        and not one.is_loopback_only
        and (not port or (one.protocol, one.container_port) == (protocol, port))
    ]
    return min(found, key=lambda one: (one.container_port, one.family, one.host_port), default=None)


def on_loopback(world: World, protocol: str, host_port: int) -> tuple[Container, PublishedPort] | None:
    """Return the container whose port is published on that port of the host's loopback interface."""
    for container in world.containers.values():
        for endpoint in container.endpoints if has_live_sandbox(world, container) else ():
            for one in endpoint.ports:
                if one.is_loopback_only and (one.protocol, one.host_port) == (protocol, host_port):
                    return container, one
    return None


def way_in(world: World, flow: Flow, container: Container) -> tuple[str, str]:
    """Return what is to be said and the remedy, for one who addressed the container itself from beyond this host."""
    published = of_container(container, flow.protocol, flow.port)
    if published is not None:
        where = f"{published.host_ip}:" if not published.is_for_any_address else ""
        port = f"port {published.container_port}/{published.protocol}"
        return f"{port} is published as the host's {where}{published.host_port}", remedies.entrance(flow, published)
    if not flow.port:
        return "", ""
    said = f"port {flow.port}/{flow.protocol} is not published to others"
    return said, remedies.publish(world, container, flow.protocol, flow.port)


def loopback_remedy(world: World, flow: Flow, container: Container, port: PublishedPort) -> str:
    """Return the remedy for one who asked for a port that only the host itself is offered: its other name where there
    is one, else the container published for all."""
    if flow.source == "host":
        return remedies.entrance(flow, port)
    source = next((c for c in world.containers.values() if flow.source in (c.name, c.id)), None)
    if source is not None:
        mine = owner_of(world, source)
        if any(
            world.networks[e.network_id].has_names and mine.endpoint_on(e.network_id) is not None
            for e in container.endpoints
            if e.network_id in world.networks
        ):
            protocol = "/udp" if port.protocol == "udp" else ""
            return f"{remedies.PROGRAM} why {flow.source} {container.name}:{port.container_port}{protocol}"
    return remedies.publish(world, container, port.protocol, port.container_port, port.host_port)
