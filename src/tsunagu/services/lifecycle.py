"""Start and end of a container's process: decide, act with inverses, record, publish.

Every side effect of `start` is pushed with its inverse on one `AsyncExitStack`; a failure unwinds in reverse. The end
of a process is noticed through conmon (a pidfd), also for processes that an earlier engine started.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from msgspec.structs import replace

from tsunagu.kernel.network import NetworkKernel
from tsunagu.kernel.runtime import Runtime
from tsunagu.kernel.runtime_words import RuntimeFailed
from tsunagu.model.container import Container, State, Status
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter, KernelFailure, NotModified
from tsunagu.model.network import Endpoint
from tsunagu.model.process import Exit, Process
from tsunagu.model.world import ContainerStateChanged, EndpointsChanged, Event, NetworkRemoved, World, apply
from tsunagu.rules import health, links
from tsunagu.rules.logging import keeping

from . import attachments
from .bundles import Bundles
from .engine import Engine
from .leases import Leases
from .links import Links
from .ports import Ports
from .resolver import Resolver
from .sandboxes import Sandboxes, all_of
from .signals import wakes
from .tasks import spawn

log = logging.getLogger("tsunagu.lifecycle")
RECORD_AGAIN_SECONDS = 1.0


class Lifecycle:
    """Starts containers, watches them, and cleans up after them."""

    def __init__(
        self,
        engine: Engine,
        kernel: NetworkKernel,
        runtime: Runtime,
        bundles: Bundles,
        resolver: Resolver,
        ports: Ports,
        links: Links,
    ) -> None:
        self._engine = engine
        self._kernel = kernel
        self._runtime = runtime
        self._bundles = bundles
        self._resolver = resolver
        self.ports = ports
        self.links = links
        self.leases = Leases(engine.world)
        self.sandboxes = Sandboxes(engine, kernel, resolver, ports, links, self.leases)
        engine.listeners.append(self._observe)
        self.on_exit: Callable[[Container, State], Awaitable[None]] | None = None
        self.on_signal: Callable[[Container, int], None] | None = None
        self.end_state: Callable[[Container, State], State] = lambda _, state: state  # restarts decides
        self.processes: dict[str, Process] = {}
        self._ended: dict[str, asyncio.Event] = {}
        # Attach requests that came before the start: each connects before the process runs, so no output is lost.
        self._early: dict[str, list[asyncio.Future[asyncio.Event]]] = defaultdict(list)

    def _observe(self, before: World, event: Event, after: World) -> None:
        if isinstance(event, NetworkRemoved):
            self.leases.forget(event.network_id)

    # ---- start

    async def start(self, container: Container, *, is_automatic: bool = False) -> None:
        """Start a container that is not running; the caller holds its lock. Raises NotModified when it runs.

        `is_automatic`: its restart policy does, so that its restarts go on being counted.
        """
        if container.is_paused:
            raise Conflict("cannot start a paused container, try unpause instead")
        if container.is_running:
            raise NotModified(f"container {container.id} is already running")
        if container.state.status in (Status.REMOVING, Status.DEAD):
            raise Conflict(f"container {container.id} is marked for removal and cannot be started")
        engine = self._engine
        endpoints: tuple[Endpoint, ...] = ()  # those that this start makes
        try:
            links.check_start(engine.world, container)
            async with self.sandboxes.entering(container) as owner:
                if owner is None:
                    endpoints = self._join(container)
                with engine.intent(container.id, "start"), engine.joining(e.network_id for e in endpoints):
                    async with AsyncExitStack() as undo:
                        future = engine.world
                        if owner is None:
                            endpoints = await self._publish(container, endpoints, undo)
                            await self.links.open(container.id, endpoints, undo)
                            future = apply(future, EndpointsChanged(container.id, endpoints))
                        process = await self._act(future, future.containers[container.id], owner, undo)
                        state = State(
                            status=Status.RUNNING,
                            pid=process.pid,
                            pid_started=process.pid_started,
                            conmon_pid=process.conmon_pid,
                            conmon_started=process.conmon_started,
                            sandbox=owner.id if owner is not None and owner.id != container.id else "",
                            started_at=time.time_ns(),
                            restart_count=container.state.restart_count if is_automatic else 0,
                            health=health.at_start(container.config, container.state.health),
                        )
                        made = [EndpointsChanged(container.id, endpoints)] if owner is None else []
                        # A commit that fails (a full disk) must not leave a process that nobody owns.
                        engine.commit(*made, ContainerStateChanged(container.id, state))
                        undo.pop_all()
                    self.processes[container.id] = process
                    self._ended[container.id] = asyncio.Event()
                    self.ports.settle(container.id)
                    self.links.settle(container.id)
        except BaseException as error:
            attachments.release_all(self.leases, container, endpoints)
            self._fail_early(container.id)
            if isinstance(error, EngineError):
                code = error.exit_code if isinstance(error, RuntimeFailed) else 128
                status = Status.EXITED if container.is_restarting else container.state.status
                failed = replace(container.state, status=status, exit_code=code, error=error.message)
                engine.commit(ContainerStateChanged(container.id, failed))
                if isinstance(error, RuntimeFailed) and error.is_requested:  # nobody else can mend it: 400, as Docker
                    raise InvalidParameter(error.message, hint=error.hint) from error
            raise
        if owner is None:
            self.sandboxes.tell("connect", container, endpoints)
        self._bundles.volumes.emit("mount", container)
        self.emit("start", container)
        self.watch(container.id)
        await self._resolver.settle()

    def _join(self, container: Container) -> tuple[Endpoint, ...]:
        engine = self._engine
        try:
            return attachments.join_all(engine.world, engine.instance, self.leases, container, engine.new_id)
        except EngineError as error:
            raise _networking_failed(error) from error

    async def _publish(
        self, container: Container, endpoints: tuple[Endpoint, ...], undo: AsyncExitStack
    ) -> tuple[Endpoint, ...]:
        future = apply(self._engine.world, EndpointsChanged(container.id, endpoints))
        try:
            return await self.ports.publish(future, future.containers[container.id], undo)
        except EngineError as error:
            raise _networking_failed(error) from error

    async def _act(self, world: World, container: Container, owner: Container | None, undo: AsyncExitStack) -> Process:
        mount = spawn(self._bundles.mount(container), name=f"mount {container.id[:12]}")
        undo.push_async_callback(self._bundles.unmount, container.id)
        try:
            if owner is None:
                netns = await self.sandboxes.set_up(world, container, undo)
            else:
                netns = self.sandboxes.netns(owner)
        finally:
            await asyncio.wait([mount])
        rootfs = mount.result()
        bundle = await self._bundles.write(world, container, rootfs, netns)
        undo.push_async_callback(self._runtime.delete, container.id)
        kept = keeping(container.host.log_config)
        process = await self._runtime.create(
            container.id,
            bundle,
            has_tty=container.config.tty,
            has_stdin=container.config.open_stdin,
            keeps_stdin=not container.config.stdin_once,
            log_path=self._bundles.log_path(container.id) if kept.is_kept else "",
            log_limit=kept.size if kept.files == 1 else 0,
        )
        self._bundles.volumes.close_sources(container.id)
        await self._admit_early(container.id)
        await self._runtime.start(container.id)
        return process

    # ---- attach before start

    def early_attach(self, container_id: str) -> asyncio.Future[asyncio.Event]:
        """Return a future that resolves when the container's attach socket exists, just before its process runs.

        The result is an event that the caller sets once it has connected; the start waits for it.
        Cancelled when the start fails.
        """
        future: asyncio.Future[asyncio.Event] = asyncio.get_running_loop().create_future()
        self._early[container_id].append(future)
        return future

    async def _admit_early(self, container_id: str) -> None:
        connected = []
        for future in self._early.pop(container_id, ()):
            if not future.done():
                event = asyncio.Event()
                future.set_result(event)
                connected.append(event.wait())
        if connected:
            try:
                await asyncio.wait_for(asyncio.gather(*connected), timeout=5)
            except TimeoutError:  # whoever does not manage to connect must not hold the container back
                log.warning("an attached client did not connect in time container=%s", container_id[:12])

    def forget(self, container_id: str) -> None:
        """Let go of what waits for a container that is being removed."""
        self._fail_early(container_id)

    def _fail_early(self, container_id: str) -> None:
        for future in self._early.pop(container_id, ()):
            future.cancel()

    # ---- end

    def watch(self, container_id: str) -> None:
        """Start to wait for the end of a container's process."""
        spawn(self._watch(container_id), name=f"watch {container_id[:12]}")

    async def _watch(self, container_id: str) -> None:
        exit_ = await self._runtime.wait(self.processes[container_id], container_id)
        while True:
            try:
                async with self._engine.lock(container_id):
                    await self._finish(container_id, exit_)
                return
            except KernelFailure as error:
                container = self._engine.world.containers.get(container_id)
                if container is None or not container.is_running:
                    raise
                # The end could not be recorded (a full disk): it is true all the same, and others go on meanwhile.
                log.error(
                    "end of a container not recorded, trying again container=%s error=%s", container_id[:12], error
                )
            await asyncio.sleep(RECORD_AGAIN_SECONDS)

    async def _finish(self, container_id: str, exit_: Exit) -> None:
        """Record the end at once, so that names leave at once; then give everything back to the kernel."""
        container = self._engine.world.containers.get(container_id)
        if container is None or not container.is_running:
            return
        is_last = not self.sandboxes.outlives(container)
        endpoints = container.endpoints
        state = State(
            status=Status.EXITED,
            exit_code=exit_.code,
            is_oom_killed=exit_.is_oom_killed,
            started_at=container.state.started_at,
            finished_at=time.time_ns(),
            restart_count=container.state.restart_count,
            is_manually_stopped=container.state.is_manually_stopped,
            health=health.at_end(container.state.health),
        )
        state = self.end_state(container, state)
        left = [EndpointsChanged(container_id, tuple(attachments.left(e) for e in endpoints))] if is_last else []
        self._engine.commit(*left, ContainerStateChanged(container_id, state))
        if exit_.is_oom_killed:
            self.emit("oom", container)
        seconds = (state.finished_at - state.started_at) // 1_000_000_000
        self.emit("die", container, execDuration=str(seconds), exitCode=str(exit_.code))
        await self.clean_up(container, self.sandboxes.ending(container, endpoints) if is_last else [])
        if is_last:
            attachments.release_all(self.leases, container, endpoints)
            self.sandboxes.tell("disconnect", container, endpoints)
        elif container.state.sandbox:
            await self._leave(container)
        self._bundles.volumes.emit("unmount", container)
        self.processes.pop(container_id, None)
        if self.on_exit is not None:
            await self.on_exit(container, state)
        ended = self._ended.pop(container_id, None)
        if ended is not None:
            ended.set()

    async def settle_kernel(self) -> None:
        """Return once every link of an ended container is gone from the kernel (some 20 ms of waiting for RCU)."""
        await self._kernel.settle()

    async def settle_names(self) -> None:
        """Return once every name published so far is in force."""
        await self._resolver.settle()

    async def clean_up(self, container: Container, ending: list[tuple[str, Awaitable[object]]]) -> None:
        """Remove what a process that has ended left: runtime state, mounts, and what is `ending` with it. Every failure
        is reported, none stops the others; reconcile at the next start tries again."""
        await all_of(container.id, [("runtime state", self._runtime.delete(container.id)), *ending])
        # The rootfs can only be unmounted once the runtime has let go of it.
        await all_of(container.id, [("rootfs", self._bundles.unmount(container.id))])

    async def _leave(self, container: Container) -> None:
        try:
            await self.sandboxes.leave(container.state.sandbox)
        except EngineError as error:  # not recorded (a full disk): the next start of the engine finds nobody in it
            log.error("sandbox not given back container=%s error=%s", container.id[:12], error)

    def end_event(self, container_id: str) -> asyncio.Event | None:
        """Return the event that is set when the container has ended and is cleaned up; None while it does not run."""
        return self._ended.get(container_id)

    async def ended(self, container_id: str, timeout: float | None) -> bool:
        """Wait until the container has ended and is cleaned up; False when `timeout` seconds have passed."""
        event = self._ended.get(container_id)
        if event is None:
            return True
        try:
            await asyncio.wait_for(event.wait(), timeout)
        except TimeoutError:
            return False
        return True

    async def stop(self, container: Container, signum: int, timeout: int) -> None:
        """Ask the process to end with `signum`, and kill it after `timeout` seconds (negative: never)."""
        process = self.processes.get(container.id)
        if process is None:
            return
        if timeout != 0:
            self.signal(container, signum)
            if await self.ended(container.id, timeout if timeout > 0 else None):
                return
            log.info("container did not stop in time container=%s timeout=%s", container.id[:12], timeout)
        async with self._engine.lock(container.id):  # not while it is just being paused: nobody would thaw it again
            self.signal(container, 9)
        if not await self.ended(container.id, 60):
            raise KernelFailure(
                f"cannot stop container: {container.id}: the process did not end after SIGKILL",
                hint=f"it may hang in the kernel: look at /proc/{process.pid}/stack",
            )

    def signal(self, container: Container, signum: int) -> None:
        """Send a signal to the container's first process; nothing happens when it has just ended."""
        process = self.processes.get(container.id)
        if process is not None:
            if self.on_signal is not None:
                self.on_signal(container, signum)
            self._runtime.signal(process, signum)
            self.emit("kill", container, signal=str(signum))
            current = self._engine.world.containers.get(container.id)
            if current is not None and current.is_paused and wakes(current, signum):
                self.thaw(current)

    def thaw(self, container: Container) -> None:
        """Let a paused container go on, record it, and say so."""
        self._runtime.thaw(container.id)
        self._engine.commit(ContainerStateChanged(container.id, replace(container.state, status=Status.RUNNING)))
        self.emit("unpause", container)

    def adopt(self, container: Container) -> None:
        """Take over the process of a container that an earlier engine started."""
        state = container.state
        self.processes[container.id] = Process(
            pid=state.pid,
            pid_started=state.pid_started,
            conmon_pid=state.conmon_pid,
            conmon_started=state.conmon_started,
        )
        self._ended[container.id] = asyncio.Event()
        self.watch(container.id)

    # ---- events

    def emit(self, action: str, container: Container, **attributes: str) -> None:
        """Publish a container event with Docker's attributes: image, name, labels."""
        self._engine.emit(
            "container",
            action,
            container.id,
            {**container.config.labels, "image": container.config.image, "name": container.name, **attributes},
        )


def _networking_failed(error: EngineError) -> EngineError:
    return type(error)(f"failed to set up container networking: {error.message}", hint=error.hint)
