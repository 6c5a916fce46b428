"""Health checks at work: one waiting task for each running container that has a check, nothing for the others.

Follows the world: a container that runs and is not paused is checked, whoever started it. The decisions are
`rules.health`. May import rules and services.execs.
"""

from __future__ import annotations

import asyncio
import logging
import time

from tsunagu.model.container import Container, Status
from tsunagu.model.errors import EngineError
from tsunagu.model.health import Probe
from tsunagu.model.world import ContainerRemoved, ContainerStateChanged, Event, HealthChanged, World
from tsunagu.rules import health as rules

from .engine import Engine
from .execs import Execs
from .lifecycle import Lifecycle
from .tasks import spawn

log = logging.getLogger("tsunagu.health")


class HealthChecks:
    def __init__(self, engine: Engine, lifecycle: Lifecycle, execs: Execs) -> None:
        self._engine = engine
        self._lifecycle = lifecycle
        self._execs = execs
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def open(self) -> None:
        """Check what runs already, and from now on whatever runs. After reconcile."""
        self._engine.listeners.append(self._observe)
        for container in self._engine.world.containers.values():
            self._follow(container)

    def close(self) -> None:
        """Check nothing any more; the last answers stay."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def _observe(self, before: World, event: Event, after: World) -> None:
        if isinstance(event, ContainerStateChanged):
            self._follow(after.containers[event.container_id])
        elif isinstance(event, ContainerRemoved):
            self._leave(event.container_id)

    def _follow(self, container: Container) -> None:
        if container.state.health is None or container.state.status is not Status.RUNNING:
            self._leave(container.id)
        elif container.id not in self._tasks:
            self._tasks[container.id] = spawn(self._watch(container.id), name=f"health {container.id[:12]}")

    def _leave(self, container_id: str) -> None:
        task = self._tasks.pop(container_id, None)
        if task is not None:
            task.cancel()

    async def _watch(self, container_id: str) -> None:
        """Check a container again and again; ends by being cancelled."""
        container = self._engine.world.containers[container_id]
        while True:
            await asyncio.sleep(rules.next_check(container.config, container.state, time.time_ns()) / 1e9)
            probe = await self._probe(container)
            current = self._engine.world.containers.get(container_id)
            if current is None or current.state.started_at != container.state.started_at:
                return  # another run by now, which has a task of its own
            container = self._record(current, probe)

    async def _probe(self, container: Container) -> Probe:
        start = time.time_ns()
        limit = rules.time_limit(container.config)
        try:
            code, data = await self._execs.probe(
                container.id, rules.words(container.config), seconds=limit / 1e9, limit=rules.OUTPUT_LIMIT + 1
            )
            text = rules.exceeded(limit, data) if code is None else rules.output(data)
        except EngineError as error:  # the program cannot be run
            code, text = None, error.message
        return Probe(start=start, end=time.time_ns(), exit_code=-1 if code is None else code, output=text)

    def _record(self, container: Container, probe: Probe) -> Container:
        before = container.state.health
        health = rules.after(container.config, container.state, probe)
        self._engine.commit(HealthChanged(container.id, health))
        if before is None or before.status is not health.status:
            log.info("health container=%s status=%s", container.id[:12], health.status)
            self._lifecycle.emit(f"health_status: {health.status}", container)
        return self._engine.world.containers[container.id]
