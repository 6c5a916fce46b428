"""What nobody owns: leftovers of this instance in the kernel and on disk, found and removed.

May import kernel. Must never call anything an orphan while an operation that makes such things is under way.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Iterator

import msgspec

from tsunagu.kernel.network import NetworkKernel
from tsunagu.kernel.runtime import Runtime

from .bundles import Bundles
from .engine import Engine
from .sandboxes import Sandboxes

log = logging.getLogger("tsunagu.orphans")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of containers whose processes, mounted root file systems and directories are left; paths of namespaces; names
    of links."""

    processes: frozenset[str] = frozenset()
    sandboxes: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()
    mounts: frozenset[str] = frozenset()
    directories: frozenset[str] = frozenset()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Each as kind and name."""
        for field in self.__struct_fields__:
            for name in sorted(getattr(self, field)):
                yield field, name

    def both(self, other: Found) -> Found:
        """What was found twice."""
        return Found(**{f: getattr(self, f) & getattr(other, f) for f in self.__struct_fields__})

    def without(self, container_ids: Container[str]) -> Found:
        """Leave out what bears the id of one of these containers: whoever works on it has not finished."""
        return Found(
            links=self.links,
            **{
                field: frozenset(one for one in getattr(self, field) if os.path.basename(one) not in container_ids)
                for field in self.__struct_fields__
                if field != "links"
            },
        )


class Orphans:
    def __init__(
        self, engine: Engine, kernel: NetworkKernel, runtime: Runtime, bundles: Bundles, sandboxes: Sandboxes
    ) -> None:
        self._engine = engine
        self._kernel = kernel
        self._runtime = runtime
        self._bundles = bundles
        self._sandboxes = sandboxes

    async def find(self) -> Found:
        """Return what no container and no network of the world owns. Raises KernelFailure."""
        paths, there = await self._kernel.list_sandboxes(), await self._kernel.list_links()
        # no await from here on: one world
        world = self._engine.world
        running = {c.id for c in world.containers.values() if c.is_running}
        living = self._sandboxes.living()
        wanted = {n.bridge for n in world.networks.values()} | {
            e.host_ifname for owner in living.values() for e in owner.endpoints
        }
        return Found(
            processes=frozenset(self._runtime.known() - running),
            sandboxes=frozenset(path for path in paths if os.path.basename(path) not in living),
            links=frozenset(there - wanted),
            mounts=frozenset(self._bundles.mounted() - running),
            directories=frozenset(self._bundles.stored() - set(world.containers)),
        )

    async def remove(self, found: Found) -> None:
        """Remove them. Raises KernelFailure for the first that stays."""
        for kind, name in found:
            log.info("removing what nobody owns kind=%s name=%s", kind, name)
            match kind:
                case "processes":
                    await self._runtime.delete(name)
                case "sandboxes":
                    await self._kernel.tear_down_sandbox(name, ())
                case "links":
                    await self._kernel.remove_bridge(name)
                case "mounts":
                    await self._bundles.unmount(name)
                case "directories":
                    await self._bundles.remove(name)
