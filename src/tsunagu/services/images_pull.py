"""Pulls images from registries: skopeo brings blobs into a directory of their own, the intake takes them in.

Nothing is recorded before everything is there and verified; the directory goes away whatever happens. May import model,
rules, kernel, store and its neighbours; must never record an image itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import msgspec
from msgspec.structs import replace

from tsunagu.kernel import skopeo
from tsunagu.model.errors import EngineError, InvalidParameter, NotSupported
from tsunagu.model.image import Reference
from tsunagu.rules import registries
from tsunagu.store.blobs import digest_of

from .images_archive import MAX_DOCUMENT, Blob, Found, check_config, host_architecture
from .tasks import spawn

if TYPE_CHECKING:
    from .images import Images

Message = dict[str, Any]
_TICK_SECONDS = 0.1  # how often arrived layers are told
_SHORT = 12


class _Descriptor(msgspec.Struct):
    digest: str
    size: int = 0
    mediaType: str = ""


class _Manifest(msgspec.Struct):
    config: _Descriptor | None = None
    layers: list[_Descriptor] = []
    manifests: list[dict[str, Any]] | None = None
    schemaVersion: int = 2


class Fetched:
    """The directory that skopeo filled: every blob in a file called by its digest."""

    def __init__(self, path: str) -> None:
        self._path = path

    def source(self, name: str) -> BinaryIO:
        return cast(BinaryIO, open(f"{self._path}/{name}", "rb", buffering=0))

    def document(self, digest: str) -> bytes:
        """Return a small blob whole after checking its digest."""
        with self.source(_file_name(digest)) as file:
            data = file.read(MAX_DOCUMENT + 1)
        if digest_of(data) != digest:
            raise InvalidParameter(f"the registry's {digest} is damaged: its digest is {digest_of(data)}")
        return data

    def has(self, digest: str) -> bool:
        return os.path.exists(f"{self._path}/{_file_name(digest)}")


class Pull:
    """One pull of one reference, or of all tags of a repository."""

    def __init__(self, images: Images, reference: Reference, platform: str, auth: str) -> None:
        self._images = images
        self._reference = reference
        self._platform = registries.check_platform(platform or f"linux/{host_architecture()}")
        self._auth = registries.auth_file(auth, reference.domain)
        self._is_insecure = registries.is_loopback(reference.domain)
        self._auth_path = ""

    async def messages(self) -> AsyncIterator[Message]:
        """Yield Docker's progress; the image is recorded before its last lines. Raises EngineError in Docker's words.

        What is wrong before the first message is about the image as a whole: unknown, denied, not reachable.
        """
        storage = self._images.storage
        with ExitStack() as stack:
            self._auth_path = stack.enter_context(skopeo.credentials(storage.temporary("auth"), self._auth))
            for reference in await self._references():
                path = storage.temporary("pull")
                stack.callback(storage.discard, path)
                async for message in self._one(reference, path):
                    yield message

    async def _references(self) -> list[Reference]:
        if self._reference.tag or self._reference.digest:
            return [self._reference]
        listed = msgspec.json.decode(await self._ask("list-tags", registries.remote_name(self._reference)))
        return [replace(self._reference, tag=tag) for tag in sorted(listed["Tags"])]

    async def _one(self, reference: Reference, path: str) -> AsyncIterator[Message]:
        data = await self._ask("inspect", "--raw", registries.remote_name(reference))
        digest = digest_of(data)
        if reference.digest and reference.digest != digest:
            raise InvalidParameter(f"manifest verification failed for digest {reference.digest}")
        manifest, chosen = _manifest(data), digest
        if manifest.manifests is not None:
            chosen = registries.choose(manifest.manifests, self._platform)
            data = await self._ask("inspect", "--raw", registries.remote_name(reference, chosen))
            if digest_of(data) != chosen:
                raise InvalidParameter(f"manifest verification failed for digest {chosen}")
            manifest = _manifest(data)
        if manifest.config is None:
            raise NotSupported(
                f"{reference}: manifests of schema version {manifest.schemaVersion} without a configuration are "
                "not supported"
            )
        repository = reference.path if reference.domain == "docker.io" else reference.name
        yield {"status": f"Pulling from {repository}", "id": reference.tag or reference.digest}
        tags = [str(reference)] if reference.tag and not reference.digest else []
        fetched = Fetched(path)
        found = self._images.known(manifest.config.digest, tags)
        is_here = found is not None
        if found is None:
            async for message in self._fetch(reference, chosen, manifest, fetched, path):
                yield message
            found = await asyncio.to_thread(_found, fetched, manifest, tags)
        is_changed = await self._images.take(found, fetched, f"{reference.name}@{digest}", str(reference))
        for layer in () if is_here else manifest.layers:
            yield _layer(layer, "Pull complete")
        yield {"status": f"Digest: {digest}"}
        word = "Downloaded newer image for" if is_changed else "Image is up to date for"
        yield {"status": f"Status: {word} {reference}"}

    async def _fetch(
        self, reference: Reference, chosen: str, manifest: _Manifest, fetched: Fetched, path: str
    ) -> AsyncIterator[Message]:
        """Copy all blobs to `path`, telling each layer that is there."""
        waiting = list({layer.digest: layer for layer in manifest.layers}.values())
        for layer in waiting:
            yield _layer(layer, "Pulling fs layer")
        copy = spawn(self._copy(registries.remote_name(reference, chosen), path), name=f"pull {reference}")
        try:
            while not copy.done():
                await asyncio.wait([copy], timeout=_TICK_SECONDS)
                for layer in [layer for layer in waiting if fetched.has(layer.digest)]:
                    waiting.remove(layer)
                    yield _layer(layer, "Download complete")
            if (failure := copy.result()) is not None:
                raise failure
        finally:
            copy.cancel()
            await asyncio.wait([copy])

    async def _copy(self, source: str, path: str) -> EngineError | None:
        """Return the failure: it is the pull's, not one of the background."""
        try:
            await self._ask("copy", source, f"dir:{path}", option="src-tls-verify")
        except EngineError as error:
            return error
        return None

    async def _ask(self, verb: str, *words: str, option: str = "tls-verify") -> bytes:
        secure = "false" if self._is_insecure else "true"
        try:
            return await skopeo.run([verb, f"--authfile={self._auth_path}", f"--{option}={secure}", *words])
        except skopeo.SkopeoFailed as error:
            raise self._failure(str(error)) from error

    def _failure(self, stderr: str) -> EngineError:
        return registries.pull_failure(self._reference, registries.fatal_words(stderr))


def _manifest(data: bytes) -> _Manifest:
    try:
        return msgspec.json.decode(data, type=_Manifest)
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"the registry's manifest cannot be read: {error}") from error


def _found(fetched: Fetched, manifest: _Manifest, tags: list[str]) -> Found:
    assert manifest.config is not None
    config = fetched.document(manifest.config.digest)
    diff_ids = check_config(config, manifest.config.digest)
    if len(diff_ids) != len(manifest.layers):
        raise InvalidParameter(
            f"{manifest.config.digest} has {len(diff_ids)} layers, its manifest lists {len(manifest.layers)}"
        )
    layers = tuple(Blob(_file_name(layer.digest), layer.digest) for layer in manifest.layers)
    return Found(config, diff_ids, layers, tags)


def _file_name(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not value.isalnum():
        raise NotSupported(f"the digest {digest[:100]!r} is not supported")
    return value


def _layer(layer: _Descriptor, status: str) -> Message:
    return {"status": status, "progressDetail": {}, "id": layer.digest.partition(":")[2][:_SHORT]}
