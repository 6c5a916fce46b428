"""Make world, intents and kernel agree when the engine starts: adopt what runs, finish what was begun, remove what
nobody owns. CNI's CHECK and GC in one pass; running containers are never touched.
"""

from __future__ import annotations

import logging

from msgspec.structs import replace

from tsunagu.kernel.runtime import Runtime
from tsunagu.model.container import Status
from tsunagu.model.errors import EngineError
from tsunagu.model.world import ContainerStateChanged
from tsunagu.rules import names

from . import pausing
from .containers import Containers
from .engine import Engine
from .lifecycle import Lifecycle
from .networks import Networks
from .orphans import Orphans
from .resolver import Resolver
from .volumes import Volumes

log = logging.getLogger("tsunagu.reconcile")


async def reconcile(
    engine: Engine,
    runtime: Runtime,
    networks: Networks,
    lifecycle: Lifecycle,
    containers: Containers,
    resolver: Resolver,
    volumes: Volumes,
    orphans: Orphans,
) -> None:
    """Run once, before the API is served."""
    lifecycle.sandboxes.forget_dead()
    await networks.restore()
    running = {c.id for c in engine.world.containers.values() if c.is_running}
    for container_id in running:
        found = pausing.adopted(runtime, engine.world.containers[container_id])
        if found is not engine.world.containers[container_id]:
            engine.commit(ContainerStateChanged(container_id, found.state))
    await resolver.start(engine.world)
    for container_id in running:
        volumes.adopt(engine.world.containers[container_id])
        lifecycle.adopt(engine.world.containers[container_id])
    sandboxes = lifecycle.sandboxes.living()
    for container_id, container in sandboxes.items():
        await lifecycle.ports.adopt(container)
        if names.needs_resolver(engine.world, container) and not resolver.holds(container_id):
            log.info("name server sockets were lost, opening new ones container=%s", container_id[:12])
            try:
                await lifecycle.sandboxes.open_resolver(engine.world, container)
            except EngineError as error:  # its last process has ended meanwhile, or its namespace is gone
                log.warning("no name server for container=%s: %s", container_id[:12], error)
    doomed = volumes.doomed()
    await volumes.restore()
    await orphans.remove(await orphans.find())
    for identifier, operation in engine.db.all("intent"):
        container_or_none = engine.world.containers.get(identifier)
        if container_or_none is not None and identifier not in running:
            log.info("undone after a crash container=%s operation=%s", identifier[:12], operation.decode())
            state = replace(container_or_none.state, error="the engine was killed while this container started")
            engine.commit(ContainerStateChanged(identifier, state))
            if container_or_none.host.auto_remove:  # as after any other start that failed
                await _discard(engine, containers, identifier)
        engine.db.delete("intent", identifier)
    for container in list(engine.world.containers.values()):
        is_ephemeral = container.host.auto_remove and container.state.status is Status.EXITED
        if is_ephemeral or container.state.status is Status.REMOVING:
            await _discard(engine, containers, container.id)
    await volumes.finish_removals(doomed)


async def _discard(engine: Engine, containers: Containers, container_id: str) -> None:
    """Finish a removal; that of an adopted container which has just ended may be under way already."""
    async with engine.lock(container_id):
        container = engine.world.containers.get(container_id)
        if container is not None and not container.is_running:
            log.info("finishing a removal container=%s", container_id[:12])
            await containers.discard(container)


def nothing_runs(engine: Engine) -> bool:
    """Tell whether an engine that stops may take its bridges, table and resolver with it."""
    return not any(c.is_running for c in engine.world.containers.values())
