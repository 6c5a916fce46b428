"""The cgroups of our containers: kill what is left in one, remove it from every hierarchy. Runs in a worker thread.

Works on cgroup v2, v1 and hybrid hosts (cgroups(7)). Only ever touches the directory names that it is given, which are
the instance's own. May import model; must never be called on the event loop's thread (rmdir waits for the kernel).
"""

from __future__ import annotations

import os
import signal
import time

from tsunagu.model.errors import KernelFailure

ROOT = "/sys/fs/cgroup"


def is_v2() -> bool:
    """Tell whether this host has the unified hierarchy only."""
    return os.path.exists(f"{ROOT}/cgroup.controllers")


def hierarchies() -> list[str]:
    """Return the mount point of every cgroup hierarchy, each once (v1 hosts link `cpu` and `cpuacct` to one)."""
    if is_v2():
        return [ROOT]
    try:
        entries = [entry for entry in os.scandir(ROOT) if not entry.is_symlink()]
    except OSError:
        return []
    return sorted(entry.path for entry in entries if os.path.exists(f"{entry.path}/cgroup.procs"))


def pids(name: str) -> set[int]:
    """Return the host pids of every process in cgroup `name` and below, in any hierarchy."""
    found: set[int] = set()
    for directory in _directories(name):
        try:
            with open(f"{directory}/cgroup.procs") as file:
                found.update(int(line) for line in file)
        except OSError:
            continue  # removed meanwhile, or threaded
    return found


def remove(name: str, *, timeout: float = 10.0) -> None:
    """Kill every process in cgroup `name` and remove the cgroup everywhere; no error when it is gone.

    Raises KernelFailure when processes are still there after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    pause = 0.0005
    while True:
        directories = _directories(name)
        left = False
        for directory in reversed(directories):  # children first
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError:
                left = True
        if not left:
            return
        remaining = pids(name)
        for pid in remaining:
            _kill(pid, name)
        if time.monotonic() > deadline:
            raise KernelFailure(
                f"cannot remove cgroup {name}: device or resource busy",
                hint=f"processes still in it: {', '.join(map(str, sorted(remaining))) or 'none'}",
            )
        time.sleep(pause)  # no event tells that a v1 cgroup became empty
        pause = min(pause * 2, 0.02)


def remove_if_empty(name: str) -> None:
    """Remove a parent cgroup from every hierarchy where nothing is in it."""
    for hierarchy in hierarchies():
        try:
            os.rmdir(f"{hierarchy}/{name}")
        except OSError:
            continue  # gone, or in use: then it is still needed


def _directories(name: str) -> list[str]:
    """Return the directories of cgroup `name` and everything below it, parents first."""
    found: list[str] = []
    for hierarchy in hierarchies():
        for parent, _, _ in os.walk(f"{hierarchy}/{name}"):
            found.append(parent)
    return found


def _kill(pid: int, name: str) -> None:
    """Kill one process, after making sure that it is (still) in cgroup `name`: its pid may be another's by now."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            if any(f"/{name}" in line.rstrip("\n") + "/" for line in file):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:
        pass  # it has ended
    finally:
        os.close(pidfd)
