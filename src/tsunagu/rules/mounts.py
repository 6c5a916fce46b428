"""What a new container mounts: `-v`, `--mount`, `--volumes-from` and the image's VOLUMEs, merged in Docker's order.

Pure; words are Docker's. Nothing is looked up on the host: sources that must exist are checked by whoever may look.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from tsunagu.model.container import Config, HostConfig
from tsunagu.model.errors import EngineError, InvalidParameter, NotSupported
from tsunagu.model.volume import ANONYMOUS, Mount, MountSpec, VolumeDriver, VolumeOptions
from tsunagu.model.world import World

from . import volumes

PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_LABELS = ("z", "Z")
_CONSISTENCIES = ("consistent", "cached", "delegated", "default")
_LONGEST_PATH = 4096  # bytes, PATH_MAX of <linux/limits.h>
# What a runtime lets a file be mounted over below /proc (runc, checkProcMount): for tools that lie about resources.
_PROC_FILES = frozenset({
    "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg",
    "/proc/slabinfo", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
})  # fmt: skip


class Wanted(NamedTuple):
    """A volume that a container needs, and what it is made with if it is not there."""

    labels: Mapping[str, str]
    options: Mapping[str, str]


class Plan(NamedTuple):
    mounts: tuple[Mount, ...]
    volumes: dict[str, Wanted]  # by name


def plan(world: World, config: Config, host: HostConfig, new_name: Callable[[], str]) -> Plan:
    """Return what a container mounts, in declared order, after every refusal.

    `config` has the image's VOLUMEs merged in; `new_name` makes names for volumes that nobody named. Docker's order:
    `--volumes-from`, then `-v` (which wins), then `--mount`, then VOLUMEs where nothing is mounted yet.
    """
    found: dict[str, Mount] = {}
    wanted: dict[str, Wanted] = {}
    for mount in _inherited(world, host):
        found[mount.destination] = mount
    tmpfs = {clean(path) for path in host.tmpfs or {}}
    own: set[str] = set()
    asked = [(parse(text, host.volume_driver), None) for text in host.binds or ()]
    for mount, spec in [*asked, *((mount_of(spec), spec) for spec in host.mounts)]:
        if mount.destination in own or mount.destination in tmpfs:
            raise InvalidParameter(f"Duplicate mount point: {mount.destination}")
        own.add(mount.destination)
        found[mount.destination] = _named(mount, spec.volume_options if spec else None, new_name, wanted)
        if mount.type == "volume" and not mount.mode:  # Docker: with an SELinux label that containers share
            found[mount.destination] = replace(found[mount.destination], mode="z")
    for path in config.volumes or {}:
        destination = clean(f"/{path}")
        if destination not in found and destination not in tmpfs:
            mount = Mount(type="volume", destination=destination, is_anonymous=True, copies_up=True)
            volumes.check_driver("", host.volume_driver)
            found[destination] = _named(mount, None, new_name, wanted)
    for destination in (*found, *tmpfs):
        source = found[destination].source if destination in found else ""
        check_destination(destination, source)
    return Plan(tuple(found.values()), wanted)


def _named(
    mount: Mount, options: VolumeOptions | None, new_name: Callable[[], str], wanted: dict[str, Wanted]
) -> Mount:
    """Give a volume its name and note that it is needed."""
    if mount.type != "volume":
        return mount
    driver = (options and options.driver_config) or VolumeDriver()
    labels = dict(options.labels) if options else {}
    name = mount.name or new_name()
    if mount.is_anonymous:
        labels[ANONYMOUS] = ""
    try:
        volumes.check_driver(name, driver.name)
    except EngineError as error:  # not 404: Docker's client would pull the image and try again
        raise InvalidParameter(error.message, hint=error.hint) from error
    volumes.check_options(volumes.check_name(name), driver.options)
    if (volume_known := wanted.get(name)) is None:
        wanted[name] = Wanted(labels, driver.options)
    elif driver.options and dict(volume_known.options) != driver.options:
        raise InvalidParameter(f"create {name}: conflict: one container asks for it with different options")
    return replace(mount, name=name)


def _inherited(world: World, host: HostConfig) -> list[Mount]:
    mounts: list[Mount] = []
    for text in host.volumes_from or ():
        word, _, mode = text.partition(":")
        if not word:
            raise InvalidParameter(f'malformed volumes-from specification: "{text}"')
        words = mode.split(",") if mode else []
        if any(w not in ("ro", "rw", "nocopy", *_LABELS) for w in words) or {"ro", "rw"} <= set(words):
            raise InvalidParameter(f'invalid mode for volumes-from: "{mode}"')
        try:
            source = world.container(word)
        except EngineError as error:  # not 404: Docker's client would pull the image and try again
            raise InvalidParameter(error.message, hint=error.hint) from error
        for mount in source.mounts:
            is_readonly = mount.is_readonly or "ro" in words
            mounts.append(replace(mount, is_readonly=is_readonly, copies_up=False, mode=""))
    return mounts


# ---- `-v`


def parse(text: str, driver: str = "") -> Mount:
    """Parse `[source:]destination[:options]`; raises InvalidParameter in Docker's words.

    A source that begins with a slash is a host path, another one is a volume's name, none a volume without a name.
    """
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(parts[:2]) or (len(parts) == 2 and _is_mode(parts[1])):
        raise InvalidParameter(f"invalid volume specification: '{text}'")
    source, destination = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    options = parts[2] if len(parts) == 3 else ""
    if len(parts) == 3 and not _is_mode(options):
        raise InvalidParameter(f"invalid mode: {options}", hint=f"in the volume specification '{text}'")
    words = options.split(",") if options else []
    propagation = next((word for word in words if word in PROPAGATIONS), "")
    try:
        _check_target(destination)
        if source.startswith("/"):
            return Mount(
                type="bind", source=posixpath.normpath(f"/{source.lstrip('/')}"), destination=clean(destination),
                mode=options, is_readonly="ro" in words, propagation=propagation, is_recursive="bind" not in words,
                makes_source=True,
            )  # fmt: skip
        if propagation:
            raise _config_error("volume", "field BindOptions must not be specified")
    except InvalidParameter as error:
        raise InvalidParameter(f"invalid volume specification: '{text}': {error.message}") from error
    if source:
        volumes.check_name(source)
    if driver:
        try:
            volumes.check_driver(source, driver)
        except EngineError as error:
            raise InvalidParameter(error.message, hint=error.hint) from error
    return Mount(
        type="volume", name=source, destination=clean(destination), mode=options, is_readonly="ro" in words,
        is_anonymous=not source, copies_up="nocopy" not in words,
    )  # fmt: skip


def _is_mode(text: str) -> bool:
    """Tell whether every word is a known one and no kind of word comes twice (SELinux labels, which do nothing on a
    host without it, and consistency, which is for Macs, included)."""
    words = text.split(",")
    kinds = [("ro", "rw"), _LABELS, PROPAGATIONS, ("nocopy",), _CONSISTENCIES[:3], ("rbind", "bind")]
    counts = [sum(word in kind for word in words) for kind in kinds]
    return sum(counts) == len(words) and max(counts) < 2


# ---- `--mount`


def mount_of(spec: MountSpec) -> Mount:
    """Turn the long form into a mount; raises InvalidParameter in Docker's words, NotSupported for type image."""
    kind, target = spec.type, spec.target
    if not target:
        raise _config_error(kind, "field Target must not be empty")
    try:
        _check_target(target)
    except InvalidParameter as error:
        raise _config_error(kind, error.message) from error
    match kind:
        case "bind":
            return _bind_of(spec)
        case "volume":
            return _volume_of(spec)
        case "tmpfs":
            return _tmpfs_of(spec)
        case "image":
            raise NotSupported("mounts of type image are not supported")
    raise _config_error(kind, "mount type unknown")


