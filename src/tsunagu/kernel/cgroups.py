"""The cgroups of our containers: freeze them, kill what is left in one, remove it from every hierarchy.

Works on cgroup v2, v1 and hybrid hosts (cgroups(7)). Only ever touches the directory names that it is given, which are
the instance's own. May import model; `freeze` and `remove` wait for the kernel, so never on the event loop's thread.
"""

from __future__ import annotations

import contextlib
import itertools
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


def freeze(name: str, *, timeout: float = 10.0) -> None:
    """Freeze every process in cgroup `name` and below; returns once all of them stand still.

    Raises KernelFailure when there is no freezer, or a process is stuck in the kernel for `timeout` seconds.
    """
    control = _freezer(name)
    if control is None:
        raise KernelFailure("the host has no cgroup freezer", hint="mount the freezer controller, or use cgroup v2")
    deadline = time.monotonic() + timeout
    pause = 0.0002
    for attempt in itertools.count():
        # v1 gives up on a process that forks or executes at the wrong moment and stays FREEZING. Asking anew mends most
        # of that; the rest needs to be let go for a moment, as runc does.
        if _is_v1_freezer(control) and attempt % 10 == 9:
            _write(control, "THAWED")
            time.sleep(0.002)
        _write(control, "FROZEN" if _is_v1_freezer(control) else "1")
        if _stands_still(control):
            return
        if time.monotonic() > deadline:
            thaw(name)
            raise KernelFailure("unable to freeze", hint="one of its processes hangs in the kernel")
        time.sleep(pause)  # v1 has no event that tells that all are frozen
        pause = min(pause * 2, 0.02)


def thaw(name: str) -> None:
    """Let every process in cgroup `name` go on; no error when it is gone. Does not wait."""
    control = _freezer(name)
    if control is not None:
        with contextlib.suppress(OSError):
            _write(control, "THAWED" if _is_v1_freezer(control) else "0")


def is_frozen(name: str) -> bool:
    """Tell whether cgroup `name` is frozen, or being frozen."""
    control = _freezer(name)
    return control is not None and _read(control) in ("FROZEN", "FREEZING", "1")


def _freezer(name: str) -> str | None:
    """Return the control file of the freezer: v1's own hierarchy where it is mounted, else the unified one."""
    for path in (
        f"{ROOT}/freezer/{name}/freezer.state",
        f"{ROOT}/unified/{name}/cgroup.freeze",
        f"{ROOT}/{name}/cgroup.freeze",
    ):
        if os.path.exists(path):
            return path
    return None


def _is_v1_freezer(control: str) -> bool:
    return control.endswith("/freezer.state")


def _stands_still(control: str) -> bool:
    if _is_v1_freezer(control):
        return _read(control) == "FROZEN"
    return "frozen 1" in _read(control.replace("cgroup.freeze", "cgroup.events")).splitlines()


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _write(path: str, word: str) -> None:
    with open(path, "w") as file:
        file.write(word)


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
        for directory in directories if remaining else ():  # who is frozen does not die before it is thawed
            _thaw_directory(directory)
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


def _thaw_directory(directory: str) -> None:
    for file, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
        if _read(f"{directory}/{file}") not in ("", "THAWED", "0"):
            with contextlib.suppress(OSError):
                _write(f"{directory}/{file}", word)


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
