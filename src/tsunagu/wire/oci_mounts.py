"""What a container mounts as OCI mounts; the words of `--tmpfs`. Pure; may import model."""

from __future__ import annotations

import posixpath
from typing import Any

from tsunagu.model.errors import InvalidParameter
from tsunagu.model.volume import Mount

_PROPAGATIONS = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
_TMPFS_FLAGS = {
    "async", "atime", "defaults", "dev", "diratime", "dirsync", "exec", "iversion", "lazytime", "mand", "noatime",
    "nodev", "nodiratime", "noexec", "noiversion", "nolazytime", "nomand", "norelatime", "nostrictatime", "nosuid",
    "relatime", "ro", "rw", "strictatime", "suid", "sync", *_PROPAGATIONS, "unbindable", "runbindable",
}  # fmt: skip
_TMPFS_VALUES = {"gid", "mode", "mpol", "nr_blocks", "nr_inodes", "size", "uid"}
_OPPOSITE = {"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "async": "sync", "atime": "noatime"}
_OPPOSITE |= {value: key for key, value in _OPPOSITE.items()}


def bind_mount(mount: Mount, source: str, *, has_recursive_readonly: bool) -> dict[str, Any]:
    """Return the OCI mount of a bind or a volume, whose data lies at `source` on the host.

    Docker makes what is mounted below a bind read-only too, where the kernel can (5.12) and unless told otherwise.
    """
    options = ["rbind" if mount.is_recursive else "bind", mount.propagation or "rprivate"]
    if mount.is_readonly:
        is_recursive = has_recursive_readonly and mount.is_recursive and mount.has_recursive_readonly
        options.append("rro" if is_recursive else "ro")
    return {"destination": mount.destination, "type": "bind", "source": source, "options": options}


def tmpfs_mount(destination: str, options: str) -> dict[str, Any]:
    """Return the OCI mount of `--tmpfs destination[:options]`; later options win over earlier and over the defaults."""
    if not destination.startswith("/"):
        raise InvalidParameter(f"invalid mount path: '{destination}' mount path must be absolute")
    path = posixpath.normpath(destination)
    if path in ("/", "//"):
        raise InvalidParameter("invalid specification: destination can't be '/'")
    chosen: dict[str, str] = {}
    for option in ["noexec", "nosuid", "nodev", *(options.split(",") if options else ())]:
        key, equals, value = option.partition("=")
        if equals:
            if key not in _TMPFS_VALUES or not _is_tmpfs_value(key, value):
                raise InvalidParameter(f'invalid tmpfs option ["{key if key not in _TMPFS_VALUES else option}"]')
        elif option not in _TMPFS_FLAGS:
            raise InvalidParameter(f'invalid tmpfs option ["{option}"]')
        chosen.pop(key, None)
        chosen.pop(_OPPOSITE.get(key, ""), None)
        if option != "defaults":
            chosen[key] = option
    return {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": list(chosen.values())}


def _is_tmpfs_value(key: str, value: str) -> bool:
    """Tell whether tmpfs(5) takes a value: sizes with a unit or percent, modes in octal; others the kernel judges."""
    if key == "mode":
        return 0 < len(value) <= 5 and all(c in "01234567" for c in value)
    if key in ("size", "nr_blocks", "nr_inodes"):
        digits = value[:-1] if value[-1:] in set("kKmMgGtT%") else value
        return digits.isascii() and digits.isdigit() and len(digits) < 16
    if key in ("uid", "gid"):
        return value.isascii() and value.isdigit() and len(value) < 11
    return bool(value)
