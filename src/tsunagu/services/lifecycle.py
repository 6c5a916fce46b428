"""Start and end of a container's process: decide, act with inverses, record, publish.

Every side effect of `start` is pushed with its inverse on one `AsyncExitStack`; a failure unwinds in reverse. The end
of a process is noticed through conmon (a pidfd), also for processes that an earlier engine started.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from msgspec.structs import replace

from tsunagu.kernel.network import NetworkKernel, ResolverSockets
from tsunagu.kernel.runtime import Runtime
from tsunagu.kernel.runtime_words import RuntimeFailed
from tsunagu.model.container import Container, State, Status
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter, KernelFailure, NotModified
from tsunagu.model.network import Endpoint, SandboxPlan
from tsunagu.model.process import Exit, Process
from tsunagu.model.world import ContainerStateChanged, EndpointsChanged, Event, NetworkRemoved, World, apply
from tsunagu.rules import gateways, links

from . import attachments
from .bundles import Bundles
from .engine import Engine
from .leases import Leases
from .ports import Ports
from .resolver import Resolver
from .signals import wakes
from .tasks import spawn

log = logging.getLogger("tsunagu.lifecycle")
RECORD_AGAIN_SECONDS = 1.0
INNER_UDP, INNER_TCP = 8, 4  # sockets for questions to --dns servers that may be open at once


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
    ) -> None:
        self._engine = engine
        self._kernel = kernel
        self._runtime = runtime
        self._bundles = bundles
        self._resolver = resolver
        self.ports = ports
        self.leases = Leases(engine.world)
        engine.listeners.append(self._observe)
        self.on_exit: Callable[[Container, State], Awaitable[None]] | None = None
        self.on_signal: Callable[[Container, int], None] | None = None
        self.end_state: Callable[[Container, State], State] = lambda _, state: state  # restarts decides
        self.processes: dict[str, Process] = {}
        self._ended: dict[str, asyncio.Event] = {}
        # Attach requests that came before the start: each connects before the process runs, so no output is lost.
        self._early: dict[str, list[asyncio.Future[asyncio.Event]]] = defaultdict(list)

    def sandbox_path(self, container_id: str) -> str:
        return f"{self._engine.instance.run_dir}/netns/{container_id}"

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
        engine, world = self._engine, self._engine.world
        try:
            links.check_start(world, container)
        except EngineError:
            self._fail_early(container.id)
            raise
        try:
            endpoints = attachments.join_all(world, engine.instance, self.leases, container, engine.new_id)
        except EngineError as error:
            self._fail_early(container.id)
            raise _networking_failed(error) from error
        try:
            with engine.intent(container.id, "start"), engine.joining(e.network_id for e in endpoints):
                async with AsyncExitStack() as undo:
                    endpoints = await self._publish(container, endpoints, undo)
                    future = apply(engine.world, EndpointsChanged(container.id, endpoints))
                    process = await self._act(future, future.containers[container.id], undo)
                    state = State(
                        status=Status.RUNNING,
                        pid=process.pid,
                        pid_started=process.pid_started,
                        conmon_pid=process.conmon_pid,
                        conmon_started=process.conmon_started,
                        started_at=time.time_ns(),
                        restart_count=container.state.restart_count if is_automatic else 0,
                    )
                    # A commit that fails (a full disk) must not leave a process that nobody owns.
                    engine.commit(EndpointsChanged(container.id, endpoints), ContainerStateChanged(container.id, state))
                    undo.pop_all()
                self.processes[container.id] = process
                self._ended[container.id] = asyncio.Event()
                self.ports.settle(container.id)
        except BaseException as error:
            attachments.release_all(self.leases, container, endpoints)
            self._fail_early(container.id)
            if isinstance(error, EngineError):
                code = error.exit_code if isinstance(error, RuntimeFailed) else 128
                status = Status.EXITED if container.is_restarting else container.state.status
                failed = replace(container.state, status=status, exit_code=code, error=error.message)
                engine.commit(ContainerStateChanged(container.id, failed))
                if code in (126, 127):  # the user named a program that cannot run: Docker answers 400
                    raise InvalidParameter(error.message, hint=error.hint) from error
            raise
        self._emit_networks("connect", container, endpoints)
        self.emit("start", container)
        self.watch(container.id)
        await self._resolver.settle()

    async def _publish(
        self, container: Container, endpoints: tuple[Endpoint, ...], undo: AsyncExitStack
    ) -> tuple[Endpoint, ...]:
        future = apply(self._engine.world, EndpointsChanged(container.id, endpoints))
        try:
            return await self.ports.publish(future, future.containers[container.id], undo)
        except EngineError as error:
            raise _networking_failed(error) from error

    async def _act(self, world: World, container: Container, undo: AsyncExitStack) -> Process:
        mount = spawn(self._bundles.mount(container), name=f"mount {container.id[:12]}")
        undo.push_async_callback(self._bundles.unmount, container.id)
        try:
            netns = await self._set_up_sandbox(world, container, undo)
        finally:
            await asyncio.wait([mount])
        rootfs = mount.result()
        bundle = await self._bundles.write(world, container, rootfs, netns)
        undo.push_async_callback(self._runtime.delete, container.id)
        process = await self._runtime.create(
            container.id,
            bundle,
            has_tty=container.config.tty,
            has_stdin=container.config.open_stdin,
            keeps_stdin=not container.config.stdin_once,
            log_path=self._bundles.log_path(container.id),
        )
        await self._admit_early(container.id)
        await self._runtime.start(container.id)
        return process

    async def _set_up_sandbox(self, world: World, container: Container, undo: AsyncExitStack) -> str | None:
        if container.host.network_mode == "host":
            return None
        path = self.sandbox_path(container.id)
        has_resolver = any(world.networks[e.network_id].has_names for e in container.endpoints)
        plan = SandboxPlan(
            path=path,
            interfaces=tuple(
                attachments.interface_plan(world, e, has_hairpin=attachments.publishes(container))
                for e in container.endpoints
            ),
            routes=gateways.default_routes(world, container),
            has_resolver=has_resolver,
        )
        host_names = [e.host_ifname for e in container.endpoints]
        undo.push_async_callback(self._kernel.tear_down_sandbox, path, host_names)
        sockets = await self._kernel.set_up_sandbox(plan)
        if sockets is not None:
            undo.push_async_callback(self._resolver.remove_sandbox, container.id)
            await self._hand_over(world, container, path, sockets)
        return path

    async def open_resolver(self, world: World, container: Container, path: str) -> None:
        """Give a running sandbox its name server: it had none, or both resolver and engine lost its sockets."""
        await self._hand_over(world, container, path, await self._kernel.open_resolver(path))

    async def _hand_over(self, world: World, container: Container, path: str, sockets: ResolverSockets) -> None:
        inner: list[socket.socket] = []
        if container.host.dns:  # asked from inside the sandbox, so that servers on its networks are reachable
            for family in {socket.AF_INET6 if ":" in server else socket.AF_INET for server in container.host.dns}:
                inner += await self._kernel.open_sandbox_sockets(path, INNER_UDP, socket.SOCK_DGRAM, family)
                inner += await self._kernel.open_sandbox_sockets(path, INNER_TCP, socket.SOCK_STREAM, family)
        await self._resolver.add_sandbox(world, container.id, sockets.udp, sockets.tcp, inner)

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
        endpoints = container.endpoints
        state = State(
            status=Status.EXITED,
            exit_code=exit_.code,
            is_oom_killed=exit_.is_oom_killed,
            started_at=container.state.started_at,
            finished_at=time.time_ns(),
            restart_count=container.state.restart_count,
            is_manually_stopped=container.state.is_manually_stopped,
        )
        state = self.end_state(container, state)
        self._engine.commit(
            ContainerStateChanged(container_id, state),
            EndpointsChanged(container_id, tuple(attachments.left(e) for e in endpoints)),
        )
        if exit_.is_oom_killed:
            self.emit("oom", container)
        seconds = (state.finished_at - state.started_at) // 1_000_000_000
        self.emit("die", container, execDuration=str(seconds), exitCode=str(exit_.code))
        await self.clean_up(container, endpoints)
        self._emit_networks("disconnect", container, endpoints)
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

    async def clean_up(self, container: Container, endpoints: tuple[Endpoint, ...]) -> None:
        """Remove what a process that has ended left: runtime state, sandbox, mounts. Every failure is reported, none
        stops the others; reconcile at the next start tries again."""
        works: list[tuple[str, Awaitable[object]]] = [
            ("runtime state", self._runtime.delete(container.id)),
            ("names", self._resolver.remove_sandbox(container.id)),
        ]
        if container.host.network_mode != "host":
            host_names = [e.host_ifname for e in endpoints if e.host_ifname]
            # The links are silent at once; `settle_kernel` waits until they are gone, when somebody must know.
            gone = self._kernel.tear_down_sandbox(self.sandbox_path(container.id), host_names, waits=False)
            works.append(("sandbox", gone))
            works.append(("published ports", self.ports.close(container.id)))
        results = await asyncio.gather(*(work for _, work in works), return_exceptions=True)
        # The rootfs can only be unmounted once the runtime has let go of it.
        results += await asyncio.gather(self._bundles.unmount(container.id), return_exceptions=True)
        for (what, _), result in zip([*works, ("rootfs", None)], results, strict=True):
            if isinstance(result, BaseException):
                log.error("clean-up failed container=%s what=%s", container.id[:12], what, exc_info=result)
        attachments.release_all(self.leases, container, endpoints)

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

    def emit_network(self, action: str, container: Container, network_id: str, network_name: str) -> None:
        """Publish that a container joined or left a network."""
        attributes = {"container": container.id, "name": network_name, "type": "bridge"}
        self._engine.emit("network", action, network_id, attributes)

    def _emit_networks(self, action: str, container: Container, endpoints: tuple[Endpoint, ...]) -> None:
        for endpoint in endpoints:
            self.emit_network(action, container, endpoint.network_id, endpoint.network_name)


def _networking_failed(error: EngineError) -> EngineError:
    return type(error)(f"failed to set up container networking: {error.message}", hint=error.hint)
