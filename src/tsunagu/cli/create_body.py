"""The body of `POST /containers/create` from the flags of `run` and `create`.

Only what differs from Docker's defaults is sent; a flag that the engine does not support travels in the field that
Docker uses, so that the engine refuses it by name. May import: `cli` values and ports. Must never talk to the engine.
"""

from __future__ import annotations

from tsunagu.cli.output import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from tsunagu.cli.flags import Options

    Body = dict[str, Any]

_PREDEFINED = ("bridge", "host", "none", "default")
# flag -> HostConfig field, sent as parsed when the flag was given
_PLAIN = (
    ("blkio-weight", "BlkioWeight"),
    ("cgroup-parent", "CgroupParent"),
    ("cgroupns", "CgroupnsMode"),
    ("cidfile", "ContainerIDFile"),
    ("cpu-period", "CpuPeriod"),
    ("cpu-quota", "CpuQuota"),
    ("cpu-rt-period", "CpuRealtimePeriod"),
    ("cpu-rt-runtime", "CpuRealtimeRuntime"),
    ("cpu-shares", "CpuShares"),
    ("cpus", "NanoCpus"),
    ("cpuset-cpus", "CpusetCpus"),
    ("cpuset-mems", "CpusetMems"),
    ("device-cgroup-rule", "DeviceCgroupRules"),
    ("dns", "Dns"),
    ("dns-option", "DnsOptions"),
    ("dns-search", "DnsSearch"),
    ("add-host", "ExtraHosts"),
    ("gpus", "DeviceRequests"),
    ("group-add", "GroupAdd"),
    ("init", "Init"),
    ("ipc", "IpcMode"),
    ("isolation", "Isolation"),
    ("kernel-memory", "KernelMemory"),
    ("link", "Links"),
    ("memory", "Memory"),
    ("memory-reservation", "MemoryReservation"),
    ("memory-swap", "MemorySwap"),
    ("memory-swappiness", "MemorySwappiness"),
    ("mount", "Mounts"),
    ("oom-kill-disable", "OomKillDisable"),
    ("oom-score-adj", "OomScoreAdj"),
    ("pid", "PidMode"),
    ("pids-limit", "PidsLimit"),
    ("privileged", "Privileged"),
    ("publish-all", "PublishAllPorts"),
    ("read-only", "ReadonlyRootfs"),
    ("rm", "AutoRemove"),
    ("runtime", "Runtime"),
    ("shm-size", "ShmSize"),
    ("userns", "UsernsMode"),
    ("uts", "UTSMode"),
    ("volume-driver", "VolumeDriver"),
    ("volumes-from", "VolumesFrom"),
    ("blkio-weight-device", "BlkioWeightDevice"),
    ("device-read-bps", "BlkioDeviceReadBps"),
    ("device-write-bps", "BlkioDeviceWriteBps"),
    ("device-read-iops", "BlkioDeviceReadIOps"),
    ("device-write-iops", "BlkioDeviceWriteIOps"),
)


def build(options: Options, image: str, command: list[str], host: str) -> Body:
    """The create request. `host` is the engine's address, for `--use-api-socket`. Raises Failure for wrong values."""
    _check_modes(options)
    body = _config(options, image, command)
    body["HostConfig"] = _host_config(options, host)
    body |= _volumes(options, body["HostConfig"])
    _ports(options, body)
    _networks(options, body)
    return body


def check_platform(options: Options) -> None:
    """Refuse the flags that only a Windows engine knows, as Docker's client does. Raises Failure."""
    names = [name for name in ("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops") if name in options]
    if names:
        lines = [f'"--{name}" is only supported on Windows, and the engine is running on Linux' for name in names]
        raise Failure("\n".join(lines))


def _check_modes(options: Options) -> None:
    for name, title, allowed in (
        ("pid", "PID", ("", "host")),
        ("uts", "UTS", ("", "host")),
        ("userns", "USER", ("", "host")),
        ("cgroupns", "CGROUP", ("", "host", "private")),
    ):
        value = options[name]
        if value not in allowed and not (name == "pid" and value.startswith("container:")):
            raise Failure(f"--{name}: invalid {title} mode")


