"""Pausing containers: their processes are frozen where they are, and their names step back for others of that name.

May import model, kernel.runtime and the lifecycle. A paused container is running for everything else: it keeps its
process, addresses and ports, also through a restart of the engine.
"""

from __future__ import annotations

import logging

from msgspec.structs import replace

from tsunagu.kernel.runtime import Runtime
from tsunagu.model.container import Container, Status
from tsunagu.model.errors import Conflict, KernelFailure
from tsunagu.model.world import ContainerStateChanged

from .engine import Engine
from .lifecycle import Lifecycle

log = logging.getLogger("tsunagu.pausing")


class Pausing:
    def __init__(self, engine: Engine, runtime: Runtime, lifecycle: Lifecycle) -> None:
        self._engine = engine
        self._runtime = runtime
        self._lifecycle = lifecycle

    async def pause(self, word: str) -> None:
        """Freeze every process of a running container. Raises Conflict in Docker's words."""
        container = self._engine.world.container(word)
        async with self._engine.lock(container.id):
            container = self._engine.world.container(container.id)
            if container.is_restarting:
                raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
            if not container.is_running:
                raise Conflict(f"container {container.id} is not running")
            if container.is_paused:
                raise Conflict(f"Container {container.id} is already paused")
            try:
                await self._runtime.freeze(container.id)
            except KernelFailure as error:
                sentence = f"cannot pause container {container.id}: {error.message}"
                raise KernelFailure(sentence, hint=error.hint) from error
            container = self._engine.world.containers[container.id]  # its health may have been told meanwhile
            try:
                self._engine.commit(ContainerStateChanged(container.id, replace(container.state, status=Status.PAUSED)))
            except BaseException:
                self._runtime.thaw(container.id)
                raise
            self._lifecycle.emit("pause", container)
        await self._lifecycle.settle_names()

    async def unpause(self, word: str) -> None:
        """Let a paused container go on. One that is not paused is an internal error for Docker (500), so it is here."""
        container = self._engine.world.container(word)
        async with self._engine.lock(container.id):
            container = self._engine.world.container(container.id)
            if not container.is_paused:
                raise KernelFailure(f"Container {container.id} is not paused")
            self._lifecycle.thaw(container)
        await self._lifecycle.settle_names()


def adopted(runtime: Runtime, container: Container) -> Container:
    """Return a running container with the status that the kernel knows: an engine may have died between freezing and
    recording, and others (runc) may freeze and thaw too."""
    status = Status.PAUSED if runtime.is_frozen(container.id) else Status.RUNNING
    if status is container.state.status:
        return container
    log.info("status found by the engine container=%s status=%s", container.id[:12], status)
    return replace(container, state=replace(container.state, status=status))
