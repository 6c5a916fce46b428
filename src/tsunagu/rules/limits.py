"""Which limits make sense, and what they become when some of them are changed. Docker's rules and words; pure.

May import model. A limit that the host cannot enforce is refused by name: Docker discards it with a warning.
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from tsunagu.model.errors import Conflict, InvalidParameter, NotSupported
from tsunagu.model.limits import Limits
from tsunagu.model.process import HostFacts

LEAST_MEMORY = 6 << 20
ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
_RULE = re.compile(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}")
# field -> knob of the kernel, Docker's name of what is missing
_KNOBS = (
    ("memory", "memory", "memory limit capabilities"),
    ("memory_reservation", "reservation", "memory soft limit capabilities"),
    ("memory_swappiness", "swappiness", "memory swappiness capabilities"),
    ("oom_kill_disable", "oom", "OomKillDisable"),
    ("pids_limit", "pids", "PIDs limit capabilities"),
    ("cpu_shares", "shares", "CPU shares"),
    ("nano_cpus", "cfs", "CPU CFS scheduler"),
    ("cpu_period", "cfs", "CPU CFS scheduler"),
    ("cpu_quota", "cfs", "CPU CFS scheduler"),
    ("cpuset_cpus", "cpuset", "cpuset"),
    ("cpuset_mems", "cpuset", "cpuset"),
    ("blkio_weight", "weight", "Block I/O weight"),
    ("blkio_weight_device", "weight_device", "Block I/O weight_device"),
    ("blkio_device_read_bps", "throttle", "BPS Block I/O read limit"),
    ("blkio_device_write_bps", "throttle", "BPS Block I/O write limit"),
    ("blkio_device_read_iops", "throttle", "IOPS Block read limit"),
    ("blkio_device_write_iops", "throttle", "IOPS Block write limit"),
)
_FLAGS = {"nano_cpus": "cpus", "blkio_device_read_bps": "device-read-bps", "blkio_device_write_bps": "device-write-bps"}
_FLAGS |= {"blkio_device_read_iops": "device-read-iops", "blkio_device_write_iops": "device-write-iops"}


def completed(limits: Limits, facts: HostFacts) -> Limits:
    """Return the limits of a new container as they are kept: twice the memory for memory and swap, if none was said."""
    if limits.memory > 0 and "swap" not in facts.knobs:
        limits = replace(limits, memory_swap=-1)
    elif limits.memory > 0 and limits.memory_swap == 0:
        limits = replace(limits, memory_swap=limits.memory * 2)
    if limits.pids_limit is not None and limits.pids_limit <= 0:
        limits = replace(limits, pids_limit=None)
    return replace(limits, oom_kill_disable=limits.oom_kill_disable or None)


def check(limits: Limits, facts: HostFacts, *, is_update: bool = False) -> list[str]:
    """Refuse limits that make no sense or that this host does not have; return warnings. Docker's words."""
    for field, knob, name in _KNOBS:
        if getattr(limits, field) and knob not in facts.knobs:
            flag = _FLAGS.get(field, field.replace("_", "-"))
            raise NotSupported(
                f"Your kernel does not support {name} or the cgroup is not mounted", hint=f"leave out --{flag}"
            )
    warnings = _check_memory(limits, facts, is_update=is_update)
    _check_processors(limits, facts)
    for weight in (limits.blkio_weight, *(one.weight for one in limits.blkio_weight_device)):
        if weight and not 10 <= weight <= 1000:
            raise InvalidParameter("Range of blkio weight is from 10 to 1000")
    for rule in limits.device_cgroup_rules:
        if not _RULE.fullmatch(rule):
            raise InvalidParameter(f"invalid device cgroup rule format: '{rule}'")
    for limit in limits.ulimits:
        if limit.name not in ULIMITS:
            raise InvalidParameter(f"invalid ulimit type: {limit.name}")
        if limit.soft > limit.hard >= 0 or (limit.soft < 0 <= limit.hard):
            raise InvalidParameter(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )
    for device in limits.devices:
        if set(device.cgroup_permissions) - set("rwm"):
            raise InvalidParameter(f"bad mode specified: {device.cgroup_permissions}")
    return warnings


