"""The images of this engine: find, list, tag, remove, prune; load, import, save; the built-in one.

Runs on the event loop; whatever reads or writes much runs in threads. Rows of kind "image" hold the tags, blobs hold
the configurations, `kernel.layers` holds the files. One transaction records an operation, then memory follows, with no
await between decision and record. Layers and configurations that nothing refers to are collected afterwards: containers
keep theirs alive, whatever happens to the image. Must never know a container but by the holders it is told.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, BinaryIO

import msgspec
from msgspec.structs import replace

from tsunagu.kernel.storage import MAX_LAYERS, Storage
from tsunagu.model import ids
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter, NotFound
from tsunagu.model.image import Image, Reference, chain_ids, parse_reference
from tsunagu.model.instance import Instance
from tsunagu.store.blobs import Blobs, digest_of
from tsunagu.store.db import Database

from . import builtin, images_save
from .images_archive import Found
from .images_changes import new_config
from .images_intake import Intake, open_upload
from .images_pull import Fetched, Pull
from .images_removal import check_unheld, conflict

log = logging.getLogger("tsunagu.images")
_KIND, _HELD = "image", "image-held"
_ID_WORD = frozenset("0123456789abcdef")


class _Row(msgspec.Struct):
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()


class Images:
    """`on_event` is told (action, image id, attributes) of everything that Docker reports under /events."""

    def __init__(self, instance: Instance, db: Database) -> None:
        self.storage = Storage(instance)
        self.on_event: Callable[[str, str, dict[str, str]], None] = lambda action, identifier, attributes: None
        self._db = db
        self._blobs = Blobs(instance.root)
        self._intake = Intake(self.storage)
        self._images: dict[str, Image] = {}
        self._by_tag: dict[str, str] = {}
        self._held: dict[str, tuple[str, ...]] = {}  # diff ids of images that are gone but have containers
        self._builtin = asyncio.Lock()

    async def open(self) -> None:
        """Read what is there and drop what nothing refers to."""
        await asyncio.to_thread(self.storage.open)
        self._blobs.open()
        for identifier, value in self._db.all(_HELD):
            self._held[identifier] = msgspec.json.decode(value, type=tuple[str, ...])
        for identifier, value in self._db.all(_KIND):
            row = msgspec.json.decode(value, type=_Row)
            try:
                self._remember(self._read(identifier, row.tags, row.digests))
            except EngineError as error:
                log.error("image is damaged and was dropped: load it again image=%s error=%s", identifier, error)
                self._db.delete(_KIND, identifier)
        self._collect()
        self.storage.on_release = self._released

    async def close(self) -> None:
        """Wait for the threads. Mounts and containers stay."""
        await self._intake.close()
        await self.storage.close()

    # ---- find

    def all(self) -> list[Image]:
        """Return every image, in no order."""
        return list(self._images.values())

    def find(self, word: str) -> Image:
        """Return the image of a reference, id or id prefix. Raises NotFound in Docker's words."""
        if word.startswith("sha256:"):
            found = self._by_prefix(word.removeprefix("sha256:"))
            if found is None:
                raise NotFound(f"No such image: {word}")
            return found
        if len(word) == 64 and _ID_WORD.issuperset(word):
            if (image := self._images.get(f"sha256:{word}")) is None:
                raise NotFound(f"No such image: sha256:{word}")
            return image
        reference = parse_reference(word)
        if (image := self._by_reference(reference)) is not None:
            return image
        if (image := self._by_prefix(word)) is not None:
            return image
        raise NotFound(f"No such image: {reference}")

    async def ensure(self, word: str) -> Image:
        """Return an image; the built-in one is made when it is asked for and absent."""
        try:
            return self.find(word)
        except NotFound:
            if not _is_builtin(word):
                raise
        async with self._builtin:
            try:
                return self.find(word)
            except NotFound:
                return await self._make_builtin()

    def layers_of(self, image_id: str) -> tuple[str, ...]:
        """Return the diff ids of an image by its full id, also of one that is gone while a container stands on it."""
        image = self._images.get(image_id)
        if image is not None:
            return image.diff_ids
        if image_id in self._held:
            return self._held[image_id]
        raise NotFound(f"No such image: {image_id}")

    def pull(self, reference: Reference, platform: str, auth: str) -> AsyncIterator[dict[str, Any]]:
        """Yield Docker's progress of a pull; without tag and digest every tag of the repository is pulled."""
        return Pull(self, reference, platform, auth).messages()

    def known(self, identifier: str, tags: list[str]) -> Found | None:
        """Return what is here of an image by its full id, to be taken with further tags."""
        if (image := self._images.get(identifier)) is None:
            return None
        return Found(self._blobs.get(identifier), image.diff_ids, (), tags)

    async def take(self, found: Found, source: Fetched, digest: str, name: str) -> bool:
        """Take in and record what was pulled; `digest` is name@digest. Returns whether anything is new but that."""
        identifier = digest_of(found.config)
        before = self._images.get(identifier)
        try:
            with self._intake.pinned(chain_ids(found.diff_ids)):
                await self._intake.add_layers(source, found)
                self._record([(found.config, found.tags)], "", digest)
        finally:
            self._collect()
        image = self._images[identifier]
        self.on_event("pull", name, {**(image.run.get("Labels") or {}), "name": name})
        return before is None or before.tags != image.tags

    def disk_usage(self) -> tuple[int, dict[str, int]]:
        """Return the bytes of all layers, and for each image (by id) those that it shares with another image."""
        users = Counter(c for image in self._images.values() for c in chain_ids(image.diff_ids))
        sizes = {layer.chain_id: layer.size for layer in self.storage.layers.all()}
        shared = {
            image.id: sum(sizes.get(c, 0) for c in chain_ids(image.diff_ids) if users[c] > 1)
            for image in self._images.values()
        }
        return sum(sizes.values()), shared

    def history(self, word: str) -> list[dict[str, object]]:
        """Return Docker's history items, newest first."""
        return images_save.history(self.find(word), self._layer_sizes)

    # ---- bring in, give out

    async def load(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
        """Load every image of a docker-save or OCI archive; yields Docker's lines once all of them are recorded."""
        upload = await self._intake.receive(chunks)
        try:
            archive, found = await self._intake.images(upload)
            try:
                with self._intake.pinned([c for image in found for c in chain_ids(image.diff_ids)]):
                    for image in found:
                        await self._intake.add_layers(archive, image)
                    lines = self._record([(image.config, image.tags) for image in found], "load")
            finally:
                archive.close()
        finally:
            self._intake.forget(upload)
            self._collect()
        for line in lines:
            yield line

    async def import_rootfs(
        self, chunks: AsyncIterator[bytes], repo: str, tag: str, message: str, changes: Sequence[str]
    ) -> Image:
        """Make an image of one layer from a root file system tar. `changes` are Dockerfile instructions."""
        tags = [str(_tagged(repo, tag))] if repo else []
        config = new_config(message, changes)  # refuses before the upload is read
        upload = await self._intake.receive(chunks)
        try:
            source = partial(open_upload, upload)
            async with self._intake.single_layer(source, "the root file system") as diff_id:
                config["rootfs"] = {"type": "layers", "diff_ids": [diff_id]}
                data = msgspec.json.encode(config)
                self._record([(data, tags)], "import")
        finally:
            self._intake.forget(upload)
            self._collect()
        return self._images[digest_of(data)]

    def check_tag(self, repo: str, tag: str) -> list[str]:
        """Return the reference that an image is to get; raises InvalidParameter."""
        return [str(_tagged(repo, tag))]

    async def add_layer(
        self, parent: Sequence[str], source: Callable[[], BinaryIO] | None, config: dict[str, Any], tags: Sequence[str]
    ) -> Image:
        """Make an image of the layers `parent` (diff ids) and one more, whose tar `source` opens; None adds none.

        `config` is complete but for its rootfs section; its last step of history is this layer's.
        """
        async with AsyncExitStack() as stack:
            diff_ids = list(parent)
            if source is None:
                config["history"][-1]["empty_layer"] = True
            else:
                layer = self._intake.single_layer(source, "the container's changes", below=parent)
                diff_ids.append(await stack.enter_async_context(layer))
            if len(diff_ids) > MAX_LAYERS:
                raise InvalidParameter("max depth exceeded", hint=f"more than {MAX_LAYERS} layers cannot be mounted")
            config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
            data = msgspec.json.encode(config)
            self._record([(data, tags)], "create")
        return self._images[digest_of(data)]

    def save(self, words: Sequence[str]) -> AsyncIterator[bytes]:
        """Yield a `docker save` archive of images; raises NotFound before the first byte.

        By reference its tag is saved, by repository all tags of it, by id none (Docker's rules).
        """
        wanted: dict[str, list[str]] = {}
        for word in words:
            for image, tag in self._for_save(word):
                tags = wanted.setdefault(image.id, [])
                if tag and tag not in tags:
                    tags.append(tag)
        contents = [images_save.Content(self._images[i], self._blobs.get(i), tuple(tags)) for i, tags in wanted.items()]
        return self._save(contents)

    async def _save(self, contents: list[images_save.Content]) -> AsyncIterator[bytes]:
        with self._intake.pinned([c for content in contents for c in chain_ids(content.image.diff_ids)]):
            async for chunk in images_save.archive(contents, self.storage.layers):
                yield chunk

    def _for_save(self, word: str) -> list[tuple[Image, str]]:
        """The images that a word means to `save`, each with the tag to save it under, "" for none."""
        if not _is_full_id(word):
            reference = parse_reference(word, default_tag="")
            if not reference.tag and not reference.digest:
                named = sorted(t for t in self._by_tag if t.rpartition(":")[0] == reference.name)
                if named:
                    return [(self._images[self._by_tag[t]], t) for t in named]
            elif (image := self._by_reference(reference)) is not None:
                return [(image, str(replace(reference, digest="")) if reference.tag else "")]
        return [(self.find(word), "")]

    async def _make_builtin(self) -> Image:
        tar, created = await asyncio.to_thread(builtin.layer)
        async with self._intake.single_layer(lambda: io.BytesIO(tar), "the built-in image") as diff_id:
            data = builtin.config(diff_id, created)
            self._record([(data, [builtin.REFERENCE])], "load")
        return self._images[digest_of(data)]

    # ---- tags

    async def tag(self, word: str, repo: str, tag: str) -> None:
        """Give an image another name; a name that another image had moves over."""
        reference = _tagged(repo, tag)
        image = self.find(word)
        self._commit(self._with_tag(image, str(reference)))
        self._tell("tag", image, str(reference))

    def _with_tag(self, image: Image, tag: str) -> list[Image]:
        """The images that change when `image` gets `tag`."""
        if tag in image.tags:
            return []
        changed = [replace(image, tags=tuple(sorted((*image.tags, tag))))]
        if (previous := self._by_tag.get(tag)) is not None and previous != image.id:
            before = self._images[previous]
            changed.append(replace(before, tags=tuple(t for t in before.tags if t != tag)))
        return changed

    # ---- remove

    async def remove(self, word: str, *, force: bool, holders: Mapping[str, tuple[str, bool]]) -> list[dict[str, str]]:
        """Untag or delete an image as `docker rmi` does; returns Docker's Untagged and Deleted items.

        `holders` says for an image id which container stands on it and whether it runs. Raises Conflict in Docker's
        words.
        """
        image = self.find(word)
        items: list[dict[str, str]] = []
        holder = holders.get(image.id)
        if _is_full_id(word) or self._by_reference(parse_reference(word)) is None:  # by id
            if len(image.tags) > 1 and not force:
                raise conflict(image, "must be forced", "image is referenced in multiple repositories")
            check_unheld(image, holder, force)
        else:
            if len(image.tags) <= 1 and holder is not None and not force:
                raise Conflict(
                    f'conflict: unable to remove repository reference "{word}" (must force) - container '
                    f"{ids.short(holder[0])} is using its referenced image {ids.short(image.id)}",
                    hint=f"remove the container first: rm {ids.short(holder[0])}",
                )
            tag = str(replace(parse_reference(word), digest=""))
            image = replace(image, tags=tuple(t for t in image.tags if t != tag))
            items.append({"Untagged": tag})
            if image.tags or holder is not None:
                self._commit([image])
                self._tell("untag", image)
                return items
        return items + self._delete([image])[0]

    async def prune(
        self,
        *,
        dangling_only: bool,
        in_use: Container[str],
        is_wanted: Callable[[Image], bool] = lambda image: True,
    ) -> tuple[list[dict[str, str]], int]:
        """Delete images that no container stands on, those without a tag or all; returns items and bytes freed.

        `is_wanted` says which of them the filters mean.
        """
        doomed = [
            i for i in self._images.values() if i.id not in in_use and not (dangling_only and i.tags) and is_wanted(i)
        ]
        result = self._delete(doomed)
        self.on_event("prune", "", {"reclaimed": str(result[1])})
        return result

    def _delete(self, doomed: Sequence[Image]) -> tuple[list[dict[str, str]], int]:
        items: list[dict[str, str]] = []
        held = set(self.storage.held())
        with self._db.transaction():
            for image in doomed:
                self._db.delete(_KIND, image.id)
                if image.diff_ids in held:
                    self._db.put(_HELD, image.id, msgspec.json.encode(image.diff_ids))
        for image in doomed:
            current = self._images.pop(image.id)
            if image.diff_ids in held:
                self._held[image.id] = image.diff_ids
            for tag in current.tags:
                self._by_tag.pop(tag, None)
            items += [{"Untagged": tag} for tag in image.tags]
            items.append({"Deleted": image.id})
            for _ in current.tags:
                self._tell("untag", image)
            self._tell("delete", image)
        removed, freed = self._collect()
        order = [c for image in doomed for c in reversed(chain_ids(image.diff_ids)) if c in removed]
        return items + [{"Deleted": chain_id} for chain_id in dict.fromkeys(order)], freed

    def _collect(self) -> tuple[set[str], int]:
        """Remove layers and configurations that nothing refers to; returns the chain ids and the bytes of the layers.

        Does not yield: what is decided here is true. Files are moved away at once and deleted by a thread.
        """
        stands_on = set(self.storage.held())
        used = {c for image in self._images.values() for c in chain_ids(image.diff_ids)}
        used |= {c for diff_ids in stands_on for c in chain_ids(diff_ids)}
        used |= self._intake.pins.keys()
        removed: set[str] = set()
        freed = 0
        for layer in self.storage.layers.all():
            if layer.chain_id not in used:
                self.storage.discard(self.storage.layers.forget(layer.chain_id))
                removed.add(layer.chain_id)
                freed += layer.size
        for identifier in [i for i, diff_ids in self._held.items() if diff_ids not in stands_on or i in self._images]:
            del self._held[identifier]
            self._db.delete(_HELD, identifier)
        for digest in self._blobs.all() - self._images.keys():
            self._blobs.remove(digest)
        return removed, freed

    def _released(self) -> None:
        """A container's root file system is gone: layers that only it kept may go."""
        if self._held:
            self._collect()

    # ---- record

    def _record(self, found: Sequence[tuple[bytes, Sequence[str]]], action: str, digest: str = "") -> list[str]:
        """Record images in one transaction and return the lines that `docker load` prints."""
        renamed: list[str] = []
        loaded: list[str] = []
        changed: dict[str, Image] = {}
        owners: dict[str, str] = {}
        for config, tags in found:
            identifier = self._blobs.put(config)
            known = changed.get(identifier) or self._images.get(identifier)
            image = known or self._read(identifier, (), ())
            for tag in tags:
                if not tag:
                    continue
                previous = owners.get(tag) or self._by_tag.get(tag)
                if previous is not None and previous != identifier:
                    before = changed.get(previous) or self._images[previous]
                    changed[previous] = replace(before, tags=tuple(t for t in before.tags if t != tag))
                    renamed.append(
                        f"The image {tag} already exists, renaming the old one with ID {previous} to empty string\n"
                    )
                owners[tag] = identifier
                image = replace(image, tags=tuple(sorted({*image.tags, tag})))
                loaded.append(f"Loaded image: {tag}\n")
            if not any(tags):
                loaded.append(f"Loaded image ID: {identifier}\n")
            changed[identifier] = replace(image, digests=tuple(sorted({*image.digests, digest} - {""})))
        self._commit(list(changed.values()))
        for config, _ in found if action else ():
            self._tell(action, self._images[digest_of(config)])
        return renamed + loaded

    def _commit(self, changed: Sequence[Image]) -> None:
        with self._db.transaction():
            for image in changed:
                self._db.put(_KIND, image.id, msgspec.json.encode(_Row(image.tags, image.digests)))
        for image in changed:
            if (before := self._images.get(image.id)) is not None:
                for tag in before.tags:
                    if self._by_tag.get(tag) == image.id:
                        del self._by_tag[tag]
        for image in changed:
            self._remember(image)

    def _remember(self, image: Image) -> None:
        self._images[image.id] = image
        for tag in image.tags:
            self._by_tag[tag] = image.id

    def _read(self, identifier: str, tags: tuple[str, ...], digests: tuple[str, ...]) -> Image:
        config = msgspec.json.decode(self._blobs.get(identifier))
        diff_ids = tuple(config["rootfs"].get("diff_ids") or ())
        size = sum(self._layer_sizes(diff_ids))
        return Image(id=identifier, config=config, diff_ids=diff_ids, size=size, tags=tags, digests=digests)

    def _layer_sizes(self, diff_ids: Sequence[str]) -> list[int]:
        sizes = []
        for chain_id, diff_id in zip(chain_ids(diff_ids), diff_ids, strict=True):
            if (layer := self.storage.layers.get(chain_id)) is None:
                raise NotFound(f"layer {diff_id} is missing")
            sizes.append(layer.size)
        return sizes

    # ---- pieces

    def _by_reference(self, reference: Reference) -> Image | None:
        if reference.digest:
            if reference.digest in self._images and not reference.tag:
                return self._images[reference.digest]
            wanted = f"{reference.name}@{reference.digest}"
            return next((i for i in self._images.values() if wanted in i.digests), None)
        identifier = self._by_tag.get(str(reference))
        return None if identifier is None else self._images[identifier]

    def _by_prefix(self, word: str) -> Image | None:
        found = ids.find_by_prefix(word, [i.removeprefix("sha256:") for i in self._images], noun="image")
        return None if found is None else self._images[f"sha256:{found}"]

    def _tell(self, action: str, image: Image, name: str = "") -> None:
        labels = image.run.get("Labels") or {}
        self.on_event(action, image.id, {**labels, "name": name or image.id})


def _is_builtin(word: str) -> bool:
    try:
        return str(parse_reference(word)) == builtin.REFERENCE
    except InvalidParameter:
        return False


def _is_full_id(word: str) -> bool:
    return word.startswith("sha256:") or (len(word) == 64 and _ID_WORD.issuperset(word))


def _tagged(repo: str, tag: str) -> Reference:
    if "@" in repo:
        raise InvalidParameter("refusing to create a tag with a digest reference")
    reference = parse_reference(f"{repo}:{tag}" if tag else repo)
    if reference.domain == "docker.io" and reference.path == "library/sha256":
        raise InvalidParameter("refusing to create an ambiguous tag using digest algorithm as name")
    return reference
