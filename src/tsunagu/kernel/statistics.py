"""Reads what a container uses from its cgroups (v1, v2 and hybrid hosts), /proc/stat and /proc/<pid>/net/dev.

Files and their fields: kernel Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst, proc(5). A file that is not there
counts as zero: hosts have different controllers. May import model; reads only, and blocks (memory.stat may wait for
other processors): call it in a thread.
"""

from __future__ import annotations

import os
import time

from tsunagu.model.statistics import Cpu, Device, Link, Memory, Sample

from . import cgroups, processes

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # nanoseconds of one clock tick
_CPU_FIELDS = 7  # user nice system idle iowait irq softirq: what Docker adds up


def read(name: str, pid: int, *, has_network: bool, root: str = cgroups.ROOT, proc: str = "/proc") -> Sample:
    """Return a sample of cgroup `name`; `pid` is a process in the container's network namespace."""
    is_v2 = os.path.exists(f"{root}/cgroup.controllers")
    system, online = _host_time(proc)
    now = time.time_ns()
    links = _links(proc, pid) if has_network else None
    if is_v2:
        return _read_v2(f"{root}/{name}", now, system, online, links)
    return _read_v1(root, name, now, system, online, links)


def _read_v2(group: str, now: int, system: int, online: int, links: dict[str, Link] | None) -> Sample:
    cpu = _pairs(f"{group}/cpu.stat")
    limit = _text(f"{group}/memory.max")
    pids_limit = _text(f"{group}/pids.max")
    total = processes.memory_total()
    return Sample(
        time=now,
        cpu=Cpu(
            total=cpu.get("usage_usec", 0) * 1000,
            kernel=cpu.get("system_usec", 0) * 1000,
            user=cpu.get("user_usec", 0) * 1000,
            system=system,
            online=online,
            periods=cpu.get("nr_periods", 0),
            throttled_periods=cpu.get("nr_throttled", 0),
            throttled_time=cpu.get("throttled_usec", 0) * 1000,
        ),
        memory=Memory(
            usage=_number(f"{group}/memory.current"),
            limit=min(int(limit), total) if limit.isdigit() else total,
            details=_pairs(f"{group}/memory.stat"),
        ),
        pids=_number(f"{group}/pids.current"),
        pids_limit=int(pids_limit) if pids_limit.isdigit() else None,
        transferred=_io_stat(f"{group}/io.stat"),
        links=links,
        is_v2=True,
    )


def _io_stat(path: str) -> tuple[Device, ...]:
    """`8:0 rbytes=1 wbytes=2 rios=3 …`"""
    found: list[Device] = []
    for line in _text(path).splitlines():
        words = line.split()
        major, _, minor = words[0].partition(":")
        values = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        for op, key in (("read", "rbytes"), ("write", "wbytes")):
            if key in values:
                found.append(Device(int(major), int(minor), op, int(values[key])))
    return tuple(found)


def _read_v1(root: str, name: str, now: int, system: int, online: int, links: dict[str, Link] | None) -> Sample:
    accounts, memory, pids = f"{root}/cpuacct/{name}", f"{root}/memory/{name}", f"{root}/pids/{name}"
    split = _pairs(f"{accounts}/cpuacct.stat")
    throttling = _pairs(f"{root}/cpu/{name}/cpu.stat")
    limit, total = _number(f"{memory}/memory.limit_in_bytes"), processes.memory_total()
    pids_limit = _text(f"{pids}/pids.max")
    return Sample(
        time=now,
        cpu=Cpu(
            total=_number(f"{accounts}/cpuacct.usage"),
            kernel=split.get("system", 0) * _TICK,
            user=split.get("user", 0) * _TICK,
            per_cpu=tuple(int(word) for word in _text(f"{accounts}/cpuacct.usage_percpu").split()),
            system=system,
            online=online,
            periods=throttling.get("nr_periods", 0),
            throttled_periods=throttling.get("nr_throttled", 0),
            throttled_time=throttling.get("throttled_time", 0),
        ),
        memory=Memory(
            usage=_number(f"{memory}/memory.usage_in_bytes"),
            limit=min(limit, total) if limit else total,
            most=_number(f"{memory}/memory.max_usage_in_bytes"),
            failures=_number(f"{memory}/memory.failcnt"),
            details=_pairs(f"{memory}/memory.stat"),
        ),
        pids=_number(f"{pids}/pids.current"),
        pids_limit=int(pids_limit) if pids_limit.isdigit() else None,
        transferred=_throttle(f"{root}/blkio/{name}/blkio.throttle.io_service_bytes_recursive"),
        operations=_throttle(f"{root}/blkio/{name}/blkio.throttle.io_serviced_recursive"),
        links=links,
    )


def _throttle(path: str) -> tuple[Device, ...]:
    """`8:0 Read 123`, and a total of everything at the end."""
    found: list[Device] = []
    for line in _text(path).splitlines():
        words = line.split()
        if len(words) == 3:
            major, _, minor = words[0].partition(":")
            found.append(Device(int(major), int(minor), words[1].lower(), int(words[2])))
    return tuple(found)


def _host_time(proc: str) -> tuple[int, int]:
    """Processor time of the whole host in nanoseconds, and the number of processors that are on."""
    system = online = 0
    for line in _text(f"{proc}/stat").splitlines():
        if line.startswith("cpu "):
            system = sum(int(word) for word in line.split()[1 : 1 + _CPU_FIELDS]) * _TICK
        elif line.startswith("cpu"):
            online += 1
    return system, online


def _links(proc: str, pid: int) -> dict[str, Link]:
    """Counters of every interface but loopback."""
    found: dict[str, Link] = {}
    for line in _text(f"{proc}/{pid}/net/dev").splitlines()[2:]:
        name, _, rest = line.partition(":")
        values = [int(word) for word in rest.split()]
        if name.strip() != "lo" and len(values) >= 12:
            found[name.strip()] = Link(*values[0:4], *values[8:12])
    return found


def _pairs(path: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            found[key] = int(value)
    return found


def _number(path: str) -> int:
    text = _text(path)
    return int(text) if text.isdigit() else 0


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
