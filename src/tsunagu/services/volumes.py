"""Volumes: create, remove, prune; filled from images, mounted while a container lives. Refusals come before effects.

Whoever makes, fills, mounts or removes a volume holds its lock. A volume is whole before it has its name, and its
record and that of the container that it was made for are one transaction.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from tsunagu.kernel.storage import Storage
from tsunagu.kernel.volumes import VolumeFiles
from tsunagu.model.container import Container
from tsunagu.model.errors import EngineError, InvalidParameter, NotFound
from tsunagu.model.volume import ANONYMOUS, DRIVER, Mount, Volume
from tsunagu.model.world import Event, VolumeCreated, VolumeRemoved
from tsunagu.rules import volumes as rules
from tsunagu.rules.mounts import Plan

from .engine import Engine
from .filters import check_filters, matches_labels

log = logging.getLogger("tsunagu.volumes")
_INTENT = "volume "  # before the name, in the store's intents: containers' are plain ids


class Volumes:
    def __init__(self, engine: Engine, files: VolumeFiles, storage: Storage) -> None:
        self._engine = engine
        self._files = files
        self._storage = storage
        self._parts: dict[str, list[str]] = defaultdict(list)
        self._held: dict[str, set[str]] = defaultdict(set)  # name -> containers that live or are starting

    def _lock(self, name: str) -> asyncio.Lock:
        return self._engine.lock(_INTENT + name)

    # ---- create, remove

    async def create(self, name: str, driver: str, options: Mapping[str, str], labels: Mapping[str, str]) -> Volume:
        """Make a volume; return the one of that name if it is there already, as Docker does."""
        if name:
            rules.check_name(name)
        else:
            name, labels = self._engine.new_id(), {**labels, ANONYMOUS: ""}
        rules.check_driver(name, driver)
        rules.check_options(name, options)
        async with self._lock(name):
            if existing := self._engine.world.volumes.get(name):
                rules.check_same(existing, options)
                return existing
            self._files.stage(name)
            volume = Volume(name=name, created=time.time_ns(), labels=dict(labels), options=dict(options))
            self._engine.commit(VolumeCreated(volume))
            self._files.publish(name)
        self._emit("create", volume.name)
        return volume

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume that no container mounts; with `force` one that is not there is no error."""
        try:
            self._engine.world.volume(name)
        except NotFound:
            if force:
                return
            raise
        async with self._lock(name):
            self._engine.world.volume(name)
            rules.check_unused(self._engine.world, name)
            with self._engine.intent(_INTENT + name, "remove"):
                await self._files.remove(name)
                self._engine.commit(VolumeRemoved(name))
        self._emit("destroy", name)

    @asynccontextmanager
    async def going_with(self, mounts: Iterable[Mount]) -> AsyncIterator[None]:
        """Remove, after the body, the volumes that the container had which it removes and that nobody named.

        Those that others use stay (Docker's rule). The intent is kept from before, for an engine that is killed.
        """
        names = sorted({m.name for m in mounts if m.is_anonymous and m.name})
        for name in names:
            self._engine.db.put("intent", _INTENT + name, b"remove")
        yield
        await self.finish_removals(names)
        for name in names:
            self._engine.db.delete("intent", _INTENT + name)

    async def prune(self, filters: Mapping[str, Sequence[str]], *, is_all: bool) -> tuple[list[str], int]:
        """Remove unused volumes: those without a name, with `is_all` all; returns their names and the bytes freed."""
        check_filters(filters, {"label", "label!", "all"})
        used = rules.used(self._engine.world)
        removed, freed = [], 0
        for volume in list(self._engine.world.volumes.values()):
            if volume.name in used or not (is_all or volume.is_anonymous):
                continue
            if not matches_labels(volume.labels, filters):
                continue
            size = 0 if volume.options else await self._files.size(volume.name)
            try:
                await self.remove(volume.name)
            except EngineError:
                continue  # somebody uses it by now, or removed it
            removed.append(volume.name)
            freed += size
        self._engine.emit("volume", "prune", "", {"reclaimed": str(freed)})
        return removed, freed

    async def size(self, name: str) -> int:
        """Return the bytes of a volume's files."""
        return await self._files.size(name)

    # ---- for a container that is being created

    @asynccontextmanager
    async def made_for(self, plan: Plan, diff_ids: Sequence[str]) -> AsyncIterator[tuple[Event, ...]]:
        """Make the volumes of a plan that are not there, and fill those that are empty from the image.

        Yields the events that belong into the transaction that records the container; afterwards the volumes have
        their names. When the body fails nothing is left of them.
        """
        names = {m.name for m in plan.mounts if m.name}
        if not names:
            yield ()
            return
        async with AsyncExitStack() as stack:
            for name in sorted(names):
                await stack.enter_async_context(self._lock(name))
            world = self._engine.world
            if gone := names - set(world.volumes) - set(plan.volumes):  # of --volumes-from
                raise InvalidParameter(f"get {gone.pop()}: no such volume", hint="it was removed just now")
            for name, wanted in plan.volumes.items():
                if existing := world.volumes.get(name):
                    rules.check_same(existing, wanted.options)
            fresh = [name for name in plan.volumes if name not in world.volumes]
            try:
                for name in fresh:
                    self._files.stage(name)
                await self._fill(plan, set(fresh), diff_ids)
                now = time.time_ns()
                yield tuple(
                    VolumeCreated(
                        Volume(
                            name=name, created=now, labels=dict(plan.volumes[name].labels),
                            options=dict(plan.volumes[name].options),
                        )
                    )
                    for name in fresh
                )  # fmt: skip
            except BaseException:
                for name in fresh:
                    self._files.unstage(name)
                raise
            for name in fresh:
                self._files.publish(name)
        for name in fresh:
            self._emit("create", name)

    async def _fill(self, plan: Plan, fresh: set[str], diff_ids: Sequence[str]) -> None:
        """Copy what the image has at the volumes' places into those that are empty."""
        todo = [m for m in plan.mounts if m.type == "volume" and m.copies_up and m.name in plan.volumes]
        if not todo or not diff_ids:
            return
        async with self._storage.opened_image(diff_ids) as root:
            for mount in todo:
                options = plan.volumes[mount.name].options
                existing = self._engine.world.volumes.get(mount.name)
                if existing is not None:
                    options = existing.options
                if options:
                    await self._fill_mounted(mount, root, is_fresh=mount.name in fresh, options=options)
                elif mount.name in fresh:
                    await self._fill_staged(mount, root)
                elif mount.subpath or self._held[mount.name]:
                    await asyncio.to_thread(self._fill_in_place, mount, root)
                elif self._files.is_empty(mount.name):  # nobody sees the copy before it is whole
                    self._files.stage(mount.name)
                    try:
                        await self._fill_staged(mount, root)
                        self._files.replace_data(mount.name)
                    finally:
                        self._files.unstage(mount.name)

    async def _fill_staged(self, mount: Mount, root: int) -> None:
        data = self._files.open_staged(mount.name)
        try:
            await asyncio.to_thread(self._files.fill, data, root, mount.destination)
        finally:
            os.close(data)

    async def _fill_mounted(self, mount: Mount, root: int, *, is_fresh: bool, options: Mapping[str, str]) -> None:
        """Fill what the options of a volume mount: a bound directory (one in memory would be gone when it starts)."""
        local = rules.check_options(mount.name, options)
        if local is None or local.kind == "tmpfs" or mount.subpath:
            return
        source = os.open(local.device, os.O_PATH | os.O_CLOEXEC) if os.path.isdir(local.device) else -1
        if source < 0 or "ro" in local.words:
            return  # the start says what is wrong
        try:
            await asyncio.to_thread(self._files.fill, source, root, mount.destination)
        finally:
            os.close(source)

    def _fill_in_place(self, mount: Mount, root: int) -> None:
        try:
            data = self._files.open_data(mount.name, mount.subpath)
        except NotFound:
            return  # the start says so
        try:
            self._files.fill(data, root, mount.destination)
        finally:
            os.close(data)

    # ---- for a container that lives

    async def acquire(self, container: Container, holder: str = "") -> None:
        """Mount what the options of a container's volumes ask for; they stay until the last holder has let go.

        `holder` is the container itself, or whoever looks into it meanwhile.
        """
        for name in sorted({m.name for m in container.mounts if m.name}):
            async with self._lock(name):
                volume = self._engine.world.volume(name)
                if (local := rules.check_options(name, volume.options)) is not None:
                    await self._files.mount(name, *local)
                self._held[name].add(holder or container.id)

    async def release(self, holder: str) -> None:
        """Let go of a holder's volumes. No error when they were not acquired."""
        self.close_sources(holder)
        for name in [name for name, holders in self._held.items() if holder in holders]:
            async with self._lock(name):
                self._held[name].discard(holder)
                if self._held[name]:
                    continue
                del self._held[name]
                volume = self._engine.world.volumes.get(name)
                if volume is not None and volume.options:
                    await self._files.unmount(name)

    def sources(self, container: Container, holder: str = "") -> dict[str, str]:
        """Return the host path for each place where a volume is mounted; good until `close_sources`.

        Part of a volume is mounted aside first, from an open descriptor: nobody who can write into the volume can put a
        symlink in its place before the runtime mounts it (the race of CVE-2021-25741).
        """
        found = {}
        for mount in container.mounts:
            if mount.type != "volume":
                continue
            found[mount.destination] = self._engine.instance.volume_path(mount.name)
            if mount.subpath:
                places = self._parts[holder or container.id]
                places.append(place := f"{holder or container.id}-{len(places)}")
                found[mount.destination] = self._files.mount_part(mount.name, mount.subpath, place)
        return found

    def close_sources(self, holder: str) -> None:
        """Take away what `sources` made: the runtime has mounted it, or never will."""
        for place in self._parts.pop(holder, ()):
            self._files.unmount_part(place)

    @asynccontextmanager
    async def visit(self, container: Container) -> AsyncIterator[dict[str, str]]:
        """Keep a container's volumes mounted for the time of a with block, whether it runs or not; gives `sources`."""
        if not any(m.type == "volume" for m in container.mounts):
            yield {}
            return
        holder = f"visit-{self._engine.new_id()}"
        try:
            await self.acquire(container, holder)
            yield self.sources(container, holder)
        finally:
            await self.release(holder)

    def adopt(self, container: Container) -> None:
        """Note that a container which an earlier engine started uses its volumes."""
        for mount in container.mounts:
            if mount.name:
                self._held[mount.name].add(container.id)

    # ---- restart

    async def restore(self) -> None:
        """Make records and disk agree at engine start, after the running containers were adopted."""
        engine = self._engine
        whole, staged = self._files.stored()
        for name in sorted(staged):
            if name in engine.world.volumes and name not in whole:
                self._files.publish(name)  # recorded, and killed before it got its name
                whole.add(name)
            else:
                self._files.unstage(name)
        for name in sorted(set(engine.world.volumes) - whole):
            log.error("the directory of a volume is gone, making an empty one name=%s", name)
            self._files.stage(name)
            self._files.publish(name)
        for name in sorted(whole - set(engine.world.volumes)):
            try:
                rules.check_name(name)
            except InvalidParameter:
                log.warning("no volume has this name, leaving it alone name=%r", name)
                continue
            log.warning("a volume without a record, perhaps after a power cut: taking it over name=%s", name)
            engine.commit(VolumeCreated(Volume(name=name, created=time.time_ns())))
        for name in self._files.mounted() - {name for name, users in self._held.items() if users}:
            await self._files.unmount(name)

    def doomed(self) -> list[str]:
        """Return the names of volumes whose removal a crash cut short."""
        intents = [identifier for identifier, _ in self._engine.db.all("intent")]
        return [identifier.removeprefix(_INTENT) for identifier in intents if identifier.startswith(_INTENT)]

    async def finish_removals(self, names: Iterable[str]) -> None:
        """Remove volumes, once the containers are gone that were removed with them; those in use stay."""
        for name in names:
            try:
                await self.remove(name, force=True)
            except EngineError as error:
                log.info("volume stays name=%s reason=%s", name, error.message)

    # ---- events

    def emit(self, action: str, container: Container) -> None:
        """Publish that a container has begun (`mount`) or ended (`unmount`) to use its volumes."""
        for mount in container.mounts:
            if mount.type != "volume":
                continue
            attributes = {"container": container.id}
            if action == "mount":
                writes = "false" if mount.is_readonly else "true"
                attributes |= {"destination": mount.destination, "propagation": "", "read/write": writes}
            self._emit(action, mount.name, **attributes)

    def _emit(self, action: str, name: str, **attributes: str) -> None:
        self._engine.emit("volume", action, name, {"driver": DRIVER, **attributes})
