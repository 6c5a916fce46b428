"""Changing what a container may have, while it exists: its restart policy.

May import rules and the engine; a change is for the container as it is, running or not.
"""

from __future__ import annotations

from msgspec.structs import replace

from tsunagu.model.container import RestartPolicy
from tsunagu.model.errors import Conflict, EngineError
from tsunagu.model.world import HostConfigChanged
from tsunagu.rules import restarts

from .engine import Engine
from .lifecycle import Lifecycle


class Updating:
    def __init__(self, engine: Engine, lifecycle: Lifecycle) -> None:
        self._engine = engine
        self._lifecycle = lifecycle

    async def update(self, word: str, *, restart_policy: RestartPolicy | None) -> list[str]:
        """Change a container's configuration; returns warnings. Raises in Docker's words."""
        container = self._engine.world.container(word)
        async with self._engine.lock(container.id):
            container = self._engine.world.container(container.id)
            host = container.host
            if restart_policy is not None:
                restarts.check(restart_policy, is_auto_removed=False)
                if host.auto_remove and restart_policy.name != "no":
                    raise _refused(
                        container.id,
                        Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container"),
                    )
                host = replace(host, restart_policy=restart_policy)
            if host != container.host:
                self._engine.commit(HostConfigChanged(container.id, host))
            self._lifecycle.emit("update", self._engine.world.containers[container.id])
        return []


def _refused(container_id: str, error: EngineError) -> EngineError:
    return type(error)(f"Cannot update container {container_id}: {error.message}", hint=error.hint)
