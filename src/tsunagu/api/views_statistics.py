"""Docker's JSON of `stats`. Clients work percentages out of the differences of `cpu_stats` and `precpu_stats`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tsunagu.model.container import Container
from tsunagu.model.statistics import Cpu, Device, Memory, Sample

from .views import ZERO_TIME, Json, rfc3339

_NO_LIMIT = 2**64 - 1  # Docker's word for "max" with cgroup v2
_BLOCK_KEYS = (
    "io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive",
    "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive",
)  # fmt: skip


def stats_json(container: Container, before: Sample | None, sample: Sample | None) -> Json:
    """Render a sample; `before` is the one a second earlier. Without a sample everything is zero: it does not run."""
    out: Json = {
        "name": f"/{container.name}",
        "id": container.id,
        "read": rfc3339(sample.time) if sample else ZERO_TIME,
        "preread": rfc3339(before.time) if before else ZERO_TIME,
        "pids_stats": _pids(sample) if sample else {},
        "blkio_stats": _blocks(sample),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(sample.cpu if sample else Cpu()),
        "precpu_stats": _cpu(before.cpu if before else Cpu()),
        "memory_stats": _memory(sample.memory) if sample else {},
    }
    if sample is not None and sample.links:
        out["networks"] = {name: msgspec.structs.asdict(link) for name, link in sorted(sample.links.items())}
    return out


def _pids(sample: Sample) -> Json:
    out: Json = {"current": sample.pids}
    limit = sample.pids_limit
    if limit is None and sample.is_v2:
        limit = _NO_LIMIT
    return out if limit is None else out | {"limit": limit}


def _cpu(cpu: Cpu) -> Json:
    usage: Json = {"total_usage": cpu.total}
    if cpu.per_cpu:
        usage["percpu_usage"] = list(cpu.per_cpu)
    usage |= {"usage_in_kernelmode": cpu.kernel, "usage_in_usermode": cpu.user}
    out: Json = {"cpu_usage": usage}
    if cpu.system:
        out["system_cpu_usage"] = cpu.system
    if cpu.online:
        out["online_cpus"] = cpu.online
    return out | {
        "throttling_data": {
            "periods": cpu.periods,
            "throttled_periods": cpu.throttled_periods,
            "throttled_time": cpu.throttled_time,
        }
    }


def _memory(memory: Memory) -> Json:
    out: Json = {"usage": memory.usage}
    if memory.most is not None:
        out["max_usage"] = memory.most
    out["stats"] = memory.details
    if memory.failures:
        out["failcnt"] = memory.failures
    return out | {"limit": memory.limit}


def _blocks(sample: Sample | None) -> Json:
    out: Json = dict.fromkeys(_BLOCK_KEYS)
    if sample is not None:
        out["io_service_bytes_recursive"] = _devices(sample.transferred)
        if sample.operations is not None:
            out["io_serviced_recursive"] = _devices(sample.operations)
    return out


def _devices(devices: Iterable[Device]) -> list[Json]:
    return [msgspec.structs.asdict(device) for device in devices]
