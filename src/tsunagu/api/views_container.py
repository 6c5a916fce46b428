"""Docker's JSON of containers: inspect, the list, execs. Pure; the clock comes in as an argument."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tsunagu.model.container import Config, Container, HostConfig, State, Status
from tsunagu.model.health import HealthStatus
from tsunagu.model.instance import Instance
from tsunagu.model.network import PublishedPort
from tsunagu.model.world import World
from tsunagu.rules import links, ports
from tsunagu.rules.sandboxes import joins, owner_of
from tsunagu.wire import oci_defaults

from .views import Json, by_key, human_duration, rfc3339
from .views_network import networks_json
from .views_volume import mount_json

# HostConfig fields that this engine does not have, with the values that Docker shows when nothing was asked for.
_HOST_KEYS: tuple[tuple[str, object], ...] = (
    ("Cgroup", ""),
    ("UsernsMode", ""),
    ("Runtime", "runc"),
    ("Isolation", ""),
    ("CgroupParent", ""),
    ("CpuRealtimePeriod", 0),
    ("CpuRealtimeRuntime", 0),
    ("DeviceRequests", None),
    ("CpuCount", 0),
    ("CpuPercent", 0),
    ("IOMaximumIOps", 0),
    ("IOMaximumBandwidth", 0),
)


def container_json(
    world: World,
    container: Container,
    instance: Instance,
    *,
    exec_ids: Sequence[str],
    log_path: str,
    sizes: tuple[int, int] | None,
) -> Json:
    """Render `GET /containers/{id}/json`. `sizes` are bytes (SizeRw, SizeRootFs) when asked for."""
    directory = f"{instance.root}/containers/{owner_of(world, container).id}"  # of the files that it has bound
    out: Json = {
        "Id": container.id,
        "Created": rfc3339(container.created),
        "Path": container.path,
        "Args": container.args,
        "State": state_json(container.state),
        "Image": container.image_id,
        "ResolvConfPath": f"{directory}/resolv.conf",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "LogPath": log_path,
        "Name": f"/{container.name}",
        "RestartCount": container.state.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(exec_ids) or None,
        "HostConfig": {**host_json(container.host), "Links": links.words_of(world, container)},
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "Mounts": [mount_json(mount, instance) for mount in container.mounts],
        "Config": config_json(container.config),
        "NetworkSettings": _network_settings(world, container, instance),
    }
    if sizes is not None:
        out["SizeRw"], out["SizeRootFs"] = sizes
    return out


def state_json(state: State) -> Json:
    status = state.status
    is_running = status in (Status.RUNNING, Status.PAUSED)
    out: Json = {
        "Status": str(status),
        "Running": is_running or status is Status.RESTARTING,
        "Paused": status is Status.PAUSED,
        "Restarting": status is Status.RESTARTING,
        "OOMKilled": state.is_oom_killed,
        "Dead": status is Status.DEAD,
        "Pid": state.pid if is_running else 0,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": rfc3339(state.started_at),
        "FinishedAt": rfc3339(state.finished_at),
    }
    if state.health is not None:
        out["Health"] = {
            "Status": str(state.health.status),
            "FailingStreak": state.health.failing_streak,
            "Log": [
                {
                    "Start": rfc3339(probe.start),
                    "End": rfc3339(probe.end),
                    "ExitCode": probe.exit_code,
                    "Output": probe.output,
                }
                for probe in state.health.log
            ],
        }
    return out


def config_json(config: Config) -> Json:
    out: Json = {
        "Hostname": config.hostname,
        "Domainname": config.domainname,
        "User": config.user,
        "AttachStdin": config.attach_stdin,
        "AttachStdout": config.attach_stdout,
        "AttachStderr": config.attach_stderr,
    }
    if config.exposed_ports:
        out["ExposedPorts"] = {port: {} for port in sorted(config.exposed_ports)}
    out |= {
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.stdin_once,
        "Env": config.env,
        "Cmd": config.cmd,
    }
    if config.healthcheck is not None:
        shown = msgspec.to_builtins(config.healthcheck)
        out["Healthcheck"] = {name: value for name, value in shown.items() if value}
    out |= {
        "Image": config.image,
        "Volumes": config.volumes,
        "WorkingDir": config.working_dir,
        "Entrypoint": config.entrypoint,
        "OnBuild": None,
        "Labels": by_key(config.labels),
    }
    if config.stop_signal:
        out["StopSignal"] = config.stop_signal
    if config.stop_timeout is not None:
        out["StopTimeout"] = config.stop_timeout
    return out


def host_json(host: HostConfig) -> Json:
    """Render HostConfig with every key Docker shows."""
    out: Json = {
        "Binds": host.binds,
        "VolumeDriver": host.volume_driver,
        "VolumesFrom": host.volumes_from,
        "ContainerIDFile": host.container_id_file,
        "NetworkMode": "bridge" if host.network_mode in ("", "default") else host.network_mode,
        "PortBindings": {
            port: [{"HostIp": b.host_ip, "HostPort": b.host_port} for b in bindings or ()]
            for port, bindings in sorted((host.port_bindings or {}).items())
        },
        "RestartPolicy": {
            "Name": host.restart_policy.name,
            "MaximumRetryCount": host.restart_policy.maximum_retry_count,
        },
        "AutoRemove": host.auto_remove,
        "ConsoleSize": host.console_size,
        "CapAdd": host.cap_add,
        "CapDrop": host.cap_drop,
        "CgroupnsMode": host.cgroupns_mode,
        "Dns": host.dns,
        "DnsOptions": host.dns_options,
        "DnsSearch": host.dns_search,
        "ExtraHosts": host.extra_hosts,
        "GroupAdd": host.group_add,
        "IpcMode": host.ipc_mode,
        "Links": None,
        "OomScoreAdj": host.oom_score_adj,
        "PidMode": host.pid_mode,
        "Privileged": host.privileged,
        "PublishAllPorts": host.publish_all_ports,
        "ReadonlyRootfs": host.readonly_rootfs,
        "SecurityOpt": host.security_opt,
        "UTSMode": host.uts_mode,
        "ShmSize": host.shm_size,
        "MaskedPaths": _paths(host.masked_paths, oci_defaults.MASKED_PATHS, host),
        "ReadonlyPaths": _paths(host.readonly_paths, oci_defaults.READONLY_PATHS, host),
    }
    out.update(_HOST_KEYS)
    out.update(msgspec.to_builtins(host.limits))
    out["LogConfig"] = {"Type": host.log_config.type, "Config": by_key(host.log_config.config)}
    if host.init is not None:
        out["Init"] = host.init
    out["DeviceCgroupRules"] = host.limits.device_cgroup_rules or None
    if host.mounts:
        out["Mounts"] = host.mounts
    if host.tmpfs:
        out["Tmpfs"] = by_key(host.tmpfs)
    if host.sysctls:
        out["Sysctls"] = by_key(host.sysctls)
    return out


def _paths(own: Sequence[str] | None, default: Sequence[str], host: HostConfig) -> Sequence[str] | None:
    """Return the hidden or protected paths that are in force: none of them when privileged."""
    if own is not None:
        return own
    return None if host.privileged else default


def _has_sandbox(container: Container) -> bool:
    """Whether a container has a sandbox of its own at the moment: also a stopped one, while others live in it."""
    return (container.is_running and not joins(container)) or any(e.is_joined for e in container.endpoints)


def _network_settings(world: World, container: Container, instance: Instance) -> Json:
    """The top-level addresses are those on the default bridge (removed from the API in 1.52)."""
    is_there = _has_sandbox(container)
    key = "default" if container.host.network_mode == "host" else container.id  # as libnetwork calls the host's
    legacy = next(
        (
            e
            for e in container.endpoints
            if (n := world.networks.get(e.network_id)) and n.is_default_bridge and e.is_joined
        ),
        None,
    )
    return {
        "Bridge": "",
        "SandboxID": container.id if is_there else "",
        "SandboxKey": f"{instance.run_dir}/netns/{key}" if is_there else "",
        "Ports": _port_map(container) if is_there else {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": legacy.id if legacy else "",
        "Gateway": legacy.gateway4 if legacy else "",
        "GlobalIPv6Address": legacy.ipv6 if legacy else "",
        "GlobalIPv6PrefixLen": legacy.ipv6_prefix if legacy else 0,
        "IPAddress": legacy.ipv4 if legacy else "",
        "IPPrefixLen": legacy.ipv4_prefix if legacy else 0,
        "IPv6Gateway": legacy.gateway6 if legacy else "",
        "MacAddress": legacy.mac if legacy else "",
        "Networks": networks_json(world, container),
    }


# ---- the list


def summary_json(
    world: World,
    container: Container,
    instance: Instance,
    image_name: str,
    now: int,
    sizes: tuple[int, int] | None,
    *,
    link_names: Sequence[str] = (),
) -> Json:
    """Render one line of `GET /containers/json`. `now` is in nanoseconds since the epoch.

    `link_names` are the names that links of other containers give it.
    """
    out: Json = {
        "Id": container.id,
        "Names": [f"/{container.name}", *link_names],
        "Image": image_name,
        "ImageID": container.image_id,
        "Command": command_text(container),
        "Created": container.created // 1_000_000_000,
        "Ports": _ports(container) if _has_sandbox(container) else [],
    }
    if sizes is not None:
        out["SizeRw"], out["SizeRootFs"] = sizes
    return out | {
        "Labels": by_key(container.config.labels),
        "State": str(container.state.status),
        "Status": status_text(container.state, now),
        "HostConfig": {
            "NetworkMode": "bridge" if container.host.network_mode in ("", "default") else container.host.network_mode
        },
        "NetworkSettings": {"Networks": networks_json(world, container)},
        "Mounts": [mount_json(mount, instance) for mount in container.mounts],
    }


def command_text(container: Container) -> str:
    """Return the command line as `ps` shows it: arguments with spaces are quoted."""
    return " ".join([container.path, *(f"'{arg}'" if " " in arg else arg for arg in container.args)])


def _health_text(state: State) -> str:
    if state.health is None:
        return ""
    status = state.health.status
    return f" (health: {status})" if status is HealthStatus.STARTING else f" ({status})"


def status_text(state: State, now: int) -> str:
    """Return the STATUS column."""
    match state.status:
        case Status.RUNNING:
            return f"Up {human_duration(now - state.started_at)}{_health_text(state)}"
        case Status.PAUSED:
            return f"Up {human_duration(now - state.started_at)} (Paused)"
        case Status.RESTARTING:
            return f"Restarting ({state.exit_code}) {human_duration(now - state.finished_at)} ago"
        case Status.REMOVING:
            return "Removal In Progress"
        case Status.DEAD:
            return "Dead"
    if state.started_at == 0:
        return "Created"
    return f"Exited ({state.exit_code}) {human_duration(now - state.finished_at)} ago"


def _published(container: Container) -> dict[tuple[int, str], list[PublishedPort]]:
    """Every exposed port with where it is published: in the order of asking, IPv4 before IPv6. Without a network of
    its own (`host`, `none`) a container has none."""
    if not container.endpoints:
        return {}
    found: dict[tuple[int, str], list[PublishedPort]] = {
        key: [] for key in ports.exposed(container.config.exposed_ports)
    }
    for port in (port for endpoint in container.endpoints for port in endpoint.ports):
        found.setdefault((port.container_port, port.protocol), []).append(port)
    return {key: sorted(many, key=lambda p: p.family) for key, many in sorted(found.items())}


def _port_map(container: Container) -> Json:
    bindings: Json = {
        f"{number}/{protocol}": [{"HostIp": p.host_ip, "HostPort": str(p.host_port or "")} for p in many] or None
        for (number, protocol), many in _published(container).items()
    }
    return by_key(bindings)


def _ports(container: Container) -> list[Json]:
    listed: list[Json] = []
    for (number, protocol), many in _published(container).items():
        listed += [
            {
                "IP": p.host_ip,
                "PrivatePort": number,
                "Type": protocol,
                **({"PublicPort": p.host_port} if p.host_port else {}),
            }
            for p in many
        ] or [{"PrivatePort": number, "Type": protocol}]
    return listed
