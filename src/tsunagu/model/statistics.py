"""What a container uses, read at one moment. Sizes are bytes, times nanoseconds unless a name says otherwise."""

from __future__ import annotations

import msgspec


class Device(msgspec.Struct, frozen=True):
    """One counter of one block device. `op` is the kernel's word: read, write, …"""

    major: int
    minor: int
    op: str
    value: int


class Link(msgspec.Struct, frozen=True):
    """The counters of one interface, seen from inside the sandbox."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class Cpu(msgspec.Struct, frozen=True):
    """Processor time since the container's start; `system` is that of the whole host, idle time included."""

    total: int = 0
    kernel: int = 0
    user: int = 0
    per_cpu: tuple[int, ...] = ()  # cgroup v1 only
    system: int = 0
    online: int = 0
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


class Memory(msgspec.Struct, frozen=True):
    """`details` are the lines of memory.stat. `most` and `failures` exist with cgroup v1 only."""

    usage: int = 0
    limit: int = 0
    most: int | None = None
    failures: int | None = None
    details: dict[str, int] = {}


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Everything, read at `time` (nanoseconds since the epoch, UTC). `pids_limit` is None where there is none."""

    time: int
    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    pids: int = 0
    pids_limit: int | None = None
    transferred: tuple[Device, ...] = ()  # bytes
    operations: tuple[Device, ...] | None = None  # cgroup v1 only
    links: dict[str, Link] | None = None  # None: the container has no network of its own
    is_v2: bool = False
