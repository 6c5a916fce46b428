"""OCI runtime configuration (config.json): from a container's values to what runc and crun read. Pure.

Semantics and words are Docker's. May import model; must never look at the host: what depends on it comes in as
`HostFacts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tsunagu.model.container import Container, HostConfig
from tsunagu.model.errors import InvalidParameter, NotSupported
from tsunagu.model.process import CAPABILITIES, Account, Device, HostFacts
from tsunagu.model.volume import Mount

from . import oci_defaults as defaults
from . import oci_limits, seccomp
from .oci_mounts import bind_mount, tmpfs_mount

__all__ = [
    "Security",
    "capabilities",
    "check",
    "container_config",
    "environment",
    "exec_process",
    "security",
]

INIT = "/sbin/docker-init"  # where Docker puts it
_INIT_WORDS = (INIT, "--")
OCI_VERSION = "1.0.2"  # what runc 1.1 speaks; newer runtimes read it too


def container_config(
    container: Container,
    *,
    account: Account,
    rootfs: str,
    netns: str | None,
    cgroup_parent: str,
    facts: HostFacts,
    etc_files: Mapping[str, str] | None = None,
    namespaces: Mapping[str, str] | None = None,
    linked: Sequence[str] = (),
    sources: Mapping[str, str] | None = None,
    devices: Sequence[tuple[Device, str, str]] = (),
    block_numbers: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """Return config.json of a container.

    `rootfs` is the mounted root. `netns` is the path of the sandbox, None for the host's network. `cgroup_parent` is
    the instance's cgroup. `etc_files` maps paths inside (/etc/hosts, …) to host files bound over them, as long as the
    user mounts nothing there. `namespaces` gives paths for `pid` and `ipc` where the container joins another's.
    `linked` are variables that tell of linked containers. `sources` gives the host path of what is mounted at a place,
    for volumes. `devices` are (device of the host, path inside, access) for those that the user gave, `block_numbers`
    (major, minor) of the block devices that limits name.
    Raises InvalidParameter or NotSupported for what `check` refuses.
    """
    config, host = container.config, container.host
    rules = security(host)
    granted = capabilities(host, facts)
    linux: dict[str, Any] = {
        "cgroupsPath": f"/{cgroup_parent}/{container.id}",
        "namespaces": _namespaces(host, netns, facts, namespaces or {}),
        "resources": {
            "devices": [
                {"allow": host.privileged, "access": "rwm"},
                *(oci_limits.device_access(device, access) for device, _, access in devices),
                *oci_limits.device_rules(host.limits.device_cgroup_rules),
            ],
            **oci_limits.resources(host.limits, block_numbers or {}),
        },
        "sysctl": _sysctls(container, has_own_network=netns is not None),
        "rootfsPropagation": _root_propagation(container.mounts),
    }
    if not host.privileged:
        masked = defaults.MASKED_PATHS if host.masked_paths is None else host.masked_paths
        readonly = defaults.READONLY_PATHS if host.readonly_paths is None else host.readonly_paths
        if not rules.has_unconfined_paths:
            linux["maskedPaths"] = list(masked)
            linux["readonlyPaths"] = list(readonly)
    nodes = [oci_limits.device_node(device) for device in facts.devices] if host.privileged else []
    nodes += [oci_limits.device_node(device, path) for device, path, _ in devices]
    if nodes:
        linux["devices"] = list({node["path"]: node for node in nodes}.values())
    if rules.seccomp is not None and not (host.privileged and not rules.seccomp):
        linux["seccomp"] = seccomp.filter_profile(
            rules.seccomp or facts.seccomp_profile,
            capabilities=frozenset(granted),
            architecture=facts.architecture,
            kernel=facts.kernel,
            # The runtime compiles the filter anew for each container and exec: each architecture costs 5 to 10 ms.
            without=frozenset() if facts.has_x32 or rules.seccomp else frozenset({"SCMP_ARCH_X32"}),
            is_default=not rules.seccomp,
        )
    result: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "process": _process(
            args=[*(_INIT_WORDS if _has_init(host) else ()), container.path, *container.args],
            env=environment(container, linked=linked),
            cwd=config.working_dir or "/",
            tty=config.tty,
            account=account,
            granted=granted,
            has_no_new_privileges=rules.has_no_new_privileges,
            console_size=host.console_size,
            oom_score_adj=host.oom_score_adj,
            rlimits=oci_limits.rlimits(host.limits.ulimits, facts.descriptor_limits),
        ),
        "root": {"path": rootfs, "readonly": host.readonly_rootfs},
        "mounts": _mounts(container, facts, etc_files or {}, sources or {}),
        "linux": linux,
    }
    if host.uts_mode != "host":
        result["hostname"] = config.hostname
    return result


def exec_process(
    container: Container,
    *,
    cmd: Sequence[str],
    account: Account,
    facts: HostFacts,
    env: Sequence[str] = (),
    linked: Sequence[str] = (),
    working_dir: str = "",
    tty: bool = False,
    is_privileged: bool = False,
    console_size: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """Return the OCI process of an exec: the container's environment and restrictions, its own command.

    `is_privileged` gives every capability, as Docker does; the container's seccomp filter stays.
    """
    rules = security(container.host)
    granted = list(facts.capabilities) if is_privileged else capabilities(container.host, facts)
    return _process(
        args=list(cmd),
        env=_merged([*environment(container, tty=tty, linked=linked), *env]),
        cwd=working_dir or container.config.working_dir or "/",
        tty=tty,
        account=account,
        granted=granted,
        has_no_new_privileges=rules.has_no_new_privileges,
        console_size=console_size,
        oom_score_adj=container.host.oom_score_adj,
        rlimits=oci_limits.rlimits(container.host.limits.ulimits, facts.descriptor_limits),
    )


def check(host: HostConfig, facts: HostFacts) -> None:
    """Refuse everything in a create request that no config.json could be made of, in Docker's words."""
    rules = security(host)
    if rules.apparmor not in ("", "unconfined") and not facts.has_apparmor:
        raise NotSupported("AppArmor is not supported on this host: the kernel has it disabled")
    granted = capabilities(host, facts)
    if rules.seccomp:
        seccomp.filter_profile(
            rules.seccomp, capabilities=frozenset(granted), architecture=facts.architecture, kernel=facts.kernel
        )
    for path, words in (host.tmpfs or {}).items():
        tmpfs_mount(path, words)
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidParameter(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if _has_init(host) and not facts.init_path:
        raise NotSupported(
            '--init: exec: "docker-init": executable file not found in $PATH',
            hint="install an init with: apt-get install tini",
        )
    for mode, noun, allowed in (
        (host.ipc_mode, "IPC", ("", "private", "shareable", "host", "none")),
        (host.pid_mode, "PID", ("", "private", "host")),
        (host.uts_mode, "UTS", ("", "host")),
        (host.cgroupns_mode, "cgroup namespace", ("", "private", "host")),
    ):
        if mode.startswith("container:"):
            raise NotSupported(f"joining the {noun} namespace of another container is not supported: {mode}")
        if mode not in allowed:
            raise InvalidParameter(f"invalid {noun} mode: {mode}")
    for name in host.sysctls or {}:
        _check_sysctl(name, host)


def _has_init(host: HostConfig) -> bool:
    """An init is the first process of a process namespace of one's own, or none (Docker's rule)."""
    return bool(host.init) and host.pid_mode in ("", "private")


# ---- security options


class Security:
    """The parsed `--security-opt` words. `seccomp`: None unconfined, "" the default profile, else a profile's text."""

    __slots__ = ("apparmor", "has_no_new_privileges", "has_unconfined_paths", "seccomp")

    def __init__(self) -> None:
        self.seccomp: str | None = ""
        self.apparmor = ""
        self.has_no_new_privileges = False
        self.has_unconfined_paths = False


def security(host: HostConfig) -> Security:
    """Parse `SecurityOpt`; raises InvalidParameter in Docker's words, NotSupported for what the engine lacks."""
    rules = Security()
    for option in host.security_opt or ():
        if option == "no-new-privileges":
            rules.has_no_new_privileges = True
            continue
        if option == "disable":
            continue  # label=disable in its oldest form: there are no labels
        key, separator, value = option.partition("=")
        if not separator:
            key, separator, value = option.partition(":")
        if not separator:
            raise InvalidParameter(f'invalid --security-opt 1: "{option}"')
        match key:
            case "no-new-privileges":
                if value.lower() not in ("true", "false", "1", "0", "t", "f"):
                    raise InvalidParameter(f'invalid --security-opt 2: "{option}"')
                rules.has_no_new_privileges = value.lower() in ("true", "1", "t")
            case "seccomp":
                rules.seccomp = None if value == "unconfined" else "" if value == "builtin" else value
            case "apparmor":
                rules.apparmor = value
            case "label":
                if value != "disable":
                    raise NotSupported(f"SELinux labels are not supported: --security-opt {option}")
            case "systempaths" if value == "unconfined":
                rules.has_unconfined_paths = True
            case "writable-cgroups":
                raise NotSupported(f"writable cgroups are not supported: --security-opt {option}")
            case _:
                raise InvalidParameter(f'invalid --security-opt 2: "{option}"')
    return rules


def capabilities(host: HostConfig, facts: HostFacts) -> list[str]:
    """Return the capabilities of a container, in the kernel's order: defaults, plus added, less dropped.

    Docker's rules: with `ALL` dropped only the added ones stay; with `ALL` added all but the dropped ones that the
    engine itself has. Raises InvalidParameter for an unknown name, or one that the engine lacks.
    """
    if host.privileged:
        return list(facts.capabilities)
    added, dropped = _known(host.cap_add or (), "CapAdd"), _known(host.cap_drop or (), "CapDrop")
    if "ALL" in added:
        wanted = set(CAPABILITIES) - dropped
    elif "ALL" in dropped:
        wanted = set(added)
    else:
        wanted = (set(defaults.DEFAULT_CAPABILITIES) - dropped) | added
    lacking = sorted(added - {"ALL"} - set(facts.capabilities))
    if lacking:
        raise InvalidParameter(
            "invalid CapAdd: capability not supported by your kernel or not available in the current environment: "
            f'"{lacking[0]}"'
        )
    return [name for name in CAPABILITIES if name in wanted and name in facts.capabilities]


def _known(names: Iterable[str], noun: str) -> set[str]:
    found = set()
    for name in names:
        upper = name.upper()
        if upper != "ALL" and not upper.startswith("CAP_"):
            upper = f"CAP_{upper}"
        if upper != "ALL" and upper not in CAPABILITIES:
            raise InvalidParameter(f'invalid {noun}: unknown capability: "{upper}"')
        found.add(upper)
    return found


# ---- process


def environment(container: Container, *, tty: bool | None = None, linked: Sequence[str] = ()) -> list[str]:
    """Return the environment in Docker's order: PATH, HOSTNAME, TERM with a terminal, links, the user's and image's.

    A name given again replaces its earlier value in place; a name without `=` removes it. The runtime adds HOME.
    """
    config = container.config
    start = [f"PATH={defaults.DEFAULT_PATH}", f"HOSTNAME={config.hostname}"]
    if config.tty if tty is None else tty:
        start.append("TERM=xterm")
    return _merged([*start, *linked, *config.env])


def _merged(entries: Iterable[str]) -> list[str]:
    merged: dict[str, str] = {}
    for entry in entries:
        name, equals, _ = entry.partition("=")
        if equals:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return list(merged.values())


def _process(
    *,
    args: list[str],
    env: list[str],
    cwd: str,
    tty: bool,
    account: Account,
    granted: Sequence[str],
    has_no_new_privileges: bool,
    console_size: tuple[int, int],
    oom_score_adj: int,
    rlimits: list[dict[str, Any]],
) -> dict[str, Any]:
    names = list(granted)
    # Inheritable stays empty (CVE-2022-24769). Another user than root starts with none, as after execve.
    sets: dict[str, Any] = {"bounding": names, "inheritable": [], "ambient": []}
    sets["effective"] = sets["permitted"] = names if account.uid == 0 else []
    process: dict[str, Any] = {
        "terminal": tty,
        "user": {"uid": account.uid, "gid": account.gid, "additionalGids": list(account.groups), "umask": 0o022},
        "args": args,
        "env": env,
        "cwd": cwd,
        "capabilities": sets,
        "noNewPrivileges": has_no_new_privileges,
        "oomScoreAdj": oom_score_adj,
        # the engine raises its own limit, and programs that close every possible descriptor take long with a high one
        "rlimits": rlimits,
    }
    if tty and all(console_size):
        process["consoleSize"] = {"height": console_size[0], "width": console_size[1]}
    return process


# ---- linux


def _namespaces(
    host: HostConfig, netns: str | None, facts: HostFacts, paths: Mapping[str, str]
) -> list[dict[str, str]]:
    found = [{"type": "mount"}]
    if netns is not None:
        found.append({"type": "network", "path": netns})
    if host.uts_mode != "host":
        found.append({"type": "uts"})
    for kind, mode in (("pid", host.pid_mode), ("ipc", host.ipc_mode)):
        if kind in paths:
            found.append({"type": kind, "path": paths[kind]})
        elif mode != "host":
            found.append({"type": kind})
    if host.cgroupns_mode != "host" and facts.is_cgroup_v2 and not host.privileged:
        found.append({"type": "cgroup"})
    return found


def _sysctls(container: Container, *, has_own_network: bool) -> dict[str, str]:
    host = container.host
    result: dict[str, str] = {}
    if container.config.domainname and host.uts_mode != "host":
        result["kernel.domainname"] = container.config.domainname
    if has_own_network:
        # Docker's defaults since 20.10: ping and ports below 1024 need no capability in a network of one's own.
        result["net.ipv4.ip_unprivileged_port_start"] = "0"
        result["net.ipv4.ping_group_range"] = "0 2147483647"
    for name, value in (host.sysctls or {}).items():
        _check_sysctl(name, host)
        result[name] = value
    return result


_IPC_SYSCTLS = {"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax"}
_IPC_SYSCTLS |= {"kernel.shmmni", "kernel.shm_rmid_forced"}


def _check_sysctl(name: str, host: HostConfig) -> None:
    """Allow only sysctls that belong to a namespace of the container (Docker's list); others would be the host's."""
    if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        if host.ipc_mode == "host":
            raise InvalidParameter(
                f'sysctl "{name}" is not allowed as ipc is host', hint="give the container its own IPC"
            )
    elif name.startswith("net."):
        if host.network_mode == "host":
            raise InvalidParameter(f'sysctl "{name}" is not allowed in host network mode')
    elif name != "kernel.domainname" or host.uts_mode == "host":
        raise InvalidParameter(f"sysctl '{name}' is not allowed", hint="it belongs to the host, not to a container")


def _root_propagation(mounts: Sequence[Mount]) -> str:
    """A bind can only pass mounts on when the root does (mount_namespaces(7))."""
    kinds = {mount.propagation for mount in mounts}
    if kinds & {"shared", "rshared"}:
        return "rshared"
    return "rslave" if kinds & {"slave", "rslave"} else "rprivate"


def _mounts(
    container: Container, facts: HostFacts, etc_files: Mapping[str, str], sources: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return all mounts in an order in which none hides another; a user's mount replaces a default at its path."""
    host, has_recursive_readonly = container.host, facts.kernel >= (5, 12)
    mounts = {
        m["destination"]: m
        for m in defaults.default_mounts(shm_size=host.shm_size, is_privileged=host.privileged)
        if not (host.ipc_mode == "none" and m["destination"] == "/dev/shm")
    }
    if host.ipc_mode == "host":
        for path in ("/dev/shm", "/dev/mqueue"):
            mounts[path] = bind_mount(
                Mount(type="bind", source=path, destination=path), path, has_recursive_readonly=False
            )
    if _has_init(host):
        mounts[INIT] = {
            "destination": INIT,
            "type": "bind",
            "source": facts.init_path,
            "options": ["bind", "ro", "rprivate"],
        }
    for path, source in etc_files.items():
        mounts[path] = {"destination": path, "type": "bind", "source": source, "options": ["rbind", "rprivate"]}
        if host.readonly_rootfs:
            mounts[path]["options"].append("ro")
    for mount in container.mounts:
        if mount.type == "tmpfs":
            mounts[mount.destination] = tmpfs_mount(mount.destination, mount.options)
        else:
            source = sources.get(mount.destination, mount.source)
            made = bind_mount(mount, source, has_recursive_readonly=has_recursive_readonly)
            mounts[mount.destination] = made
    for path, options in (host.tmpfs or {}).items():
        made = tmpfs_mount(path, options)
        mounts[made["destination"]] = made
    # Stable by depth: a parent is mounted before what lies in it, whoever asked for it.
    return sorted(mounts.values(), key=lambda m: m["destination"].count("/"))
