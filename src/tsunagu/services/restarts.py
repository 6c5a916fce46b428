"""Restart policies at work: a container that ended waits for its next start, and is started.

The decisions are `rules.restarts`; this remembers delays and runs the waits. What must survive the engine (that a
container waits, how often it was restarted, that somebody stopped it) is in the container's state. May import rules
and the lifecycle.
"""

from __future__ import annotations

import asyncio
import logging
import time

from msgspec.structs import replace

from tsunagu.model.container import Container, State, Status
from tsunagu.model.errors import EngineError
from tsunagu.model.world import ContainerStateChanged
from tsunagu.rules import restarts as rules

from .engine import Engine
from .lifecycle import Lifecycle
from .signals import wakes
from .tasks import spawn

log = logging.getLogger("tsunagu.restarts")
NEEDED_SECONDS = 30.0  # for the restart of a container that another one needs
AT_ONCE = 8  # containers that are started at the same time when the engine starts


class Restarts:
    def __init__(self, engine: Engine, lifecycle: Lifecycle) -> None:
        self._engine = engine
        self._lifecycle = lifecycle
        self._delays: dict[str, float] = {}  # the last delay of each container, seconds
        self._unwanted: set[str] = set()  # containers whose next end is wanted by somebody
        self._tasks: dict[str, asyncio.Task[None]] = {}  # of containers that wait for their next start
        self._starting: set[asyncio.Task[None]] = set()  # of these: under way, not to be cancelled
        self._is_open = False
        lifecycle.end_state = self._end_state
        lifecycle.on_signal = self._signalled

    def open(self) -> None:
        """Start what is to run when the engine starts, and from now on what ends. Returns at once.

        Not before reconcile is done, which removes what belongs to no running container.
        """
        self._is_open = True
        chosen = []
        for container in self._engine.world.containers.values():
            if container.is_restarting:
                self.schedule(container)
            elif rules.starts_with_engine(container):
                chosen.append(container)
        if chosen:
            self._starting.add(spawn(self._start_all(chosen), name="start with the engine"))

    async def close(self) -> None:
        """Start nothing any more; returns when no start is under way. Waiting containers wait for the next engine."""
        self._is_open = False
        tasks = {*self._tasks.values(), *self._starting}
        for task in tasks - self._starting:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def schedule(self, container: Container) -> None:
        """Start a container that is restarting once its delay is over; the caller holds its lock."""
        if container.id in self._unwanted:  # somebody stopped it while its end was being recorded
            self.cancel(container)
            return
        if self._is_open and container.id not in self._tasks:
            self._tasks[container.id] = spawn(self._again(container), name=f"restart {container.id[:12]}")

    def cancel(self, container: Container) -> Container:
        """Give up the restart of a container that waits for it; the caller holds its lock. Returns it as it is now."""
        task = self._tasks.pop(container.id, None)
        if task is not None:
            task.cancel()
        state = replace(container.state, status=Status.EXITED, is_manually_stopped=True)
        self._engine.commit(ContainerStateChanged(container.id, state))
        return self._engine.world.containers[container.id]

    def forget(self, container_id: str) -> None:
        """Somebody starts a container, or removes it: its history counts no more."""
        self._delays.pop(container_id, None)
        self._unwanted.discard(container_id)

    # ---- inside

    def _signalled(self, container: Container, signum: int) -> None:
        """Somebody signals a container. A signal that is to end it means: and not again, whatever the policy."""
        current = self._engine.world.containers.get(container.id)
        if current is None or current.host.restart_policy.name == "no":
            return
        if wakes(current, signum):
            self._unwanted.add(current.id)
        if not current.state.is_manually_stopped:
            state = replace(current.state, is_manually_stopped=True)
            self._engine.commit(ContainerStateChanged(container.id, state))

    def _end_state(self, container: Container, state: State) -> State:
        """Return the state that a container's end leads to."""
        if container.id in self._unwanted or not rules.again_after(container.host.restart_policy, state):
            return state
        ran = (state.finished_at - state.started_at) / 1e9
        self._delays[container.id] = rules.next_delay(self._delays.get(container.id, 0), ran)
        return replace(state, status=Status.RESTARTING, restart_count=state.restart_count + 1)

    async def _again(self, container: Container) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            due = container.state.finished_at / 1e9 + self._delays.get(container.id, 0)
            await asyncio.sleep(due - time.time())
            await self._settled(container)
            async with self._engine.lock(container.id):
                current = self._engine.world.containers.get(container.id)
                if current is not None and current.is_restarting:
                    self._starting.add(task)
                    await self._lifecycle.start(current, is_automatic=True)
        except EngineError as error:  # Docker gives up too; the sentence is in the container's state
            log.warning("not restarted container=%s error=%s", container.id[:12], error)
        finally:
            self._starting.discard(task)
            if self._tasks.get(container.id) is task:
                del self._tasks[container.id]

    async def _settled(self, container: Container) -> None:
        """Wait for the restarts of those whom a container needs: after the host's own start all come at once."""
        for needed in rules.needs(self._engine.world, container):
            async with self._engine.lock(needed):  # its end may just be being recorded
                task = self._tasks.get(needed)
            if task is not None:
                await asyncio.wait({task}, timeout=NEEDED_SECONDS)

    async def _start_all(self, chosen: list[Container]) -> None:
        """Start those first whom the others need."""
        room = asyncio.Semaphore(AT_ONCE)
        for group in rules.in_order(self._engine.world, chosen):
            await asyncio.gather(*(self._start(container, room) for container in group))

    async def _start(self, container: Container, room: asyncio.Semaphore) -> None:
        async with room, self._engine.lock(container.id):
            current = self._engine.world.containers.get(container.id)
            if not self._is_open or current is None or current.state.status is not Status.EXITED:
                return
            try:
                await self._lifecycle.start(current)
            except EngineError as error:
                log.warning("not started with the engine container=%s error=%s", container.id[:12], error)
