"""Which limits this host has, and its devices by path. Reads only; may import model and `kernel.cgroups`.

Each controller is looked for where it is mounted: a host with both cgroup versions has some here and some there, and
the runtime uses version 1 on it.
"""

from __future__ import annotations

import os
import stat

from tsunagu.model.errors import InvalidParameter
from tsunagu.model.process import Device

from . import cgroups

# knob -> version 1's hierarchy and a file that tells (weights themselves are missing in the root)
_V1 = {
    "memory": ("memory", ("memory.limit_in_bytes",)),
    "swap": ("memory", ("memory.memsw.limit_in_bytes",)),
    "reservation": ("memory", ("memory.soft_limit_in_bytes",)),
    "swappiness": ("memory", ("memory.swappiness",)),
    "oom": ("memory", ("memory.oom_control",)),
    "shares": ("cpu", ("cpu.shares",)),
    "cfs": ("cpu", ("cpu.cfs_quota_us",)),
    "cpuset": ("cpuset", ("cpuset.cpus",)),
    "pids": ("pids", ("cgroup.procs",)),
    "weight": ("blkio", ("blkio.weight", "blkio.bfq.io_service_bytes")),
    "weight_device": ("blkio", ("blkio.weight_device", "blkio.bfq.io_service_bytes")),
    "throttle": ("blkio", ("blkio.throttle.read_bps_device",)),
}
# version 2's controller of a knob; swappiness and the switch of the OOM killer are gone
_V2 = {
    "memory": "memory", "swap": "memory", "reservation": "memory", "shares": "cpu", "cfs": "cpu", "cpuset": "cpuset",
    "pids": "pids", "weight": "io", "throttle": "io",
}  # fmt: skip


def knobs() -> frozenset[str]:
    """Return the limits that a container can have here, by the names of `model.process.KNOBS`."""
    if cgroups.is_v2():
        controllers = _read(f"{cgroups.ROOT}/cgroup.controllers").split()
        found = {knob for knob, controller in _V2.items() if controller in controllers}
        if not _has_swap():
            found.discard("swap")
        return frozenset(found)
    return frozenset(
        knob
        for knob, (hierarchy, files) in _V1.items()
        if any(os.path.exists(f"{cgroups.ROOT}/{hierarchy}/{name}") for name in files)
    )


def _has_swap() -> bool:
    """Version 2's root has no limits, so another cgroup is asked; a host without any is taken to be complete."""
    children = [entry.path for entry in os.scandir(cgroups.ROOT) if entry.is_dir(follow_symlinks=False)]
    limited = [path for path in children if os.path.exists(f"{path}/memory.max")]
    return not limited or any(os.path.exists(f"{path}/memory.swap.max") for path in limited)


def processors() -> str:
    """Return the processors that a container may use, as cpuset(7) lists them."""
    return _read_first("cpuset/cpuset.effective_cpus", "cpuset/cpuset.cpus", "cpuset.cpus.effective") or _online("cpu")


def memory_nodes() -> str:
    """Return the memory nodes that a container may use."""
    return _read_first("cpuset/cpuset.effective_mems", "cpuset/cpuset.mems", "cpuset.mems.effective") or _online("node")


def _online(what: str) -> str:
    return _read(f"/sys/devices/system/{what}/online") or "0"


def _read_first(*paths: str) -> str:
    return next((text for path in paths if (text := _read(f"{cgroups.ROOT}/{path}"))), "")


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def find_devices(path: str, inside: str) -> list[tuple[Device, str]]:
    """Return (device, path inside the container) for a device, or for every device of a directory, links followed.

    Raises InvalidParameter in Docker's words.
    """
    real = os.path.realpath(path)
    try:
        if os.path.isdir(real):
            found = []
            for parent, _, files in os.walk(real):
                for name in sorted(files):
                    node = _device(f"{parent}/{name}")
                    if node is not None:
                        found.append((node, f"{inside}{parent[len(real) :]}/{name}"))
            if found:
                return found
        device = _device(real)
    except OSError as error:
        raise _no_device(path, (error.strerror or "").lower()) from error
    if device is None:
        raise _no_device(path, "not a device node")
    return [(device, inside)]


def block_numbers(path: str) -> tuple[int, int]:
    """Return (major, minor) of a block device. Raises InvalidParameter."""
    try:
        device = _device(path)
    except OSError as error:
        raise InvalidParameter(f"stat {path}: {(error.strerror or '').lower()}") from error
    if device is None or device.kind != "b":
        raise InvalidParameter(f"{path} is not a block device")
    return device.major, device.minor


def _device(path: str) -> Device | None:
    info = os.stat(path)
    kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
    if not kind:
        return None
    return Device(
        path=path,
        kind=kind,
        major=os.major(info.st_rdev),
        minor=os.minor(info.st_rdev),
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
    )


def _no_device(path: str, why: str) -> InvalidParameter:
    return InvalidParameter(f'error gathering device information while adding custom device "{path}": {why}')
