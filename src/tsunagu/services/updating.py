"""Changing what a container may have, while it exists: its limits and its restart policy.

May import rules, wire.oci_limits and the runtime. A change is kept for every later start; the limits of a running
container change at once.
"""

from __future__ import annotations

from msgspec.structs import replace

from tsunagu.kernel.runtime import Runtime
from tsunagu.kernel.runtime_words import RuntimeFailed
from tsunagu.model.container import Container, RestartPolicy, Status
from tsunagu.model.errors import Conflict, EngineError, KernelFailure
from tsunagu.model.limits import Limits
from tsunagu.model.world import HostConfigChanged
from tsunagu.rules import limits as rules
from tsunagu.rules import restarts
from tsunagu.wire import oci_limits

from .engine import Engine
from .lifecycle import Lifecycle


class Updating:
    def __init__(self, engine: Engine, runtime: Runtime, lifecycle: Lifecycle) -> None:
        self._engine = engine
        self._runtime = runtime
        self._lifecycle = lifecycle

    async def update(self, word: str, wanted: Limits, *, restart_policy: RestartPolicy | None) -> list[str]:
        """Change a container's configuration; returns warnings. Raises in Docker's words."""
        container = self._engine.world.container(word)
        warnings = rules.check(wanted, self._runtime.facts(), is_update=True)
        if restart_policy is not None:
            restarts.check(restart_policy, is_auto_removed=False)
        async with self._engine.lock(container.id):
            container = self._engine.world.container(container.id)
            try:
                changed = self._decide(container, wanted, restart_policy)
                await self._apply(container, wanted)
            except EngineError as error:
                sentence = f"Cannot update container {container.id}: {error.message}"
                raise type(error)(sentence, hint=error.hint) from error
            self._engine.commit(changed)
            self._lifecycle.emit("update", self._engine.world.containers[container.id])
        return warnings

    def _decide(self, container: Container, wanted: Limits, policy: RestartPolicy | None) -> HostConfigChanged:
        if container.state.status in (Status.REMOVING, Status.DEAD):
            raise Conflict('container is marked for removal and cannot be "update"')
        host = replace(container.host, limits=rules.updated(container.host.limits, wanted))
        if policy is not None:
            if host.auto_remove and policy.name != "no":
                raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
            host = replace(host, restart_policy=policy)
        return HostConfigChanged(container.id, host)

    async def _apply(self, container: Container, wanted: Limits) -> None:
        resources = oci_limits.resources(wanted, {})
        if wanted.memory_swap == -1 and "swap" in self._runtime.facts().knobs:
            resources["memory"] = {**resources.get("memory", {}), "swap": -1}
        if not resources or not container.is_running:
            return
        try:
            await self._runtime.update(container.id, resources)
        except RuntimeFailed as error:
            raise KernelFailure(error.message) from error
