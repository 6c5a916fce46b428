"""Every compression is recognised by its first bytes, damage is named, memory is bounded."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
from pathlib import Path

import pytest
import zstandard

from tsunagu.kernel import compression
from tsunagu.model.errors import InvalidParameter

DATA = b"".join(b"%08d" % i for i in range(100_000))
ZSTD = zstandard.ZstdCompressor(write_checksum=True)
FORMS = {
    "": DATA,
    "gzip": gzip.compress(DATA[:500]) + gzip.compress(DATA[500:]),  # members may follow each other
    "zstd": ZSTD.compress(DATA[:999]) + ZSTD.compress(DATA[999:]),
    "xz": lzma.compress(DATA[:77]) + bytes(4) + lzma.compress(DATA[77:]),
    "bzip2": bz2.compress(DATA[:77]) + bz2.compress(DATA[77:]),
}
SKIPPABLE = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"


def expand(data: bytes) -> tuple[bytes, str]:
    with compression.damage_named("the test"):
        stream, kind = compression.decompressed(io.BufferedReader(compression.Hashed(io.BytesIO(data)), 1 << 16))
        return io.BufferedReader(compression.Hashed(stream), 1 << 16).read(), kind


@pytest.mark.parametrize("kind", FORMS)
def test_each_form_is_recognised(kind: str) -> None:
    assert expand(FORMS[kind]) == (DATA, kind)


def test_zstd_may_begin_with_a_skippable_frame() -> None:
    assert expand(SKIPPABLE + FORMS["zstd"]) == (DATA, "zstd")


@pytest.mark.parametrize("kind", [k for k in FORMS if k])
def test_damage_is_named(kind: str) -> None:
    broken = bytearray(FORMS[kind])
    broken[len(broken) // 2] ^= 0x55
    with pytest.raises(InvalidParameter, match="the test is damaged"):
        expand(bytes(broken))


@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2"])  # the zstd library ends quietly: digests tell there
def test_a_cut_stream_is_named(kind: str) -> None:
    with pytest.raises(InvalidParameter, match="the test is damaged"):
        expand(FORMS[kind][: len(FORMS[kind]) // 2])


def test_a_zstd_window_beyond_the_limit_is_refused_not_allocated() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    out = io.BytesIO()
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(out, closefd=False) as writer:
        writer.write(DATA)
    with pytest.raises(InvalidParameter, match="damaged"):
        expand(out.getvalue())


def test_hashed_knows_digest_and_length() -> None:
    stream = compression.Hashed(io.BytesIO(DATA))
    while stream.read(1000):
        pass
    assert stream.digest == f"sha256:{hashlib.sha256(DATA).hexdigest()}" and stream.count == len(DATA)


def test_sections_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    fd = os.open(path, os.O_RDONLY)
    try:
        first, second = compression.Section(fd, 0, 10), compression.Section(fd, 8, 16)
        assert first.read(4) + second.read(100) + first.read(100) == DATA[:4] + DATA[8:24] + DATA[4:10]
        assert first.read(1) == b""
    finally:
        os.close(fd)
