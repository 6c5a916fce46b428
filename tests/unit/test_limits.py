"""rules.limits and wire.oci_limits: Docker's refusals, what is kept, and what the runtime is told."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tsunagu.api.schema_update import container_update
from tsunagu.model.container import RestartPolicy
from tsunagu.model.errors import Conflict, EngineError, InvalidParameter, NotSupported
from tsunagu.model.limits import DeviceRate, DeviceWeight, Limits, Ulimit
from tsunagu.model.process import Device, HostFacts
from tsunagu.rules import limits
from tsunagu.wire import oci_limits

MB = 1 << 20
FACTS = HostFacts(processors="0-3", memory_nodes="0", processor_count=4)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (Limits(memory=5 * MB), "Minimum memory limit allowed is 6MB"),
        (Limits(memory=-1), "Minimum memory limit allowed is 6MB"),
        (
            Limits(memory=64 * MB, memory_swap=32 * MB),
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            Limits(memory_swap=64 * MB),
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (Limits(memory_swappiness=101), "Invalid value: 101, valid memory swappiness range is 0-100"),
        (Limits(memory_reservation=MB), "Minimum memory reservation allowed is 6MB"),
        (
            Limits(memory=32 * MB, memory_reservation=64 * MB),
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (Limits(nano_cpus=10**9, cpu_period=5000), "Conflicting options: Nano CPUs and CPU Period cannot both be set."),
        (Limits(nano_cpus=10**9, cpu_quota=5000), "Conflicting options: Nano CPUs and CPU Quota cannot both be set."),
        (Limits(nano_cpus=5 * 10**9), "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"),
        (
            Limits(cpu_period=999),
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        (Limits(cpu_quota=999), "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (Limits(cpuset_cpus="a"), "Invalid value a for cpuset cpus"),
        (Limits(cpuset_cpus="3-1"), "Invalid value 3-1 for cpuset cpus"),
        (Limits(cpuset_cpus="2-5"), "Requested CPUs are not available - requested 2-5, available: 0-3"),
        (Limits(cpuset_mems="1"), "Requested memory nodes are not available - requested 1, available: 0"),
        (Limits(blkio_weight=5), "Range of blkio weight is from 10 to 1000"),
        (Limits(device_cgroup_rules=("x 1:1 r",)), "invalid device cgroup rule format: 'x 1:1 r'"),
        (Limits(ulimits=(Ulimit("files", 1, 1),)), "invalid ulimit type: files"),
        (
            Limits(ulimits=(Ulimit("nofile", 1, 2),)),
            "ulimit soft limit must be less than or equal to hard limit: 2 > 1",
        ),
    ],
)
def test_refusals(wanted: Limits, sentence: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        limits.check(wanted, FACTS)
    assert caught.value.message == sentence


def test_what_makes_sense() -> None:
    wanted = Limits(
        memory=64 * MB, memory_reservation=32 * MB, nano_cpus=4 * 10**9, cpu_shares=5, cpuset_cpus="0,2-3",
        pids_limit=7, blkio_weight=10, device_cgroup_rules=("c *:* rwm", "b 8:* r"), ulimits=(Ulimit("core", -1, -1),),
    )  # fmt: skip
    assert limits.check(wanted, FACTS) == []
    kept = limits.completed(wanted, FACTS)
    assert kept == replace(wanted, memory_swap=128 * MB)
    assert limits.completed(Limits(pids_limit=-1, oom_kill_disable=False), FACTS) == Limits()


@pytest.mark.parametrize("knob", ["memory", "cfs", "pids", "weight", "oom"])
def test_what_the_host_lacks_is_refused_by_name(knob: str) -> None:
    facts = HostFacts(knobs=FACTS.knobs - {knob}, processor_count=4)
    asked = {
        "memory": (Limits(memory=64 * MB), "memory limit capabilities", "--memory"),
        "cfs": (Limits(nano_cpus=10**9), "CPU CFS scheduler", "--cpus"),
        "pids": (Limits(pids_limit=5), "PIDs limit capabilities", "--pids-limit"),
        "weight": (Limits(blkio_weight=50), "Block I/O weight", "--blkio-weight"),
        "oom": (Limits(oom_kill_disable=True), "OomKillDisable", "--oom-kill-disable"),
    }
    wanted, name, flag = asked[knob]
    with pytest.raises(NotSupported) as caught:
        limits.check(wanted, facts)
    assert caught.value.message == f"Your kernel does not support {name} or the cgroup is not mounted"
    assert caught.value.hint == f"leave out {flag}"


def test_memory_without_swap_is_a_warning() -> None:
    facts = HostFacts(knobs=FACTS.knobs - {"swap"})
    wanted = Limits(memory=64 * MB)
    assert limits.check(wanted, facts) == [
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
        "Memory limited without swap."
    ]
    kept = limits.completed(wanted, facts)
    assert kept.memory_swap == -1
    assert oci_limits.resources(kept, {}) == {"memory": {"limit": 64 * MB}}


def test_updates() -> None:
    old = Limits(memory=64 * MB, memory_swap=128 * MB, cpu_shares=5)
    assert limits.updated(old, Limits(memory=96 * MB)) == replace(old, memory=96 * MB)
    assert limits.updated(old, Limits(cpuset_cpus="1", pids_limit=-1)) == replace(old, cpuset_cpus="1", pids_limit=-1)
    assert limits.updated(old, Limits()) == old
    for before, wanted, sentence in (
        (old, Limits(memory=256 * MB), "Memory limit should be smaller than already set memoryswap limit, "
         "update the memoryswap at the same time"),
        (Limits(cpu_period=5000), Limits(nano_cpus=1),
         "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set"),
        (Limits(nano_cpus=1), Limits(cpu_quota=5000),
         "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"),
    ):  # fmt: skip
        with pytest.raises(Conflict) as caught:
            limits.updated(before, wanted)
        assert caught.value.message == sentence


def test_what_the_runtime_is_told() -> None:
    assert oci_limits.resources(Limits(), {}) == {}
    wanted = Limits(
        memory=64 * MB, memory_swap=128 * MB, memory_reservation=32 * MB, memory_swappiness=0, oom_kill_disable=True,
        nano_cpus=1_500_000_000, cpu_shares=5, cpuset_cpus="0", cpuset_mems="0", pids_limit=9, blkio_weight=50,
        blkio_weight_device=(DeviceWeight("/dev/a", 20),), blkio_device_read_bps=(DeviceRate("/dev/a", 1000),),
    )  # fmt: skip
    assert oci_limits.block_paths(wanted) == ["/dev/a", "/dev/a"]
    assert oci_limits.resources(wanted, {"/dev/a": (8, 1)}) == {
        "memory": {
            "limit": 64 * MB, "swap": 128 * MB, "reservation": 32 * MB, "swappiness": 0, "disableOOMKiller": True,
        },
        "cpu": {"period": 100_000, "quota": 150_000, "shares": 5, "cpus": "0", "mems": "0"},
        "pids": {"limit": 9},
        "blockIO": {
            "weight": 50, "weightDevice": [{"major": 8, "minor": 1, "weight": 20}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 1000}],
        },
    }  # fmt: skip
    assert oci_limits.resources(Limits(cpu_period=5000, cpu_quota=2500), {}) == {"cpu": {"period": 5000, "quota": 2500}}


def test_devices_and_ulimits() -> None:
    fuse = Device(path="/dev/fuse", kind="c", major=10, minor=229)
    assert oci_limits.device_node(fuse, "/dev/x")["path"] == "/dev/x"
    assert oci_limits.device_access(fuse, "") == {
        "allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm",
    }  # fmt: skip
    assert oci_limits.device_rules(["c 10:* rw", "a *:* m"]) == [
        {"allow": True, "type": "c", "access": "rw", "major": 10},
        {"allow": True, "type": "a", "access": "m"},
    ]
    assert oci_limits.rlimits((Ulimit("core", -1, 0), Ulimit("nofile", 9, 8)), (1024, 4096)) == [
        {"type": "RLIMIT_NOFILE", "soft": 8, "hard": 9},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": oci_limits.UNLIMITED},
    ]


def test_update_bodies() -> None:
    sent: dict[str, Any] = {
        "BlkioWeight": 0, "CpuShares": 512, "Memory": 64 * MB, "CpusetCpus": "", "Devices": None, "Ulimits": None,
        "DeviceRequests": None, "MemorySwappiness": None, "OomKillDisable": None, "PidsLimit": 0, "CpuCount": 0,
        "BlkioWeightDevice": None, "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
    }  # fmt: skip
    found = container_update(sent)
    assert found.restart_policy is None
    assert found.limits == Limits(cpu_shares=512, memory=64 * MB, pids_limit=-1)
    named = container_update({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}})
    assert named.restart_policy == RestartPolicy("on-failure", 2)
    with pytest.raises(NotSupported, match="ulimits of a container cannot be changed"):
        container_update({"Ulimits": [{"Name": "core", "Hard": 1, "Soft": 1}]})
    with pytest.raises(EngineError, match="KernelMemory"):
        container_update({"KernelMemory": 5})