def _check_memory(limits: Limits, facts: HostFacts, *, is_update: bool) -> list[str]:
    memory, swap, reservation = limits.memory, limits.memory_swap, limits.memory_reservation
    warnings = []
    if memory and memory < LEAST_MEMORY:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if memory > 0 and swap != -1 and "swap" not in facts.knobs:
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
    if memory > 0 and 0 < swap < memory:
        raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory == 0 and swap > 0 and not is_update:
        raise InvalidParameter("You should always set the Memory limit when using Memoryswap limit, see usage")
    if limits.memory_swappiness is not None and not 0 <= limits.memory_swappiness <= 100:
        raise InvalidParameter(f"Invalid value: {limits.memory_swappiness}, valid memory swappiness range is 0-100")
    if reservation and reservation < LEAST_MEMORY:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if memory > 0 and reservation > memory:
        raise InvalidParameter("Minimum memory limit can not be less than memory reservation limit, see usage")
    if limits.oom_kill_disable and memory == 0:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    return warnings


def _check_processors(limits: Limits, facts: HostFacts) -> None:
    if limits.nano_cpus > 0 and limits.cpu_period > 0:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set.")
    if limits.nano_cpus > 0 and limits.cpu_quota > 0:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Quota cannot both be set.")
    count = facts.processor_count
    if not 0 <= limits.nano_cpus <= count * 10**9:
        raise InvalidParameter(f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available")
    if limits.cpu_shares < 0:
        raise InvalidParameter(f"invalid CPU shares ({limits.cpu_shares}): value must be a positive integer")
    if limits.cpu_period and not 1000 <= limits.cpu_period <= 1_000_000:
        raise InvalidParameter("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < limits.cpu_quota < 1000:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for text, noun, title, available in (
        (limits.cpuset_cpus, "cpuset cpus", "CPUs", facts.processors),
        (limits.cpuset_mems, "cpuset mems", "memory nodes", facts.memory_nodes),
    ):
        wanted = _numbers(text)
        if wanted is None:
            raise InvalidParameter(f"Invalid value {text} for {noun}")
        if wanted - (_numbers(available) or set()):
            raise InvalidParameter(f"Requested {title} are not available - requested {text}, available: {available}")


def _numbers(text: str) -> set[int] | None:
    """Return the numbers of a list as cpuset(7) writes it; None when it is malformed."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(end.isascii() and end.isdigit() and len(end) < 5 for end in ends) or int(ends[0]) > int(ends[1]):
            return None
        found |= set(range(int(ends[0]), int(ends[1]) + 1))
    return found


def updated(old: Limits, wanted: Limits) -> Limits:
    """Return `old` with everything that `wanted` asks for. Raises Conflict in Docker's words."""
    for field, other, sentence in (
        ("nano_cpus", "cpu_period", "Nano CPUs cannot be updated as CPU Period has already been set"),
        ("nano_cpus", "cpu_quota", "Nano CPUs cannot be updated as CPU Quota has already been set"),
        ("cpu_period", "nano_cpus", "CPU Period cannot be updated as NanoCPUs has already been set"),
        ("cpu_quota", "nano_cpus", "CPU Quota cannot be updated as NanoCPUs has already been set"),
    ):
        if getattr(wanted, field) > 0 and getattr(old, other) > 0:
            raise Conflict(f"Conflicting options: {sentence}")
    if wanted.memory and wanted.memory > old.memory_swap and wanted.memory_swap == 0:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    empty = Limits()
    changes = {
        name: getattr(wanted, name)
        for name in Limits.__struct_fields__
        if getattr(wanted, name) != getattr(empty, name)
    }
    return replace(old, **changes)
