"""Opens plain, gzip, zstd, xz and bzip2 streams alike, by their first bytes, with bounded memory.

May import `model.errors` only. Damage in a stream is an InvalidParameter that names it; must never decompress more than
it is asked to read.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import zstandard

from tsunagu.model.errors import InvalidParameter

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    class _Decoder(Protocol):
        """What lzma and bz2 decompressors have in common."""

        @property
        def eof(self) -> bool: ...
        @property
        def needs_input(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


XZ_MEMORY = 256 << 20  # bytes; `xz -9` needs 65 MiB
ZSTD_WINDOW = 128 << 20  # bytes; what `zstd` accepts without --long
_BUFFER = 1 << 20

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
)


def detect(start: bytes) -> str:
    """Return the name of the compression that `start` (six bytes or more) shows, "" for none."""
    if start[1:4] == b"\x2a\x4d\x18" and 0x50 <= start[0] <= 0x5F:
        return "zstd"  # a skippable frame comes first (seekable and "chunked" zstd)
    return next((name for magic, name in _MAGIC if start.startswith(magic)), "")


class Section(io.RawIOBase):
    """Bytes `start` to `start + size` of a file, read with pread so that several threads may read one file."""

    def __init__(self, fd: int, start: int, size: int) -> None:
        self._fd = fd
        self._at = start
        self._end = start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        count = os.preadv(self._fd, [view[: max(0, self._end - self._at)]], self._at)
        self._at += count
        return count


class Hashed(io.RawIOBase):
    """Passes a stream through and knows the SHA-256 and the length of what was read."""

    def __init__(self, stream: BinaryIO | io.RawIOBase | io.BufferedIOBase) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        count: int = self._stream.readinto(view) or 0  # type: ignore[union-attr]
        self._hash.update(view[:count])
        self.count += count
        return count

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class _Damaged(Exception):
    """What a decompressor found; `damage_named` gives it a name."""


class _Decoded(io.RawIOBase):
    """xz and bzip2, whose file objects cannot limit memory or tell damage from a failing disk. Streams may follow."""

    def __init__(self, stream: io.BufferedReader, new_decoder: Callable[[], _Decoder], padding: bytes) -> None:
        self._stream = stream
        self._new_decoder = new_decoder
        self._padding = padding
        self._decoder = new_decoder()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        while len(view):
            if self._decoder.eof:
                more = (self._decoder.unused_data or self._stream.read(_BUFFER)).lstrip(self._padding)
                if not more:
                    return 0
                self._decoder = self._new_decoder()
            elif self._decoder.needs_input:
                more = self._stream.read(_BUFFER)
                if not more:
                    raise EOFError("it ends before its end mark")
            else:
                more = b""
            try:
                data = self._decoder.decompress(more, len(view))
            except (OSError, lzma.LZMAError) as error:
                raise _Damaged(str(error)) from error
            if data:
                view[: len(data)] = data
                return len(data)
        return 0


def _new_xz() -> _Decoder:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)


def decompressed(stream: io.BufferedReader) -> tuple[io.RawIOBase | io.BufferedIOBase, str]:
    """Return `stream` decompressed and the name of its compression ("" for none), found out from its first bytes."""
    match kind := detect(stream.peek(6)[:6]):
        case "gzip":
            return gzip.GzipFile(fileobj=stream, mode="rb"), kind
        case "zstd":
            decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
            reader = decoder.stream_reader(stream, read_size=_BUFFER, read_across_frames=True)
            return cast(io.RawIOBase, reader), kind
        case "xz":
            return _Decoded(stream, _new_xz, b"\0"), kind
        case "bzip2":
            return _Decoded(stream, bz2.BZ2Decompressor, b""), kind
    return stream, ""


@contextmanager
def damage_named(what: str) -> Iterator[None]:
    """Turn what the decompressors raise into an InvalidParameter that names `what`."""
    try:
        yield
    except (zlib.error, gzip.BadGzipFile, zstandard.ZstdError, EOFError, _Damaged) as error:
        raise InvalidParameter(f"{what} is damaged: {error}") from error
