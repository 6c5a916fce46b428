"""Readings of cgroups as both versions write them, from files made by hand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tsunagu.api.views_statistics import stats_json
from tsunagu.kernel import statistics
from tsunagu.model.container import Config, Container, HostConfig
from tsunagu.model.statistics import Device, Link

TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PROC = {
    "stat": "cpu  100 1 50 800 9 2 3 4 0 0\ncpu0 50 0 25 400 0 0 0 0 0 0\ncpu1 50 1 25 400 9 2 3 4 0 0\nintr 5\n",
    "7/net/dev": (
        "Inter-|   Receive                      |  Transmit\n face |bytes packets errs drop fifo frame compressed\n"
        "    lo:  99  9 0 0 0 0 0 0  99 9 0 0 0 0 0 0\n  eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n"
    ),
}


def write(directory: Path, files: Mapping[str, str]) -> str:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(directory)


def test_version_2(tmp_path: Path) -> None:
    group = "ts/abc"
    root = write(
        tmp_path / "cgroup",
        {
            "cgroup.controllers": "cpu io memory pids\n",
            f"{group}/cpu.stat": "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\n"
            "nr_periods 4\nnr_throttled 2\nthrottled_usec 7\n",
            f"{group}/memory.current": "4096\n",
            f"{group}/memory.max": "8192\n",
            f"{group}/memory.stat": "anon 100\ninactive_file 50\n",
            f"{group}/pids.current": "3\n",
            f"{group}/pids.max": "max\n",
            f"{group}/io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n259:1 \n",
        },
    )
    sample = statistics.read(group, 7, has_network=True, root=root, proc=write(tmp_path / "proc", PROC))
    assert (sample.cpu.total, sample.cpu.user, sample.cpu.kernel) == (5_000_000, 3_000_000, 2_000_000)
    assert (sample.cpu.periods, sample.cpu.throttled_periods, sample.cpu.throttled_time) == (4, 2, 7000)
    assert (sample.cpu.system, sample.cpu.online) == (965 * TICK, 2)
    assert (sample.memory.usage, sample.memory.limit, sample.memory.details["inactive_file"]) == (4096, 8192, 50)
    assert sample.transferred == (Device(8, 0, "read", 10), Device(8, 0, "write", 20))
    assert sample.links == {"eth0": Link(1000, 10, 1, 2, 2000, 20, 3, 4)}
    shown = _shown(sample)
    assert shown["pids_stats"] == {"current": 3, "limit": 2**64 - 1}
    assert shown["blkio_stats"]["io_serviced_recursive"] is None and "max_usage" not in shown["memory_stats"]
    assert "percpu_usage" not in shown["cpu_stats"]["cpu_usage"]
    assert shown["networks"]["eth0"]["tx_dropped"] == 4


def test_version_1(tmp_path: Path) -> None:
    group = "ts/abc"
    root = write(
        tmp_path / "cgroup",
        {
            f"cpuacct/{group}/cpuacct.usage": "5000000\n",
            f"cpuacct/{group}/cpuacct.usage_percpu": "2000000 3000000 \n",
            f"cpuacct/{group}/cpuacct.stat": "user 30\nsystem 20\n",
            f"cpu/{group}/cpu.stat": "nr_periods 4\nnr_throttled 2\nthrottled_time 7\n",
            f"memory/{group}/memory.usage_in_bytes": "4096\n",
            f"memory/{group}/memory.max_usage_in_bytes": "5000\n",
            f"memory/{group}/memory.limit_in_bytes": "9223372036854771712\n",
            f"memory/{group}/memory.failcnt": "1\n",
            f"memory/{group}/memory.stat": "cache 10\ntotal_inactive_file 50\n",
            f"pids/{group}/pids.current": "3\n",
            f"pids/{group}/pids.max": "100\n",
            f"blkio/{group}/blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\nTotal 30\n",
            f"blkio/{group}/blkio.throttle.io_serviced_recursive": "8:0 Read 1\nTotal 1\n",
        },
    )
    sample = statistics.read(group, 7, has_network=False, root=root, proc=write(tmp_path / "proc", PROC))
    assert (sample.cpu.total, sample.cpu.user, sample.cpu.kernel) == (5_000_000, 30 * TICK, 20 * TICK)
    assert sample.memory.limit < 1 << 62  # no limit: what the machine has
    shown = _shown(sample)
    assert shown["cpu_stats"]["cpu_usage"]["percpu_usage"] == [2_000_000, 3_000_000]
    assert shown["memory_stats"]["max_usage"] == 5000 and shown["memory_stats"]["failcnt"] == 1
    assert shown["pids_stats"] == {"current": 3, "limit": 100} and "networks" not in shown
    assert shown["blkio_stats"]["io_serviced_recursive"] == [{"major": 8, "minor": 0, "op": "read", "value": 1}]


def test_files_that_are_not_there_are_zero(tmp_path: Path) -> None:
    sample = statistics.read("gone", 7, has_network=True, root=str(tmp_path), proc=str(tmp_path))
    assert (sample.cpu.total, sample.memory.usage, sample.pids, sample.links) == (0, 0, 0, {})


def _shown(sample):
    container = Container(
        id="a" * 64, name="web", created=1, image_id="", path="sh", args=(), config=Config(), host=HostConfig()
    )
    return stats_json(container, None, sample)
