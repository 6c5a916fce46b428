"""Gives images out: the `docker save` archive, streamed, and the history of an image.

The archive is what Docker 25 and later write: an OCI image layout that also holds manifest.json and repositories, every
layer as an uncompressed tar (its digest is then the diff id, so nothing has to be compressed again). May import model,
kernel and store; must never hold more than a few pieces in memory.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import msgspec

from tsunagu.kernel.layers import Layers
from tsunagu.model.errors import KernelFailure
from tsunagu.model.image import Image, chain_ids, parse_reference
from tsunagu.store.blobs import digest_of

_PIECE = 1 << 20
_NO_TIME = -62135596800  # Go's zero time, which Docker shows for a step without a date
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


class Content(msgspec.Struct, frozen=True):
    """An image to save: its configuration as stored, and the tags to save it under."""

    image: Image
    config: bytes
    tags: tuple[str, ...]


async def archive(contents: Sequence[Content], layers: Layers) -> AsyncIterator[bytes]:
    """Yield the archive. Raises KernelFailure when a layer on disk is not what it was."""
    pieces = _archive(contents, layers)
    while piece := await asyncio.to_thread(_gather, pieces):
        yield piece


def _gather(pieces: Iterator[bytes]) -> bytes:
    """Join small pieces, so that one hop between threads moves a MiB."""
    found: list[bytes] = []
    size = 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size >= _PIECE:
            break
    return b"".join(found)


def _archive(contents: Sequence[Content], layers: Layers) -> Iterator[bytes]:
    documents: dict[str, bytes] = {}
    listing: list[dict[str, object]] = []
    descriptors: list[dict[str, object]] = []
    repositories: dict[str, dict[str, str]] = {}
    tars: dict[str, str] = {}  # diff id -> chain id
    for content in contents:
        image = content.image
        chain = chain_ids(image.diff_ids)
        tars |= dict(zip(image.diff_ids, chain, strict=True))
        layer_list = [_descriptor(_LAYER, d, _layer(layers, c)) for d, c in zip(image.diff_ids, chain, strict=True)]
        manifest = msgspec.json.encode(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _descriptor(_CONFIG, image.id, len(content.config)),
                "layers": layer_list,
            }
        )
        documents[_blob(image.id)] = content.config
        documents[_blob(digest_of(manifest))] = manifest
        listing.append(
            {
                "Config": _blob(image.id),
                "RepoTags": list(content.tags) or None,
                "Layers": [_blob(d) for d in image.diff_ids],
            }
        )
        descriptors += _named(content.tags, _descriptor(_MANIFEST, digest_of(manifest), len(manifest)))
        for tag in content.tags:
            name, _, version = tag.rpartition(":")
            repositories.setdefault(name, {})[version] = chain[-1][7:] if chain else ""
    documents["index.json"] = msgspec.json.encode({"schemaVersion": 2, "mediaType": _INDEX, "manifests": descriptors})
    documents["manifest.json"] = msgspec.json.encode(listing)
    documents["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    if repositories:
        documents["repositories"] = msgspec.json.encode(repositories)
    when = max((_seconds(c.image.config.get("created"), 0) for c in contents), default=0)
    for name in ("blobs/", "blobs/sha256/"):
        yield _header(name, 0, when, tarfile.DIRTYPE)
    for diff_id, chain_id in tars.items():
        yield _header(_blob(diff_id), _layer(layers, chain_id), when)
        yield from _verified(layers.tar(chain_id), diff_id)
        yield bytes(-_layer(layers, chain_id) % 512)
    for name, data in documents.items():
        yield _header(name, len(data), when) + data + bytes(-len(data) % 512)
    yield bytes(1024)


def _verified(pieces: Iterator[bytes], diff_id: str) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        yield piece
    if f"sha256:{digest.hexdigest()}" != diff_id:
        raise KernelFailure(f"layer {diff_id} is damaged on disk", hint="remove the image and load it again")


def _named(tags: Sequence[str], descriptor: dict[str, object]) -> list[dict[str, object]]:
    if not tags:
        return [descriptor]
    named = []
    for tag in tags:
        reference = parse_reference(tag)
        annotations = {
            "io.containerd.image.name": f"{reference.domain}/{reference.path}:{reference.tag}",
            "org.opencontainers.image.ref.name": reference.tag,
        }
        named.append({**descriptor, "annotations": annotations})
    return named


def _layer(layers: Layers, chain_id: str) -> int:
    layer = layers.get(chain_id)
    if layer is None:
        raise KernelFailure(f"layer {chain_id} is not on disk", hint="load the image again")
    return layer.tar_size


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _header(name: str, size: int, when: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.type = size, when, kind
    member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return member.tobuf(tarfile.PAX_FORMAT)


def _seconds(text: object, default: int) -> int:
    """Seconds since the epoch of an RFC 3339 time, `default` for what is none."""
    try:
        return int(datetime.datetime.fromisoformat(str(text)).timestamp())
    except (ValueError, OverflowError):
        return default


def history(image: Image, layer_sizes: Callable[[Sequence[str]], list[int]]) -> list[dict[str, object]]:
    """Return Docker's history items, newest first; sizes are given out to the steps that made a layer."""
    sizes = iter(layer_sizes(image.diff_ids))
    items: list[dict[str, object]] = []
    steps = [s for s in image.config.get("history") or [] if isinstance(s, dict)]
    for step in steps:
        items.append(
            {
                "Id": "<missing>",
                "Created": _seconds(step.get("created"), _NO_TIME),
                "CreatedBy": str(step.get("created_by") or ""),
                "Tags": None,
                "Size": 0 if step.get("empty_layer") else next(sizes, 0),
                "Comment": str(step.get("comment") or ""),
            }
        )
    created = _seconds(image.config.get("created"), _NO_TIME)
    for size in sizes:  # layers that no step accounts for
        items.append(
            {"Id": "<missing>", "Created": created, "CreatedBy": "", "Tags": None, "Size": size, "Comment": ""}
        )
    items.reverse()
    if items:
        items[0]["Id"] = image.id
        items[0]["Tags"] = list(image.tags) or None
    return items
