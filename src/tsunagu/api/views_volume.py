"""Docker's JSON of volumes and of what containers mount. Pure."""

from __future__ import annotations

import time

from tsunagu.model.instance import Instance
from tsunagu.model.volume import DRIVER, Mount, Volume

from .views import Json, by_key


def volume_json(volume: Volume, instance: Instance) -> Json:
    """Render a volume; the time has whole seconds, as Docker's."""
    return {
        "CreatedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(volume.created // 1_000_000_000)),
        "Driver": DRIVER,
        "Labels": by_key(volume.labels) or None,
        "Mountpoint": instance.volume_path(volume.name),
        "Name": volume.name,
        "Options": by_key(volume.options) or None,
        "Scope": "local",
    }


def mount_json(mount: Mount, instance: Instance) -> Json:
    """Render one element of a container's Mounts."""
    out: Json = {"Type": mount.type}
    if mount.name:
        out["Name"] = mount.name
    out["Source"] = instance.volume_path(mount.name) if mount.name else mount.source
    out["Destination"] = mount.destination
    if mount.name:
        out["Driver"] = DRIVER
    return out | {
        "Mode": mount.mode,
        "RW": not mount.is_readonly,
        "Propagation": (mount.propagation or "rprivate") if mount.type == "bind" else "",
    }
