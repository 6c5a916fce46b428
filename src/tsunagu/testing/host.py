"""What an engine can leave on a host: read before and after, so that tests can demand that nothing is left.

May import the standard library and `model`. Reading changes nothing; `sweep` removes only what bears an instance's own
names, and is for a test that has already failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from tsunagu.model.instance import Instance

# What an engine's processes and mounts have in their words, where no single instance is meant.
_OURS = re.compile(r"tsunagu|conmon|runc|crun|/tmp/ts-")
_PROGRAMS = ("conmon", "runc", "crun", "python3", "python", "tsunagu")


@dataclasses.dataclass(frozen=True)
class HostState:
    """Everything of the kinds that an engine makes; each entry is a line that a person can act on."""

    links: frozenset[str]
    tables: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]
    processes: frozenset[str]

    def of(self, instance: Instance) -> list[str]:
        """The entries that bear the names of `instance`, sorted by kind."""
        marks = (instance.root + "/", instance.run_dir + "/")
        prefixes = (instance.bridge_prefix, instance.veth_prefix)
        found = [f"link {name}" for name in self.links if name.startswith(prefixes) or name == instance.default_bridge]
        found += [f"nft table {name}" for name in self.tables if name.split()[-1] == instance.nft_table]
        found += [f"mount {path}" for path in self.mounts if (path + "/").startswith(marks)]
        found += [f"cgroup {path}" for path in self.cgroups if instance.cgroup in path.split("/")]
        found += [f"process {line}" for line in self.processes if any(mark in line + "/" for mark in marks)]
        return sorted(found)

    def since(self, before: HostState) -> list[str]:
        """What is there now and was not before, whoever made it; of mounts and processes only what an engine makes."""
        found: list[str] = []
        for field in dataclasses.fields(self):
            fresh = getattr(self, field.name) - getattr(before, field.name)
            is_ours = field.name in ("links", "tables", "cgroups")
            found += [f"{field.name}: {entry[:200]}" for entry in sorted(fresh) if is_ours or _OURS.search(entry)]
        return found


def read() -> HostState:
    """The host's links, nft tables, mounts, cgroups and the processes an engine starts. nft tables need root."""
    return HostState(
        links=frozenset(os.listdir("/sys/class/net")),
        tables=_tables(),
        mounts=frozenset(_unescape(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        cgroups=frozenset(_cgroups()),
        processes=frozenset(f"{pid} {command}" for pid, command in _processes()),
    )


def leftovers(instance: Instance, *, within: float = 5.0) -> list[str]:
    """What `instance` left in the kernel, or files in its run directory; empty when all is gone.

    The kernel frees namespaces and veth pairs after the call that dropped them has returned, so the answer is asked
    for again until it is empty or `within` seconds have passed.
    """
    deadline = time.monotonic() + within
    while True:
        found = read().of(instance) + [f"file {path}" for path in _run_files(instance)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


def sweep(instance: Instance) -> None:
    """Remove by force whatever `instance` left. Only for a test that failed or a run that was interrupted."""
    marks = (instance.root + "/", instance.run_dir + "/")
    for path in _cgroups():
        if instance.cgroup in path.split("/"):
            with contextlib.suppress(OSError):
                _kill(int(pid) for pid in Path(path, "cgroup.procs").read_text().split())
    _kill(pid for pid, command in _processes() if any(mark in command + "/" for mark in marks))
    state = read()
    for mount in sorted(state.mounts, reverse=True):
        if (mount + "/").startswith(marks):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
    for name in state.links:
        if name.startswith((instance.bridge_prefix, instance.veth_prefix)) or name == instance.default_bridge:
            subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)
    for table in state.tables:
        if table.split()[-1] == instance.nft_table:
            subprocess.run(["nft", "delete", "table", *table.split()], check=False, capture_output=True)
    for path in sorted((path for path in _cgroups() if instance.cgroup in path.split("/")), reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(path)


def remove_directory(directory: Path) -> None:
    """Delete a test's directory, never what is mounted below it: a mount that is left raises OSError."""
    inside = [mount for mount in read().mounts if (mount + "/").startswith(f"{directory}/")]
    if inside:
        raise OSError(f"not deleting {directory}: still mounted: {', '.join(inside)}")
    shutil.rmtree(directory, ignore_errors=False)


def _tables() -> frozenset[str]:
    done = subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, text=True, check=False)
    if done.returncode:
        return frozenset()
    entries = json.loads(done.stdout)["nftables"]
    return frozenset(f"{e['table']['family']} {e['table']['name']}" for e in entries if "table" in e)


def _cgroups() -> list[str]:
    found: list[str] = []
    for parent, directories, _ in os.walk("/sys/fs/cgroup"):
        found += [f"{parent}/{name}" for name in directories if "tsunagu" in f"{parent}/{name}"]
    return found


def _processes() -> Iterable[tuple[int, str]]:
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                words = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
                command = " ".join(word.decode(errors="replace") for word in words).strip()
                if os.path.basename(command.split(" ", 1)[0]).startswith(_PROGRAMS):
                    yield int(entry), command


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _run_files(instance: Instance) -> list[str]:
    return [os.path.join(parent, name) for parent, _, names in os.walk(instance.run_dir) for name in names]


def _unescape(path: str) -> str:
    """A path of /proc/self/mountinfo: space, tab, newline and backslash are written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
