"""Containers as users see them: create, start, stop, kill, rename, remove, wait. Refusals come before side effects.

The machinery of a start and an end is in `lifecycle`; attach, logs, resize and top are in `sessions`.
"""

from __future__ import annotations

import asyncio
import signal as signals
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Mapping, Sequence

from msgspec.structs import replace

from tsunagu.model import ids
from tsunagu.model.container import Config, Container, HostConfig, State, Status
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter, KernelFailure, NotFound, NotModified
from tsunagu.model.network import Endpoint, EndpointConfig
from tsunagu.model.world import ContainerCreated, ContainerRemoved, ContainerRenamed, ContainerStateChanged
from tsunagu.rules import health, limits, links, modes, mounts, ports, restarts, spec
from tsunagu.rules.logging import keeping

from .attachments import network_of
from .bundles import Bundles
from .engine import Engine
from .filters import check_filters, matches_labels, parse_until
from .images import Images
from .lifecycle import Lifecycle
from .petnames import unused_name
from .restarts import Restarts
from .signals import parse_signal, stop_signal

STOP_TIMEOUT = 10  # seconds, Docker's default


class Containers:
    def __init__(
        self,
        engine: Engine,
        images: Images,
        lifecycle: Lifecycle,
        bundles: Bundles,
        policies: Restarts,
    ) -> None:
        self._engine = engine
        self._images = images
        self._lifecycle = lifecycle
        self._bundles = bundles
        self._policies = policies
        self._names_in_use: set[str] = set()  # names of creates that are under way
        self._exit_waiters: dict[str, list[asyncio.Future[tuple[int, str]]]] = defaultdict(list)
        self._removal_waiters: dict[str, list[asyncio.Future[tuple[int, str]]]] = defaultdict(list)
        self._auto_removals: set[str] = set()
        self._removing: Counter[str] = Counter()
        lifecycle.on_exit = self._exited

    # ---- create

    async def create(
        self, name: str, config: Config, host: HostConfig, endpoints: Sequence[EndpointConfig]
    ) -> tuple[Container, list[str]]:
        """Create a container; nothing runs and the kernel is not touched. Returns it and warnings."""
        engine = self._engine
        bare = ids.check_container_name(name) if name else ""
        image = await self._images.ensure(config.image)
        identifier = engine.new_id()
        if not bare:
            bare = unused_name({*engine.world.container_ids, *self._names_in_use})
        self._check_name(bare)
        modes.check(config, host, endpoints)
        host = modes.with_dns_defaults(modes.adapt(engine.world, host), engine.instance.settings)
        host = modes.with_ulimit_defaults(host, engine.instance.settings)
        merged = spec.merge_config(config, image, identifier, host, socket.gethostname())
        merged = modes.named(engine.world, merged, host)
        planned = spec.plan_endpoints(engine.world, host, merged, endpoints)
        linked = links.plan(engine.world, host, bare)
        mounted = mounts.plan(engine.world, merged, host, engine.new_id)
        ports.check(host)
        spec.check_words(merged, host)
        stop_signal(merged.stop_signal)
        health.check(merged.healthcheck)
        facts = self._bundles.facts()
        keeping(host.log_config)
        warnings = limits.check(host.limits, facts)
        host = replace(host, limits=limits.completed(host.limits, facts))
        restarts.check(host.restart_policy, is_auto_removed=host.auto_remove)
        path, args = spec.command(merged)
        container = Container(
            id=identifier,
            name=bare,
            created=time.time_ns(),
            image_id=image.id,
            path=path,
            args=args,
            config=merged,
            host=replace(host, network_mode="bridge") if host.network_mode in ("", "default") else host,
            endpoints=tuple(self._bind(e) for e in planned),
            links=linked,
            mounts=mounted.mounts,
        )
        self._names_in_use.add(bare)
        try:
            await self._bundles.check(container)
            async with self._bundles.volumes.made_for(mounted, image.diff_ids) as made:
                await self._bundles.prepare(container)
                try:
                    engine.commit(*made, ContainerCreated(container))
                except BaseException:
                    await self._bundles.remove(container.id)
                    raise
        finally:
            self._names_in_use.discard(bare)
        for endpoint in container.endpoints:
            for address in (endpoint.config.ipv4, endpoint.config.ipv6):
                if address and endpoint.network_id and address not in self._lifecycle.leases.on(endpoint.network_id):
                    self._lifecycle.leases.take(endpoint.network_id, address, container.id)
        self._lifecycle.emit("create", container)
        return container, [*warnings, *links.notices(engine.world, host), *ports.warnings(engine.world, container)]

    def _check_name(self, bare: str) -> None:
        spec.check_name_free(self._engine.world, bare)
        if bare in self._names_in_use:
            raise Conflict(f'Conflict. The container name "/{bare}" is already in use by a container being created.')

    def _bind(self, config: EndpointConfig) -> Endpoint:
        """Bind an attachment to the network it names, when that exists already."""
        try:
            network = network_of(self._engine.world, Endpoint(config=config))
        except NotFound:
            return Endpoint(config=config, network_name=config.network)
        return Endpoint(config=config, network_id=network.id, network_name=network.name)

    # ---- start, stop, kill

    async def start(self, word: str, *, detach_keys: str = "") -> None:
        """Start a container; raises NotModified when it runs already."""
        container = self._engine.world.container(word)
        async with self._engine.lock(container.id):
            container = self._startable(container.id)
            if container.is_restarting:
                raise NotModified(f"container {container.id} is already running")
            self._policies.forget(container.id)
            try:
                await self._lifecycle.start(container)
            except NotModified:
                raise
            except EngineError:
                if container.host.auto_remove:  # `run --rm` waits for the removal, also when nothing ever ran
                    await self.discard(self._engine.world.containers[container.id])
                raise

    def _startable(self, container_id: str) -> Container:
        container = self._engine.world.container(container_id)
        if self._removing[container_id]:
            raise Conflict(f"container {container_id} is marked for removal and cannot be started")
        return container

    async def stop(self, word: str, *, timeout: int | None = None, signal: str = "") -> None:
        """Stop a container and wait for its end; raises NotModified when it does not run.

        `timeout` is in seconds, negative waits for ever, None means the container's own or 10.
        """
        container = await self._settled(word)
        if not container.is_up:
            raise NotModified(f"container {container.id} is already stopped")
        await self._stop(container, timeout, signal)
        self._lifecycle.emit("stop", container)

    async def restart(self, word: str, *, timeout: int | None = None, signal: str = "") -> None:
        """Stop a container if it runs, then start it."""
        container = await self._settled(word)
        if container.is_up:
            await self._stop(container, timeout, signal, is_restart=True)
            self._lifecycle.emit("stop", container)
        async with self._engine.lock(container.id):
            container = self._startable(container.id)
            if not container.is_up:
                self._policies.forget(container.id)
                await self._lifecycle.start(container)
        self._lifecycle.emit("restart", container)

    async def kill(self, word: str, signal: str = "KILL") -> None:
        """Send a signal to a running container; SIGKILL also waits for its end."""
        signum = parse_signal(signal or "KILL")
        container = await self._settled(word)
        if not container.is_up:
            raise Conflict(f"cannot kill container: {word}: container {container.id} is not running")
        if await self._gives_up(container):
            return
        self._lifecycle.signal(container, signum)
        if signum == signals.SIGKILL:
            await self._lifecycle.ended(container.id, 60)

    async def _stop(self, container: Container, timeout: int | None, signal: str, *, is_restart: bool = False) -> None:
        signum = parse_signal(signal) if signal else stop_signal(container.config.stop_signal)
        if timeout is None:
            timeout = STOP_TIMEOUT if container.config.stop_timeout is None else container.config.stop_timeout
        if await self._gives_up(container):
            return
        if is_restart:
            self._auto_removals.add(container.id)
        try:
            await self._lifecycle.stop(container, signum, timeout)
        finally:
            if is_restart:
                self._auto_removals.discard(container.id)

    async def _gives_up(self, container: Container) -> bool:
        """End the waiting of a container that is to be restarted; False when it was not waiting."""
        if not container.is_restarting:
            return False
        async with self._engine.lock(container.id):
            current = self._engine.world.containers.get(container.id)
            if current is None or not current.is_restarting:
                return current is None
            self._resolve(self._exit_waiters, self._policies.cancel(current))
        return True

    async def _settled(self, word: str) -> Container:
        """Return a container once no start or clean-up of it is under way."""
        container = self._engine.world.container(word)
        async with self._engine.lock(container.id):
            return self._engine.world.container(container.id)

    # ---- rename, remove

    async def rename(self, word: str, new_name: str) -> None:
        """Give a container another name; its names in DNS follow at once."""
        container = self._engine.world.container(word)
        if not new_name.removeprefix("/"):
            raise InvalidParameter("Neither old nor new names may be empty")
        bare = ids.check_container_name(new_name)
        async with self._engine.lock(container.id):
            world = self._engine.world
            container = world.container(container.id)
            if bare == container.name:
                raise InvalidParameter("Renaming a container with the same name as its current name")
            try:
                self._check_name(bare)
            except Conflict as error:
                raise Conflict(f"Error when allocating new name: {error.message}") from error
            self._engine.commit(ContainerRenamed(container.id, bare))
        self._lifecycle.emit("rename", self._engine.world.container(container.id), oldName=f"/{container.name}")
        await self._lifecycle.settle_names()

    async def remove(self, word: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        """Remove a container; a running one only with `force`, which kills it. With `link` only the link so called."""
        if link:
            return await self._lifecycle.links.remove(word)
        container = await self._settled(word)
        if container.is_paused and not force:
            raise Conflict(
                f'cannot remove container "{container.name}": container is paused and must be unpaused first'
            )
        if container.is_up and not force:
            raise Conflict(
                f'cannot remove container "{container.name}": container is {container.state.status}: '
                "stop the container before removing or force remove"
            )
        if not force:
            modes.check_removal(self._engine.world, container)
        self._removing[container.id] += 1  # from here on nobody starts it again
        try:
            await self._kill_and_discard(container, volumes)
        finally:
            self._removing[container.id] -= 1
            if not self._removing[container.id]:
                del self._removing[container.id]

    async def _kill_and_discard(self, container: Container, takes_volumes: bool) -> None:
        await self._gives_up(container)
        container = self._engine.world.containers.get(container.id, container)
        if container.is_running:
            self._lifecycle.signal(container, signals.SIGKILL)
            if not await self._lifecycle.ended(container.id, 60):
                raise KernelFailure(
                    f'cannot remove container "{container.name}": its process did not end after SIGKILL',
                    hint=f"it may hang in the kernel: look at /proc/{container.state.pid}/stack",
                )
        async with self._engine.lock(container.id):
            current = self._engine.world.containers.get(container.id)
            if current is None:  # somebody else, or --rm, removed it while we waited
                return
            if current.is_restarting:
                current = self._policies.cancel(current)
            if current.is_running:
                raise Conflict(f'cannot remove container "{container.name}": it was started again meanwhile')
            await self.discard(current, takes_volumes=takes_volumes)

    async def discard(self, container: Container, *, takes_volumes: bool = False) -> None:
        """Remove what a stopped container is made of; the caller holds its lock. Crash-safe: the row goes last.

        Volumes that nobody named go too with `takes_volumes`, and always with `--rm` (Docker's rule).
        """
        doomed = container.mounts if takes_volumes or container.host.auto_remove else ()
        async with self._bundles.volumes.going_with(doomed):
            self._engine.commit(ContainerStateChanged(container.id, replace(container.state, status=Status.REMOVING)))
            await self._lifecycle.sandboxes.cut(container)
            await asyncio.gather(self._bundles.remove(container.id), self._lifecycle.settle_kernel())
            self._engine.commit(ContainerRemoved(container.id))
        for endpoint in container.endpoints:
            self._lifecycle.leases.release(endpoint, container.id, keep_static=False)
        self._lifecycle.forget(container.id)
        self._policies.forget(container.id)
        self._lifecycle.emit("destroy", container)
        for waiters in (self._removal_waiters, self._exit_waiters):
            self._resolve(waiters, container)

    async def prune(self, filters: Mapping[str, Sequence[str]]) -> tuple[list[str], int]:
        """Remove all stopped containers; returns their ids and the bytes given back."""
        check_filters(filters, {"until", "label", "label!"})
        until = parse_until(filters.get("until", ()))
        removed, freed = [], 0
        for container in list(self._engine.world.containers.values()):
            if container.is_up or not matches_labels(container.config.labels, filters):
                continue
            if until is not None and container.created >= until:
                continue
            size = await self._bundles.size(container.id)
            try:
                await self.remove(container.id)
            except EngineError:
                continue  # started or removed meanwhile
            removed.append(container.id)
            freed += size
        return removed, freed

    def log_path(self, container_id: str) -> str:
        """Path of a container's log, for inspect; "" when it keeps none."""
        is_kept = self._engine.world.containers[container_id].host.log_config.type != "none"
        return self._bundles.log_path(container_id) if is_kept else ""

    async def sizes(self, container_id: str) -> tuple[int, int]:
        """Return (bytes of the container's own layer, bytes with its image), for `ps -s` and `inspect -s`."""
        container = self._engine.world.containers[container_id]
        own = await self._bundles.size(container_id)
        try:
            return own, own + self._images.find(container.image_id).size
        except NotFound:
            return own, own

    # ---- wait

    def waiter(self, word: str, condition: str = "not-running") -> Awaitable[tuple[int, str]]:
        """Return an awaitable of (exit code, error) that is subscribed already: no end after this call is missed.

        Conditions are Docker's: not-running (at once if it does not run), next-exit, removed.
        """
        container = self._engine.world.container(word)
        future: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        if condition in ("", "not-running") and not container.is_up:
            future.set_result((container.state.exit_code, ""))
        elif condition in ("", "not-running", "next-exit"):
            self._exit_waiters[container.id].append(future)
        elif condition == "removed":
            self._removal_waiters[container.id].append(future)
        else:
            raise InvalidParameter(f'invalid condition: "{condition}"')
        return future

    async def wait(self, word: str, condition: str = "not-running") -> tuple[int, str]:
        """Wait for a container; see `waiter`."""
        return await self.waiter(word, condition)

    async def _exited(self, container: Container, state: State) -> None:
        """Called by the lifecycle, under the container's lock, once a container has ended and is cleaned up."""
        current = self._engine.world.containers[container.id]
        self._resolve(self._exit_waiters, current)
        if current.is_restarting:
            self._policies.schedule(current)
        elif container.host.auto_remove and container.id not in self._auto_removals:
            await self.discard(self._engine.world.containers[container.id])

    @staticmethod
    def _resolve(waiters: dict[str, list[asyncio.Future[tuple[int, str]]]], container: Container) -> None:
        for future in waiters.pop(container.id, ()):
            if not future.done():
                future.set_result((container.state.exit_code, ""))
