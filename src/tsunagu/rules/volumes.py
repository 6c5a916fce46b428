"""Decisions about volumes: names, drivers and options that may be, who uses one. Pure; words are Docker's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tsunagu.model.errors import Conflict, InvalidParameter, NotFound, NotSupported
from tsunagu.model.volume import DRIVER, Volume
from tsunagu.model.world import World

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_OPTIONS = ("device", "o", "size", "type")
# What an option needs beside it (Docker's local driver).
_NEEDS = (("device", "type"), ("type", "device"), ("o", "device"), ("o", "type"))
_FLAGS = frozenset({
    "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "noatime", "nodev", "nodiratime",
    "noexec", "norelatime", "nosuid", "private", "rbind", "relatime", "ro", "rprivate", "rw", "strictatime", "suid",
    "sync",
})  # fmt: skip
_TMPFS_VALUES = frozenset({"gid", "mode", "mpol", "nr_blocks", "nr_inodes", "size", "uid"})


class LocalMount(NamedTuple):
    """What the options of a volume have mounted on its directory: "none" with bind words, or "tmpfs"."""

    kind: str
    device: str
    words: tuple[str, ...]


def check_name(name: str) -> str:
    """Return `name`, or raise InvalidParameter in Docker's words: it becomes a directory's name."""
    if len(name) == 1:
        raise InvalidParameter(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    if len(name) > 240:  # NAME_MAX less what is put before it while the volume is made
        raise InvalidParameter(f"create {name[:32]}…: volume name is longer than 240 characters")
    return name


def check_driver(name: str, driver: str) -> None:
    """Refuse every driver but `local`, in Docker's words for one that is not installed."""
    if driver not in ("", DRIVER):
        raise NotFound(
            f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found',
            hint="this engine has the volume driver local",
        )


def check_options(name: str, options: Mapping[str, str]) -> LocalMount | None:
    """Return what `options` have mounted, None for a plain directory; raises for what this engine cannot mount."""
    for option in options:
        if option not in _OPTIONS:
            raise InvalidParameter(f'create {name}: invalid option: "{option}"')
    for option, other in _NEEDS:
        if option in options and other not in options:
            raise InvalidParameter(f'create {name}: missing required option: "{other}"')
    if options.get("size"):
        raise InvalidParameter(
            f"create {name}: quota size requested but no quota support",
            hint="for a limited volume in memory: -o type=tmpfs -o device=tmpfs -o o=size=100m",
        )
    if "type" not in options:
        return None
    kind, device = options["type"], options["device"]
    words = tuple(word for word in options.get("o", "").split(",") if word)
    if "\0" in device or any("\0" in word for word in words):
        raise InvalidParameter(f"create {name}: invalid option: a NUL character")
    if kind == "tmpfs":
        for word in words:
            key, equals, _ = word.partition("=")
            if key not in (_TMPFS_VALUES if equals else _FLAGS - {"bind", "rbind"}):
                raise InvalidParameter(f'create {name}: invalid option: "{word}"', hint="in o, for a volume of tmpfs")
        return LocalMount(kind, device, words)
    if not {"bind", "rbind"} & set(words):
        raise NotSupported(
            f'create {name}: volumes of type "{kind}" are not supported',
            hint="mount it on the host and use -o type=none -o o=bind -o device=/where/it/is",
        )
    if unknown := [word for word in words if word not in _FLAGS]:
        raise InvalidParameter(
            f'create {name}: invalid option: "{unknown[0]}"', hint="in o, for a volume that is bound"
        )
    if not device.startswith("/"):
        raise InvalidParameter(f'create {name}: invalid option: device "{device}" is no absolute path')
    return LocalMount("none", device, words)


def check_same(volume: Volume, options: Mapping[str, str]) -> None:
    """Refuse to hand out a volume as another one: its options say where its data lies."""
    if options and dict(options) != volume.options:
        raise Conflict(
            f"create {volume.name}: conflict: volume name must be unique",
            hint=f"it exists with other options: tsunagu volume inspect {volume.name}",
        )


def users(world: World, name: str) -> list[str]:
    """Return the ids of the containers, running or not, that mount a volume."""
    return [c.id for c in world.containers.values() if any(m.name == name for m in c.mounts)]


def used(world: World) -> set[str]:
    """Return the names of all volumes that some container mounts."""
    return {m.name for c in world.containers.values() for m in c.mounts if m.name}


def check_unused(world: World, name: str) -> None:
    """Raise Conflict in Docker's words, and name the containers, while a volume is in use."""
    if holders := users(world, name):
        names = ", ".join(world.containers[identifier].name for identifier in holders[:20])
        raise Conflict(
            f"remove {name}: volume is in use - [{', '.join(holders)}]",
            hint=f"used by: {names}; remove them first, for example: docker rm {world.containers[holders[0]].name}",
        )


def running_users(world: World, names: Iterable[str]) -> set[str]:
    """Return those of `names` that a live container mounts."""
    wanted = set(names)
    return {m.name for c in world.containers.values() if c.is_running for m in c.mounts if m.name in wanted}
