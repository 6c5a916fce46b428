"""Directories of volumes on disk, and what their options have mounted on them.

`<root>/volumes/<name>/_data` as in Docker. A new volume is made as `.new-<name>` and gets its name by one rename; one
that goes is renamed to `.gone-…` first: whatever has a plain name is whole, and is never deleted for want of a record.
May import kernel and model only. Must never delete below a mount, nor follow a name that a container made.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import secrets
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from tsunagu.model.errors import InvalidParameter, KernelFailure, NotFound
from tsunagu.model.instance import Instance

from . import syscalls
from .copyup import copy_tree, is_empty
from .trees import remove_tree

log = logging.getLogger("tsunagu.volumes")
NEW, GONE = ".new-", ".gone-"
_ESCAPE = re.compile(r"\\([0-7]{3})")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# mount(8)'s words that are flags of mount(2): what each sets or clears (include/uapi/linux/mount.h)
_FLAGS = {
    "ro": syscalls.MS_RDONLY, "nosuid": 2, "nodev": syscalls.MS_NODEV, "noexec": 8, "sync": 16, "dirsync": 128,
    "noatime": 1024, "nodiratime": 2048, "bind": syscalls.MS_BIND, "rbind": syscalls.MS_BIND | syscalls.MS_REC,
    "relatime": 1 << 21, "strictatime": 1 << 24,
}  # fmt: skip
_CLEARS = {"rw": 1, "suid": 2, "dev": 4, "exec": 8, "async": 16, "atime": 1024, "diratime": 2048, "norelatime": 1 << 21}


class VolumeFiles:
    """The volumes of one instance on disk. Nothing here knows who uses them."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._parent = f"{os.path.realpath(instance.root)}/volumes"
        self._parts = f"{os.path.realpath(instance.run_dir)}/volumes"
        self._cleaner = ThreadPoolExecutor(1, "volumes")

    def open(self) -> None:
        """Make the directory and sweep what a crash left. Blocks; comes before all else."""
        os.makedirs(self._parent, mode=0o700, exist_ok=True)
        os.chmod(self._parent, 0o700)
        for name in os.listdir(self._parent):
            if name.startswith(GONE):
                self._discard(f"{self._parent}/{name}")
        with suppress(FileNotFoundError):
            for name in os.listdir(self._parts):
                self.unmount_part(name)

    async def close(self) -> None:
        """Finish what is under way. Mounts stay."""
        await asyncio.to_thread(self._cleaner.shutdown)

    def stored(self) -> tuple[set[str], set[str]]:
        """Return the names of whole volumes, and of those that were being made."""
        found = os.listdir(self._parent)
        whole = {name for name in found if not name.startswith(".") and os.path.isdir(f"{self._parent}/{name}/_data")}
        return whole, {name.removeprefix(NEW) for name in found if name.startswith(NEW)}

    # ---- making and removing

    def stage(self, name: str) -> str:
        """Make a volume that nobody sees yet; returns the path of its data. What is left of an earlier try goes."""
        self.unstage(name)
        path = f"{self._parent}/{NEW}{name}"
        with _named("making", name):
            os.mkdir(path, 0o711)
            os.mkdir(f"{path}/_data", 0o755)
            os.chmod(f"{path}/_data", 0o755)  # whatever the umask is
        return f"{path}/_data"

    def publish(self, name: str) -> None:
        """Give a staged volume its name."""
        with _named("making", name):
            os.rename(f"{self._parent}/{NEW}{name}", f"{self._parent}/{name}")

    def unstage(self, name: str) -> None:
        """Drop a staged volume; no error when there is none."""
        self._put_away(f"{self._parent}/{NEW}{name}")

    async def remove(self, name: str) -> None:
        """Remove a volume and its data; no error when it is gone. Raises KernelFailure while something is mounted."""
        await self.unmount(name)
        path = f"{self._parent}/{name}"
        if inside := [place for place in _mounts() if (place + "/").startswith(path + "/")]:
            raise KernelFailure(
                f"remove {name}: something is mounted on {inside[0]}", hint=f"unmount it first: umount {inside[0]}"
            )
        with _named("removing", name):
            self._put_away(path)

    def _put_away(self, path: str) -> None:
        doomed = f"{self._parent}/{GONE}{secrets.token_hex(8)}"
        try:
            os.rename(path, doomed)
        except FileNotFoundError:
            return
        self._discard(doomed)

    def _discard(self, path: str) -> None:
        if any((place + "/").startswith(path + "/") for place in _mounts()):
            log.error("not removing path=%s: something is mounted below it", path)
            return
        with suppress(RuntimeError):  # closed already: the next start sweeps
            self._cleaner.submit(_remove, path)

    # ---- what options have mounted

    async def mount(self, name: str, kind: str, device: str, words: Sequence[str]) -> None:
        """Mount `device` on a volume's directory, unless something is there. Raises KernelFailure in Docker's words."""
        path = self._instance.volume_path(name)
        if self.is_mounted(name):
            return
        flags, values = 0, []
        for word in words:
            flags = (flags | _FLAGS.get(word, 0)) & ~_CLEARS.get(word, 0)
            if "=" in word:
                values.append(word)
        bind = flags & (syscalls.MS_BIND | syscalls.MS_REC)
        try:
            if bind:
                syscalls.mount(device, path, "none", bind)
                if flags & ~bind:
                    syscalls.mount("none", path, "none", flags | syscalls.MS_REMOUNT | syscalls.MS_BIND)
            else:
                syscalls.mount(device, path, kind, flags, ",".join(values))
            syscalls.mount("none", path, "none", syscalls.MS_PRIVATE)
        except OSError as error:
            await self.unmount(name)
            raise KernelFailure(
                f"error while mounting volume '{path}': failed to mount local volume: mount {device}:{path}, "
                f"flags: {flags:#x}: {(error.strerror or '').lower()}"
            ) from error

    async def unmount(self, name: str) -> None:
        """Unmount what is on a volume's directory; no error when nothing is."""
        with suppress(OSError):  # EINVAL: nothing is mounted there; ENOENT: the volume is gone
            for _ in range(16):
                syscalls.unmount(self._instance.volume_path(name), syscalls.MNT_DETACH)

    def is_mounted(self, name: str) -> bool:
        return f"{self._parent}/{name}/_data" in _mounts()

    def mounted(self) -> set[str]:
        """Return the names of volumes that have something mounted on their directory."""
        found = (
            place.removeprefix(self._parent + "/").split("/") for place in _mounts() if place.startswith(self._parent)
        )
        return {parts[0] for parts in found if len(parts) == 2 and parts[1] == "_data"}

    # ---- content

    def open_data(self, name: str, subpath: str = "") -> int:
        """Return a descriptor (O_PATH) of a volume's directory, or of what lies at `subpath` in it and only there.

        Raises NotFound when there is nothing, InvalidParameter when the way leads out of the volume.
        """
        path = self._instance.volume_path(name)
        try:
            data = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound(f"cannot access path {path}: {(error.strerror or '').lower()}") from error
        if not subpath:
            return data
        try:
            return syscalls.open_beneath(data, os.fsencode(subpath), os.O_PATH)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise InvalidParameter(
                    f"path concatenation escapes the base directory, base: {path}, subpath: {subpath}"
                ) from error
            reason = (error.strerror or "").lower()
            full = f"{path}/{subpath}"
            raise NotFound(
                f"cannot access path {full}: lstat {full}: {reason}", hint="make it in the volume first"
            ) from error
        finally:
            os.close(data)

    def mount_part(self, name: str, subpath: str, place: str) -> str:
        """Bind what lies at `subpath` of a volume, and only there, at `place`; returns the path.

        Raises what `open_data` raises, and KernelFailure.
        """
        found = self.open_data(name, subpath)
        path = f"{self._parts}/{place}"
        try:
            os.makedirs(self._parts, mode=0o700, exist_ok=True)
            if stat.S_ISDIR(os.fstat(found).st_mode):
                os.mkdir(path, 0o700)
            else:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            syscalls.mount(f"/proc/self/fd/{found}", path, "none", syscalls.MS_BIND | syscalls.MS_REC)
            syscalls.mount("none", path, "none", syscalls.MS_PRIVATE)
        except OSError as error:
            self.unmount_part(place)
            raise KernelFailure(f"cannot mount {subpath} of volume {name}: {error.strerror}") from error
        finally:
            os.close(found)
        return path

    def unmount_part(self, place: str) -> None:
        """Undo `mount_part`; no error when nothing is there."""
        path = f"{self._parts}/{place}"
        with suppress(OSError):
            syscalls.unmount(path, syscalls.MNT_DETACH)
        with suppress(OSError):
            (os.rmdir if os.path.isdir(path) else os.unlink)(path)
        with suppress(OSError):
            os.rmdir(self._parts)  # with the last one

    def fill(self, data: int, root: int, destination: str) -> None:
        """Copy what an image holds at `destination` into a volume's empty directory `data`.

        `root` is the image's root; both are descriptors. Nothing happens when the image has nothing there or the volume
        is not empty. Raises InvalidParameter when the image has a file there.
        """
        try:
            source = syscalls.open_in_root(root, os.fsencode(destination), os.O_RDONLY | os.O_DIRECTORY)
        except NotADirectoryError:
            raise InvalidParameter(f"cannot mount volume over existing file, file exists {destination}") from None
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                return
            raise KernelFailure(f"failed to populate volume: {destination}: {error.strerror}") from error
        try:
            target = os.open(".", _DIRECTORY, dir_fd=data)
            try:
                if is_empty(target):
                    copy_tree(source, target)
            finally:
                os.close(target)
        except OSError as error:
            hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            raise KernelFailure(f"failed to populate volume: {destination}: {error.strerror}", hint=hint) from error
        finally:
            os.close(source)

    def open_staged(self, name: str) -> int:
        """Return a descriptor (O_PATH) of a staged volume's directory."""
        path = f"{self._parent}/{NEW}{name}/_data"
        with _named("making", name):
            return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def replace_data(self, name: str) -> None:
        """Put the staged copy of `name` in the place of a volume's directory, if that is still empty."""
        try:
            os.rename(f"{self._parent}/{NEW}{name}/_data", self._instance.volume_path(name))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise KernelFailure(f"failed to populate volume {name}: {error.strerror}") from error
        finally:
            self.unstage(name)

    def is_empty(self, name: str) -> bool:
        """Tell whether a volume holds nothing."""
        try:
            directory = os.open(self._instance.volume_path(name), _DIRECTORY)
        except OSError:
            return False
        try:
            return is_empty(directory)
        finally:
            os.close(directory)

    async def size(self, name: str) -> int:
        """Return the bytes of a volume's files."""
        return await asyncio.to_thread(_size, self._instance.volume_path(name))


class _named:
    """Context manager: an OSError becomes a KernelFailure that names the operation and the volume."""

    def __init__(self, doing: str, name: str) -> None:
        self._text = f"{doing} volume {name} failed"

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise KernelFailure(f"{self._text}: {error.strerror}") from error


def _mounts() -> set[str]:
    with open("/proc/self/mountinfo") as file:
        places = {line.split(" ", 5)[4] for line in file}
    return {_ESCAPE.sub(lambda m: chr(int(m[1], 8)), place) if "\\" in place else place for place in places}


def _remove(path: str) -> None:
    try:
        remove_tree(path)
    except OSError as error:
        log.error("cannot remove path=%s error=%s", path, error.strerror)


def _size(path: str) -> int:
    total = 0
    for parent, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):  # removed while we counted
                total += os.lstat(f"{parent}/{name}").st_size
    return total
