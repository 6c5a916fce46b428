"""`commit`: an image made of a container: a layer of what it changed, and its configuration with instructions applied.

The layer holds exactly what `diff` names. Runs the usual steps: decide (words and instructions), act (pause, layer),
record (one transaction in `images`), and lets the container go on whatever happened.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, cast

import msgspec

from tsunagu.kernel import changes, pack
from tsunagu.model.container import Container, Status
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter, NotFound, NotSupported
from tsunagu.model.image import Image

from .archives import container_mounts
from .engine import Engine
from .images import Images
from .images_changes import apply_changes, layered_config
from .lifecycle import Lifecycle
from .pausing import Pausing

log = logging.getLogger("tsunagu.commits")
Json = dict[str, Any]
# What an image says about how to run it (OCI image-spec "config", and Docker's Healthcheck, OnBuild and Shell).
_RUN_KEYS = (
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "StopTimeout",
    "Healthcheck", "OnBuild", "Shell",
)  # fmt: skip
# What clients send along from a container's configuration that no image keeps.
_CONTAINER_KEYS = {
    "Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce", "Image",
    "NetworkDisabled", "MacAddress", "ArgsEscaped",
}  # fmt: skip


class Commits:
    def __init__(self, engine: Engine, images: Images, lifecycle: Lifecycle, pausing: Pausing) -> None:
        self._engine = engine
        self._images = images
        self._lifecycle = lifecycle
        self._pausing = pausing

    async def commit(
        self,
        word: str,
        *,
        repo: str = "",
        tag: str = "",
        comment: str = "",
        author: str = "",
        instructions: Sequence[str] = (),
        config: Json | None = None,
        pauses: bool = True,
    ) -> Image:
        """Make an image of a container and return it. `config` (Docker's JSON) stands before the container's own.

        Raises NotFound, Conflict, InvalidParameter for an instruction that is not allowed.
        """
        container = self._engine.world.container(word)
        for status, state in ((Status.DEAD, "Dead"), (Status.REMOVING, "being removed")):
            if container.state.status is status:
                raise Conflict(f"You cannot commit container {container.id} which is {state}")
        own = self._run_config(container)
        run = _checked(config) if config else copy.deepcopy(own)
        apply_changes(run, instructions)
        _merge(run, own)
        tags = self._images.check_tag(repo, tag) if repo else []
        storage = self._images.storage
        parent = self._images.layers_of(container.image_id)
        # one at a time: the second would find the container paused, and unpaused while it reads
        async with self._engine.lock(f"commit {container.id}"), self._frozen(container, pauses):
            upper = storage.upper(container.id)
            places = changes.placeholders(container_mounts(container))
            found = await asyncio.to_thread(changes.read, upper, storage.lower_directories(container.id), places)
            paths = frozenset(os.fsencode(change.path[1:]) for change in found)
            made = layered_config(
                self._base(container), run, author, comment, created_by=" ".join(container.config.cmd or ())
            )
            image = await self._images.add_layer(parent, _source(upper, paths) if paths else None, made, tags)
        reference = {"imageRef": tags[0]} if tags else {}
        self._lifecycle.emit("commit", container, comment=comment, imageID=image.id, **reference)
        return image

    def _base(self, container: Container) -> Json:
        """The configuration of the container's image, {} when it is gone."""
        try:
            return self._images.find(container.image_id).config
        except NotFound:
            return {}

    def _run_config(self, container: Container) -> Json:
        """The container's configuration as an image states it."""
        run: Json = {}
        body = msgspec.json.decode(msgspec.json.encode(container.config))
        inherited = self._base(container).get("config") or {}
        for key in _RUN_KEYS:
            value = body.get(key) if key in body else inherited.get(key)
            if value:
                run[key] = value
        return run

    @asynccontextmanager
    async def _frozen(self, container: Container, pauses: bool) -> AsyncIterator[None]:
        """Nothing is written to the files meanwhile, if that is wanted. A container that is paused already stays so."""
        container = self._engine.world.container(container.id)  # as it is by now
        if not pauses or not container.is_running or container.is_paused:
            yield
            return
        await self._pausing.pause(container.id)
        try:
            yield
        finally:
            try:
                await self._pausing.unpause(container.id)
            except EngineError as error:  # somebody else has ended it, or let it go on
                log.info("not unpaused after commit container=%s: %s", container.id[:12], error)


class _Source:
    """Opens the layer's tar; each time it is made anew from the directory."""

    def __init__(self, upper: str, paths: frozenset[bytes]) -> None:
        self._upper = upper
        self._paths = paths

    def __call__(self) -> BinaryIO:
        return cast(BinaryIO, pack.LayerReader(self._upper, self._paths))


def _source(upper: str, paths: frozenset[bytes]) -> _Source:
    return _Source(upper, paths)


def _checked(config: Json) -> Json:
    for key, value in config.items():
        if key not in _RUN_KEYS and key not in _CONTAINER_KEYS and value:
            raise NotSupported(f"{key} is not supported yet")
    run = {key: config[key] for key in _RUN_KEYS if config.get(key)}
    for key, kind in (("Env", list), ("Labels", dict), ("ExposedPorts", dict), ("Volumes", dict)):
        if not isinstance(run.get(key, kind()), kind):
            raise InvalidParameter(f"invalid JSON: {key}: expected {'an object' if kind is dict else 'an array'}")
    if not all(isinstance(entry, str) for entry in run.get("Env", ())):
        raise InvalidParameter("invalid JSON: Env: expected an array of strings")
    return run


def _merge(run: Json, own: Json) -> None:
    """Fill `run` up with what the container has and it does not (Docker's merge)."""
    has_entrypoint = bool(run.get("Entrypoint"))
    for key, value in own.items():
        if key == "Env":
            names = {entry.partition("=")[0] for entry in run.get("Env", ())}
            run["Env"] = [*run.get("Env", ()), *(e for e in value if e.partition("=")[0] not in names)]
        elif key in ("Labels", "ExposedPorts", "Volumes"):
            run[key] = {**value, **run.get(key, {})}
        elif key == "Cmd" and has_entrypoint:
            continue  # a command belongs to its entry point
        elif key not in run:
            run[key] = value
