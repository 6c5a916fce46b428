"""Decoding of what a create request mounts (`HostConfig.Mounts`, `Volumes`) and of `POST /volumes/create`.

May import model values and errors, and `api.schema`.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec.structs import replace

from tsunagu.model.errors import InvalidParameter, NotSupported
from tsunagu.model.volume import BindOptions, MountSpec, TmpfsOptions, VolumeDriver, VolumeOptions

from .schema import Object, convert, decode, is_empty, object_of

T = TypeVar("T")
_CONSISTENCIES = ("", "default", "consistent", "cached", "delegated")


class VolumeCreate(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """`POST /volumes/create`."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] = {}
    labels: dict[str, str] = {}


def volume_create(body: Object) -> VolumeCreate:
    """Decode `POST /volumes/create`."""
    return decode(body, VolumeCreate)


class _Mount(msgspec.Struct, rename="pascal"):
    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: Object | None = None
    volume_options: Object | None = None
    tmpfs_options: Object | None = None
    image_options: Object | None = None


def mounts_of(mounts: object, where: str) -> tuple[MountSpec, ...]:
    """Decode `Mounts`; whether they make sense is decided in `rules.mounts`."""
    specs = []
    for index, body in enumerate(convert(mounts, list[Object], f"{where}Mounts")):
        place = f"{where}Mounts[{index}]."
        mount = decode(body, _Mount, where=place)
        if mount.consistency not in _CONSISTENCIES:
            raise InvalidParameter(f"invalid mount consistency: {mount.consistency}")
        if mount.image_options is not None and not is_empty(mount.image_options):
            raise NotSupported(f"{place}ImageOptions is not supported")
        specs.append(
            MountSpec(
                type=mount.type,
                source=mount.source,
                target=mount.target,
                read_only=mount.read_only,
                consistency=mount.consistency,
                bind_options=_options(mount.bind_options, BindOptions, f"{place}BindOptions."),
                volume_options=_volume_options(mount.volume_options, f"{place}VolumeOptions."),
                tmpfs_options=_options(mount.tmpfs_options, TmpfsOptions, f"{place}TmpfsOptions."),
            )
        )
    return tuple(specs)


def _options(body: Object | None, kind: type[T], where: str) -> T | None:
    return None if body is None else decode(body, kind, where=where)


def _volume_options(body: Object | None, where: str) -> VolumeOptions | None:
    if body is None:
        return None
    rest = {key: value for key, value in body.items() if key != "DriverConfig"}
    options = decode(rest, VolumeOptions, where=where)
    driver = object_of(body, "DriverConfig", where)
    if not driver:
        return options
    return replace(options, driver_config=decode(driver, VolumeDriver, where=f"{where}DriverConfig."))


def check_volumes(volumes: Object | None) -> None:
    """Refuse places of `Volumes` that can be none; an image may name its own as it likes."""
    for path in volumes or {}:
        if ":" in path:
            raise InvalidParameter(
                f"invalid volume specification: '{path}'", hint="a volume's name has two characters or more"
            )
        if not path.startswith("/"):
            raise InvalidParameter(
                f"invalid volume specification: '{path}': invalid mount path: '{path}' mount path must be absolute"
            )
        if not path.strip("/."):
            raise InvalidParameter(
                f"invalid volume specification: '{path}': invalid specification: destination can't be '/'"
            )


def bind_mount_sources(body: Object) -> list[str]:
    """Return the sources of `--mount type=bind`: they must exist, unlike those of `-v` (Docker's rule)."""
    mounts = object_of(body, "HostConfig").get("Mounts") or []
    return [
        str(m.get("Source"))
        for m in mounts
        if isinstance(m, dict)
        and m.get("Type") == "bind"
        and str(m.get("Source") or "").startswith("/")
        and not (m.get("BindOptions") or {}).get("CreateMountpoint")
    ]
