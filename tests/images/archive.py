"""Writes `docker save` archives (Docker 25's form: an OCI layout that also holds manifest.json).

May import the standard library only. It must never run a program.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CREATED = "2025-01-01T00:00:00Z"
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_LAYER = "application/vnd.oci.image.layer.v1.tar"
MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclasses.dataclass(frozen=True)
class Blob:
    """Bytes of one layer tar: its digest and where they are."""

    digest: str
    size: int
    path: Path


def layer_blob(path: Path) -> Blob:
    """Digest of a layer tar on disk."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Blob(digest, path.stat().st_size, path)


@dataclasses.dataclass(frozen=True)
class Content:
    """One image of an archive: `layers` are (blob, sentence of its history) from the lowest up."""

    references: tuple[str, ...]
    layers: tuple[tuple[Blob, str], ...]
    config: dict[str, Any]
    architecture: str


def write(target: Path, images: Sequence[Content]) -> None:
    """Write one archive of `images`; layers that they share are written once."""
    blobs: dict[str, Blob] = {}
    small: dict[str, bytes] = {}
    descriptors: list[dict[str, Any]] = []
    listing: list[dict[str, Any]] = []
    for image in images:
        config = encode(_config_document(image))
        manifest = encode(_manifest_document(image, config))
        blobs |= {blob.digest: blob for blob, _ in image.layers}
        for data in (config, manifest):
            small[blob_path(hashlib.sha256(data).hexdigest())] = data
        for reference in image.references:
            names = {
                "io.containerd.image.name": f"docker.io/library/{reference}",
                "org.opencontainers.image.ref.name": reference.partition(":")[2],
            }
            descriptors.append({**descriptor(MEDIA_MANIFEST, manifest), "annotations": names})
        listing.append(
            {
                "Config": blob_path(hashlib.sha256(config).hexdigest()),
                "RepoTags": list(image.references),
                "Layers": [blob_path(blob.digest) for blob, _ in image.layers],
            }
        )
    small["oci-layout"] = encode({"imageLayoutVersion": "1.0.0"})
    small["index.json"] = encode({"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": descriptors})
    small["manifest.json"] = encode(listing)
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for blob in blobs.values():
            with blob.path.open("rb") as stream:
                archive.addfile(_member(blob_path(blob.digest), blob.size), stream)
        for name, data in small.items():
            archive.addfile(_member(name, len(data)), io.BytesIO(data))


def _config_document(image: Content) -> dict[str, Any]:
    return {
        "architecture": image.architecture,
        "os": "linux",
        "created": CREATED,
        "config": image.config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{blob.digest}" for blob, _ in image.layers]},
        "history": [{"created": CREATED, "created_by": sentence} for _, sentence in image.layers],
    }


def _manifest_document(image: Content, config: bytes) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "config": descriptor(MEDIA_CONFIG, config),
        "layers": [
            {"mediaType": MEDIA_LAYER, "digest": f"sha256:{blob.digest}", "size": blob.size} for blob, _ in image.layers
        ],
    }


def encode(value: Any) -> bytes:
    """JSON as image tools write it: no spaces, order kept."""
    return json.dumps(value, separators=(",", ":")).encode()


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    """An OCI descriptor of `data`."""
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


def blob_path(digest: str) -> str:
    """Where an OCI layout keeps a blob."""
    return f"blobs/sha256/{digest}"


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    member.mtime = 1735689600
    return member
