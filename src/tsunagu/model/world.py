"""`World`: one immutable snapshot of every network and container, and the events that lead from one to the next.

Nothing edits a `World`: `apply(world, event)` returns the next one and the engine publishes it with one assignment, so
that a reader always sees a complete world. Events are past facts; they feed the store, the world, the name tables and
`/events`, in that order.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from .container import Container, HostConfig, Link, State
from .errors import NotFound
from .health import Health
from .ids import find_by_prefix
from .network import Endpoint, Network
from .volume import Volume


class World(msgspec.Struct, frozen=True, kw_only=True):
    networks: dict[str, Network] = {}
    containers: dict[str, Container] = {}
    network_ids: dict[str, str] = {}  # by name
    container_ids: dict[str, str] = {}  # by name
    volumes: dict[str, Volume] = {}  # by name, which is all the identity a volume has

    def network(self, word: str) -> Network:
        """Find a network by name, id or unique id prefix, in Docker's order; raises NotFound."""
        if found := self.networks.get(word):
            return found
        if identifier := self.network_ids.get(word):
            return self.networks[identifier]
        if word and (identifier := find_by_prefix(word, self.networks, noun="network")):
            return self.networks[identifier]
        raise NotFound(f"network {word} not found")

    def container(self, word: str) -> Container:
        """Find a container by id, name, name of a link or unique id prefix, in Docker's order; raises NotFound."""
        if found := self.containers.get(word):
            return found
        bare = word.removeprefix("/")
        if identifier := self.container_ids.get(bare):
            return self.containers[identifier]
        if "/" in bare and (linked := self.link(bare)):
            return self.containers[linked[1].target]
        if word and (identifier := find_by_prefix(word, self.containers, noun="container")):
            return self.containers[identifier]
        raise NotFound(f"No such container: {word}")

    def link(self, word: str) -> tuple[Container, Link] | None:
        """Return the link called `web/database` and its source, while the target is there; None for anything else."""
        source, _, alias = word.removeprefix("/").partition("/")
        container = self.containers.get(self.container_ids.get(source, ""))
        for link in container.links if container else ():
            if link.alias == alias and link.target in self.containers:
                return container, link  # type: ignore[return-value]
        return None

    def volume(self, name: str) -> Volume:
        """Find a volume by its name; raises NotFound."""
        if found := self.volumes.get(name):
            return found
        raise NotFound(f"get {name}: no such volume")

    def members(self, network_id: str) -> list[tuple[Container, Endpoint]]:
        """Return the endpoints that are joined to a network, oldest container first."""
        return [
            (container, endpoint)
            for container in self.containers.values()
            for endpoint in container.endpoints
            if endpoint.network_id == network_id and endpoint.is_joined
        ]


class NetworkCreated(msgspec.Struct, frozen=True, tag=True):
    network: Network


class NetworkRemoved(msgspec.Struct, frozen=True, tag=True):
    network_id: str


class ContainerCreated(msgspec.Struct, frozen=True, tag=True):
    container: Container


class ContainerRenamed(msgspec.Struct, frozen=True, tag=True):
    container_id: str
    name: str


class ContainerStateChanged(msgspec.Struct, frozen=True, tag=True):
    """The process started, exited or failed to start."""

    container_id: str
    state: State


class LinksChanged(msgspec.Struct, frozen=True, tag=True):
    """A legacy link was removed; the links that are left."""

    container_id: str
    links: tuple[Link, ...]


class HealthChanged(msgspec.Struct, frozen=True, tag=True):
    """A health check was run."""

    container_id: str
    health: Health


class HostConfigChanged(msgspec.Struct, frozen=True, tag=True):
    """What a container may have of the host was changed by `update`; the whole of it."""

    container_id: str
    host: HostConfig


class EndpointsChanged(msgspec.Struct, frozen=True, tag=True):
    """The container joined or left networks; the whole ordered tuple, so that order survives."""

    container_id: str
    endpoints: tuple[Endpoint, ...]


class VolumeCreated(msgspec.Struct, frozen=True, tag=True):
    volume: Volume


class VolumeRemoved(msgspec.Struct, frozen=True, tag=True):
    name: str


class ContainerRemoved(msgspec.Struct, frozen=True, tag=True):
    container_id: str


Event = (
    NetworkCreated
    | NetworkRemoved
    | ContainerCreated
    | ContainerRenamed
    | ContainerStateChanged
    | HealthChanged
    | HostConfigChanged
    | EndpointsChanged
    | LinksChanged
    | ContainerRemoved
    | VolumeCreated
    | VolumeRemoved
)


def apply(world: World, event: Event) -> World:
    """Return the world after `event`. An event about an unknown object is a bug and raises KeyError."""
    match event:
        case NetworkCreated(network):
            return replace(
                world,
                networks={**world.networks, network.id: network},
                network_ids={**world.network_ids, network.name: network.id},
            )
        case NetworkRemoved(network_id):
            name = world.networks[network_id].name
            return replace(
                world,
                networks={k: v for k, v in world.networks.items() if k != network_id},
                network_ids={k: v for k, v in world.network_ids.items() if k != name},
            )
        case ContainerCreated(container):
            return replace(
                world,
                containers={**world.containers, container.id: container},
                container_ids={**world.container_ids, container.name: container.id},
            )
        case ContainerRenamed(container_id, name):
            old = world.containers[container_id]
            names = {k: v for k, v in world.container_ids.items() if k != old.name}
            return replace(_with(world, replace(old, name=name)), container_ids={**names, name: container_id})
        case ContainerStateChanged(container_id, state):
            return _with(world, replace(world.containers[container_id], state=state))
        case HealthChanged(container_id, health):
            old = world.containers[container_id]
            return _with(world, replace(old, state=replace(old.state, health=health)))
        case HostConfigChanged(container_id, host):
            return _with(world, replace(world.containers[container_id], host=host))
        case EndpointsChanged(container_id, endpoints):
            return _with(world, replace(world.containers[container_id], endpoints=endpoints))
        case LinksChanged(container_id, links):
            return _with(world, replace(world.containers[container_id], links=links))
        case VolumeCreated(volume):
            return replace(world, volumes={**world.volumes, volume.name: volume})
        case VolumeRemoved(name):
            return replace(world, volumes={k: v for k, v in world.volumes.items() if k != name})
        case ContainerRemoved(container_id):
            name = world.containers[container_id].name
            return replace(
                world,
                containers={k: v for k, v in world.containers.items() if k != container_id},
                container_ids={k: v for k, v in world.container_ids.items() if k != name},
            )


def _with(world: World, container: Container) -> World:
    return replace(world, containers={**world.containers, container.id: container})
