"""api.views*: Docker's JSON, key by key, and its words for times."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tsunagu.api.container_list import select
from tsunagu.api.filters import Filters
from tsunagu.api.routes.system import _is_wanted
from tsunagu.api.views import ZERO_TIME, human_duration, parse_rfc3339, rfc3339
from tsunagu.api.views_container import command_text, container_json, status_text, summary_json
from tsunagu.api.views_image import image_json, image_summary_json
from tsunagu.api.views_network import endpoint_json, network_json
from tsunagu.api.views_system import event_json, info_json, version_json
from tsunagu.api.views_volume import volume_json
from tsunagu.model.container import Config, Container, HostConfig, PortBinding, State, Status
from tsunagu.model.errors import InvalidParameter
from tsunagu.model.image import Image
from tsunagu.model.instance import Instance
from tsunagu.model.network import Endpoint, EndpointConfig, Network, PublishedPort, Subnet
from tsunagu.model.settings import Pool
from tsunagu.model.volume import Mount, Volume
from tsunagu.model.world import ContainerCreated, EndpointsChanged, NetworkCreated, World, apply
from tsunagu.services.events import EngineEvent

SECOND = 1_000_000_000
NOW = 1_795_463_540 * SECOND
INSTANCE = Instance(root="/r", run_dir="/d")
WEB, BACK = "a" * 64, "b" * 64


def make_world() -> tuple[World, Container]:
    networks = (
        Network(id="1" * 64, name="bridge", is_builtin=True, subnets=(Subnet("172.17.0.0/16", "172.17.0.1"),)),
        Network(
            id="2" * 64, name="app", created=NOW + 608479020, subnets=(Subnet("172.18.0.0/16", "172.18.0.1"),),
            labels={"b": "2", "a": "1"},
        ),
    )  # fmt: skip
    container = Container(
        id=WEB,
        name="web",
        created=NOW,
        image_id="sha256:" + "c" * 64,
        path="nginx",
        args=("-g", "daemon off;"),
        config=Config(image="nginx", hostname="web1", exposed_ports={"80/tcp": {}}, env=("A=b",)),
        host=HostConfig(network_mode="app", binds=("/a:/b:ro",)),
        mounts=(
            Mount(type="bind", source="/a", destination="/b", mode="ro", is_readonly=True),
            Mount(type="volume", name="vol", destination="/v", mode="z", copies_up=True),
            Mount(type="tmpfs", destination="/t", options="size=1"),
        ),
        endpoints=(
            Endpoint(
                config=EndpointConfig(network="app", aliases=("db", "web"), has_aliases=True), network_id="2" * 64,
                network_name="app", id="e" * 64, ipv4="172.18.0.4", ipv4_prefix=16, gateway4="172.18.0.1",
                mac="32:15:e0:44:c1:df", ifname="eth0", host_ifname="veth1",
            ),
        ),
        state=State(status=Status.RUNNING, pid=77, started_at=NOW + 5),
    )  # fmt: skip
    world = World()
    for network in networks:
        world = apply(world, NetworkCreated(network))
    return apply(world, ContainerCreated(container)), container


def test_endpoint_has_dockers_keys_in_dockers_order() -> None:
    _, container = make_world()
    shown = endpoint_json(container, container.endpoints[0])
    assert list(shown.items()) == [
        ("IPAMConfig", None), ("Links", None), ("Aliases", ("db", "web")), ("MacAddress", "32:15:e0:44:c1:df"),
        ("DriverOpts", None), ("GwPriority", 0), ("NetworkID", "2" * 64), ("EndpointID", "e" * 64),
        ("Gateway", "172.18.0.1"), ("IPAddress", "172.18.0.4"), ("IPPrefixLen", 16), ("IPv6Gateway", ""),
        ("GlobalIPv6Address", ""), ("GlobalIPv6PrefixLen", 0), ("DNSNames", ("web", "db", "a" * 12, "web1")),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (EndpointConfig(network="app"), (None, None, None)),
        (EndpointConfig(network="app", has_ipam_config=True, has_aliases=True, has_driver_opts=True), ({}, [], {})),
        (EndpointConfig(network="app", ipv4="1.2.3.4", has_ipam_config=True), ({"IPv4Address": "1.2.3.4"}, None, None)),
        (EndpointConfig(network="app", aliases=("x",), has_aliases=True), (None, ("x",), None)),
    ],
)
def test_absent_lists_are_null_or_empty_by_what_was_sent(config: EndpointConfig, expected: tuple[Any, ...]) -> None:
    _, container = make_world()
    shown = endpoint_json(container, Endpoint(config=config, network_name="app"))
    assert (shown["IPAMConfig"], shown["Aliases"], shown["DriverOpts"]) == expected


def test_stopped_endpoint_shows_no_address() -> None:
    _, container = make_world()
    shown = endpoint_json(container, Endpoint(config=EndpointConfig(network="app", ipv4="1.2.3.4"), network_name="app"))
    assert (shown["IPAddress"], shown["IPPrefixLen"], shown["EndpointID"]) == ("", 0, "")


def test_network_inspect_as_in_the_transcript() -> None:
    world, _ = make_world()
    shown = network_json(world, world.network("app"), has_containers=True)
    assert list(shown) == [
        "Name", "Id", "Created", "Scope", "Driver", "EnableIPv4", "EnableIPv6", "IPAM", "Internal", "Attachable",
        "Ingress",
        "ConfigFrom", "ConfigOnly", "Containers", "Options", "Labels",
    ]  # fmt: skip
    assert shown["Created"].endswith(".60847902Z")
    assert shown["IPAM"] == {
        "Driver": "default", "Options": {}, "Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}],
    }  # fmt: skip
    assert shown["Containers"] == {
        WEB: {
            "Name": "web", "EndpointID": "e" * 64, "MacAddress": "32:15:e0:44:c1:df", "IPv4Address": "172.18.0.4/16",
            "IPv6Address": "",
        }
    }  # fmt: skip
    assert list(shown["Labels"]) == ["a", "b"]
    assert network_json(world, world.network("app"), has_containers=False)["Containers"] == {}


def test_subnet_with_everything() -> None:
    network = Network(
        id="1", name="n", subnets=(Subnet("172.29.0.0/24", "172.29.0.254", "172.29.0.128/26", {"h1": "172.29.0.129"}),)
    )
    assert network_json(World(), network, has_containers=False)["IPAM"]["Config"] == [
        {
            "Subnet": "172.29.0.0/24", "IPRange": "172.29.0.128/26", "Gateway": "172.29.0.254",
            "AuxiliaryAddresses": {"h1": "172.29.0.129"},
        }
    ]  # fmt: skip


def inspect(world: World, container: Container) -> dict[str, Any]:
    shown = container_json(world, container, INSTANCE, exec_ids=(), log_path="/l", sizes=None)
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(shown))
    return decoded


def test_container_inspect() -> None:
    world, container = make_world()
    shown = inspect(world, container)
    assert (shown["Name"], shown["Path"], shown["Args"], shown["Driver"], shown["Platform"]) == (
        "/web", "nginx", ["-g", "daemon off;"], "overlay2", "linux",
    )  # fmt: skip
    assert shown["ResolvConfPath"] == f"/r/containers/{WEB}/resolv.conf"
    assert shown["State"] == {
        "Status": "running", "Running": True, "Paused": False, "Restarting": False, "OOMKilled": False, "Dead": False,
        "Pid": 77, "ExitCode": 0, "Error": "", "StartedAt": rfc3339(NOW + 5), "FinishedAt": ZERO_TIME,
    }  # fmt: skip
    assert shown["NetworkSettings"]["Ports"] == {"80/tcp": None}
    assert shown["NetworkSettings"]["SandboxKey"] == f"/d/netns/{WEB}"
    assert list(shown["NetworkSettings"]["Networks"]) == ["app"]
    assert shown["NetworkSettings"]["IPAddress"] == ""  # only the default bridge fills the legacy fields
    assert shown["Mounts"] == [
        {"Type": "bind", "Source": "/a", "Destination": "/b", "Mode": "ro", "RW": False, "Propagation": "rprivate"},
        {"Type": "volume", "Name": "vol", "Source": "/r/volumes/vol/_data", "Destination": "/v", "Driver": "local",
         "Mode": "z", "RW": True, "Propagation": ""},
        {"Type": "tmpfs", "Source": "", "Destination": "/t", "Mode": "", "RW": True, "Propagation": ""},
    ]  # fmt: skip
    assert shown["ExecIDs"] is None
    assert shown["Config"]["ExposedPorts"] == {"80/tcp": {}}


def test_host_config_shows_every_key_of_docker() -> None:
    world, container = make_world()
    shown = inspect(world, container)["HostConfig"]
    assert set(shown) == {
        "Binds", "ContainerIDFile", "LogConfig", "NetworkMode", "PortBindings", "RestartPolicy", "AutoRemove",
        "VolumeDriver",
        "VolumesFrom", "ConsoleSize", "CapAdd", "CapDrop", "CgroupnsMode", "Dns", "DnsOptions", "DnsSearch",
        "ExtraHosts",
        "GroupAdd", "IpcMode", "Cgroup", "Links", "OomScoreAdj", "PidMode", "Privileged", "PublishAllPorts",
        "ReadonlyRootfs", "SecurityOpt", "UTSMode", "UsernsMode", "ShmSize", "Runtime", "Isolation", "CpuShares",
        "Memory",
        "NanoCpus", "CgroupParent", "BlkioWeight", "BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceWriteBps",
        "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps", "CpuPeriod", "CpuQuota", "CpuRealtimePeriod",
        "CpuRealtimeRuntime",
        "CpusetCpus", "CpusetMems", "Devices", "DeviceCgroupRules", "DeviceRequests", "MemoryReservation",
        "MemorySwap",
        "MemorySwappiness", "OomKillDisable", "PidsLimit", "Ulimits", "CpuCount", "CpuPercent", "IOMaximumIOps",
        "IOMaximumBandwidth", "MaskedPaths", "ReadonlyPaths",
    }  # fmt: skip
    assert "/proc/kcore" in shown["MaskedPaths"] and "/proc/sys" in shown["ReadonlyPaths"]
    privileged = replace(container, host=HostConfig(privileged=True))
    shown = inspect(world, privileged)["HostConfig"]
    assert (shown["MaskedPaths"], shown["ReadonlyPaths"], shown["NetworkMode"]) == (None, None, "bridge")


def test_default_bridge_fills_the_legacy_fields() -> None:
    world, container = make_world()
    endpoint = Endpoint(
        config=EndpointConfig(network="bridge"), network_id="1" * 64, network_name="bridge", id="f" * 64,
        ipv4="172.17.0.3", ipv4_prefix=16, gateway4="172.17.0.1", mac="ee:9d:02:10:46:3e",
    )  # fmt: skip
    shown = inspect(world, replace(container, endpoints=(endpoint,)))["NetworkSettings"]
    assert (shown["IPAddress"], shown["Gateway"], shown["IPPrefixLen"], shown["MacAddress"], shown["EndpointID"]) == (
        "172.17.0.3", "172.17.0.1", 16, "ee:9d:02:10:46:3e", "f" * 64,
    )  # fmt: skip
    assert shown["Networks"]["bridge"]["DNSNames"] is None


def test_networks_are_listed_by_name_whatever_their_order() -> None:
    world, container = make_world()
    endpoints = tuple(Endpoint(config=EndpointConfig(network=n), network_name=n) for n in ("z", "a", "m"))
    shown = inspect(world, replace(container, endpoints=endpoints))["NetworkSettings"]["Networks"]
    assert list(shown) == ["a", "m", "z"]


def test_host_and_none_modes_show_their_network() -> None:
    world, container = make_world()
    for mode, key in (("host", "/netns/default"), ("none", f"/netns/{container.id}")):
        bare = replace(container, endpoints=(), host=HostConfig(network_mode=mode))
        shown = inspect(world, bare)["NetworkSettings"]
        assert list(shown["Networks"]) == [mode]
        assert len(shown["Networks"][mode]["EndpointID"]) == 64
        assert (shown["Networks"][mode]["MacAddress"], shown["Networks"][mode]["IPAddress"]) == ("", "")
        assert shown["Ports"] == {}, "nothing is published there, what the image exposes included"
        assert shown["SandboxKey"].endswith(key)
        stopped = inspect(world, replace(bare, state=State(status=Status.EXITED)))["NetworkSettings"]
        assert (stopped["Networks"][mode]["EndpointID"], stopped["SandboxKey"]) == ("", "")


def test_a_joiner_shows_no_network_of_its_own() -> None:
    world, owner = make_world()
    joiner = replace(
        owner, id="b" * 64, name="side", endpoints=(), host=HostConfig(network_mode=f"container:{owner.id}")
    )
    world = apply(world, ContainerCreated(joiner))
    shown = inspect(world, joiner)
    settings = shown["NetworkSettings"]
    assert (settings["Networks"], settings["Ports"], settings["SandboxID"], settings["SandboxKey"]) == ({}, {}, "", "")
    assert shown["HostConfig"]["NetworkMode"] == f"container:{owner.id}"
    assert shown["HostsPath"].endswith(f"/containers/{owner.id}/hosts")
    assert summary_json(world, joiner, INSTANCE, "nginx", NOW, None)["Ports"] == []


def test_summary() -> None:
    world, container = make_world()
    shown = summary_json(world, container, INSTANCE, "nginx", NOW + 65 * SECOND, None)
    assert shown["Names"] == ["/web"]
    assert shown["Command"] == "nginx -g 'daemon off;'"
    assert (shown["State"], shown["Status"], shown["Created"]) == ("running", "Up About a minute", NOW // SECOND)
    assert shown["Ports"] == [{"PrivatePort": 80, "Type": "tcp"}]
    assert shown["HostConfig"] == {"NetworkMode": "app"}
    assert "SizeRw" not in shown
    assert summary_json(world, container, INSTANCE, "nginx", NOW, (1, 2))["SizeRootFs"] == 2
    assert command_text(replace(container, args=())) == "nginx"


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), "Created"),
        (State(exit_code=127, error="x"), "Created"),
        (State(status=Status.RUNNING, started_at=NOW), "Up Less than a second"),
        (State(status=Status.RUNNING, started_at=NOW - 3 * SECOND), "Up 3 seconds"),
        (
            State(status=Status.EXITED, exit_code=137, started_at=1, finished_at=NOW - 120 * SECOND),
            "Exited (137) 2 minutes ago",
        ),
        (State(status=Status.REMOVING), "Removal In Progress"),
        (State(status=Status.DEAD), "Dead"),
    ],
)
def test_status_column(state: State, text: str) -> None:
    assert status_text(state, NOW) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "Less than a second"), (0.9, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60,
        "About a minute"),
        (119, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"), (5399,
        "About an hour"),
        (5400, "2 hours"), (47 * 3600, "47 hours"), (48 * 3600, "2 days"), (13 * 86400, "13 days"), (14 * 86400,
        "2 weeks"),
        (59 * 86400, "8 weeks"), (60 * 86400, "2 months"), (729 * 86400, "24 months"), (730 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_human_durations(seconds: float, text: str) -> None:
    assert human_duration(int(seconds * SECOND)) == text


@given(st.integers(1, 4_000_000_000_000_000_000))
def test_times_survive_writing_and_reading(nanoseconds: int) -> None:
    assert parse_rfc3339(rfc3339(nanoseconds)) == nanoseconds
    assert parse_rfc3339(rfc3339(nanoseconds, is_fixed=True)) == nanoseconds


def test_forms_of_times() -> None:
    assert rfc3339(0) == ZERO_TIME
    assert rfc3339(1_700_000_000 * SECOND) == "2023-11-14T22:13:20Z"
    assert rfc3339(1_700_000_000 * SECOND + 500_000_000) == "2023-11-14T22:13:20.5Z"
    assert rfc3339(1_700_000_000 * SECOND, is_fixed=True) == "2023-11-14T22:13:20.000000000Z"
    assert parse_rfc3339("2023-11-14T23:13:20.25+01:00") == 1_700_000_000 * SECOND + 250_000_000
    for text in ("", "yesterday", ZERO_TIME, "2023-99-01T00:00:00Z"):
        assert parse_rfc3339(text) == 0


def test_images() -> None:
    image = Image(
        id="sha256:" + "1" * 64,
        config={"created": "2023-11-14T22:13:20Z", "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"],
        "Labels": {"a": "b"}}},
        diff_ids=("sha256:22",), size=7, tags=("tiny:latest",),
    )  # fmt: skip
    shown = image_json(image, (1, 51))
    assert shown["RootFS"] == {"Type": "layers", "Layers": ("sha256:22",)}
    assert (shown["Config"]["Cmd"], shown["Config"]["Entrypoint"], shown["Created"]) == (
        ["sh"],
        None,
        "2023-11-14T22:13:20Z",
    )
    assert "VirtualSize" not in shown and image_json(image, (1, 43))["VirtualSize"] == 7
    assert image_summary_json(image, (1, 51), 2) == {
        "Containers": 2, "Created": 1_700_000_000, "Id": image.id, "Labels": {"a": "b"}, "ParentId": "",
        "RepoDigests": [],
        "RepoTags": ("tiny:latest",), "SharedSize": -1, "Size": 7,
    }  # fmt: skip
    dangling = replace(image, tags=())
    assert image_summary_json(dangling, (1, 42), -1)["RepoTags"] == ["<none>:<none>"]
    assert image_summary_json(dangling, (1, 43), -1)["RepoTags"] == []


FACTS: dict[str, Any] = {
    "id": "f", "containers": 3, "running": 1, "paused": 0, "stopped": 2, "images": 4, "networks": 5, "root": "/r",
    "run_dir": "/d", "host_name": "h", "kernel": "6.1", "os": "Debian", "architecture": "x86_64", "cpus": 2,
    "memory": 9,
    "cgroup_version": "1", "runtime": {"name": "runc", "path": "/p", "version": "1.1.5"}, "conmon": "2.1",
    "firewall": {"backend": "libnftables", "table": "t"}, "resolver": {"pid": 1}, "event_listeners": 0,
    "file_descriptors": 1, "tasks": 1, "version": "0.1.0", "python": "3.11.2", "started_at": 1, "now": 2, "pid": 3,
    "byte_order": "little", "pools": (Pool("10.0.0.0/8"),), "labels": (), "ip_forward": False,
}  # fmt: skip


def test_version_and_info_say_what_is_true_here() -> None:
    version = version_json(FACTS)
    assert version["Platform"]["Name"].startswith("Tsunagu ")
    assert (version["ApiVersion"], version["MinAPIVersion"], version["GoVersion"]) == ("1.51", "1.24", "python3.11.2")
    assert [c["Name"] for c in version["Components"]] == ["Engine", "runc", "conmon"]
    info = info_json(FACTS)
    assert (info["Containers"], info["ContainersRunning"], info["ContainersStopped"]) == (3, 1, 2)
    assert info["IPv4Forwarding"] is False and info["Warnings"] == ["WARNING: IPv4 forwarding is disabled"]
    assert info["Swarm"]["LocalNodeState"] == "inactive"


def event(kind: str = "container", action: str = "start", **attributes: str) -> EngineEvent:
    return EngineEvent(type=kind, action=action, id="abcdef", attributes=attributes, time_ns=1_500_000_000)


def test_event_lines() -> None:
    assert event_json(event(image="nginx", name="web")) == {
        "status": "start", "id": "abcdef", "from": "nginx", "Type": "container", "Action": "start",
        "Actor": {"ID": "abcdef", "Attributes": {"image": "nginx", "name": "web"}}, "scope": "local", "time": 1,
        "timeNano": 1_500_000_000,
    }  # fmt: skip
    assert "status" not in event_json(event("network", "create", name="n"))


@pytest.mark.parametrize(
    ("filters", "happened", "expected"),
    [
        ({}, event(), True),
        ({"type": ["network"]}, event(), False),
        ({"event": ["start", "die"]}, event(), True),
        ({"event": ["exec_start"]}, event(action="exec_start: ls"), True),
        ({"container": ["web"]}, event(name="web"), True),
        ({"container": ["abc"]}, event(name="web"), True),
        ({"container": ["xyz"]}, event(name="web"), False),
        ({"container": ["c0ffee"]}, event("network", "connect", container="c0ffee", name="n"), True),
        ({"network": ["n"]}, event("network", "create", name="n"), True),
        ({"network": ["n"]}, event(name="n"), False),
        ({"image": ["nginx"]}, event(image="nginx"), True),
        ({"image": ["redis"]}, event(image="nginx"), False),
        ({"label": ["k=v"]}, event(k="v"), True),
        ({"label": ["k=w"]}, event(k="v"), False),
        ({"scope": ["swarm"]}, event(), False),
        ({"daemon": ["x"]}, event(), False),
    ],
)
def test_event_filters(filters: dict[str, list[str]], happened: EngineEvent, expected: bool) -> None:
    assert _is_wanted(happened, Filters(filters)) is expected


def test_published_ports_in_inspect_and_list() -> None:
    world, container = make_world()
    ports = (
        PublishedPort(protocol="tcp", host_ip="::", host_port=8080, container_port=80),
        PublishedPort(protocol="tcp", host_ip="0.0.0.0", host_port=8080, container_port=80),
        PublishedPort(protocol="udp", host_ip="127.0.0.1", host_port=5353, container_port=53),
    )
    endpoint = replace(container.endpoints[0], ports=ports)
    container = replace(
        container,
        endpoints=(endpoint,),
        config=replace(container.config, exposed_ports={"80/tcp": {}, "443-444/tcp": {}, "$PORT/tcp": {}}),
        host=replace(container.host, port_bindings={"80/tcp": (PortBinding(host_port="8080"),), "53/udp": ()}),
    )
    shown = container_json(world, container, INSTANCE, exec_ids=(), log_path="", sizes=None)
    assert list(shown["NetworkSettings"]["Ports"].items()) == [
        ("443/tcp", None),
        ("444/tcp", None),
        ("53/udp", [{"HostIp": "127.0.0.1", "HostPort": "5353"}]),
        ("80/tcp", [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]),
    ]
    assert shown["HostConfig"]["PortBindings"] == {"53/udp": [], "80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    listed = summary_json(world, container, INSTANCE, "nginx", NOW, None)
    assert listed["Ports"] == [
        {"IP": "127.0.0.1", "PrivatePort": 53, "PublicPort": 5353, "Type": "udp"},
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 443, "Type": "tcp"},
        {"PrivatePort": 444, "Type": "tcp"},
    ]
    stopped = replace(container, endpoints=(replace(endpoint, id="", ports=()),), state=State())
    shown = container_json(world, stopped, INSTANCE, exec_ids=(), log_path="", sizes=None)
    assert shown["NetworkSettings"]["Ports"] == {}


@pytest.mark.parametrize(
    ("name", "value", "is_shown"),
    [
        ("publish", "8080", True), ("publish", "8000-9000/tcp", True), ("publish", "80", False),
        ("publish", "8080/udp", False), ("expose", "80", True), ("expose", "80/udp", False), ("expose", "1-99", True),
    ],
)  # fmt: skip
def test_filters_by_port(name: str, value: str, is_shown: bool) -> None:
    world, container = make_world()
    port = PublishedPort(protocol="tcp", host_ip="0.0.0.0", host_port=8080, container_port=80)
    world = apply(world, EndpointsChanged(WEB, (replace(container.endpoints[0], ports=(port,)),)))
    shown = select(world, None, Filters({name: [value]}), shows_all=True, limit=0)  # type: ignore[arg-type]
    assert bool(shown) is is_shown


@pytest.mark.parametrize("name", ["publish", "expose"])
def test_filters_by_something_that_is_no_port(name: str) -> None:
    with pytest.raises(InvalidParameter, match=f"invalid filter '{name}'"):
        select(make_world()[0], None, Filters({name: ["x"]}), shows_all=True, limit=0)  # type: ignore[arg-type]


def test_volume() -> None:
    volume = Volume(name="data", created=1_700_000_000_900_000_000)
    assert volume_json(volume, INSTANCE) == {
        "CreatedAt": "2023-11-14T22:13:20Z", "Driver": "local", "Labels": None, "Mountpoint": "/r/volumes/data/_data",
        "Name": "data", "Options": None, "Scope": "local",
    }  # fmt: skip
    made = replace(volume, labels={"b": "1", "a": "2"}, options={"type": "tmpfs", "device": "tmpfs"})
    shown = volume_json(made, INSTANCE)
    assert (list(shown["Labels"]), shown["Options"]) == (["a", "b"], {"device": "tmpfs", "type": "tmpfs"})
