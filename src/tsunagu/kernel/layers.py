"""The unpacked layers on disk: added once, verified, shared by every image and container that stands on them.

`<root>/layers/<name>/` holds `diff` (what overlayfs reads), `layer.json` and what is needed to give the layer's tar
back byte for byte. A layer is known by its chain id (it and all below it), because directories that its tar does not
describe take their attributes from below. A layer is made in `<root>/tmp` and appears by one rename; nothing is
fsynced, as with Docker.

To save an image again its tars must come back exactly (their digests are the image's identity). Keeping a copy of each
tar would double the disk space, so a *recipe* is kept: the bytes that are not file content, compressed, and the names
of the files whose content goes between. Where that cannot work (an archive that overwrites its own entries) the tar is
kept, compressed.

May import kernel and model only; must never change a layer that is in place. All methods may block: call them in a
thread, except those that say otherwise.
"""

from __future__ import annotations

import base64
import io
import logging
import os
import secrets
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, cast

import msgspec
import zstandard

from tsunagu.model.errors import InvalidParameter, KernelFailure
from tsunagu.model.image import chain_ids

from . import compression, unpack
from .compression import Hashed
from .syscalls import open_in_root
from .trees import remove_tree

log = logging.getLogger("tsunagu.layers")
_RECORD = struct.Struct("<BQ")
_RAW, _FILE = 0, 1
_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer in place. `size` is the length of its files, `tar_size` of its tar, in bytes."""

    chain_id: str
    diff_id: str
    size: int
    tar_size: int
    devices: int = 0
    has_recipe: bool = True


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A layer that is unpacked and verified, but not in place."""

    path: str
    diff_id: str
    made: unpack.Unpacked
    tar_size: int


class Layers:
    """`<root>/layers`; what is in place is known from memory, so that `get` never touches the disk."""

    def __init__(self, root: str) -> None:
        self.path = f"{root}/layers"
        self._temporary = f"{root}/tmp"
        self._known: dict[str, Layer] = {}
        self._lock = threading.Lock()

    def open(self) -> None:
        """Read what is in place. A directory that is no complete layer is removed."""
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        for name in os.listdir(self.path):
            try:
                with open(f"{self.path}/{name}/layer.json", "rb") as file:
                    layer = msgspec.json.decode(file.read(), type=Layer)
            except (OSError, msgspec.DecodeError) as error:
                log.warning("removing a damaged layer directory=%s error=%s", name, error)
                remove_tree(f"{self.path}/{name}")
                continue
            self._known[layer.chain_id] = layer

    # ---- what there is (these do not block)

    def get(self, chain_id: str) -> Layer | None:
        return self._known.get(chain_id)

    def all(self) -> list[Layer]:
        return list(self._known.values())

    def directory(self, chain_id: str) -> str:
        """Name below `<root>/layers`: 24 characters, so that 127 of them fit into the one page of mount options."""
        digest = bytes.fromhex(chain_id.removeprefix("sha256:"))
        return base64.b32encode(digest[:15]).decode().lower()

    # ---- add

    def draft(self, source: Callable[[], BinaryIO], *, diff_id: str = "", blob_digest: str = "", what: str) -> Draft:
        """Unpack a layer's blob, compressed or not, and verify it against the digests given.

        `source` opens the blob (twice when the tar has to be kept). Raises InvalidParameter when the blob is damaged,
        is not what its digests say, or would leave its directory.
        """
        path = f"{self._temporary}/layer-{secrets.token_hex(8)}"
        os.makedirs(f"{path}/diff", mode=0o755)
        os.chmod(path, 0o700)
        os.chmod(f"{path}/diff", 0o755)
        try:
            with source() as file:
                made, tar = self._unpack(file, path, blob_digest, what)
            if diff_id and tar.digest != diff_id:
                raise InvalidParameter(f"invalid archive: {what}: its content is {tar.digest}, not {diff_id}")
            if not made.is_exact:
                os.unlink(f"{path}/recipe")
                with source() as file:
                    _keep_tar(file, f"{path}/tar.zst")
        except BaseException:
            remove_tree(path)
            raise
        return Draft(path=path, diff_id=tar.digest, made=made, tar_size=tar.count)

    def _unpack(self, file: BinaryIO, path: str, blob_digest: str, what: str) -> tuple[unpack.Unpacked, Hashed]:
        root = os.open(f"{path}/diff", _DIRECTORY)
        try:
            with compression.damage_named(what), _Recipe(f"{path}/recipe") as recipe:
                blob = Hashed(file)
                stream, kind = compression.decompressed(io.BufferedReader(blob, _CHUNK))
                tar = Hashed(stream) if kind else blob
                reader = io.BufferedReader(tar, _CHUNK) if kind else stream
                made = unpack.unpack(root, reader.read, recipe, what=what)
                while blob.read(_CHUNK):
                    pass  # what a compressor may leave behind its end is part of the blob's digest
        finally:
            os.close(root)
        if blob_digest and blob.digest != blob_digest:
            raise InvalidParameter(f"invalid archive: {what}: its digest is {blob.digest}, not {blob_digest}")
        return made, tar

    def place(self, draft: Draft, below: Sequence[str]) -> Layer:
        """Put a draft in place on the layers `below` (diff ids, lowest first, all in place). The draft is used up."""
        try:
            chain = chain_ids((*below, draft.diff_id))
            root = os.open(f"{draft.path}/diff", _DIRECTORY)
            lowers: list[int] = []
            try:
                for chain_id in reversed(chain[:-1]):
                    lowers.append(os.open(f"{self.path}/{self.directory(chain_id)}/diff", _DIRECTORY))
                unpack.complete_directories(root, draft.made.implied, lowers)
            finally:
                for fd in (root, *lowers):
                    os.close(fd)
            layer = Layer(
                chain_id=chain[-1],
                diff_id=draft.diff_id,
                size=draft.made.size,
                tar_size=draft.tar_size,
                devices=draft.made.devices,
                has_recipe=draft.made.is_exact,
            )
            with open(f"{draft.path}/layer.json", "wb") as file:
                file.write(msgspec.json.encode(layer))
            with self._lock:
                if layer.chain_id not in self._known:
                    os.rename(draft.path, f"{self.path}/{self.directory(layer.chain_id)}")
                    self._known[layer.chain_id] = layer
            return self._known[layer.chain_id]
        except OSError as error:
            raise KernelFailure(f"storing a layer failed: {error.strerror}") from error
        finally:
            self.discard(draft)

    def discard(self, draft: Draft) -> None:
        """Remove a draft that is not wanted any more."""
        remove_tree(draft.path)

    # ---- remove (does not block)

    def forget(self, chain_id: str) -> str:
        """Take a layer out of place at once; returns the directory that is left to be removed, "" when it is gone."""
        with self._lock:
            if self._known.pop(chain_id, None) is None:
                return ""
            doomed = f"{self._temporary}/gone-{secrets.token_hex(8)}"
            os.rename(f"{self.path}/{self.directory(chain_id)}", doomed)
        return doomed

    # ---- give back

    def tar(self, chain_id: str) -> Iterator[bytes]:
        """Yield the layer's uncompressed tar, byte for byte as it came (its digest is the diff id)."""
        layer = self._known[chain_id]
        path = f"{self.path}/{self.directory(chain_id)}"
        if layer.has_recipe:
            yield from _rebuild(path)
        else:
            with open(f"{path}/tar.zst", "rb") as file:
                yield from zstandard.ZstdDecompressor().read_to_iter(file, write_size=_CHUNK)


