"""Legacy links in force: the hosts files of running containers follow their targets; `rm --link`.

Knows by an index who links to whom, so that a change of a container without links costs one look into a dictionary.
May import `model` and its neighbours. Must never keep a link that the world does not have.
"""

from __future__ import annotations

import logging
from collections import defaultdict

from tsunagu.model.container import Container
from tsunagu.model.errors import Conflict
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

from .bundles import Bundles
from .engine import Engine

log = logging.getLogger("tsunagu.links")


class Links:
    def __init__(self, engine: Engine, bundles: Bundles) -> None:
        self._engine = engine
        self._bundles = bundles
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
        if container is None or not container.is_running:
            return
        try:
            self._bundles.write_hosts(world, container)
        except OSError as error:
            log.error("hosts file not written container=%s error=%s", container_id[:12], error)
