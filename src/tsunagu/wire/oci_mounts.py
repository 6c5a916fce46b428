"""The words of `-v` and `--tmpfs`: text to checked values, values to OCI mounts. Pure; may import model.errors."""

from __future__ import annotations

import posixpath
from typing import Any

import msgspec

from tsunagu.model.errors import InvalidParameter, NotSupported

_PROPAGATIONS = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
_LABELS = {"z", "Z"}
_TMPFS_FLAGS = {
    "async", "atime", "defaults", "dev", "diratime", "dirsync", "exec", "iversion", "lazytime", "mand", "noatime",
    "nodev", "nodiratime", "noexec", "noiversion", "nolazytime", "nomand", "norelatime", "nostrictatime", "nosuid",
    "relatime", "ro", "rw", "strictatime", "suid", "sync", *_PROPAGATIONS, "unbindable", "runbindable",
}  # fmt: skip
_TMPFS_VALUES = {"gid", "mode", "mpol", "nr_blocks", "nr_inodes", "size", "uid"}
_OPPOSITE = {"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "async": "sync", "atime": "noatime"}
_OPPOSITE |= {value: key for key, value in _OPPOSITE.items()}


class Bind(msgspec.Struct, frozen=True, kw_only=True):
    """A host path mounted at a container path. `propagation` is "" for the default (rprivate)."""

    source: str
    destination: str
    is_readonly: bool = False
    propagation: str = ""
    is_recursive: bool = True


def parse_bind(text: str) -> Bind:
    """Parse `host:container[:options]`; raises InvalidParameter in Docker's words, NotSupported for a named volume."""
    parts = text.split(":")
    if not 2 <= len(parts) <= 3 or not parts[0] or not parts[1]:
        raise InvalidParameter(f"invalid volume specification: '{text}'")
    source, destination = parts[0], parts[1]
    if not source.startswith("/"):
        raise NotSupported(f"named volumes are not supported: '{source}'", hint="give a host path that starts with /")
    if not destination.startswith("/"):
        raise InvalidParameter(
            f"invalid volume specification: '{text}': invalid mount path: '{destination}' mount path must be absolute"
        )
    if posixpath.normpath(destination) in ("/", "//"):
        raise InvalidParameter(
            f"invalid volume specification: '{text}': invalid specification: destination can't be '/'"
        )
    return _with_options(text, source, destination, parts[2] if len(parts) == 3 else "")


def _with_options(text: str, source: str, destination: str, options: str) -> Bind:
    is_readonly, propagation, is_recursive = False, "", True
    seen_modes = 0
    for option in options.split(",") if options else ():
        if option in ("ro", "rw"):
            is_readonly = option == "ro"
            seen_modes += 1
        elif option in _PROPAGATIONS and not propagation:
            propagation = option
        elif option == "rbind":
            is_recursive = True
        elif option == "bind":
            is_recursive = False
        # SELinux labels do nothing on a host without it; copying into a bind never happens; consistency is for Macs.
        elif option not in _LABELS and option not in ("nocopy", "consistent", "cached", "delegated"):
            raise InvalidParameter(f"invalid mode: {options}", hint=f"in the volume specification '{text}'")
    if seen_modes > 1:
        raise InvalidParameter(f"invalid mode: {options}", hint=f"in the volume specification '{text}'")
    return Bind(
        source=posixpath.normpath(source),
        destination=posixpath.normpath(destination),
        is_readonly=is_readonly,
        propagation=propagation,
        is_recursive=is_recursive,
    )


def bind_mount(bind: Bind, *, has_recursive_readonly: bool) -> dict[str, Any]:
    """Return the OCI mount of a bind. Docker makes what is mounted below read-only too, where the kernel can (5.12)."""
    options = ["rbind" if bind.is_recursive else "bind", bind.propagation or "rprivate"]
    if bind.is_readonly:
        options.append("rro" if has_recursive_readonly and bind.is_recursive else "ro")
    return {"destination": bind.destination, "type": "bind", "source": bind.source, "options": options}


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
