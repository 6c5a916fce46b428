"""Logs that are kept in several files of limited size: one task that looks at those, nothing for other containers.

conmon itself limits a log that is one file. (It counts all that it ever wrote, so it cannot bound the others while no
engine runs: those grow until the next engine looks.) May import rules and the runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os

from tsunagu.kernel.runtime import Runtime
from tsunagu.model.container import Container
from tsunagu.model.errors import EngineError
from tsunagu.model.world import ContainerRemoved, ContainerStateChanged, Event, World
from tsunagu.rules.logging import Keeping, keeping

from .bundles import Bundles
from .engine import Engine
from .log_files import rotate
from .tasks import spawn

log = logging.getLogger("tsunagu.logs")
INTERVAL = 0.5  # seconds between two looks; a log may become larger by what is written in between


class LogRotation:
    def __init__(self, engine: Engine, runtime: Runtime, bundles: Bundles) -> None:
        self._engine = engine
        self._runtime = runtime
        self._bundles = bundles
        self._watched: dict[str, Keeping] = {}
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Look after what runs already, and from now on after whatever runs."""
        self._engine.listeners.append(self._observe)
        for container in self._engine.world.containers.values():
            self._follow(container)

    def close(self) -> None:
        """Rotate nothing any more."""
        self._watched.clear()
        if self._task is not None:
            self._task.cancel()

    def _observe(self, before: World, event: Event, after: World) -> None:
        if isinstance(event, ContainerStateChanged):
            self._follow(after.containers[event.container_id])
        elif isinstance(event, ContainerRemoved):
            self._watched.pop(event.container_id, None)

    def _follow(self, container: Container) -> None:
        if container.host.log_config.type == "json-file" and not container.host.log_config.config:
            return  # nearly all: no limit
        kept = keeping(container.host.log_config)
        if not container.is_running or not kept.size or kept.files < 2:
            self._watched.pop(container.id, None)
            return
        self._watched[container.id] = kept
        if self._task is None or self._task.done():
            self._task = spawn(self._look(), name="log rotation")

    async def _look(self) -> None:
        while self._watched:
            for container_id, kept in list(self._watched.items()):
                path = self._bundles.log_path(container_id)
                with contextlib.suppress(FileNotFoundError):
                    if os.stat(path).st_size >= kept.size:
                        self._rotate(container_id, path, kept)
            await asyncio.sleep(INTERVAL)

    def _rotate(self, container_id: str, path: str, kept: Keeping) -> None:
        rotate(path, kept.files)
        try:
            self._runtime.reopen_log(container_id)
        except EngineError as error:  # it has ended meanwhile: the next start makes a new file
            log.info("log not reopened container=%s: %s", container_id[:12], error)
