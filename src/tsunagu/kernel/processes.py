"""Facts about processes read from /proc and the cgroup tree, and `ps` for `docker top`. Changes nothing."""

from __future__ import annotations

import asyncio
import os
import shutil

from tsunagu.model.errors import Unavailable

_CGROUP = "/sys/fs/cgroup"


def cgroup_pids(init_pid: int) -> set[int]:
    """Return the host pids of all processes in the cgroup of `init_pid` (and below); empty when it is gone."""
    directory = _cgroup_directory(init_pid)
    pids: set[int] = set()
    if directory is None:
        return pids
    for parent, _, files in os.walk(directory):
        if "cgroup.procs" in files:
            try:
                with open(f"{parent}/cgroup.procs") as procs:
                    pids.update(int(line) for line in procs)
            except OSError:
                continue  # removed while we looked, or threaded (EOPNOTSUPP)
    return pids


def session_members(leader: int) -> set[tuple[int, int]]:
    """Return (pid, start time) of every process in the cgroup of `leader` that is in its session (setsid(2))."""
    found = set()
    for pid in cgroup_pids(leader):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[3]) == leader:
            found.add((pid, int(fields[19])))
    return found


def _cgroup_directory(pid: int) -> str | None:
    """Find the directory of a process's cgroup on a v2, v1 or hybrid host (cgroups(7), /proc/PID/cgroup)."""
    try:
        with open(f"/proc/{pid}/cgroup") as lines:
            entries = [line.rstrip("\n").split(":", 2) for line in lines]
    except OSError:
        return None
    for wanted in ("pids", "memory", ""):
        for _, controllers, path in entries:
            if wanted in controllers.split(","):
                for mount in [wanted] if wanted else ["", "unified"]:
                    directory = os.path.join(_CGROUP, mount, path.lstrip("/"))
                    if os.path.exists(f"{directory}/cgroup.procs"):
                        return directory
    return None


async def list_processes(arguments: list[str]) -> str:
    """Return what the host's `ps` prints for `arguments`; raises Unavailable naming the package, or what ps says."""
    program = shutil.which("ps")
    if program is None:
        raise Unavailable("the program ps is missing", hint="install it with: apt-get install procps")
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise Unavailable(f"ps: {errors.decode(errors='replace').strip()}")
    return output.decode(errors="replace")


def memory_total() -> int:
    """Return the host's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
