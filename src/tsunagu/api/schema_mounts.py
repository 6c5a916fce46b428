"""Decoding of what a create request mounts: `HostConfig.Mounts`, the long form of `--mount`.

May import model errors and `api.schema`.
"""

from __future__ import annotations

import msgspec

from tsunagu.model.errors import InvalidParameter, NotSupported

from .schema import Object, convert, decode, object_of


class _BindOptions(msgspec.Struct, rename="pascal"):
    propagation: str = ""
    create_mountpoint: bool = False


class _TmpfsOptions(msgspec.Struct, rename="pascal"):
    size_bytes: int = 0
    mode: int = 0


class _Mount(msgspec.Struct, rename="pascal"):
    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: Object = {}
    tmpfs_options: Object = {}


def mounts_of(mounts: object, where: str) -> tuple[list[str], dict[str, str]]:
    """Turn `--mount` of type bind and tmpfs into the older forms; others are refused by name."""
    binds: list[str] = []
    tmpfs: dict[str, str] = {}
    for index, body in enumerate(convert(mounts, list[Object], f"{where}Mounts")):
        place = f"{where}Mounts[{index}]."
        mount = decode(body, _Mount, where=place)
        if mount.type not in ("bind", "tmpfs"):
            raise NotSupported(
                f"{place}Type {mount.type or 'volume'} is not supported yet", hint="supported: bind, tmpfs"
            )
        _check_absolute(mount.type, mount.target)
        options = ["ro"] if mount.read_only else []
        if mount.type == "bind":
            _check_absolute(mount.type, mount.source)
            if ":" in mount.source or ":" in mount.target:
                raise NotSupported(f"{place}Source and Target with a colon are not supported")
            bind = decode(mount.bind_options, _BindOptions, where=f"{place}BindOptions.")
            if bind.propagation:
                options.append(bind.propagation)
            binds.append(":".join([mount.source, mount.target, *([",".join(options)] if options else [])]))
        else:
            memory = decode(mount.tmpfs_options, _TmpfsOptions, where=f"{place}TmpfsOptions.")
            if memory.size_bytes:
                options.append(f"size={memory.size_bytes}")
            if memory.mode:
                options.append(f"mode={memory.mode:o}")
            tmpfs[mount.target] = ",".join(options)
    return binds, tmpfs


def _check_absolute(kind: str, path: str) -> None:
    if not path.startswith("/"):
        raise InvalidParameter(
            f"invalid mount config for type \"{kind}\": invalid mount path: '{path}' mount path must be absolute"
        )


def bind_mount_sources(body: Object) -> list[str]:
    """Return the sources of `--mount type=bind`: they must exist, unlike those of `-v` (Docker's rule)."""
    mounts = object_of(body, "HostConfig").get("Mounts") or []
    return [
        str(m.get("Source"))
        for m in mounts
        if isinstance(m, dict) and m.get("Type") == "bind" and not (m.get("BindOptions") or {}).get("CreateMountpoint")
    ]
