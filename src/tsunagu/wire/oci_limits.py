"""Limits and devices in the runtime's words: `linux.resources`, `linux.devices` and `process.rlimits`. Pure.

May import model. Devices come in as values: whoever calls has looked at the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tsunagu.model.limits import DeviceRate, Limits, Ulimit
from tsunagu.model.process import Device

UNLIMITED = (1 << 64) - 1
PERIOD = 100_000  # microseconds; what --cpus is counted in

Json = dict[str, Any]


def resources(limits: Limits, numbers: Mapping[str, tuple[int, int]]) -> Json:
    """Return `linux.resources` without devices; only what is asked for. `numbers` are (major, minor) of block devices
    by path."""
    found: Json = {
        "memory": _memory(limits),
        "cpu": _cpu(limits),
        "pids": {} if limits.pids_limit is None else {"limit": limits.pids_limit},
        "blockIO": _block(limits, numbers),
    }
    return {name: value for name, value in found.items() if value}


def _memory(limits: Limits) -> Json:
    found: Json = {}
    if limits.memory > 0:
        found["limit"] = limits.memory
    if limits.memory_reservation > 0:
        found["reservation"] = limits.memory_reservation
    if limits.memory_swap > 0:
        found["swap"] = limits.memory_swap
    if limits.memory_swappiness is not None:
        found["swappiness"] = limits.memory_swappiness
    if limits.oom_kill_disable:
        found["disableOOMKiller"] = True
    return found


def _cpu(limits: Limits) -> Json:
    found: Json = {}
    if limits.cpu_shares:
        found["shares"] = limits.cpu_shares
    if limits.nano_cpus:
        found |= {"period": PERIOD, "quota": limits.nano_cpus * PERIOD // 10**9}
    if limits.cpu_period:
        found["period"] = limits.cpu_period
    if limits.cpu_quota:
        found["quota"] = limits.cpu_quota
    if limits.cpuset_cpus:
        found["cpus"] = limits.cpuset_cpus
    if limits.cpuset_mems:
        found["mems"] = limits.cpuset_mems
    return found


def _block(limits: Limits, numbers: Mapping[str, tuple[int, int]]) -> Json:
    found: Json = {}
    if limits.blkio_weight:
        found["weight"] = limits.blkio_weight
    if limits.blkio_weight_device:
        found["weightDevice"] = [
            {"major": numbers[one.path][0], "minor": numbers[one.path][1], "weight": one.weight}
            for one in limits.blkio_weight_device
        ]
    for name, rates in (
        ("throttleReadBpsDevice", limits.blkio_device_read_bps),
        ("throttleWriteBpsDevice", limits.blkio_device_write_bps),
        ("throttleReadIOPSDevice", limits.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", limits.blkio_device_write_iops),
    ):
        if rates:
            found[name] = [_throttle(one, numbers) for one in rates]
    return found


def _throttle(rate: DeviceRate, numbers: Mapping[str, tuple[int, int]]) -> Json:
    major, minor = numbers[rate.path]
    return {"major": major, "minor": minor, "rate": rate.rate}


def block_paths(limits: Limits) -> list[str]:
    """Return the paths of the block devices that limits name."""
    rates = (
        *limits.blkio_device_read_bps, *limits.blkio_device_write_bps, *limits.blkio_device_read_iops,
        *limits.blkio_device_write_iops,
    )  # fmt: skip
    return [one.path for one in limits.blkio_weight_device] + [one.path for one in rates]


def device_node(device: Device, path: str = "") -> Json:
    """Return an entry of `linux.devices`; `path` is where it appears inside, by default where it is on the host."""
    return {
        "path": path or device.path,
        "type": device.kind,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    }


def device_access(device: Device, permissions: str) -> Json:
    """Return the rule of `linux.resources.devices` that allows a device."""
    access = permissions or "rwm"
    return {"allow": True, "type": device.kind, "major": device.major, "minor": device.minor, "access": access}


def device_rules(rules: Sequence[str]) -> list[Json]:
    """Return the rules of `--device-cgroup-rule`; each was checked before."""
    found: list[Json] = []
    for rule in rules:
        kind, numbers, access = rule.split(" ")
        entry: Json = {"allow": True, "type": kind, "access": access}
        for name, text in zip(("major", "minor"), numbers.split(":"), strict=True):
            if text != "*":
                entry[name] = int(text)
        found.append(entry)
    return found


def rlimits(ulimits: Sequence[Ulimit], descriptor_limits: tuple[int, int]) -> list[Json]:
    """Return `process.rlimits`: the user's, and the descriptors that the engine was started with."""
    found: dict[str, tuple[int, int]] = {"nofile": descriptor_limits}
    found |= {one.name: (one.soft, one.hard) for one in ulimits}
    return [
        {"type": f"RLIMIT_{name.upper()}", "soft": _value(soft), "hard": _value(hard)}
        for name, (soft, hard) in found.items()
    ]


def _value(number: int) -> int:
    return UNLIMITED if number < 0 else number
