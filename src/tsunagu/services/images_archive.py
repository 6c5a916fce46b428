"""What an uploaded archive holds: `docker save` archives (old and new form) and OCI image layouts, as plain values.

Reads the archive's own tar by position, so that nothing is unpacked to learn what is in it. May import model and
kernel; must never write anything. Whatever is wrong with the archive is an InvalidParameter that names the entry.
"""

from __future__ import annotations

import io
import os
import platform
import posixpath
import re
from typing import Any, BinaryIO, TypeVar

import msgspec

from tsunagu.kernel.compression import Section
from tsunagu.kernel.storage import MAX_LAYERS
from tsunagu.kernel.tarstream import FILE, HARD_LINK, SYMLINK, TarStream, printable
from tsunagu.model.errors import InvalidParameter, NotSupported
from tsunagu.model.image import parse_reference
from tsunagu.store.blobs import digest_of

MAX_DOCUMENT = 4 << 20  # bytes of one JSON document; registries refuse larger manifests too
MAX_MEMBERS = 100_000
_MAX_NESTING = 4
_HEX = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json", "")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "ppc64le": "ppc64le"}
T = TypeVar("T")


class Blob(msgspec.Struct, frozen=True):
    """A layer as the archive has it: the member's name, and its digest when the archive states one."""

    member: str
    digest: str = ""


class Found(msgspec.Struct):
    """An image of the archive: its configuration as it stands there, its layers lowest first, its references."""

    config: bytes
    diff_ids: tuple[str, ...]
    layers: tuple[Blob, ...]
    tags: list[str]


class _RunConfig(msgspec.Struct):
    """The types of the run configuration that the engine relies on (OCI image-spec "config")."""

    User: str | None = None
    ExposedPorts: dict[str, Any] | None = None
    Env: list[str] | None = None
    Entrypoint: list[str] | None = None
    Cmd: list[str] | None = None
    Volumes: dict[str, Any] | None = None
    WorkingDir: str | None = None
    Labels: dict[str, str] | None = None
    StopSignal: str | None = None
    StopTimeout: int | None = None
    Shell: list[str] | None = None
    OnBuild: list[str] | None = None


class _RootFs(msgspec.Struct):
    diff_ids: list[str] | None = None
    type: str = "layers"


class _History(msgspec.Struct):
    created: str | None = None
    created_by: str | None = None
    comment: str | None = None
    author: str | None = None
    empty_layer: bool | None = None


class _Config(msgspec.Struct):
    rootfs: _RootFs
    architecture: str = ""
    os: str = "linux"
    created: str | None = None
    author: str | None = None
    comment: str | None = None
    config: _RunConfig | None = None
    history: list[_History] | None = None


class _SavedImage(msgspec.Struct):
    Config: str
    Layers: list[str] | None = None
    RepoTags: list[str] | None = None


class _Platform(msgspec.Struct):
    architecture: str = ""
    os: str = ""
    variant: str = ""


class _Descriptor(msgspec.Struct):
    digest: str
    mediaType: str = ""
    size: int = -1
    annotations: dict[str, str] | None = None
    platform: _Platform | None = None


class _Index(msgspec.Struct):
    manifests: list[_Descriptor] = []


class _Manifest(msgspec.Struct):
    config: _Descriptor
    layers: list[_Descriptor]