def _bind_of(spec: MountSpec) -> Mount:
    for field, value in (("VolumeOptions", spec.volume_options), ("TmpfsOptions", spec.tmpfs_options)):
        if value is not None:
            raise _config_error("bind", f"field {field} must not be specified")
    if not spec.source:
        raise _config_error("bind", "field Source must not be empty")
    options = spec.bind_options
    propagation = options.propagation if options else ""
    if propagation and propagation not in PROPAGATIONS:
        raise _config_error("bind", f"invalid propagation mode: {propagation}")
    if not spec.source.startswith("/"):
        raise _config_error("bind", f"invalid mount path: '{spec.source}' mount path must be absolute")
    if options and options.read_only_force_recursive and (not spec.read_only or propagation not in ("rprivate", "")):
        raise _config_error("bind", "ReadOnlyForceRecursive needs a read-only mount with propagation rprivate")
    return Mount(
        type="bind", source=posixpath.normpath(f"/{spec.source.lstrip('/')}"), destination=clean(spec.target),
        is_readonly=spec.read_only, propagation=propagation, is_recursive=not (options and options.non_recursive),
        has_recursive_readonly=not (options and options.read_only_non_recursive),
        makes_source=bool(options and options.create_mountpoint),
    )  # fmt: skip


def _volume_of(spec: MountSpec) -> Mount:
    for field, value in (("BindOptions", spec.bind_options), ("TmpfsOptions", spec.tmpfs_options)):
        if value is not None:
            raise _config_error("volume", f"field {field} must not be specified")
    options = spec.volume_options or VolumeOptions()
    if options.subpath:
        if not spec.source:
            raise _config_error("volume", "must not set Subpath when using anonymous volumes")
        if not is_local(options.subpath):
            raise _config_error("volume", "subpath must be a relative path within the volume")
    if spec.read_only and not spec.source:
        raise _config_error("volume", "must not set ReadOnly mode when using anonymous volumes")
    return Mount(
        type="volume", name=spec.source, destination=clean(spec.target), is_readonly=spec.read_only,
        is_anonymous=not spec.source, copies_up=not options.no_copy, subpath=options.subpath,
    )  # fmt: skip