class _Recipe:
    """Writes a recipe: records of raw bytes and of file names, in the order of the tar."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 - closed by __exit__
        self._out = zstandard.ZstdCompressor(level=3).stream_writer(self._file)
        self._pending = bytearray()

    def __enter__(self) -> _Recipe:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._out.close()  # type: ignore[no-untyped-call]
        self._file.close()

    def raw(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) > _CHUNK:
            self._flush()

    def file(self, path: bytes, size: int) -> None:
        self._flush()
        self._out.write(_RECORD.pack(_FILE, size) + len(path).to_bytes(2, "little") + path)

    def _flush(self) -> None:
        if self._pending:
            self._out.write(_RECORD.pack(_RAW, len(self._pending)) + self._pending)
            self._pending.clear()


def _rebuild(path: str) -> Iterator[bytes]:
    root = os.open(f"{path}/diff", _DIRECTORY)
    try:
        with open(f"{path}/recipe", "rb") as file:
            recipe = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file), _CHUNK)
            while head := recipe.read(_RECORD.size):
                kind, size = _RECORD.unpack(head)
                if kind == _RAW:
                    yield recipe.read(size)
                    continue
                name = recipe.read(int.from_bytes(recipe.read(2), "little"))
                fd = open_in_root(root, name, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    while size > 0:
                        data = os.read(fd, min(size, _CHUNK))
                        if not data:
                            raise KernelFailure(f"layer {path} is damaged: a file of it is too short")
                        size -= len(data)
                        yield data
                finally:
                    os.close(fd)
    except OSError as error:
        raise KernelFailure(f"layer {path} is damaged: {error.strerror}") from error
    finally:
        os.close(root)


def _keep_tar(file: BinaryIO, path: str) -> None:
    stream, _ = compression.decompressed(io.BufferedReader(Hashed(file), _CHUNK))
    with open(path, "wb") as out:
        zstandard.ZstdCompressor(level=3).copy_stream(cast(BinaryIO, stream), out)
