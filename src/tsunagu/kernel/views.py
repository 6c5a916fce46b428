"""A container's files as Docker's `cp` sees them: its root file system and its bind mounts, but no /proc and no /dev.

A view is a thread in a mount namespace of its own, so that what it mounts is seen by nobody else and is gone with the
thread, also when the engine is killed. Paths inside are opened relative to the root by openat2(2) RESOLVE_IN_ROOT; the
thread itself never leaves the host's root directory and runs nothing of the container.

May import kernel and model; must never mount anything outside the view.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple, ParamSpec, TypeVar

from tsunagu.model.errors import KernelFailure
from tsunagu.model.files import Stat

from . import syscalls
from .accounts import make_directory
from .syscalls import open_in_root

P = ParamSpec("P")
T = TypeVar("T")
MAX_LINKS = 40  # the kernel's own limit


class Mounted(NamedTuple):
    """A host path that is seen at `destination` of the container. One that is `optional` needs a file to lie on."""

    source: str
    destination: str
    is_readonly: bool = False
    is_optional: bool = False


class View:
    """Use with `async with`; `run` gives the thread work. `root` is a descriptor that is valid inside such work."""

    def __init__(self, merged: str, mounts: Sequence[Mounted]) -> None:
        self._merged = merged
        self._mounts = mounts
        self._thread = ThreadPoolExecutor(1, "view")
        self.root = -1

    async def __aenter__(self) -> View:
        try:
            await self.run(self._enter)
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._leave()

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `job` on the thread; a cancelled caller does not stop a job that began."""
        return await asyncio.wrap_future(self._thread.submit(job, *args, **kwargs))

    async def _leave(self) -> None:
        self._thread.submit(self._close)
        await asyncio.to_thread(self._thread.shutdown)

    # ---- on the thread

    def _enter(self) -> None:
        try:
            syscalls.leave_shared_mounts()
            syscalls.mount("none", "/", "none", syscalls.MS_REC | syscalls.MS_PRIVATE)
            self.root = os.open(self._merged, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            for mounted in sorted(self._mounts, key=lambda m: m.destination.count("/")):
                self._mount(mounted)
        except OSError as error:
            raise KernelFailure(f"cannot look into the container's files: {error.strerror}") from error

    def _close(self) -> None:
        if self.root >= 0:
            os.close(self.root)

    def _mount(self, mounted: Mounted) -> None:
        try:
            is_directory = stat.S_ISDIR(os.stat(mounted.source).st_mode)
        except FileNotFoundError:
            return  # start will make it, or refuse
        place = self._place(mounted, is_directory=is_directory)
        if place < 0:
            return
        try:
            target = f"/proc/self/fd/{place}"
            syscalls.mount(mounted.source, target, "none", syscalls.MS_BIND | syscalls.MS_REC)
        finally:
            os.close(place)
        if mounted.is_readonly:
            place = open_in_root(self.root, os.fsencode(mounted.destination), os.O_PATH)
            try:
                flags = syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY
                syscalls.mount("none", f"/proc/self/fd/{place}", "none", flags)
            finally:
                os.close(place)

    def _place(self, mounted: Mounted, *, is_directory: bool) -> int:
        """Open what a mount is to lie on, made as a start would make it; -1 when an optional one has no place."""
        path = os.fsencode(mounted.destination)
        with suppress(FileNotFoundError):
            return open_in_root(self.root, path, os.O_PATH)
        if mounted.is_optional:
            return -1
        if is_directory:
            make_directory(self._merged, mounted.destination)
        else:
            make_directory(self._merged, posixpath.dirname(mounted.destination))
            os.close(open_in_root(self.root, path, os.O_WRONLY | os.O_CREAT, 0o644))
        return open_in_root(self.root, path, os.O_PATH)

    # ---- questions; call them through `run`

    def stat(self, path: str) -> Stat:
        """Describe `path` (absolute) of the container; its last part is followed only if a slash is behind it."""
        handle = open_in_root(self.root, os.fsencode(path), os.O_PATH | os.O_NOFOLLOW)
        try:
            found = os.fstat(handle)
        finally:
            os.close(handle)
        target = self._end_of_link(path) if stat.S_ISLNK(found.st_mode) else ""
        return Stat(found.st_mode, found.st_size, found.st_mtime_ns, target)

    def resolve(self, path: str) -> str:
        """Return the absolute path inside the container that `path` leads to. Raises OSError when it leads nowhere."""
        handle = open_in_root(self.root, os.fsencode(path), os.O_PATH)
        try:
            return os.readlink(f"/proc/self/fd/{handle}").removeprefix(self._merged) or "/"
        finally:
            os.close(handle)

    def _end_of_link(self, path: str) -> str:
        """Where a link leads to, or as far as that can be told when it leads nowhere."""
        with suppress(OSError):
            return self.resolve(path)
        here = path
        for _ in range(MAX_LINKS):
            above, name = posixpath.split(here)
            try:
                parent = open_in_root(self.root, os.fsencode(above), os.O_PATH | os.O_DIRECTORY)
            except OSError:
                return posixpath.normpath(here)
            try:
                real = os.readlink(f"/proc/self/fd/{parent}").removeprefix(self._merged) or "/"
                link = os.readlink(name, dir_fd=parent)
            except OSError:
                return posixpath.join(real, name)
            finally:
                os.close(parent)
            here = posixpath.normpath(posixpath.join(real, link))
        return here
