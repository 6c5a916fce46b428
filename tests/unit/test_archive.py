"""Test images are docker-save archives that any tool reads: shared layers written once, digests that fit."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

from images import archive, recipes


def test_archive_of_two_images(tmp_path: Path) -> None:
    paths = [tmp_path / "base", tmp_path / "top"]
    for path in paths:
        path.write_bytes(path.name.encode() * 700)
    base, top = (archive.layer_blob(path) for path in paths)
    target = tmp_path / "both.tar"
    archive.write(
        target,
        [
            archive.Content(("one:latest",), ((base, "base"),), {"Cmd": ["a"]}, "amd64"),
            archive.Content(("two:1", "two:2"), ((base, "base"), (top, "top")), {"Cmd": ["b"]}, "amd64"),
        ],
    )
    with tarfile.open(target) as whole:
        content = {member.name: whole.extractfile(member).read() for member in whole}  # type: ignore[union-attr]
    for name, data in content.items():
        if name.startswith("blobs/sha256/"):
            assert name.rpartition("/")[2] == hashlib.sha256(data).hexdigest()
    listing = json.loads(content["manifest.json"])
    assert [entry["RepoTags"] for entry in listing] == [["one:latest"], ["two:1", "two:2"]]
    assert listing[1]["Layers"] == [f"blobs/sha256/{base.digest}", f"blobs/sha256/{top.digest}"]
    config = json.loads(content[listing[1]["Config"]])
    assert config["rootfs"]["diff_ids"] == [f"sha256:{base.digest}", f"sha256:{top.digest}"]
    index = json.loads(content["index.json"])
    references = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]]
    assert references == ["latest", "1", "2"]
    for entry in index["manifests"]:
        assert len(content[archive.blob_path(entry["digest"].removeprefix("sha256:"))]) == entry["size"]


def test_keys_follow_the_recipe() -> None:
    keys = {recipes.layer_key(name, "bookworm") for name in recipes.LAYERS}
    assert len(keys) == len(recipes.LAYERS)
    assert recipes.layer_key("nginx", "bookworm") != recipes.layer_key("nginx", "trixie")
    assert [layer.name for layer in recipes.layer_chain("nginx")] == ["debian", "nginx"]
