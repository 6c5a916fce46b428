"""Sandboxes: made for the first process, entered by others, given back after the last one (`rules.sandboxes`).

A sandbox is kept under its owner's id: namespace, interfaces, addresses, name server, published ports and names go
together. While a joiner lives they stay as they are, whatever happens to the owner, and the owner's next start enters
the same ones. May import kernel and rules. Must never start or end a process.

Whoever enters or leaves somebody else's sandbox holds its owner's lock meanwhile, always after the lock of its own.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from tsunagu.kernel.network import NetworkKernel, ResolverSockets
from tsunagu.model.container import Container
from tsunagu.model.errors import Conflict, EngineError, KernelFailure
from tsunagu.model.network import Endpoint, SandboxPlan
from tsunagu.model.world import EndpointsChanged, World
from tsunagu.rules import gateways, names
from tsunagu.rules.sandboxes import has_live_sandbox, joins, owner_of, sharers, target_word

from . import attachments
from .engine import Engine
from .leases import Leases
from .links import Links
from .ports import Ports
from .resolver import Resolver

log = logging.getLogger("tsunagu.sandboxes")
INNER_UDP, INNER_TCP = 8, 4  # sockets for questions to --dns servers that may be open at once


class Sandboxes:
    """The sandboxes of one instance; `leases` are the addresses in them."""

    def __init__(
        self, engine: Engine, kernel: NetworkKernel, resolver: Resolver, ports: Ports, links: Links, leases: Leases
    ) -> None:
        self._engine = engine
        self._kernel = kernel
        self._resolver = resolver
        self._ports = ports
        self._links = links
        self._leases = leases
        self._entering: Counter[str] = Counter()  # by owner: processes that are starting in its sandbox

    def path(self, owner_id: str) -> str:
        """Path of a pinned namespace; the host's own has none."""
        return f"{self._engine.instance.run_dir}/netns/{owner_id}"

    def netns(self, owner: Container) -> str | None:
        """Return the path of the namespace that processes in the sandbox of `owner` join, None for the host's."""
        return None if owner.host.network_mode == "host" else self.path(owner.id)

    # ---- enter

    @asynccontextmanager
    async def entering(self, container: Container) -> AsyncIterator[Container | None]:
        """Find the living sandbox that a container enters and keep it for the time of the block: yields its owner, or
        None when the container is to make a sandbox of its own. The caller holds the container's lock.

        Raises Docker's refusals: the container named is unknown, or nothing lives in its sandbox.
        """
        owner = self._find(container)
        if owner is None or owner.id == container.id:
            yield owner
            return
        async with self._engine.lock(owner.id):
            self._find(container)  # its last process may have ended while we waited
            self._entering[owner.id] += 1
        is_in = False
        try:
            yield owner
            is_in = True
        except EngineError as error:
            async with self._engine.lock(owner.id):  # whoever removes it holds this
                if owner.id in self._engine.world.containers:
                    raise
            raise Conflict(
                f"cannot join network namespace of a non running container: container {owner.name} is removed",
                hint=f"{owner.name} was removed while this container started",
            ) from error
        finally:
            self._entering[owner.id] -= 1
            if not is_in:
                await self.leave(owner.id)

    def _find(self, container: Container) -> Container | None:
        word = target_word(container.host.network_mode)
        if word is None:
            return container if self.is_kept(container) else None
        try:
            target = self._engine.world.container(word)
        except EngineError as error:
            raise KernelFailure(
                f"joining network namespace of container: {error.message}",
                hint="it was removed, or made anew under another id: make this container anew as well",
            ) from error
        if target.id == container.id:
            raise KernelFailure("cannot join own network namespace")
        owner = owner_of(self._engine.world, target)
        if joins(owner) or not self.is_kept(owner):
            raise Conflict(
                "cannot join network namespace of a non running container: "
                f"container {target.name} is {target.state.status.value}",
                hint=f"{target.name} has lost the sandbox it joined: start it anew"
                if target.is_running
                else f"start {target.name} first",
            )
        return owner

    def is_kept(self, owner: Container) -> bool:
        """Whether a sandbox is there: a process lives in it or is just entering it. The caller holds its owner's lock,
        or asks again when it does."""
        return self._entering[owner.id] > 0 or has_live_sandbox(self._engine.world, owner)

    # ---- make

    async def set_up(self, world: World, container: Container, undo: AsyncExitStack) -> str | None:
        """Make a container's own sandbox as `world` wants it; returns what `netns` does."""
        path = self.netns(container)
        if path is None:
            return None
        plan = SandboxPlan(
            path=path,
            interfaces=tuple(
                attachments.interface_plan(world, e, has_hairpin=attachments.publishes(container))
                for e in container.endpoints
            ),
            routes=gateways.default_routes(world, container),
            has_resolver=names.needs_resolver(world, container),
        )
        host_names = [e.host_ifname for e in container.endpoints]
        undo.push_async_callback(self._kernel.tear_down_sandbox, path, host_names)
        sockets = await self._kernel.set_up_sandbox(plan)
        if sockets is not None:
            undo.push_async_callback(self._resolver.remove_sandbox, container.id)
            await self._hand_over(world, container, path, sockets)
        return path

    async def open_resolver(self, world: World, owner: Container) -> None:
        """Give a living sandbox its name server: it had none, or both resolver and engine lost its sockets."""
        path = self.path(owner.id)
        await self._hand_over(world, owner, path, await self._kernel.open_resolver(path))

    async def _hand_over(self, world: World, container: Container, path: str, sockets: ResolverSockets) -> None:
        inner: list[socket.socket] = []
        if container.host.dns:  # asked from inside the sandbox, so that servers on its networks are reachable
            for family in {socket.AF_INET6 if ":" in server else socket.AF_INET for server in container.host.dns}:
                inner += await self._kernel.open_sandbox_sockets(path, INNER_UDP, socket.SOCK_DGRAM, family)
                inner += await self._kernel.open_sandbox_sockets(path, INNER_TCP, socket.SOCK_STREAM, family)
        await self._resolver.add_sandbox(world, container.id, sockets.udp, sockets.tcp, inner)

    # ---- give back

    def outlives(self, container: Container) -> bool:
        """Whether the sandbox goes on without this container's process: others live in it or enter it right now, or
        it is not its own. The caller holds the container's lock."""
        if container.state.sandbox or self._entering[container.id]:
            return True
        return any(one.id != container.id for one in sharers(self._engine.world, container))

    def ending(self, owner: Container, endpoints: Sequence[Endpoint]) -> list[tuple[str, Awaitable[object]]]:
        """Return what gives a sandbox back to the kernel, each piece with its name. `endpoints` are what they were."""
        works: list[tuple[str, Awaitable[object]]] = [("names", self._resolver.remove_sandbox(owner.id))]
        path = self.netns(owner)
        if path is not None:
            host_names = [e.host_ifname for e in endpoints if e.host_ifname]
            # The links are silent at once; `kernel.settle` waits until they are gone, when somebody must know.
            works.append(("sandbox", self._kernel.tear_down_sandbox(path, host_names, waits=False)))
            works.append(("published ports", self._ports.close(owner.id)))
            works.append(("rules of links", self._links.follow(owner.id)))
        return works

    async def leave(self, owner_id: str) -> None:
        """Give a sandbox back if nobody lives in it any more: a process in it has ended that was not its owner's."""
        async with self._engine.lock(owner_id):
            owner = self._engine.world.containers.get(owner_id)
            if owner is not None and not self.is_kept(owner):
                await self._give_back(owner)

    async def cut(self, owner: Container) -> None:
        """Take the sandbox from under whoever lives in it, because its owner is removed; the caller holds the owner's
        lock. As in Docker, they go on with nothing but a loopback interface."""
        if not joins(owner) and self.is_kept(owner):
            left = ", ".join(one.name for one in sharers(self._engine.world, owner))
            log.warning("sandbox removed with its owner container=%s was used by %s", owner.name, left)
            await self._give_back(owner)

    async def _give_back(self, owner: Container) -> None:
        endpoints = owner.endpoints
        self._engine.commit(EndpointsChanged(owner.id, tuple(attachments.left(e) for e in endpoints)))
        await all_of(owner.id, self.ending(owner, endpoints))
        attachments.release_all(self._leases, owner, endpoints)
        self.tell("disconnect", owner, endpoints)

    # ---- after a crash

    def forget_dead(self) -> None:
        """Record that sandboxes are gone whose last process ended with the engine; before the world is acted upon."""
        world = self._engine.world
        for container in world.containers.values():
            if any(e.is_joined for e in container.endpoints) and not has_live_sandbox(world, container):
                endpoints = tuple(attachments.left(e) for e in container.endpoints)
                attachments.release_all(self._leases, container, container.endpoints)
                self._engine.commit(EndpointsChanged(container.id, endpoints))

    def living(self) -> dict[str, Container]:
        """Return the owners of all sandboxes that have a process in them, by id."""
        world = self._engine.world
        owners = (owner_of(world, one) for one in world.containers.values() if one.is_running)
        return {owner.id: owner for owner in owners if not joins(owner)}

    # ---- events

    def tell(self, action: str, container: Container, endpoints: Sequence[Endpoint]) -> None:
        """Publish that a container joined or left networks, Docker's `host` and `none` among them."""
        for endpoint in endpoints:
            self.tell_one(action, container, endpoint.network_id, endpoint.network_name)
        mode = container.host.network_mode
        if not endpoints and mode in ("host", "none"):
            self.tell_one(action, container, self._engine.world.network_ids.get(mode, ""), mode)

    def tell_one(self, action: str, container: Container, network_id: str, network_name: str) -> None:
        """Publish that a container joined or left one network."""
        network = self._engine.world.networks.get(network_id)
        driver = network.driver if network is not None else "bridge"
        attributes = {"container": container.id, "name": network_name, "type": driver}
        self._engine.emit("network", action, network_id, attributes)


async def all_of(container_id: str, works: Sequence[tuple[str, Awaitable[object]]]) -> None:
    """Do all of a clean-up: failures are logged, none stops the others; the next start of the engine tries again."""
    results = await asyncio.gather(*(work for _, work in works), return_exceptions=True)
    for (what, _), result in zip(works, results, strict=True):
        if isinstance(result, BaseException):
            log.error("clean-up failed container=%s what=%s", container_id[:12], what, exc_info=result)
