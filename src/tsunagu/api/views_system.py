"""Docker's JSON of the engine itself: version, info, events. Renders the facts that `services.system` gathers."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from tsunagu import __version__
from tsunagu.services.events import EngineEvent

from .request import API_VERSION, MIN_API_VERSION
from .views import Json, rfc3339

# Clients compare this with Docker's releases; the suffix is build metadata (semver §10). Ours is in Platform.Name.
SERVER_VERSION = f"28.5.2+tsunagu{__version__}"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def architecture() -> str:
    """Return this machine in Go's words (amd64, arm64)."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def version_json(facts: Mapping[str, Any]) -> Json:
    """Render `GET /version`. There is no Go in here: GoVersion says which Python runs."""
    api, minimum = "{}.{}".format(*API_VERSION), "{}.{}".format(*MIN_API_VERSION)
    python = f"python{facts['python']}"
    engine = {
        "ApiVersion": api,
        "Arch": architecture(),
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": python,
        "KernelVersion": facts["kernel"],
        "MinAPIVersion": minimum,
        "Os": "linux",
    }
    runtime = facts["runtime"]
    components: list[Json] = [
        {"Name": "Engine", "Version": SERVER_VERSION, "Details": engine},
        {"Name": runtime["name"], "Version": runtime["version"], "Details": {"Path": runtime["path"]}},
        {"Name": "conmon", "Version": facts["conmon"], "Details": {}},
    ]
    return {
        "Platform": {"Name": f"Tsunagu {__version__}"},
        "Components": components,
        "Version": SERVER_VERSION,
        "ApiVersion": api,
        "MinAPIVersion": minimum,
        "GitCommit": "",
        "GoVersion": python,
        "Os": "linux",
        "Arch": architecture(),
        "KernelVersion": facts["kernel"],
        "BuildTime": "",
    }


def info_json(facts: Mapping[str, Any]) -> Json:
    """Render `GET /info`. Limits are False because this engine does not apply any yet, whatever the kernel can do."""
    runtime, firewall, resolver = facts["runtime"], facts["firewall"], facts["resolver"]
    warnings = [] if facts["ip_forward"] else ["WARNING: IPv4 forwarding is disabled"]
    return {
        "ID": facts["id"],
        "Containers": facts["containers"],
        "ContainersRunning": facts["running"],
        "ContainersPaused": facts["paused"],
        "ContainersStopped": facts["stopped"],
        "Images": facts["images"],
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", facts["filesystem"]]] if facts.get("filesystem") else [],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": ["json-file"],
        },
        "MemoryLimit": False,
        "SwapLimit": False,
        "CpuCfsPeriod": False,
        "CpuCfsQuota": False,
        "CPUShares": False,
        "CPUSet": False,
        "PidsLimit": False,
        "IPv4Forwarding": facts["ip_forward"],
        "Debug": False,
        "NFd": facts["file_descriptors"],
        "OomKillDisable": False,
        "NGoroutines": facts["tasks"],
        "SystemTime": rfc3339(facts["now"]),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": facts["cgroup_version"],
        "NEventsListener": facts["event_listeners"],
        "KernelVersion": facts["kernel"],
        "OperatingSystem": facts["os"],
        "OSVersion": facts.get("os_version") or "",
        "OSType": "linux",
        "Architecture": facts["architecture"],
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {"InsecureRegistryCIDRs": [], "IndexConfigs": {}, "Mirrors": []},
        "NCPU": facts["cpus"],
        "MemTotal": facts["memory"],
        "GenericResources": None,
        "DockerRootDir": facts["root"],
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": facts["host_name"],
        "Labels": list(facts["labels"]),
        "ExperimentalBuild": False,
        "ServerVersion": SERVER_VERSION,
        "Runtimes": {runtime["name"]: {"path": runtime["path"], "status": {}}},
        "DefaultRuntime": runtime["name"],
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,  # containers live on while the engine is away
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": runtime["version"]},
        "InitCommit": {"ID": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "FirewallBackend": {"Driver": firewall["backend"], "Info": [["table", firewall["table"]]]},
        "DefaultAddressPools": [{"Base": pool.base, "Size": pool.size} for pool in facts["pools"]],
        "CDISpecDirs": [],
        "Warnings": warnings or None,
        "Tsunagu": {
            "Version": facts["version"],
            "Python": facts["python"],
            "Pid": facts["pid"],
            "RunDir": facts["run_dir"],
            "StartedAt": rfc3339(facts["started_at"]),
            "Networks": facts["networks"],
            "Runtime": runtime,
            "Conmon": facts["conmon"],
            "Firewall": firewall,
            "Resolver": resolver,
        },
    }


def event_json(event: EngineEvent) -> Json:
    """Render one line of `GET /events`; containers and images also carry the keys of the oldest API."""
    out: Json = {}
    if event.type in ("container", "image"):
        out = {"status": event.action, "id": event.id}
        if image := event.attributes.get("image"):
            out["from"] = image
    return out | {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time_ns // 1_000_000_000,
        "timeNano": event.time_ns,
    }
