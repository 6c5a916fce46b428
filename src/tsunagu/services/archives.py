"""Files of containers as archives: copy out and in, export, the list of changes. Running or not makes no difference.

Streams have bounded memory: a thread makes or reads a few pieces while the event loop moves them. Nothing here holds a
container's lock while a client reads slowly: the root file system is kept mounted by a visit instead.
"""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import os
import posixpath
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from tsunagu.kernel import accounts, changes, compression, pack
from tsunagu.kernel.extract import extract
from tsunagu.kernel.views import Mounted, View
from tsunagu.model.container import Container, Status
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter, KernelFailure, NotFound
from tsunagu.model.files import Change, Stat

from .bundles import ETC_FILES, Bundles
from .engine import Engine
from .images import Images
from .lifecycle import Lifecycle

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger("tsunagu.archives")
PIECE = 1 << 20


class Archives:
    def __init__(self, engine: Engine, images: Images, lifecycle: Lifecycle, bundles: Bundles) -> None:
        self._engine = engine
        self._images = images
        self._lifecycle = lifecycle
        self._bundles = bundles

    # ---- cp

    async def stat(self, word: str, path: str) -> Stat:
        """Describe one file of a container; raises NotFound in Docker's words."""
        container = self._container(word)
        async with self._view(container) as view:
            return await self._stat(view, word, path)

    @asynccontextmanager
    async def copy_out(self, word: str, path: str) -> AsyncGenerator[tuple[Stat, AsyncIterator[bytes]], None]:
        """Give the description of a file or directory, and the tar of it; names in the tar begin with its own."""
        container = self._container(word)
        path = _absolute(path)
        async with self._view(container) as view:
            found = await self._stat(view, word, path)
            self._lifecycle.emit("archive-path", container)
            pieces = pack.Packer(view.root).tree(os.fsencode(path), _base(path))

            async def gather() -> bytes:
                try:
                    return await view.run(_gather, pieces)
                except OSError as error:
                    raise _path_failed(error, word, path) from error

            yield found, _pumped(gather)

    async def copy_in(
        self,
        word: str,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        keeps_kinds: bool = False,
        takes_user: bool = False,
    ) -> None:
        """Extract an archive, compressed or not, into directory `path` of a container.

        With `takes_user` what is copied belongs to the container's user (Docker's copyUIDGID), else to whom the archive
        says. Raises InvalidParameter for what is read-only, no directory, or a damaged archive.
        """
        container = self._container(word)
        path = _absolute(path)
        async with self._view(container) as view:
            try:
                place = await view.run(view.resolve, path)
                is_directory = stat.S_ISDIR((await view.run(view.stat, place)).mode)
            except OSError as error:
                raise _path_failed(error, word, path) from error
            if not is_directory:
                raise InvalidParameter("extraction point is not a directory")
            _check_writable(container, place)
            owner = await view.run(_owner, view, container) if takes_user else None
            source = _Body(chunks, asyncio.get_running_loop())
            self._lifecycle.emit("extract-to-dir", container)
            await view.run(_extract, view.root, os.fsencode(place), cast(BinaryIO, source), owner, keeps_kinds)

    # ---- export, changes

    @asynccontextmanager
    async def export(self, word: str) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """Give the tar of a container's root file system, without what is mounted into it."""
        container = self._engine.world.container(word)
        for status, state in ((Status.DEAD, "Dead"), (Status.REMOVING, "being removed")):
            if container.state.status is status:
                raise Conflict(f"You cannot export container {container.id} which is {state}")
        async with self._visit(container) as merged:
            root = os.open(merged, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._lifecycle.emit("export", container)
                pieces = pack.Packer(root).tree(b"", b"", has_top=False)
                yield _pumped(lambda: asyncio.to_thread(_gather, pieces))
            finally:
                os.close(root)

    async def changes(self, word: str) -> list[Change]:
        """Return what differs between a container's files and its image's, sorted by path, as `docker diff` does."""
        container = self._container(word)
        storage = self._images.storage
        lowers = storage.lower_directories(container.id)
        try:
            found = await asyncio.to_thread(
                changes.read, storage.upper(container.id), lowers, changes.placeholders(container_mounts(container))
            )
        except OSError as error:
            raise KernelFailure(f"cannot read the changes of {word}: {error.strerror}") from error
        return found

    # ---- pieces

    def _container(self, word: str) -> Container:
        if not word:
            raise InvalidParameter("bad parameter: name cannot be empty")
        container = self._engine.world.container(word)
        if container.state.status in (Status.REMOVING, Status.DEAD):
            raise Conflict(f"container {container.id} is marked for removal and cannot be copied from")
        return container

    @asynccontextmanager
    async def _visit(self, container: Container) -> AsyncGenerator[str, None]:
        async with self._images.storage.visit(container.id, self._images.layers_of(container.image_id)) as merged:
            yield merged

    @asynccontextmanager
    async def _view(self, container: Container) -> AsyncGenerator[View, None]:
        directory = self._bundles.directory(container.id)
        async with self._bundles.volumes.visit(container) as sources:
            mounts = [
                *(
                    Mounted(sources.get(m.destination, m.source), m.destination, m.is_readonly)
                    for m in container.mounts
                    if m.type != "tmpfs"
                ),
                *(Mounted(f"{directory}/{name}", f"/etc/{name}", is_optional=True) for name in ETC_FILES),
            ]
            async with self._visit(container) as merged, View(merged, mounts) as view:
                yield view

    @staticmethod
    async def _stat(view: View, word: str, path: str) -> Stat:
        try:
            return await view.run(view.stat, _absolute(path))
        except OSError as error:
            raise _path_failed(error, word, path) from error


def container_mounts(container: Container) -> list[str]:
    """Where in a container something is mounted that the image knows nothing of."""
    return [mount.destination for mount in container.mounts] + list(container.host.tmpfs or ())


def _absolute(path: str) -> str:
    """Relative paths begin at the root; `..` stays within it and is resolved by the kernel, after links."""
    if not path:
        raise InvalidParameter("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InvalidParameter("invalid path: it holds a zero byte")
    return path if path.startswith("/") else f"/{path}"


def _base(path: str) -> bytes:
    """The name that the top has in an archive: the path's last part, nothing for the root (Go's filepath.Base)."""
    return os.fsencode(posixpath.basename(path.rstrip("/")))


def _path_failed(error: OSError, word: str, path: str) -> EngineError:
    if error.errno == errno.ENOENT:
        return NotFound(f"Could not find the file {path} in container {word}")
    if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EXDEV):
        return InvalidParameter(f"lstat {path}: {(error.strerror or '').lower()}")
    return KernelFailure(f"cannot read {path} of container {word}: {error.strerror}")


def _check_writable(container: Container, place: str) -> None:
    for mount in container.mounts:
        if place == mount.destination or place.startswith(mount.destination + "/"):
            if mount.is_readonly:
                raise InvalidParameter(
                    "mounted volume is marked read-only", hint=f"it is mounted at {mount.destination}"
                )
            return
    if container.host.readonly_rootfs:
        raise InvalidParameter("container rootfs is marked read-only")


def _owner(view: View, container: Container) -> tuple[int, int] | None:
    if not container.config.user:
        return None
    account = accounts.resolve_user(f"/proc/self/fd/{view.root}", container.config.user)
    return account.uid, account.gid


def _extract(root: int, place: bytes, source: BinaryIO, owner: tuple[int, int] | None, keeps_kinds: bool) -> None:
    with compression.damage_named("the archive"):
        body = io.BufferedReader(cast(io.RawIOBase, source), PIECE)
        stream, kind = compression.decompressed(body)  # type: ignore[arg-type]
        reader = io.BufferedReader(cast(io.RawIOBase, stream), PIECE) if kind else body
        extract(root, place, reader.read, owner=owner, keeps_kinds=keeps_kinds)
        while body.read(PIECE):
            pass  # what follows the archive's end is read, so that the client may finish


class _Body(io.RawIOBase):
    """A request's body for a thread: each read waits for the event loop, so nothing piles up."""

    def __init__(self, chunks: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._chunks = chunks
        self._loop = loop
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        if not self._rest:
            self._rest = memoryview(asyncio.run_coroutine_threadsafe(self._next(), self._loop).result())
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    async def _next(self) -> bytes:
        async for chunk in self._chunks:
            if chunk:
                return chunk
        return b""


async def _pumped(gather: Callable[[], Awaitable[bytes]]) -> AsyncIterator[bytes]:
    """Yield an archive made in a thread, and its end mark."""
    try:
        while data := await gather():
            yield data
    except OSError as error:
        raise KernelFailure(f"reading the container's files failed: {error.strerror}") from error
    yield pack.END


def _gather(pieces: Iterator[bytes]) -> bytes:
    """Join small pieces, so that one hop between threads moves a MiB."""
    found: list[bytes] = []
    size = 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size >= PIECE:
            break
    return b"".join(found)