def host_architecture() -> str:
    """The machine's architecture in Go's words, as image configurations have it."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def check_config(data: bytes, what: str) -> tuple[str, ...]:
    """Return the diff ids of an image configuration. Raises InvalidParameter when the engine could not rely on it."""
    config = _decode(data, _Config, what)
    if config.os not in ("linux", ""):
        raise InvalidParameter(f"cannot load {config.os} image on linux")
    diff_ids = tuple(config.rootfs.diff_ids or ())
    for diff_id in diff_ids:
        if not _DIGEST.fullmatch(diff_id):
            raise InvalidParameter(f"invalid archive: {what}: {diff_id[:80]!r} is no sha256 digest")
    if len(diff_ids) > MAX_LAYERS:
        raise InvalidParameter(
            "max depth exceeded", hint=f"{what} has {len(diff_ids)} layers, {MAX_LAYERS} can be mounted"
        )
    return diff_ids


class Archive:
    """An archive file, not compressed. Close it after use; `source` may be called from any thread."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        self._members: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        try:
            self._index()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def source(self, name: str) -> BinaryIO:
        """Open one member for reading."""
        place = self._find(name)
        if place is None:
            raise InvalidParameter(f"invalid archive: {printable(os.fsencode(name))} is missing")
        return Section(self._file.fileno(), *place)  # type: ignore[return-value]

    def size(self, name: str) -> int:
        """Length of a member, -1 when it is missing."""
        place = self._find(name)
        return -1 if place is None else place[1]

    def document(self, name: str) -> bytes:
        """Return a small member whole."""
        if self.size(name) > MAX_DOCUMENT:
            raise InvalidParameter(
                f"invalid archive: {printable(os.fsencode(name))} is larger than {MAX_DOCUMENT} bytes"
            )
        with io.BufferedReader(self.source(name), 1 << 16) as file:  # type: ignore[type-var]
            return file.read()

    def blob(self, descriptor: _Descriptor) -> str:
        """Return the member name of a descriptor's blob; raises InvalidParameter for one that is not as described."""
        if not _DIGEST.fullmatch(descriptor.digest):
            raise InvalidParameter(f"invalid archive: digest {descriptor.digest[:80]!r} is not supported")
        name = f"blobs/sha256/{descriptor.digest[7:]}"
        size = self.size(name)
        if size < 0:
            raise InvalidParameter(f"invalid archive: {name} is missing")
        if descriptor.size not in (-1, size):
            raise InvalidParameter(f"invalid archive: {name} has {size} bytes, not {descriptor.size}")
        return name

    def verified(self, descriptor: _Descriptor) -> bytes:
        """Return a descriptor's document after checking its digest."""
        name = self.blob(descriptor)
        data = self.document(name)
        if digest_of(data) != descriptor.digest:
            raise InvalidParameter(f"invalid archive: {name}: its digest is {digest_of(data)}")
        return data

    def _index(self) -> None:
        end = os.fstat(self._file.fileno()).st_size
        stream = TarStream(self._file.read, what="upload", advance=lambda n: self._file.seek(n, os.SEEK_CUR))
        while (entry := stream.next()) is not None:
            name = _normal(os.fsdecode(entry.name))
            if entry.kind == FILE and entry.fragments is None:
                at = self._file.tell()
                if at + entry.stored > end:
                    raise stream.fail("the archive ends in the middle of it (unexpected EOF)")
                self._members[name] = (at, entry.stored)
            elif entry.kind == SYMLINK:
                self._links[name] = _normal(posixpath.join(posixpath.dirname(name), os.fsdecode(entry.link)))
            elif entry.kind == HARD_LINK:
                self._links[name] = _normal(os.fsdecode(entry.link))
            if len(self._members) + len(self._links) > MAX_MEMBERS:
                raise InvalidParameter(
                    f"invalid archive: more than {MAX_MEMBERS} entries", hint="a root file system goes in with import"
                )

    def _find(self, name: str) -> tuple[int, int] | None:
        name = _normal(name)
        for _ in range(8):
            if name in self._members:
                return self._members[name]
            if name not in self._links:
                return None
            name = self._links[name]
        return None


def read_images(archive: Archive) -> list[Found]:
    """Return the images of an archive; raises InvalidParameter when it holds none or is inconsistent."""
    if "manifest.json" in archive:
        return _read_saved(archive)
    if "index.json" in archive:
        return _read_layout(archive)
    raise InvalidParameter(
        "invalid archive: it holds neither manifest.json (docker save) nor index.json (OCI image layout)",
        hint="a root file system without image metadata goes in with import",
    )


def _read_saved(archive: Archive) -> list[Found]:
    """`docker save`: manifest.json lists images; files named by a digest must have it."""
    listing = _decode(archive.document("manifest.json"), list[_SavedImage], "manifest.json")
    if not listing:
        raise InvalidParameter("invalid archive: manifest.json lists no image")
    found = []
    for saved in listing:
        config = archive.document(saved.Config)
        stated = _stated_digest(saved.Config)
        if stated and digest_of(config) != stated:
            raise InvalidParameter(f"invalid archive: {saved.Config}: its digest is {digest_of(config)}")
        layers = tuple(Blob(name, _stated_digest(name)) for name in saved.Layers or ())
        tags = [_reference(tag) for tag in saved.RepoTags or ()]
        found.append(_found(archive, config, layers, tags, saved.Config))
    return found


