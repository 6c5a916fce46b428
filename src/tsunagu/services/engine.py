"""The engine owns the current `World`: every change goes through `commit`, which stores and publishes it.

Runs on one event loop; a commit has no await in it, so that a reader always sees a complete world. Per-object locks
keep *operations* on the same object apart; data needs none.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import replace

from tsunagu.model.container import Container
from tsunagu.model.ids import SHORT
from tsunagu.model.instance import Instance
from tsunagu.model.network import Network
from tsunagu.model.volume import Volume
from tsunagu.model.world import (
    ContainerCreated,
    ContainerRemoved,
    Event,
    NetworkCreated,
    NetworkRemoved,
    VolumeCreated,
    VolumeRemoved,
    World,
    apply,
)
from tsunagu.rules import mounts
from tsunagu.store.db import Database

from .events import Bus, EngineEvent

Listener = Callable[[World, Event, World], None]
_encode = msgspec.json.Encoder().encode
_container = msgspec.json.Decoder(Container)
_network = msgspec.json.Decoder(Network)
_volume = msgspec.json.Decoder(Volume)


class Engine:
    """The one owner of state. `listeners` are called after each event with the world before and after it."""

    def __init__(self, instance: Instance, db: Database) -> None:
        self.instance = instance
        self.db = db
        self.events = Bus()
        self.listeners: list[Listener] = []
        self.started_at = time.time_ns()
        self.world = self._load()
        self._joining: Counter[str] = Counter()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def commit(self, *events: Event) -> None:
        """Record `events` in one transaction, then publish the world they lead to."""
        after = self.world
        steps: list[tuple[World, Event, World]] = []
        for event in events:
            before, after = after, apply(after, event)
            steps.append((before, event, after))
        with self.db.transaction():
            for _, event, world in steps:
                self._record(event, world)
        for before, event, world in steps:
            self.world = world
            for listener in self.listeners:
                listener(before, event, world)

    def lock(self, identifier: str) -> asyncio.Lock:
        """Return the lock that keeps operations on one object apart; it lives as long as somebody holds it."""
        lock = self._locks.get(identifier)
        if lock is None:
            lock = self._locks[identifier] = asyncio.Lock()
        return lock

    def emit(self, kind: str, action: str, identifier: str, attributes: dict[str, str]) -> None:
        """Publish one event for `GET /events`, stamped now."""
        self.events.publish(
            EngineEvent(type=kind, action=action, id=identifier, attributes=attributes, time_ns=time.time_ns())
        )

    @contextmanager
    def intent(self, identifier: str, operation: str) -> Iterator[None]:
        """Remember in the store that `operation` on an object is under way, so that a restart can undo or finish it."""
        self.db.put("intent", identifier, operation.encode())
        try:
            yield
        finally:
            self.db.delete("intent", identifier)

    @contextmanager
    def joining(self, network_ids: Iterable[str]) -> Iterator[None]:
        """Keep networks from being removed while endpoints join them: those are in the world only once it is done."""
        wanted = Counter(network_ids)
        self._joining.update(wanted)
        try:
            yield
        finally:
            self._joining.subtract(wanted)

    @property
    def is_busy(self) -> bool:
        """Whether an operation is under way whose things in the kernel the world does not know yet."""
        return any(self._joining.values()) or bool(self.db.all("intent"))

    def is_being_joined(self, network_id: str) -> bool:
        return self._joining[network_id] > 0

    def new_id(self) -> str:
        """Return 64 random hex digits; the short form never looks like a number (Docker's rule: a host name of
        digits only breaks tools that take it for an address)."""
        while True:
            identifier = secrets.token_hex(32)
            if not identifier[:SHORT].isdigit():
                return identifier

    def _load(self) -> World:
        networks = [_network.decode(row) for _, row in self.db.all("network")]
        containers = [_with_mounts(_container.decode(row)) for _, row in self.db.all("container")]
        volumes = [_volume.decode(row) for _, row in self.db.all("volume")]
        networks.sort(key=lambda n: n.created)
        containers.sort(key=lambda c: c.created)
        return World(
            networks={n.id: n for n in networks},
            network_ids={n.name: n.id for n in networks},
            containers={c.id: c for c in containers},
            container_ids={c.name: c.id for c in containers},
            volumes={v.name: v for v in volumes},
        )

    def _record(self, event: Event, after: World) -> None:
        match event:
            case NetworkCreated(network):
                self.db.put("network", network.id, _encode(network))
            case NetworkRemoved(network_id):
                self.db.delete("network", network_id)
            case VolumeCreated(volume):
                self.db.put("volume", volume.name, _encode(volume))
            case VolumeRemoved(name):
                self.db.delete("volume", name)
            case ContainerRemoved(container_id):
                self.db.delete("container", container_id)
            case ContainerCreated(container):
                self.db.put("container", container.id, _encode(container))
            case _:  # one container has changed
                container = after.containers[event.container_id]
                self.db.put("container", container.id, _encode(container))


def _with_mounts(container: Container) -> Container:
    """A row that an engine without volumes wrote has binds only, in the words of `-v`."""
    if container.mounts or not container.host.binds:
        return container
    return replace(container, mounts=tuple(mounts.parse(text) for text in container.host.binds))
