"""Legacy links in force: hosts files and rules of running containers follow their targets; `rm --link`.

Knows by an index who links to whom, so that a change of a container without links costs one look into a dictionary.
May import `model`, `rules.sandboxes` and its neighbours. Must never keep a link that the world does not have.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from contextlib import AsyncExitStack

from tsunagu.model.container import Container
from tsunagu.model.errors import Conflict
from tsunagu.model.network import Endpoint
from tsunagu.model.world import (
    ContainerCreated,
    ContainerRemoved,
    ContainerRenamed,
    ContainerStateChanged,
    EndpointsChanged,
    Event,
    LinksChanged,
    World,
)
from tsunagu.rules.sandboxes import has_live_sandbox

from .bundles import Bundles
from .engine import Engine
from .firewall import Firewall

log = logging.getLogger("tsunagu.links")


class Links:
    def __init__(self, engine: Engine, bundles: Bundles, firewall: Firewall) -> None:
        self._engine = engine
        self._bundles = bundles
        self._firewall = firewall
        self._announced: dict[str, EndpointsChanged] = {}  # by the id of a container that starts
        self._sources: defaultdict[str, set[str]] = defaultdict(set)  # ids of containers, by the id they link to
        for container in engine.world.containers.values():
            self._learn(container)
        engine.listeners.append(self._observe)

    async def remove(self, word: str) -> None:
        """Remove the link called `web/database`; both containers stay and run on.

        Raises NotFound when nothing is called so, Conflict when it is a container's own name, both in Docker's words.
        """
        world = self._engine.world
        if (found := world.link(word)) is None:
            target = world.container(word)
            raise Conflict(
                "Conflict, cannot remove the default link name of the container",
                hint=f"give the name of a link: tsunagu rm --link CONTAINER/ALIAS; {target.name} itself stays",
            )
        source, link = found
        async with self._engine.lock(source.id):
            current = self._engine.world.containers.get(source.id)
            if current is not None:
                left = tuple(one for one in current.links if one != link)
                self._engine.commit(LinksChanged(source.id, left))
                if self._opens_ports():
                    await self._firewall.sync()

    async def open(self, container_id: str, endpoints: tuple[Endpoint, ...], undo: AsyncExitStack) -> None:
        """Put the rules of a container's links in force before it runs, where the default bridge keeps neighbours
        apart. The caller commits `EndpointsChanged` and calls `settle`; `undo` takes them back instead."""
        if self._is_concerned(container_id):
            event = EndpointsChanged(container_id, endpoints)
            await self._firewall.announce(event)
            self._announced[container_id] = event
            undo.push_async_callback(self._firewall.revoke, event)
            undo.callback(self._announced.pop, container_id, None)

    def settle(self, container_id: str) -> None:
        """The endpoints that were given to `open` are committed."""
        if event := self._announced.pop(container_id, None):
            self._firewall.settle(event)

    async def follow(self, container_id: str) -> None:
        """Make the rules of a container's links those of the world: it came to a network, or left it."""
        if self._is_concerned(container_id):
            await self._firewall.sync()

    def _is_concerned(self, container_id: str) -> bool:
        if container_id not in self._sources and not self._engine.world.containers[container_id].links:
            return False
        return self._opens_ports()

    def _opens_ports(self) -> bool:
        return any(n.is_default_bridge and not n.allows_icc for n in self._engine.world.networks.values())

    def _learn(self, container: Container) -> None:
        for link in container.links:
            self._sources[link.target].add(container.id)

    def _observe(self, before: World, event: Event, after: World) -> None:
        match event:
            case ContainerCreated(container):
                self._learn(container)
            case ContainerRemoved(container_id):
                for link in before.containers[container_id].links:
                    self._forget(link.target, container_id)
                for source in self._sources.pop(container_id, ()):
                    self._write(after, source)
            case LinksChanged(container_id):
                for link in before.containers[container_id].links:
                    self._forget(link.target, container_id)
                self._learn(after.containers[container_id])
                self._write(after, container_id)
            case ContainerStateChanged(container_id):
                # a target may have moved while this container was starting
                container = after.containers[container_id]
                if container.links and container.is_running and not before.containers[container_id].is_running:
                    self._write(after, container_id)
            case EndpointsChanged(container_id) | ContainerRenamed(container_id):
                for source in self._sources.get(container_id, ()):
                    self._write(after, source)

    def _forget(self, target: str, source: str) -> None:
        if (sources := self._sources.get(target)) is not None:
            sources.discard(source)
            if not sources:
                del self._sources[target]

    def _write(self, world: World, container_id: str) -> None:
        """Write a running container's hosts file anew. A disk that is full must not stop what the world has seen."""
        container = world.containers.get(container_id)
        if container is None or not has_live_sandbox(world, container):
            return
        try:
            self._bundles.write_hosts(world, container)
        except OSError as error:
            log.error("hosts file not written container=%s error=%s", container_id[:12], error)