def _tmpfs_of(spec: MountSpec) -> Mount:
    for field, value in (("BindOptions", spec.bind_options), ("VolumeOptions", spec.volume_options)):
        if value is not None:
            raise _config_error("tmpfs", f"field {field} must not be specified")
    if spec.source:
        raise _config_error("tmpfs", "field Source must not be specified")
    words = ["ro"] if spec.read_only else []
    if (options := spec.tmpfs_options) is not None:
        if options.size_bytes < 0:
            raise _config_error("tmpfs", f"invalid size: {options.size_bytes}")
        if options.mode < 0 or options.mode > 0o7777:
            raise _config_error("tmpfs", f"invalid mode: {options.mode:o}")
        if options.mode:
            words.append(f"mode={options.mode:o}")
        if options.size_bytes:
            words.append(f"size={options.size_bytes}")
        words += ["=".join(option) for option in options.options]
    return Mount(
        type="tmpfs", destination=clean(spec.target), is_readonly=spec.read_only, options=",".join(words)
    )  # fmt: skip


# ---- places


def clean(path: str) -> str:
    """Return an absolute path without `.`, `..` and doubled slashes (POSIX lets two leading slashes mean another)."""
    return posixpath.normpath(f"/{path.lstrip('/')}")


def is_local(path: str) -> bool:
    """Tell whether a relative path stays below where it starts (Go's filepath.IsLocal)."""
    return bool(path) and not path.startswith("/") and posixpath.normpath(path).split("/")[0] != ".."


def check_destination(destination: str, source: str) -> None:
    """Refuse what kernel and runtime would refuse once everything is made: paths that are none; a mount over or in
    /proc, in runc's words."""
    for path in (destination, source):
        if "\0" in path:
            raise InvalidParameter(f"invalid mount path: {path!r}: it has a NUL character")
        if len(path.encode(errors="surrogatepass")) >= _LONGEST_PATH:
            raise InvalidParameter(f"invalid mount path: '{path[:60]}…': file name too long")
    if destination == "/proc" and source == "/proc":
        return
    if destination == "/proc" or (destination.startswith("/proc/") and destination not in _PROC_FILES):
        raise InvalidParameter(
            f'"{destination}" cannot be mounted because it is inside /proc', hint="choose a place outside /proc"
        )


def _check_target(path: str) -> None:
    if not path.startswith("/"):
        raise InvalidParameter(f"invalid mount path: '{path}' mount path must be absolute")
    if clean(path) == "/":
        raise InvalidParameter("invalid specification: destination can't be '/'")


def _config_error(kind: str, problem: str) -> InvalidParameter:
    return InvalidParameter(f'invalid mount config for type "{kind}": {problem}')
