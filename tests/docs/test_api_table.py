"""docs/api.md says what each endpoint and each field of a create request does. It is written from the router and by
asking the decoder, so that it stays true: `TSUNAGU_WRITE_DOCS=1 pytest tests/docs/test_api_table.py` writes it anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tsunagu.api.routes import ROUTES, absent, images, system
from tsunagu.api.schema_container import container_create
from tsunagu.model.errors import EngineError, NotSupported

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
INTRODUCTION = """# The Engine API, endpoint by endpoint

Made from the router and by asking the decoder of requests (`tests/docs/test_api_table.py`); do not edit by hand.
*Works* means as Docker 28 does, but for [the deliberate differences](differences.md). *Refused by name* means an error
that names the thing, for fields whenever they hold anything but Docker's default. Nothing is accepted and ignored but
what is marked so.
"""
# The fields of Engine API 1.51, each with a value that asks for something.
CONFIG: dict[str, Any] = {
    "Hostname": "h", "Domainname": "d", "User": "u", "AttachStdin": True, "AttachStdout": True, "AttachStderr": True,
    "ExposedPorts": {"80/tcp": {}}, "Tty": True, "OpenStdin": True, "StdinOnce": True, "Env": ["A=b"], "Cmd": ["sh"],
    "Healthcheck": {"Test": ["CMD", "true"]}, "ArgsEscaped": True, "Image": "x", "Volumes": {"/data": {}},
    "WorkingDir": "/", "Entrypoint": ["sh"], "NetworkDisabled": True, "MacAddress": "02:00:00:00:00:01",
    "OnBuild": ["RUN true"], "Labels": {"a": "b"}, "StopSignal": "TERM", "StopTimeout": 5, "Shell": ["sh"],
}  # fmt: skip
HOST: dict[str, Any] = {
    "CpuShares": 512, "Memory": 1 << 26, "CgroupParent": "/x", "BlkioWeight": 100,
    "BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 100}],
    "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1}], "BlkioDeviceWriteBps": [{"Path": "/dev/sda", "Rate": 1}],
    "BlkioDeviceReadIOps": [{"Path": "/dev/sda", "Rate": 1}], "BlkioDeviceWriteIOps": [{"Path": "/dev/sda", "Rate": 1}],
    "CpuPeriod": 100000, "CpuQuota": 50000, "CpuRealtimePeriod": 1000, "CpuRealtimeRuntime": 1000, "CpusetCpus": "0",
    "CpusetMems": "0", "Devices": [{"PathOnHost": "/dev/null"}], "DeviceCgroupRules": ["c 1:3 r"],
    "DeviceRequests": [{"Count": 1}], "KernelMemoryTCP": 1, "MemoryReservation": 1 << 25, "MemorySwap": 1 << 27,
    "MemorySwappiness": 10, "NanoCpus": 10**9, "OomKillDisable": True, "Init": True, "PidsLimit": 10,
    "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 10}], "Binds": ["/a:/b"], "ContainerIDFile": "/x",
    "LogConfig": {"Type": "none"}, "NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostPort": "8080"}]},
    "RestartPolicy": {"Name": "always"}, "AutoRemove": True, "VolumeDriver": "local", "VolumesFrom": ["other"],
    "Mounts": [{"Type": "tmpfs", "Target": "/x"}], "ConsoleSize": [24, 80], "Annotations": {"a": "b"},
    "CapAdd": ["NET_ADMIN"], "CapDrop": ["ALL"], "CgroupnsMode": "host", "Dns": ["1.1.1.1"], "DnsOptions": ["rotate"],
    "DnsSearch": ["x"], "ExtraHosts": ["a:1.2.3.4"], "GroupAdd": ["1"], "IpcMode": "host", "Cgroup": "x",
    "Links": ["a:b"], "OomScoreAdj": 5, "PidMode": "host", "Privileged": True, "PublishAllPorts": True,
    "ReadonlyRootfs": True, "SecurityOpt": ["no-new-privileges"], "StorageOpt": {"size": "1G"}, "Tmpfs": {"/x": ""},
    "UTSMode": "host", "UsernsMode": "private", "ShmSize": 1 << 20, "Sysctls": {"net.core.somaxconn": "1"},
    "Runtime": "other", "Isolation": "hyperv", "MaskedPaths": ["/x"], "ReadonlyPaths": ["/x"],
}  # fmt: skip
ENDPOINT: dict[str, Any] = {
    "IPAMConfig": {"IPv4Address": "10.0.0.9"}, "Links": ["a:b"], "MacAddress": "02:00:00:00:00:01", "Aliases": ["a"],
    "DriverOpts": {"com.docker.network.endpoint.ifname": "lan0"}, "GwPriority": 5, "NetworkID": "x", "EndpointID": "x",
    "Gateway": "10.0.0.1", "IPAddress": "10.0.0.9", "IPPrefixLen": 24, "IPv6Gateway": "fd00::1",
    "GlobalIPv6Address": "fd00::9", "GlobalIPv6PrefixLen": 64, "DNSNames": ["a"],
}  # fmt: skip
# What the decoder takes without anybody acting on it, and why that is right.
UNUSED = {
    "ArgsEscaped": "means something on Windows only",
    "OnBuild": "a container never builds",
    **dict.fromkeys(
        ("NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address",
         "GlobalIPv6PrefixLen", "DNSNames"),
        "state that clients send back from inspect",
    ),
}  # fmt: skip


def _state(body: dict[str, Any], field: str) -> str:
    try:
        container_create({"Image": "x", **body})
    except NotSupported as error:
        assert field in error.message, f"the refusal of {field} does not name it: {error.message}"
        return "refused by name"
    except EngineError as error:
        pytest.fail(f"the value for {field} in this test is not good: {error}")
    return f"not used: {UNUSED[field]}" if field in UNUSED else "works"


def _table(title: str, head: str, rows: list[tuple[str, str]]) -> str:
    lines = [
        f"\n## {title}\n",
        f"| {head} | state |",
        "|---|---|",
        *(f"| `{name}` | {state} |" for name, state in rows),
    ]
    return "\n".join(lines) + "\n"


def _endpoints() -> list[tuple[str, str]]:
    refused = {(method, pattern) for method, pattern, _ in absent.LATER}
    rows = []
    for route in ROUTES:
        name = f"{route.method} {route.pattern.replace('{word*}', '{name}').replace('{word}', '{name}')}"
        if (route.method, route.pattern) in refused or route.handler in (
            absent.no_registry,
            images.search,
            system.auth,
        ):
            state = "refused by name"
        elif route.handler is absent.no_swarm:
            state = "never: Docker's answer of a node without swarm"
        elif route.handler.__module__ == absent.__name__:
            state = "answers that there is none"
        else:
            state = "works"
        rows.append((name.replace("{rest*}", "…"), state))
    return sorted(rows, key=lambda row: (row[0].split()[1], row[0]))


def render() -> str:
    """The whole page."""
    endpoint = {
        field: _state({"NetworkingConfig": {"EndpointsConfig": {"net": {field: value}}}}, field)
        for field, value in ENDPOINT.items()
    }
    return (
        INTRODUCTION
        + _table("Endpoints", "endpoint", _endpoints())
        + _table("`POST /containers/create`", "field", [(f, _state({f: v}, f)) for f, v in CONFIG.items()])
        + _table("`HostConfig`", "field", [(f, _state({"HostConfig": {f: v}}, f)) for f, v in HOST.items()])
        + _table("`NetworkingConfig.EndpointsConfig`", "field", list(endpoint.items()))
    )


def test_the_page_is_true() -> None:
    page = render()
    if os.environ.get("TSUNAGU_WRITE_DOCS"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page, (
        "docs/api.md is out of date: TSUNAGU_WRITE_DOCS=1 pytest tests/docs/test_api_table.py"
    )