def _config(options: Options, image: str, command: list[str]) -> Body:
    streams = options["attach"]
    wants_stdin = "stdin" in streams or options["interactive"]
    body: Body = {
        "Image": image,
        "AttachStdin": "stdin" in streams or (not streams and options["interactive"]),
        "AttachStdout": not streams or "stdout" in streams,
        "AttachStderr": not streams or "stderr" in streams,
        "OpenStdin": options["interactive"],
        "StdinOnce": options["interactive"] and wants_stdin and (not streams or "stdin" in streams),
        "Tty": options["tty"],
    }
    for name, field in (
        ("hostname", "Hostname"),
        ("domainname", "Domainname"),
        ("user", "User"),
        ("workdir", "WorkingDir"),
        ("stop-signal", "StopSignal"),
        ("stop-timeout", "StopTimeout"),
    ):
        if name in options:
            body[field] = options[name]
    if command:
        body["Cmd"] = command
    if "entrypoint" in options:
        body["Entrypoint"] = [options["entrypoint"]]
    environment = read_environment(options)
    if environment:
        body["Env"] = environment
    labels = _labels(options)
    if labels:
        body["Labels"] = labels
    check = _healthcheck(options)
    if check:
        body["Healthcheck"] = check
    return body


def read_environment(options: Options) -> list[str]:
    """`--env-file` lines, then `--env` values (exec has the same two flags)."""
    found: list[str] = []
    for path in options["env-file"]:
        from tsunagu.cli.paths import read_lines
        from tsunagu.cli.values import env

        for line in read_lines(path):
            text = line.lstrip()
            if not text or text.startswith("#"):
                continue
            name = text.partition("=")[0]
            if not name:
                raise Failure(f"invalid env file ({path}): no variable name on line '{line}'")
            if any(letter.isspace() for letter in name):
                raise Failure(f"invalid env file ({path}): variable '{name}' contains whitespaces")
            # A bare name takes its value from the environment and is left out when it has none there.
            value = env(text)
            if "=" in value:
                found.append(value)
    return [*found, *options["env"]]


