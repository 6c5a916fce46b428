"""Docker's defaults for Linux containers, as data: capabilities, mounts, masked paths. Pure; imports nothing of ours.

Checked against what Docker 28 puts into a container (HostConfig of inspect, /proc/self/mountinfo, /proc/self/status).
"""

from __future__ import annotations

from typing import Any

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
)  # fmt: skip

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def default_mounts(*, shm_size: int, is_privileged: bool) -> list[dict[str, Any]]:
    """Return the kernel file systems of every container, in mount order. `shm_size` is in bytes."""
    mode = "rw" if is_privileged else "ro"
    return [
        _mount("proc", "proc", "/proc", "nosuid", "noexec", "nodev"),
        _mount("tmpfs", "tmpfs", "/dev", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "devpts", "devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
        ),
        _mount("sysfs", "sysfs", "/sys", "nosuid", "noexec", "nodev", mode),
        _mount("cgroup", "cgroup", "/sys/fs/cgroup", "nosuid", "noexec", "nodev", mode),
        _mount("mqueue", "mqueue", "/dev/mqueue", "nosuid", "noexec", "nodev"),
        _mount("tmpfs", "shm", "/dev/shm", "nosuid", "noexec", "nodev", "mode=1777", f"size={shm_size}"),
    ]


def _mount(kind: str, source: str, destination: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}
