"""Root file systems of containers: overlayfs mounts over the shared layers.

`<root>/overlay/<id>/` holds a container's changes (`upper`, `work`) and `layers`, the list that keeps its layers alive;
it lives until the container is removed. The mount itself is at `<run_dir>/rootfs/<id>`: mounts live in the host's mount
namespace and outlive the engine. `<run_dir>/rootfs` is bound onto itself and private, so that no mount below it ever
propagates into another mount namespace (on systemd hosts "/" is shared).

May import kernel and model only. Must never make a layer writable, and never wait for the disk on the event loop.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from weakref import WeakValueDictionary

import msgspec

from tsunagu.model.errors import InvalidParameter, KernelFailure
from tsunagu.model.image import chain_ids
from tsunagu.model.instance import Instance

from . import syscalls
from .layers import Layers
from .trees import remove_tree

log = logging.getLogger("tsunagu.storage")
MAX_LAYERS = 127  # what fits into one page of mount options; Docker's limit is 127 too
_PAGE = 4096
_ESCAPE = re.compile(r"\\([0-7]{3})")
_HINTS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EINVAL: "overlayfs cannot keep changes on some file systems, such as another overlay: choose another --root",
    errno.ENODEV: "the kernel has no overlayfs: modprobe overlay",
    errno.EPERM: "mounting needs root (CAP_SYS_ADMIN)",
}
_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class Storage:
    """Layers and the root file systems that stand on them. `on_release` is called after a container's was removed."""

    def __init__(self, instance: Instance) -> None:
        self._root = instance.root
        self._rootfs = f"{os.path.realpath(instance.run_dir)}/rootfs"
        self.layers = Layers(instance.root)
        self.on_release: Callable[[], object] | None = None
        # Lower directories are named relative to this thread's own working directory: short, whatever the root's path.
        self._mounts = ThreadPoolExecutor(1, "mounts", initializer=self._enter_layers)
        self._cleaner = ThreadPoolExecutor(1, "cleaner")
        self._closers = ThreadPoolExecutor(4, "closer")
        self._closing: dict[str, Future[None]] = {}
        self._held: dict[str, tuple[str, ...]] = {}
        self._opened: set[str] = set()  # names of images that are just being read
        self._wanted: set[str] = set()  # mounted for a container that runs or starts
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # mounting and unmounting of one
        self._visitors: Counter[str] = Counter()  # mounted, or kept mounted, for somebody who reads or writes files

    def open(self) -> None:
        """Make the directories, read the layers, start sweeping what a crash left. Blocks; comes before all else."""
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        os.chmod(self._root, 0o700)  # CVE-2021-41091: set-user-id files of images must be out of reach of host users
        for name in ("tmp", "overlay", "empty"):
            os.makedirs(f"{self._root}/{name}", mode=0o700, exist_ok=True)
        os.makedirs(self._rootfs, mode=0o700, exist_ok=True)
        self.layers.open()
        for name in os.listdir(f"{self._root}/tmp"):
            self.discard(f"{self._root}/tmp/{name}")
        for container_id in self.stored():
            with suppress(OSError, msgspec.DecodeError), open(self._path(container_id) + "/layers", "rb") as file:
                self._held[container_id] = msgspec.json.decode(file.read(), type=tuple[str, ...])
        self._wanted = self.mounted()  # an earlier engine's; reconcile unmounts those that nobody wants

    async def close(self) -> None:
        """Finish what is under way. Mounts stay."""
        for pool in (self._mounts, self._closers, self._cleaner):
            await asyncio.to_thread(pool.shutdown)

    # ---- places

    def merged(self, container_id: str) -> str:
        """Path of a container's root file system while it is mounted."""
        return f"{self._rootfs}/{_checked(container_id)}"

    def upper(self, container_id: str) -> str:
        """Path of a container's own changes."""
        return f"{self._path(container_id)}/upper"

    def lower_directories(self, container_id: str) -> list[str]:
        """Paths of the layers that a container stands on, topmost first."""
        chain = chain_ids(self._held.get(container_id, ()))
        return [f"{self.layers.path}/{self.layers.directory(c)}/diff" for c in reversed(chain)]

    def stored(self) -> set[str]:
        """Ids of containers that have changes on disk."""
        return set(os.listdir(f"{self._root}/overlay"))

    def held(self) -> Iterable[tuple[str, ...]]:
        """The diff ids that each container stands on."""
        return self._held.values()

    def temporary(self, purpose: str) -> str:
        """Return an unused path on the same file system; what is left there is swept at the next start."""
        return f"{self._root}/tmp/{purpose}-{secrets.token_hex(8)}"

    def discard(self, path: str) -> None:
        """Remove a file or tree in the background; failures are logged."""
        with suppress(RuntimeError):  # closed already: the next start sweeps
            self._cleaner.submit(_discard, path)

    # ---- life of a root file system

    async def prepare_rootfs(self, container_id: str, diff_ids: Sequence[str]) -> None:
        """Make a container's directory and keep its layers from being collected. Idempotent; never yields."""
        if container_id in self._held:
            return
        self._check_layers(diff_ids)
        path = self._path(container_id)
        with _failure_named("making", container_id):
            os.makedirs(path, mode=0o700, exist_ok=True)
            for name in ("upper", "work"):
                os.makedirs(f"{path}/{name}", mode=0o700, exist_ok=True)
            # The upper directory's own attributes are those of the container's "/".
            top = self._lower(diff_ids)[0]
            found = os.stat(f"{self.layers.path}/{top}")
            os.chown(f"{path}/upper", found.st_uid, found.st_gid)
            os.chmod(f"{path}/upper", 0o755 if not diff_ids else found.st_mode & 0o7777)
            with open(f"{path}/layers.new", "wb") as file:
                file.write(msgspec.json.encode(tuple(diff_ids)))
            os.rename(f"{path}/layers.new", f"{path}/layers")
        self._held[container_id] = tuple(diff_ids)

    async def mount_rootfs(self, container_id: str, diff_ids: Sequence[str] = ()) -> str:
        """Mount a container's root file system and return its path. Idempotent.

        `diff_ids` count only when the container has not been prepared. Raises InvalidParameter for too many layers.
        """
        self._wanted.add(container_id)
        return await self._ensure_mounted(container_id, diff_ids)

    @asynccontextmanager
    async def visit(self, container_id: str, diff_ids: Sequence[str] = ()) -> AsyncIterator[str]:
        """Keep a container's root file system mounted for the time of a with block, whether it runs or not.

        It may start and end meanwhile; a removal does not wait. Gives the path.
        """
        self._visitors[container_id] += 1
        try:
            yield await self._ensure_mounted(container_id, diff_ids)
        finally:
            self._visitors[container_id] -= 1
            if not self._visitors[container_id]:
                del self._visitors[container_id]
                if container_id not in self._wanted and container_id in self._held:
                    await self._detach(container_id)

    async def _ensure_mounted(self, container_id: str, diff_ids: Sequence[str]) -> str:
        await self.prepare_rootfs(container_id, diff_ids)
        async with self._turn(container_id):
            return await self._mount_once(container_id)

    def _turn(self, container_id: str) -> asyncio.Lock:
        lock = self._turns.get(container_id)
        if lock is None:
            lock = self._turns[container_id] = asyncio.Lock()
        return lock

    async def _mount_once(self, container_id: str) -> str:
        if (closing := self._closing.get(container_id)) is not None:
            await asyncio.wrap_future(closing)  # overlayfs must have let go of the upper directory
        diff_ids = self._held[container_id]
        self._check_layers(diff_ids)
        options = (
            f"lowerdir={':'.join(self._lower(diff_ids))},"
            f"upperdir=../overlay/{container_id}/upper,workdir=../overlay/{container_id}/work,"
            "index=off,redirect_dir=off,metacopy=off"  # a layer made of the upper directory must say everything itself
        )
        if len(options) >= _PAGE:
            raise InvalidParameter(f"max depth exceeded: {len(diff_ids)} layers do not fit into one mount")
        merged = self.merged(container_id)
        await asyncio.wrap_future(self._mounts.submit(self._mount, container_id, merged, options))
        return merged

    async def unmount_rootfs(self, container_id: str) -> None:
        """Unmount a container's root file system once nobody visits it; its changes stay. No error when it is not
        mounted.

        The name is gone when this returns. overlayfs writes everything back as its last reference goes (ovl_sync_fs:
        the whole file system below), which may take seconds on a busy disk: a thread holds that reference and drops it.
        """
        self._wanted.discard(container_id)
        if not self._visitors[container_id]:
            await self._detach(container_id)

    async def _detach(self, container_id: str) -> None:
        merged = self.merged(container_id)
        async with self._turn(container_id):
            held = await asyncio.wrap_future(self._mounts.submit(self._unmount, merged))
            if held >= 0:
                closing = self._closers.submit(os.close, held)
                self._closing[container_id] = closing
                closing.add_done_callback(functools.partial(self._closed, container_id))

    async def remove_rootfs(self, container_id: str) -> None:
        """Remove a container's changes; unmounts first. No error when they are gone."""
        self._wanted.discard(container_id)
        await self._detach(container_id)
        doomed = self.temporary("gone")
        with _failure_named("removing", container_id), suppress(FileNotFoundError):
            os.rename(self._path(container_id), doomed)
            self.discard(doomed)
        self._held.pop(container_id, None)
        if self.on_release is not None:
            self.on_release()

    @asynccontextmanager
    async def opened_image(self, diff_ids: Sequence[str]) -> AsyncIterator[int]:
        """Yield a descriptor (O_PATH) of the root of an image as a container would first see it, read-only.

        Mounted meanwhile: in a mount that is nowhere, openat2(2) does not resolve links that begin with "/". What a
        crash leaves looks like a container's root file system that nobody owns. Raises KernelFailure.
        """
        self._check_layers(diff_ids)
        options = f"lowerdir={':'.join([*self._lower(diff_ids), '../empty'])}"  # without an upper one it takes two
        if len(options) >= _PAGE:
            raise InvalidParameter(f"max depth exceeded: {len(diff_ids)} layers do not fit into one mount")
        name = f"image-{secrets.token_hex(8)}"
        place = self.merged(name)
        self._opened.add(name)
        try:
            await asyncio.wrap_future(self._mounts.submit(self._mount, "of an image", place, options))
            root = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield root
            finally:
                os.close(root)
        finally:
            held = await asyncio.wrap_future(self._mounts.submit(self._unmount, place))
            if held >= 0:
                os.close(held)
            self._opened.discard(name)

    def is_mounted(self, container_id: str) -> bool:
        """Say whether a container's root file system is mounted; costs the same with any number of containers."""
        return _is_own_device(self.merged(container_id))

    def mounted(self) -> set[str]:
        """Return the ids of containers whose root file system is mounted, as the kernel says."""
        found: set[str] = set()
        prefix = self._rootfs + "/"
        with open("/proc/self/mountinfo") as file:
            for line in file:
                target = line.split(" ", 5)[4]
                if "\\" in target:
                    target = _ESCAPE.sub(lambda m: chr(int(m[1], 8)), target)
                if target.startswith(prefix):
                    found.add(target[len(prefix) :])
        return found - self._opened

    # ---- on the mount thread

    def _enter_layers(self) -> None:
        syscalls.leave_shared_directory()
        os.chdir(self.layers.path)

    def _mount(self, container_id: str, merged: str, options: str) -> None:
        with _failure_named("mounting", container_id):
            if _is_own_device(merged):
                return
            self._ensure_private()
            os.makedirs(merged, mode=0o700, exist_ok=True)
            syscalls.mount("overlay", merged, "overlay", 0, options)

    def _unmount(self, merged: str) -> int:
        """Detach the mount; returns a descriptor that holds its last reference, -1 when nothing was mounted."""
        if not _is_own_device(merged):
            with suppress(FileNotFoundError, OSError):
                os.rmdir(merged)
            return -1
        held = os.open(merged, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.unmount(merged, syscalls.MNT_DETACH)
        except OSError as error:
            os.close(held)
            raise KernelFailure(f"unmounting {merged} failed: {error.strerror}") from error
        with suppress(OSError):
            os.rmdir(merged)
        with suppress(OSError):  # EBUSY while another container is mounted
            syscalls.unmount(self._rootfs)
        return held

    def _ensure_private(self) -> None:
        """Bind `<run_dir>/rootfs` onto itself, private. It goes with the last container's mount."""
        if _mount_id(self._rootfs) != _mount_id(os.path.dirname(self._rootfs)):
            return
        os.makedirs(self._rootfs, mode=0o700, exist_ok=True)
        syscalls.mount(self._rootfs, self._rootfs, "none", syscalls.MS_BIND)
        syscalls.mount("none", self._rootfs, "none", syscalls.MS_PRIVATE)

    # ---- pieces

    def _path(self, container_id: str) -> str:
        return f"{self._root}/overlay/{_checked(container_id)}"

    def _lower(self, diff_ids: Sequence[str]) -> list[str]:
        """Lower directories, topmost first, relative to the layers' directory."""
        chain = chain_ids(diff_ids)
        return [f"{self.layers.directory(c)}/diff" for c in reversed(chain)] or ["../empty"]

    def _check_layers(self, diff_ids: Sequence[str]) -> None:
        if len(diff_ids) > MAX_LAYERS:
            raise InvalidParameter("max depth exceeded", hint=f"the image has more than {MAX_LAYERS} layers")
        for chain_id, diff_id in zip(chain_ids(diff_ids), diff_ids, strict=True):
            if self.layers.get(chain_id) is None:
                raise KernelFailure(f"layer {diff_id} is not on disk", hint="load the image again")

    def _closed(self, container_id: str, closing: Future[None]) -> None:
        if self._closing.get(container_id) is closing:
            self._closing.pop(container_id, None)


class _failure_named:
    """Context manager: an OSError becomes a KernelFailure that names the operation and the container."""

    def __init__(self, doing: str, container_id: str) -> None:
        self._text = f"{doing} the root file system of container {container_id[:12]} failed"

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise KernelFailure(f"{self._text}: {error.strerror}", hint=_HINTS.get(error.errno or 0, "")) from error


def _checked(container_id: str) -> str:
    """Ids become path names: refuse anything that is no plain name."""
    if not _ID.fullmatch(container_id):
        raise InvalidParameter(f"invalid container id ({container_id[:64]!r})")
    return container_id


def _is_own_device(path: str) -> bool:
    """Say whether something is mounted on `path`: an overlay has a device number of its own."""
    try:
        return os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev
    except FileNotFoundError:
        return False


def _mount_id(path: str) -> str:
    """The kernel's number of the mount that `path` is on (proc(5), fdinfo)."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            return next(line for line in file if line.startswith("mnt_id:"))
    finally:
        os.close(fd)


def _discard(path: str) -> None:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            remove_tree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.error("cannot remove path=%s error=%s", path, error.strerror)