def _labels(options: Options) -> dict[str, str]:
    lines: list[str] = []
    for path in options["label-file"]:
        from tsunagu.cli.paths import read_lines

        lines += [line for line in read_lines(path) if line.strip() and not line.lstrip().startswith("#")]
    return pairs([*lines, *options["label"]])


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """`name=value` texts as a mapping; a bare name has the value "" (labels, options)."""
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def _healthcheck(options: Options) -> Body:
    times = (
        ("health-interval", "Interval"),
        ("health-timeout", "Timeout"),
        ("health-start-period", "StartPeriod"),
        ("health-start-interval", "StartInterval"),
    )
    is_used = "health-cmd" in options or options["health-retries"] or any(options[name] for name, _ in times)
    if options["no-healthcheck"]:
        if is_used:
            raise Failure("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not is_used:
        return {}
    check: Body = {"Test": ["CMD-SHELL", options["health-cmd"]]} if options["health-cmd"] else {}
    for name, field in times:
        if options[name] < 0:
            raise Failure(f"--{name} cannot be negative")
        if options[name]:
            check[field] = options[name]
    if options["health-retries"] < 0:
        raise Failure("--health-retries cannot be negative")
    if options["health-retries"]:
        check["Retries"] = options["health-retries"]
    return check


def _host_config(options: Options, host: str) -> Body:
    body: Body = {field: options[name] for name, field in _PLAIN if name in options}
    for name, field in (("cap-add", "CapAdd"), ("cap-drop", "CapDrop")):
        if name in options:
            body[field] = sorted({_capability(text) for text in options[name]})
    if "annotation" in options:
        body["Annotations"] = pairs(options["annotation"])
    if "sysctl" in options:
        body["Sysctls"] = pairs(options["sysctl"])
    if "ulimit" in options:
        body["Ulimits"] = sorted(
            {limit["Name"]: limit for limit in options["ulimit"]}.values(), key=lambda one: one["Name"]
        )
    if "storage-opt" in options:
        if not all("=" in text for text in options["storage-opt"]):
            raise Failure("invalid storage option")
        body["StorageOpt"] = pairs(options["storage-opt"])
    if "log-driver" in options or "log-opt" in options:
        if options["log-driver"] == "none" and options["log-opt"]:
            raise Failure("invalid logging opts for driver none")
        body["LogConfig"] = {"Type": options["log-driver"], "Config": pairs(options["log-opt"])}
    if "device" in options:
        body["Devices"] = [_device(text) for text in options["device"]]
    if "security-opt" in options:
        _security(options["security-opt"], body)
    restart = restart_policy(options["restart"])
    if restart and restart != {"Name": "no", "MaximumRetryCount": 0}:
        body["RestartPolicy"] = restart
        if options["rm"] and restart["Name"] != "no":
            raise Failure("conflicting options: cannot specify both --restart and --rm")
    if options["use-api-socket"]:
        from tsunagu.client import socket_path

        mount = {"Type": "bind", "Source": socket_path(host), "Target": "/var/run/docker.sock"}
        body["Mounts"] = [*body.get("Mounts", []), mount]
    return body


def _capability(text: str) -> str:
    name = text.strip().upper()
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def restart_policy(text: str) -> Body:
    """The value of `--restart` as the engine takes it; `{}` for none. Raises Failure."""
    name, colon, count = text.partition(":")
    if not name and colon:
        raise Failure("invalid restart policy format: no policy provided before colon")
    if not text:
        return {}
    try:
        return {"Name": name, "MaximumRetryCount": int(count) if count else 0}
    except ValueError:
        raise Failure("invalid restart policy format: maximum retry count must be an integer") from None


def _device(text: str) -> Body:
    source, *rest = text.split(":")
    target, mode = source, "rwm"
    if len(rest) > 2:
        raise Failure(f"bad format for path: {text}")
    if len(rest) == 2:
        target, mode = rest
    elif len(rest) == 1:
        if rest[0] and not set(rest[0]) - set("rwm"):
            mode = rest[0]
        else:
            target = rest[0]
    if set(mode) - set("rwm") or not mode or len(set(mode)) != len(mode):
        raise Failure(f"bad mode specified: {mode}")
    for path in (source, target):
        if not path.startswith("/"):
            raise Failure(f"{path} is not an absolute path")
    return {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": mode}


def _security(texts: list[str], body: Body) -> None:
    sent: list[str] = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals and text != "no-new-privileges":
            name, colon, value = text.partition(":")
            if not colon:
                raise Failure(f'Invalid --security-opt: "{text}"')
        if text == "systempaths=unconfined":
            body["MaskedPaths"] = []
            body["ReadonlyPaths"] = []
        elif name == "seccomp" and value not in ("unconfined", "builtin"):
            sent.append(f"seccomp={_seccomp_profile(value)}")
        else:
            sent.append(text)
    if sent:
        body["SecurityOpt"] = sent


def _seccomp_profile(path: str) -> str:
    from tsunagu.jsontext import JsonError, dumps, loads

    try:
        with open(path, "rb") as file:
            return dumps(loads(file.read()))
    except OSError as error:
        cause = f"open {path}: {(error.strerror or '').lower()}"
        raise Failure(f"opening seccomp profile ({path}) failed: {cause}") from None
    except JsonError as error:
        raise Failure(f"compacting json for seccomp profile ({path}) failed: {error}") from None


def _volumes(options: Options, host: Body) -> Body:
    binds: list[str] = []
    volumes: dict[str, Body] = {}
    for text in options["volume"]:
        if not text:
            raise Failure("invalid empty volume spec")
        source, colon, rest = text.partition(":")
        if not colon:
            volumes[text] = {}
            continue
        if source.startswith(("./", "../")) or source in (".", ".."):
            from tsunagu.cli.paths import absolute

            source = absolute(source)
        binds.append(f"{source}:{rest}")
    if binds:
        host["Binds"] = binds
    if options["tmpfs"]:
        host["Tmpfs"] = {path: flags for path, _, flags in (text.partition(":") for text in options["tmpfs"])}
    return {"Volumes": volumes} if volumes else {}


def _ports(options: Options, body: Body) -> None:
    if not options["publish"] and not options["expose"]:
        return
    from tsunagu.cli.ports import parse_expose, parse_publish

    bindings = parse_publish(options["publish"])
    if bindings:
        body["HostConfig"]["PortBindings"] = bindings
    body["ExposedPorts"] = {port: {} for port in (*bindings, *parse_expose(options["expose"]))}


def _networks(options: Options, body: Body) -> None:
    attachments: list[dict[str, Any]] = [dict(one) for one in options["network"]]
    if not attachments:
        attachments = [{"name": "default", "aliases": [], "options": {}, "local": []}]
    _merge_single_flags(options, attachments[0])
    mode = attachments[0]["name"]
    endpoints: dict[str, Body] = {}
    for one in attachments:
        name = one["name"]
        if not name:
            raise Failure("no name set for network")
        is_predefined = name in _PREDEFINED or name.startswith("container:")
        if len(attachments) > 1 and is_predefined:
            raise Failure("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
        if is_predefined and one["aliases"]:
            raise Failure("network-scoped aliases are only supported for user-defined networks")
        if name in endpoints:
            raise Failure(f'network "{name}" is specified multiple times')
        endpoint = _endpoint(one)
        if options["link"] and one is attachments[0] and not is_predefined:
            endpoint["Links"] = options["link"]
        if endpoint or not is_predefined:
            endpoints[name] = endpoint
    body["HostConfig"]["NetworkMode"] = mode
    if endpoints:
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}


def _merge_single_flags(options: Options, first: dict[str, Any]) -> None:
    """`--ip`, `--network-alias` and their like speak of the first network."""
    if options["network-alias"]:
        if first["aliases"]:
            raise Failure("conflicting options: cannot specify both --network-alias and per-network alias")
        first["aliases"] = options["network-alias"]
    if options["link-local-ip"]:
        if first["local"]:
            raise Failure(
                "conflicting options: cannot specify both --link-local-ip and per-network link-local IP addresses"
            )
        first["local"] = options["link-local-ip"]
    for name, key, title in (
        ("ip", "ip", "IPv4 address"),
        ("ip6", "ip6", "IPv6 address"),
        ("mac-address", "mac", "MAC address"),
    ):
        if options[name]:
            if first.get(key):
                raise Failure(f"conflicting options: cannot specify both --{name} and per-network {title}")
            first[key] = options[name]


def _endpoint(one: dict[str, Any]) -> Body:
    endpoint: Body = {}
    addresses: Body = {}
    if one.get("ip"):
        addresses["IPv4Address"] = one["ip"]
    if one.get("ip6"):
        addresses["IPv6Address"] = one["ip6"]
    if one["local"]:
        addresses["LinkLocalIPs"] = one["local"]
    if addresses:
        endpoint["IPAMConfig"] = addresses
    if one["aliases"]:
        endpoint["Aliases"] = one["aliases"]
    if one["options"]:
        endpoint["DriverOpts"] = one["options"]
    if one.get("mac"):
        endpoint["MacAddress"] = check_mac(one["mac"])
    if one.get("priority"):
        endpoint["GwPriority"] = one["priority"]
    return endpoint


def check_mac(text: str) -> str:
    """The text when it is an EUI-48 address in colon or dash form. Raises Failure in Docker's words."""
    parts = text.replace("-", ":").split(":")
    digits = set("0123456789abcdefABCDEF")
    if len(parts) != 6 or not all(len(part) == 2 and set(part) <= digits for part in parts):
        raise Failure(f"{text} is not a valid mac address")
    return text
