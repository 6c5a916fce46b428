"""Limits and devices with both clients: what the kernel was told, what `update` changes, who ran out of memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess
from tsunagu.testing.happenings import Happenings

pytestmark = pytest.mark.root
FROM_DAEMON = "Error response from daemon: "
MB = 1 << 20
DEVICE = "/dev/fuse"  # every kernel of Debian has it, and no container by default
IS_V2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def host_config(cli: CommandLine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli(f"inspect {name}").ok())[0]["HostConfig"]
    return found


class Cgroup:
    """The control files of one container, on a host with either cgroup version."""

    def __init__(self, cli: CommandLine, engine: EngineProcess, name: str) -> None:
        self._name = f"{engine.instance.cgroup}/{cli(f'inspect -f {{{{.Id}}}} {name}').ok()}"

    def read(self, v1: str, v2: str) -> str:
        path = f"{self._name}/{v2}" if IS_V2 else f"{v1.partition('/')[0]}/{self._name}/{v1.partition('/')[2]}"
        return Path("/sys/fs/cgroup", path).read_text().strip()

    @property
    def memory(self) -> int:
        return int(self.read("memory/memory.limit_in_bytes", "memory.max"))

    @property
    def pids(self) -> str:
        return self.read("pids/pids.max", "pids.max")

    @property
    def quota(self) -> list[int]:
        """Quota and period in microseconds."""
        if IS_V2:
            return [int(word) for word in self.read("", "cpu.max").split()]
        return [int(self.read(f"cpu/cpu.cfs_{name}_us", "")) for name in ("quota", "period")]

    @property
    def processors(self) -> str:
        return self.read("cpuset/cpuset.cpus", "cpuset.cpus")


def test_limits_are_in_force_and_shown(cli: CommandLine, engine: EngineProcess) -> None:
    cli(
        "run -d --name web --memory 64m --memory-reservation 32m --cpus 0.5 --cpuset-cpus 0 --pids-limit 50 "
        "--cpu-shares 512 --ulimit nofile=100:200 --ulimit core=0 alpine sleep 3600"
    ).ok()
    shown = host_config(cli, "web")
    assert (shown["Memory"], shown["MemorySwap"], shown["MemoryReservation"]) == (64 * MB, 128 * MB, 32 * MB)
    assert (shown["NanoCpus"], shown["CpusetCpus"], shown["PidsLimit"], shown["CpuShares"]) == (5 * 10**8, "0", 50, 512)
    assert shown["Ulimits"] == [
        {"Name": "core", "Hard": 0, "Soft": 0}, {"Name": "nofile", "Hard": 200, "Soft": 100},
    ]  # fmt: skip
    cgroup = Cgroup(cli, engine, "web")
    assert (cgroup.memory, cgroup.pids, cgroup.quota, cgroup.processors) == (64 * MB, "50", [50_000, 100_000], "0")
    assert cli("exec web sh -c 'ulimit -Sn; ulimit -Hn; ulimit -c'").ok().split() == ["100", "200", "0"]
    assert cli("exec web sh -c 'grep Max.open /proc/1/limits'").ok().split()[3:5] == ["100", "200"]
    assert cli("exec web cat /proc/self/status").ok().partition("Cpus_allowed_list:\t")[2].split()[0] == "0"


def test_update_changes_a_running_container(cli: CommandLine, engine: EngineProcess) -> None:
    cli("run -d --name web --memory 64m --memory-swap 256m --cpus 1 alpine sleep 3600").ok()
    cgroup = Cgroup(cli, engine, "web")
    with Happenings(engine.instance.socket) as events:
        assert cli("update --memory 96m --cpus 0.25 --pids-limit 9 --cpuset-cpus 0 web").ok() == "web"
        events.expect("update", "web")
    assert (cgroup.memory, cgroup.pids, cgroup.quota, cgroup.processors) == (96 * MB, "9", [25_000, 100_000], "0")
    shown = host_config(cli, "web")
    assert (shown["Memory"], shown["MemorySwap"], shown["NanoCpus"], shown["PidsLimit"]) == (
        96 * MB, 256 * MB, 25 * 10**7, 9,
    )  # fmt: skip
    cli("restart -t 0 web").ok()
    assert (cgroup.memory, cgroup.pids, cgroup.quota) == (96 * MB, "9", [25_000, 100_000]), "kept for later starts"
    cli("update --pids-limit -1 web").ok()
    assert cgroup.pids == "max"
    cli("stop -t 0 web").ok()
    cli("update --memory 128m web").ok()
    cli("start web").ok()
    assert cgroup.memory == 128 * MB
    whole = cli("inspect -f {{.Id}} web").ok()
    cli.refuses(
        cli("update --memory 512m web"),
        1,
        f"{FROM_DAEMON}Cannot update container {whole}: Memory limit should be smaller than already set memoryswap "
        "limit, update the memoryswap at the same time",
    )
    assert cgroup.memory == 128 * MB
    cli.refuses(cli("update web"), 1, "you must provide one or more flags when using this command")


def test_out_of_memory_is_seen(cli: CommandLine, engine: EngineProcess) -> None:
    with Happenings(engine.instance.socket) as events:
        result = cli("run --name hungry --memory 16m --memory-swap 16m alpine tail /dev/zero")
        assert result.code == 137, result
        events.expect("oom", "hungry")
        events.expect("die", "hungry", exitCode="137")
    state = json.loads(cli("inspect hungry").ok())[0]["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)


def test_no_more_processes_than_allowed(cli: CommandLine) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; echo all"
    result = cli("run --rm --pids-limit 5 alpine sh -c", script)
    assert result.code != 0
    assert "all" not in result.out
    assert "can't fork" in result.err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--memory 1m", "Minimum memory limit allowed is 6MB"),
        ("--cpus 5000", "range of CPUs is from 0.01 to "),
        ("--memory 64m --memory-swap 32m", "Minimum memoryswap limit should be larger than memory limit, see usage"),
        ("--cpuset-cpus 4000", "Requested CPUs are not available - requested 4000, available: "),
        ("--blkio-weight 5", "Range of blkio weight is from 10 to 1000"),
    ],
)
def test_refusals(cli: CommandLine, flags: str, sentence: str) -> None:
    result = cli(f"run {flags} alpine true")
    assert result.code == 125
    assert f"{FROM_DAEMON}{sentence}" in result.err
    assert cli("ps -aq").ok() == "", "a refused request makes nothing"


def test_devices(cli: CommandLine) -> None:
    mapping = f"{DEVICE}:/dev/mine"
    assert cli(f"run --rm --device {mapping} alpine ls -l /dev/mine").ok().startswith("c")
    reads, writes = "exec 3</dev/mine", "exec 3>/dev/mine"
    assert cli(f"run --rm --device {mapping}:r alpine sh -c", reads).code == 0
    denied = cli(f"run --rm --device {mapping}:r alpine sh -c", writes)
    assert "Operation not permitted" in denied.err, "writing was not given"
    assert cli(f"run --rm --device {mapping}:rw alpine sh -c", writes).code == 0
    full = cli("run --rm --device /dev/full alpine sh -c", "echo x >/dev/full")
    assert "No space left" in full.err
    script = "mknod /fuse c 10 229 && head -c 0 /fuse"
    assert "not permitted" in cli("run --rm alpine sh -c", script).err
    allowed = cli("run --rm --device-cgroup-rule", "c 10:229 rwm", "alpine", "sh", "-c", script)
    assert "not permitted" not in allowed.err
    missing = cli("run --rm --device /dev/nosuch alpine true")
    assert 'error gathering device information while adding custom device "/dev/nosuch": no such file' in missing.err
    assert missing.code in (125, 126, 127)
    wrong = cli("run --rm --device /etc/hosts:/dev/x alpine true")
    assert 'while adding custom device "/etc/hosts": not a device node' in wrong.err


def test_block_io(cli: CommandLine, engine: EngineProcess) -> None:
    result = cli("run -d --name web --blkio-weight 300 alpine sleep 3600")
    if result.code:  # refused by name where the kernel has no scheduler that weighs
        assert "Your kernel does not support Block I/O weight or the cgroup is not mounted" in result.err
        return
    assert host_config(cli, "web")["BlkioWeight"] == 300
    cgroup = Cgroup(cli, engine, "web")
    assert "300" in cgroup.read("blkio/blkio.bfq.weight", "io.bfq.weight")
