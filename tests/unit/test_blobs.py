"""Blobs are whole or absent, and damage is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsunagu.model.errors import KernelFailure
from tsunagu.store.blobs import Blobs, digest_of


def test_put_get_remove(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    blobs.open()
    digest = blobs.put(b"hello")
    assert digest == digest_of(b"hello") == blobs.put(b"hello")
    assert blobs.get(digest) == b"hello" and blobs.all() == {digest}
    blobs.remove(digest)
    blobs.remove(digest)
    assert blobs.all() == set()
    with pytest.raises(KernelFailure, match="cannot read"):
        blobs.get(digest)


def test_damage_is_noticed(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    blobs.open()
    digest = blobs.put(b"hello")
    (tmp_path / "blobs/sha256" / digest[7:]).write_bytes(b"hullo")
    with pytest.raises(KernelFailure, match="is damaged"):
        blobs.get(digest)


@pytest.mark.parametrize("digest", ["sha256:../../x", "sha256:AB", "md5:" + "a" * 32, ""])
def test_only_digests_become_paths(tmp_path: Path, digest: str) -> None:
    with pytest.raises(KernelFailure, match="invalid digest"):
        Blobs(str(tmp_path)).get(digest)


def test_open_removes_what_a_crash_left(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    blobs.open()
    (tmp_path / "blobs/sha256/new-abc").write_bytes(b"half")
    blobs.open()
    assert list((tmp_path / "blobs/sha256").iterdir()) == []
