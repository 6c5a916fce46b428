"""What a container may use of the host's resources and devices, as Docker names it (the Resources of HostConfig)."""

from __future__ import annotations

import msgspec


class Ulimit(msgspec.Struct, frozen=True, rename="pascal"):
    """A limit of setrlimit(2) by its short name (`nofile`); -1 is unlimited."""

    name: str = ""
    hard: int = 0
    soft: int = 0


class DeviceMapping(msgspec.Struct, frozen=True, rename="pascal"):
    """A device of the host, or a directory of devices, and what may be done with it (r, w, m for mknod)."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceWeight(msgspec.Struct, frozen=True, rename="pascal"):
    path: str = ""
    weight: int = 0


class DeviceRate(msgspec.Struct, frozen=True, rename="pascal"):
    """Bytes or operations per second."""

    path: str = ""
    rate: int = 0


class Limits(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """0, "" and None ask for nothing. Memory is in bytes, CPU periods and quotas in microseconds; -1 is unlimited."""

    memory: int = 0
    memory_swap: int = 0  # memory and swap together
    memory_reservation: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    nano_cpus: int = 0  # thousand millions of a processor
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    blkio_weight: int = 0
    blkio_weight_device: tuple[DeviceWeight, ...] = ()
    blkio_device_read_bps: tuple[DeviceRate, ...] = ()
    blkio_device_write_bps: tuple[DeviceRate, ...] = ()
    blkio_device_read_iops: tuple[DeviceRate, ...] = msgspec.field(name="BlkioDeviceReadIOps", default=())
    blkio_device_write_iops: tuple[DeviceRate, ...] = msgspec.field(name="BlkioDeviceWriteIOps", default=())
    devices: tuple[DeviceMapping, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