def _read_layout(archive: Archive) -> list[Found]:
    """OCI image layout: index.json leads to manifests, which lead to configurations and layers, all by digest."""
    if "oci-layout" not in archive:
        raise InvalidParameter("invalid archive: index.json without oci-layout")
    index = _decode(archive.document("index.json"), _Index, "index.json")
    by_manifest: dict[str, Found] = {}
    others: list[str] = []
    for descriptor in index.manifests:
        manifest = _choose(archive, descriptor, others, 0)
        if manifest is None:
            continue
        image = by_manifest.get(manifest.digest)
        if image is None:
            image = by_manifest[manifest.digest] = _from_manifest(archive, manifest)
        if (name := _name_of(descriptor)) and name not in image.tags:
            image.tags.append(name)
    if not by_manifest:
        held = ", ".join(sorted(set(others))) or "no image at all"
        raise InvalidParameter(f"no image for linux/{host_architecture()} in the archive: it holds {held}")
    return list(by_manifest.values())


def _choose(archive: Archive, descriptor: _Descriptor, others: list[str], depth: int) -> _Descriptor | None:
    """Follow indexes to the manifest for this machine; platforms passed over are added to `others`."""
    if descriptor.mediaType not in _INDEXES:
        wanted = descriptor.platform
        if wanted is None or (wanted.os in ("linux", "") and wanted.architecture in (host_architecture(), "")):
            return descriptor
        if wanted.os != "unknown":  # attestations have no platform
            others.append(f"{wanted.os}/{wanted.architecture}{'/' if wanted.variant else ''}{wanted.variant}")
        return None
    if depth == _MAX_NESTING:
        raise InvalidParameter("invalid archive: its indexes are nested too deeply")
    for inner in _decode(archive.verified(descriptor), _Index, descriptor.digest).manifests:
        if archive.size(f"blobs/sha256/{inner.digest[7:]}") < 0:
            continue  # an archive of one platform may keep the index of all
        if (chosen := _choose(archive, inner, others, depth + 1)) is not None:
            return chosen
    return None


def _from_manifest(archive: Archive, descriptor: _Descriptor) -> Found:
    manifest = _decode(archive.verified(descriptor), _Manifest, descriptor.digest)
    if manifest.config.mediaType not in _CONFIGS:
        raise InvalidParameter(
            f"{descriptor.digest} is no image: its configuration is {manifest.config.mediaType[:100]}"
        )
    for layer in manifest.layers:
        if layer.mediaType.endswith("+encrypted"):
            raise NotSupported(f"encrypted layers are not supported: {layer.digest}")
    config = archive.verified(manifest.config)
    layers = tuple(Blob(archive.blob(layer), layer.digest) for layer in manifest.layers)
    return _found(archive, config, layers, [], manifest.config.digest)


def _found(archive: Archive, config: bytes, layers: tuple[Blob, ...], tags: list[str], what: str) -> Found:
    diff_ids = check_config(config, what)
    if len(layers) != len(diff_ids):
        raise InvalidParameter(
            f"invalid archive: {what}: it has {len(diff_ids)} layers, the manifest lists {len(layers)}"
        )
    for layer in layers:
        if archive.size(layer.member) < 0:
            raise InvalidParameter(f"invalid archive: {printable(os.fsencode(layer.member))} is missing")
    return Found(config, diff_ids, layers, tags)


def _name_of(descriptor: _Descriptor) -> str:
    """The reference of an OCI descriptor: containerd's full name, else ref.name unless it is a bare tag."""
    annotations = descriptor.annotations or {}
    name = annotations.get("io.containerd.image.name", "")
    if not name:
        name = annotations.get("org.opencontainers.image.ref.name", "")
        if ":" not in name and "/" not in name:
            return ""  # "latest" of what?
    return _reference(name)


def _reference(text: str) -> str:
    """The familiar form with a tag; "" for a reference by digest only."""
    try:
        reference = parse_reference(text)
    except InvalidParameter as error:
        raise InvalidParameter(f"invalid archive: {text[:200]!r}: {error.message}") from error
    return str(msgspec.structs.replace(reference, digest="")) if reference.tag else ""


def _stated_digest(name: str) -> str:
    """The digest in a file name such as blobs/sha256/<hex> or <hex>.json; `<id>/layer.tar` states none."""
    last = posixpath.basename(name).removesuffix(".json")
    return f"sha256:{last}" if _HEX.fullmatch(last) else ""


def _normal(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


def _decode(data: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidParameter(f"invalid archive: {what}: {error}") from error
