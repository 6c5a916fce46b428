"""Image archives made in memory for tests: layers from a few lines, `docker save` archives and OCI layouts around them.

May import the standard library only. Everything here can also be made wrong on purpose: each part is plain bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


def digest(data: bytes) -> str:
    """`sha256:<hex>` of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def member(name: str, data: bytes = b"", **attributes: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One tar member; `attributes` are those of TarInfo. A name ending in "/" is a directory."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o644, 1_700_000_000
    if name.endswith("/"):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, data


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target, mode=0o777)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of members in their order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def files(contents: Mapping[str, bytes]) -> bytes:
    """A tar of plain files."""
    return tar(*(member(name, data) for name, data in contents.items()))


def config(layers: Sequence[bytes], run: Mapping[str, Any] | None = None, **more: Any) -> bytes:
    """An image configuration for uncompressed layers."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-02-03T04:05:06Z",
        "config": dict(run or {"Cmd": ["sh"]}),
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        "history": [{"created": "2024-02-03T04:05:06Z", "created_by": f"step {i}"} for i in range(len(layers))],
        **more,
    }
    return json.dumps(document).encode()


def saved(images: Iterable[tuple[Sequence[str], Sequence[bytes], bytes]], *, is_old: bool = False) -> bytes:
    """A `docker save` archive of (tags, layers, configuration); `is_old` is the form before Docker 25."""
    members: dict[str, bytes] = {}
    listing = []
    for tags, layers, document in images:
        name = f"{digest(document)[7:]}.json" if is_old else f"blobs/sha256/{digest(document)[7:]}"
        members[name] = document
        names = []
        for index, layer in enumerate(layers):
            path = f"{digest(layer + bytes([index]))[7:]}/layer.tar" if is_old else f"blobs/sha256/{digest(layer)[7:]}"
            members[path] = layer
            names.append(path)
        listing.append({"Config": name, "RepoTags": list(tags) or None, "Layers": names})
    members["manifest.json"] = json.dumps(listing).encode()
    return files(members)


def layout(
    images: Iterable[tuple[Mapping[str, str], Sequence[bytes], bytes]],
    *,
    is_gzipped: bool = False,
    platforms: Sequence[Mapping[str, str]] = (),
    nested: bool = False,
) -> bytes:
    """An OCI layout of (annotations, layers, configuration).

    `platforms` describe the images in their order; `nested` puts an index between index.json and them.
    """
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        members[f"blobs/sha256/{digest(data)[7:]}"] = data
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": digest(data), "size": len(data)}

    descriptors = []
    for index, (notes, layers, document) in enumerate(images):
        kind = "layer.v1.tar+gzip" if is_gzipped else "layer.v1.tar"
        blobs = [gzip.compress(layer, mtime=0) if is_gzipped else layer for layer in layers]
        manifest = {
            "schemaVersion": 2,
            "config": put(document, "config.v1+json"),
            "layers": [put(blob, kind) for blob in blobs],
        }
        descriptor = put(json.dumps(manifest).encode(), "manifest.v1+json") | {"annotations": dict(notes)}
        if index < len(platforms):
            descriptor["platform"] = dict(platforms[index])
        descriptors.append(descriptor)
    if nested:
        inner = put(json.dumps({"schemaVersion": 2, "manifests": descriptors}).encode(), "index.v1+json")
        descriptors = [inner | {"annotations": descriptors[0]["annotations"]}]
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": descriptors}).encode()
    return files(members)
