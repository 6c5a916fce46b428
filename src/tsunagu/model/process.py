"""Values about processes: who runs (`Account`), what runs (`Process`, `Exit`), what the host can do (`HostFacts`)."""

from __future__ import annotations

import msgspec

# capabilities(7), in the kernel's numbering (include/uapi/linux/capability.h)
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip


# Limits that a kernel may lack, or that nobody has mounted.
KNOBS = (
    "memory", "swap", "reservation", "swappiness", "oom", "shares", "cfs", "cpuset", "pids", "weight", "weight_device",
    "throttle",
)  # fmt: skip


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A resolved `user[:group]`. `groups` are all supplementary groups, the primary one included."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A container's first process and the conmon that watches it.

    The `…_started` values are start times in clock ticks since boot (proc(5), field 22 of stat): together with the pid
    they name one process for ever, so that a reused pid is never signalled.
    """

    pid: int
    pid_started: int
    conmon_pid: int
    conmon_started: int


class Exit(msgspec.Struct, frozen=True):
    """How a process ended: its exit code (128 + n when signal n killed it); 255 when nobody can know it any more."""

    code: int
    is_oom_killed: bool = False


class RuntimeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The OCI runtime in use, as `info` shows it."""

    name: str
    path: str
    version: str
    conmon_path: str
    conmon_version: str


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device node of the host, for privileged containers. `kind` is "c" or "b"."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a container's configuration depends on besides the container. Read once by `kernel.runtime`.

    `architecture` is uname's machine; `kernel` its release's first two numbers; `capabilities` the bounding set that
    the engine itself has (a container cannot get more); `seccomp_profile` the text of the default profile.
    """

    architecture: str = "x86_64"
    kernel: tuple[int, int] = (6, 1)
    is_cgroup_v2: bool = False
    knobs: frozenset[str] = frozenset(KNOBS)  # which limits the kernel has, each by its controller
    processors: str = "0"  # that a container may use, as cpuset(7) lists them ("0-3,8")
    memory_nodes: str = "0"
    processor_count: int = 1
    has_apparmor: bool = False
    has_selinux: bool = False
    has_x32: bool = False  # the kernel runs programs of the x32 ABI; hardly any does
    capabilities: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    seccomp_profile: str = ""
    init_path: str = ""  # a small init without libraries of its own; "" when none is installed
    descriptor_limits: tuple[int, int] = (1024, 524288)  # soft and hard, what the engine was started with
