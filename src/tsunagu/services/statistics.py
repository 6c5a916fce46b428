"""`stats`: samples of what a container uses, once or every second. Nothing is read while nobody asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from tsunagu.kernel import statistics
from tsunagu.model.container import Container
from tsunagu.model.statistics import Sample

from .engine import Engine

PERIOD = 1.0  # seconds between two samples, Docker's


class Statistics:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def once(self, container_id: str) -> Sample | None:
        """Return a sample now; None while the container does not run."""
        container = self._engine.world.container(container_id)
        if not container.is_running:
            return None
        return await asyncio.to_thread(self._reading(container))

    async def twice(self, container_id: str) -> tuple[Sample | None, Sample | None]:
        """Return two samples a second apart, so that there is a rate."""
        first = await self.once(container_id)
        if first is None:
            return None, None
        await asyncio.sleep(PERIOD)
        if container_id not in self._engine.world.containers:
            return None, None
        return first, await self.once(container_id)

    async def stream(self, container_id: str) -> AsyncIterator[tuple[Sample | None, Sample | None]]:
        """Yield (sample before, sample) every second until the container is removed; None while it does not run."""
        before: Sample | None = None
        loop = asyncio.get_running_loop()
        due = loop.time()
        while container_id in self._engine.world.containers:
            sample = await self.once(container_id)
            yield before, sample
            before = sample
            due = max(due + PERIOD, loop.time())
            await asyncio.sleep(due - loop.time())

    def _reading(self, container: Container) -> partial[Sample]:
        return partial(
            statistics.read,
            f"{self._engine.instance.cgroup}/{container.id}",
            container.state.pid,
            has_network=container.host.network_mode != "host",
        )
