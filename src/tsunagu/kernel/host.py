"""What this host offers: runtime, conmon, capabilities, devices, seccomp profile. Read once, changes nothing."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import shutil
import stat
import subprocess

from tsunagu.model.errors import Unavailable
from tsunagu.model.process import CAPABILITIES, Device, HostFacts, RuntimeInfo

from . import cgroups, descriptors, limits

SECCOMP_PROFILE = "/usr/share/containers/seccomp.json"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INITS = ("docker-init", "tini-static", "catatonit")  # linked statically: it must run in any image
_X32_GETPID = 0x40000000 + 39  # __X32_SYSCALL_BIT and getpid (asm/unistd_x32.h)
_libc = ctypes.CDLL(None, use_errno=True)
_directory_fds: dict[str, int] = {}


def detect() -> RuntimeInfo:
    """Find runtime and conmon; raises Unavailable naming the Debian package of what is missing."""
    conmon = shutil.which("conmon", path=_PATH)
    if conmon is None:
        raise Unavailable("the program conmon is missing", hint="install it with: apt-get install conmon")
    # crun before 1.9 refuses hosts with both cgroup versions mounted, and its errors come late: v2 hosts only.
    names = ("crun", "runc") if cgroups.is_v2() else ("runc",)
    for name in names:
        path = shutil.which(name, path=_PATH)
        version = _version(path) if path else ""
        if path and version:
            return RuntimeInfo(
                name=name, path=path, version=version, conmon_path=conmon, conmon_version=_version(conmon)
            )
    raise Unavailable("no OCI runtime is installed", hint="install one with: apt-get install runc")


def _version(path: str) -> str:
    """Return the version a program prints, "" when it does not work."""
    try:
        result = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"version:?\s+(\S+)", result.stdout)
    return found.group(1) if result.returncode == 0 and found else ""


def facts() -> HostFacts:
    """Read everything that `wire.oci` needs; raises Unavailable when the seccomp profile is missing."""
    return HostFacts(
        architecture=platform.machine(),
        kernel=_kernel(platform.release()),
        is_cgroup_v2=cgroups.is_v2(),
        knobs=limits.knobs(),
        processors=limits.processors(),
        memory_nodes=limits.memory_nodes(),
        processor_count=os.cpu_count() or 1,
        has_apparmor=_starts_with("/sys/module/apparmor/parameters/enabled", "Y"),
        has_selinux=os.path.exists("/sys/fs/selinux/enforce"),
        has_x32=platform.machine() == "x86_64" and _has_x32(),
        capabilities=_bounding_set(),
        devices=devices(),
        seccomp_profile=_seccomp_profile(),
        init_path=next((path for name in _INITS if (path := shutil.which(name, path=_PATH))), ""),
        descriptor_limits=descriptors.inherited(),
    )


def _has_x32() -> bool:
    """Tell whether the kernel knows the x32 ABI (a build and boot option): it answers one of its calls with other than
    ENOSYS. Asked in a child, because a seccomp filter around the engine may kill who asks."""
    child = os.fork()
    if child == 0:
        _libc.syscall(_X32_GETPID)
        os._exit(ctypes.get_errno() == errno.ENOSYS)
    return os.waitpid(child, 0)[1] == 0


def _kernel(release: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def _starts_with(path: str, text: str) -> bool:
    try:
        with open(path) as file:
            return file.read(len(text)) == text
    except OSError:
        return False


def _bounding_set() -> tuple[str, ...]:
    with open("/proc/self/status") as file:
        bits = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd:"))
    return tuple(name for number, name in enumerate(CAPABILITIES) if bits >> number & 1)


def devices() -> tuple[Device, ...]:
    """Return every device node that a privileged container gets (Docker: all of /dev but pts, shm, mqueue, fd)."""
    found: list[Device] = []
    for parent, directories, files in os.walk("/dev"):
        directories[:] = [
            name
            for name in directories
            if not (parent == "/dev" and name in ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"))
        ]
        for name in files:
            path = f"{parent}/{name}"
            try:
                info = os.lstat(path)
            except OSError:
                continue
            kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
            if kind and path != "/dev/console":
                found.append(
                    Device(
                        path=path,
                        kind=kind,
                        major=os.major(info.st_rdev),
                        minor=os.minor(info.st_rdev),
                        mode=stat.S_IMODE(info.st_mode),
                        uid=info.st_uid,
                        gid=info.st_gid,
                    )
                )
    return tuple(sorted(found, key=lambda d: d.path))


def _seccomp_profile() -> str:
    try:
        with open(SECCOMP_PROFILE) as file:
            return file.read()
    except OSError as error:
        raise Unavailable(
            f"the default seccomp profile {SECCOMP_PROFILE} cannot be read: {error.strerror}",
            hint="install it with: apt-get install golang-github-containers-common",
        ) from error


def directory_fd(path: str) -> int:
    """Return a file descriptor for a directory that stays open as long as the engine, for short paths through /proc."""
    if path not in _directory_fds:
        _directory_fds[path] = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return _directory_fds[path]
