"""Brings uploads in: spools the bytes to disk, finds the images in them, unpacks and verifies their layers in parallel.

Whatever happens, nothing stays behind but layers in place; the next collection removes those that no image was
recorded for.
May import model, kernel, store and its neighbour images_archive; must never record an image.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import BinaryIO, Protocol, cast
from weakref import WeakValueDictionary

from tsunagu.kernel import compression
from tsunagu.kernel.layers import Draft
from tsunagu.kernel.storage import Storage
from tsunagu.model.errors import KernelFailure
from tsunagu.model.image import chain_ids

from .images_archive import Archive, Found, read_images

_PIECE = 4 << 20  # bytes gathered before a thread writes them
_RESERVE = 64 << 20  # bytes of the disk that an upload leaves free


class Blobs(Protocol):
    """Where layers come from: an archive, or what was fetched from a registry."""

    def source(self, name: str) -> BinaryIO:
        """Open one blob for reading; called from threads."""


class Intake:
    """Makes layers of one Storage. `pins` are chain ids that must not be collected although no image has them yet."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._workers = ThreadPoolExecutor(2, "unpack")  # two layers at once, over all uploads
        self._readers = ThreadPoolExecutor(4, "archive")
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.pins: Counter[str] = Counter()

    async def close(self) -> None:
        """Wait for unpacking that is under way."""
        for pool in (self._readers, self._workers):
            await asyncio.to_thread(pool.shutdown)

    @contextmanager
    def pinned(self, chain: Sequence[str]) -> Iterator[None]:
        """Keep layers from being collected for the time of a with block."""
        self.pins.update(chain)
        try:
            yield
        finally:
            self.pins.subtract(chain)
            self.pins += Counter()  # drops what has come to zero

    async def receive(self, chunks: AsyncIterator[bytes]) -> str:
        """Write an upload to a file of its own and return its path; `forget` it after use."""
        path = self._storage.temporary("upload")
        try:
            with open(path, "xb", buffering=0) as file:
                pending = bytearray()
                async for chunk in chunks:
                    pending += chunk
                    if len(pending) >= _PIECE:
                        await asyncio.to_thread(_append, file, pending)
                        pending.clear()
                await asyncio.to_thread(_append, file, pending)
        except BaseException:
            self.forget(path)
            raise
        return path

    def forget(self, path: str) -> None:
        """Remove a received upload and what was made of it."""
        self._storage.discard(path)
        self._storage.discard(_expanded_path(path))

    async def images(self, path: str) -> tuple[Archive, list[Found]]:
        """Open a received archive and return it with its images; the caller closes it. Compressed ones are expanded."""

        future = self._readers.submit(_read, path)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel():
                future.add_done_callback(partial(self._abandon, path))
            raise

    def _abandon(self, path: str, future: Future[tuple[Archive, list[Found]]]) -> None:
        if future.exception() is None:
            future.result()[0].close()
        self.forget(path)

    async def add_layers(self, archive: Blobs, image: Found) -> None:
        """Put every layer of an image in place that is not there yet. Pin its chain while calling this."""
        chain = chain_ids(image.diff_ids)
        async with AsyncExitStack() as stack:
            # Shared layers have equal chains below them, so all uploads take these locks in the same order.
            for chain_id in dict.fromkeys(chain):
                await stack.enter_async_context(self._lock(chain_id))
            missing = [i for i, chain_id in enumerate(chain) if self._storage.layers.get(chain_id) is None]
            jobs: list[Callable[[], Draft]] = [
                partial(
                    self._storage.layers.draft,
                    partial(archive.source, image.layers[i].member),
                    diff_id=image.diff_ids[i],
                    blob_digest=image.layers[i].digest,
                    what=image.layers[i].member,
                )
                for i in missing
            ]
            drafts = await self._run(jobs)
            await asyncio.to_thread(
                self._place, [(d, image.diff_ids[:i]) for d, i in zip(drafts, missing, strict=True)]
            )

    @asynccontextmanager
    async def single_layer(
        self, source: Callable[[], BinaryIO], what: str, below: Sequence[str] = ()
    ) -> AsyncIterator[str]:
        """Put a layer in place on `below` (diff ids); gives its diff id and keeps all pinned for the with block."""
        (draft,) = await self._run([partial(self._storage.layers.draft, source, what=what)])
        chain = chain_ids((*below, draft.diff_id))
        with self.pinned(chain):
            async with self._lock(chain[-1]):
                await asyncio.to_thread(self._place, [(draft, below)])
            yield draft.diff_id

    async def _run(self, jobs: list[Callable[[], Draft]]) -> list[Draft]:
        """Run jobs on the workers; when one fails or the caller goes away, the drafts of the others are discarded."""
        futures: list[Future[Draft]] = [self._workers.submit(job) for job in jobs]
        try:
            return await asyncio.gather(*map(asyncio.wrap_future, futures))
        except BaseException:
            for future in futures:
                future.cancel()
                future.add_done_callback(self._discard)
            raise

    def _discard(self, future: Future[Draft]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._storage.discard(future.result().path)

    def _place(self, drafts: list[tuple[Draft, Sequence[str]]]) -> None:
        waiting = list(drafts)
        try:
            while waiting:
                self._storage.layers.place(*waiting.pop(0))
        except BaseException:
            for draft, _ in waiting:
                self._storage.layers.discard(draft)
            raise

    def _lock(self, chain_id: str) -> asyncio.Lock:
        lock = self._locks.get(chain_id)
        if lock is None:
            lock = self._locks[chain_id] = asyncio.Lock()
        return lock


def _read(path: str) -> tuple[Archive, list[Found]]:
    archive = Archive(_expanded(path))
    try:
        return archive, read_images(archive)
    except BaseException:
        archive.close()
        raise


def _expanded_path(path: str) -> str:
    return f"{path}.tar"


def _expanded(path: str) -> str:
    """Return `path`, or the path of what a compressed upload holds."""
    with compression.damage_named("the upload"), open(path, "rb", buffering=0) as raw:
        stream, kind = compression.decompressed(io.BufferedReader(raw, 1 << 20))
        if not kind:
            return path
        with open(_expanded_path(path), "xb", buffering=0) as out:
            while piece := stream.read(_PIECE):
                _append(out, piece)
    return _expanded_path(path)


def open_upload(path: str) -> BinaryIO:
    """Open a received upload for reading."""
    return cast(BinaryIO, open(path, "rb", buffering=0))


def _append(file: io.RawIOBase, data: bytes | bytearray) -> None:
    """Write all of `data`; leaves the disk some room, because everything else here needs it too."""
    found = os.fstatvfs(file.fileno())
    if found.f_bavail * found.f_frsize < len(data) + _RESERVE:
        raise KernelFailure("no space left on device", hint="the upload does not fit; free some space and try again")
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) or 0 :]
    except OSError as error:
        hint = "free some space and try again" if error.errno == errno.ENOSPC else ""
        raise KernelFailure(f"storing the upload failed: {error.strerror}", hint=hint) from error
