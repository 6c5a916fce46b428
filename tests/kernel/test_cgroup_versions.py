"""kernel.cgroups and kernel.limits on hosts with either cgroup version: real version 2 groups, laid-out files else."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tsunagu.kernel import cgroups, limits

pytestmark = pytest.mark.root
NAME = "tsunagu-test-version2"


def unified() -> Path:
    """Where version 2 is mounted: alone, or beside version 1."""
    root = Path("/sys/fs/cgroup")
    return root if (root / "cgroup.controllers").exists() else root / "unified"


@pytest.fixture
def version2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real version 2 cgroup, on a host that looks as if it had nothing else."""
    if not (unified() / "cgroup.procs").exists():
        pytest.skip("this host has no cgroup version 2 mounted")
    group = unified() / f"{NAME}-{os.getpid()}"
    group.mkdir()
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (tmp_path / NAME).symlink_to(group)
    monkeypatch.setattr(cgroups, "ROOT", str(tmp_path))
    yield group
    group.rmdir()


def test_version_2_freezes_and_thaws(version2: Path) -> None:
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as process:
        try:
            (version2 / "cgroup.procs").write_text(str(process.pid))
            cgroups.freeze(NAME)
            assert cgroups.is_frozen(NAME)
            assert "frozen 1" in (version2 / "cgroup.events").read_text()
            cgroups.thaw(NAME)
            assert not cgroups.is_frozen(NAME)
            assert "frozen 0" in (version2 / "cgroup.events").read_text()
        finally:
            cgroups.thaw(NAME)
            process.send_signal(signal.SIGKILL)


def test_what_a_version_2_host_can_limit(version2: Path) -> None:
    assert limits.knobs() == {
        "memory", "swap", "reservation", "shares", "cfs", "cpuset", "pids", "weight", "throttle",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("controllers", "missing"),
    [("memory pids", {"shares", "cfs", "cpuset", "weight", "throttle"}), ("cpu io", {"memory", "swap", "pids"})],
)
def test_controllers_that_are_off(
    controllers: str, missing: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup.controllers").write_text(f"{controllers}\n")
    monkeypatch.setattr(cgroups, "ROOT", str(tmp_path))
    assert not limits.knobs() & missing


def test_version_2_without_swap_accounting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    (tmp_path / "init.scope").mkdir()
    (tmp_path / "init.scope" / "memory.max").touch()
    monkeypatch.setattr(cgroups, "ROOT", str(tmp_path))
    assert limits.knobs() == {"memory", "reservation"}
    (tmp_path / "init.scope" / "memory.swap.max").touch()
    assert "swap" in limits.knobs()


def test_a_hybrid_host_has_what_version_1_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (
        "memory/memory.limit_in_bytes", "cpu/cpu.shares", "blkio/blkio.bfq.io_service_bytes",
        "unified/cgroup.controllers", "unified/web/cgroup.freeze", "freezer/db/freezer.state",
    ):  # fmt: skip
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("THAWED\n" if "freezer" in path else "0\n")
    monkeypatch.setattr(cgroups, "ROOT", str(tmp_path))
    assert limits.knobs() == {"memory", "shares", "weight", "weight_device"}
    # each container is frozen where it has a freezer
    assert not cgroups.is_frozen("web") and not cgroups.is_frozen("db")
    (tmp_path / "unified/web/cgroup.freeze").write_text("1\n")
    (tmp_path / "freezer/db/freezer.state").write_text("FROZEN\n")
    assert cgroups.is_frozen("web") and cgroups.is_frozen("db")
    cgroups.thaw("web")
    cgroups.thaw("db")
    assert (tmp_path / "unified/web/cgroup.freeze").read_text() == "0"
    assert (tmp_path / "freezer/db/freezer.state").read_text() == "THAWED"


def test_processors_of_this_host() -> None:
    assert limits.processors()[:1].isdigit()
    assert limits.memory_nodes()[:1].isdigit()
