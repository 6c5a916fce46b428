"""api.schema*: what a create body becomes, and what is refused by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsunagu.api.filters import parse_filters
from tsunagu.api.globs import matches
from tsunagu.api.schema import endpoint_config, exec_create, network_create
from tsunagu.api.schema_container import SHM_SIZE, container_create
from tsunagu.api.schema_mounts import bind_mount_sources
from tsunagu.api.times import parse_time
from tsunagu.model.container import PortBinding
from tsunagu.model.errors import EngineError, InvalidParameter, NotSupported
from tsunagu.model.network import EndpointConfig, Subnet

# What docker 28.2 sends for `docker run -d --network app-network nginx`, with all its zero values.
CLI_BODY: dict[str, Any] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": None, "Image": "nginx", "Volumes": {},
    "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": {},
    "HostConfig": {
        "Binds": None, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}}, "NetworkMode": "app-network",
        "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": False,
        "VolumeDriver": "", "VolumesFrom": None, "ConsoleSize": [0, 0], "CapAdd": None, "CapDrop": None,
        "CgroupnsMode": "", "Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": None, "GroupAdd": None,
        "IpcMode": "", "Cgroup": "", "Links": None, "OomScoreAdj": 0, "PidMode": "", "Privileged": False,
        "PublishAllPorts": False, "ReadonlyRootfs": False, "SecurityOpt": None, "UTSMode": "", "UsernsMode": "",
        "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "",
        "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [],
        "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": [], "DeviceCgroupRules": None,
        "DeviceRequests": None, "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": -1,
        "OomKillDisable": False, "PidsLimit": 0, "Ulimits": [], "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0, "MaskedPaths": None, "ReadonlyPaths": None,
    },
    "NetworkingConfig": {"EndpointsConfig": {"app-network": {
        "IPAMConfig": None, "Links": None, "Aliases": None, "MacAddress": "", "DriverOpts": None, "GwPriority": 0,
        "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
        "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": None,
    }}},
}  # fmt: skip


def with_host(**host: Any) -> dict[str, Any]:
    return {"Image": "x", "HostConfig": host}


def test_what_the_docker_client_sends() -> None:
    config, host, endpoints = container_create(CLI_BODY)
    assert (config.image, config.cmd, config.env, config.labels) == ("nginx", None, (), {})
    assert (host.network_mode, host.shm_size, host.ipc_mode, host.cgroupns_mode) == (
        "app-network", SHM_SIZE, "private", "private",
    )  # fmt: skip
    assert host.restart_policy.name == "no" and host.binds is None and host.port_bindings is None
    assert endpoints == (EndpointConfig(network="app-network"),)


def test_empty_body_is_all_defaults() -> None:
    config, host, endpoints = container_create({"Image": "x"})
    assert (host.network_mode, host.shm_size, endpoints, config.cmd) == ("default", SHM_SIZE, (), None)


def test_commands_as_text_or_list() -> None:
    config, _, _ = container_create({"Image": "x", "Cmd": "echo a", "Entrypoint": ["sh", "-c"]})
    assert (config.cmd, config.entrypoint) == (("echo a",), ("sh", "-c"))
    config, _, _ = container_create({"Image": "x", "Cmd": [], "Entrypoint": [""]})
    assert (config.cmd, config.entrypoint) == ((), ("",))


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (with_host(KernelMemory=1 << 30), "HostConfig.KernelMemory"),
        (with_host(CpuRealtimePeriod=5), "HostConfig.CpuRealtimePeriod"),
        (with_host(LogConfig={"Type": "json-file", "Later": 1}), "HostConfig.LogConfig.Later"),
        (with_host(Runtime="kata"), "HostConfig.Runtime"),
        (with_host(IpcMode="container:x"), "HostConfig.IpcMode container:x"),
        (with_host(PidMode="container:x"), "HostConfig.PidMode container:x"),
        (with_host(Mounts=[{"Type": "bind", "Source": "/a", "Target": "/d", "BindOptions": {"Later": True}}]),
         "HostConfig.Mounts[0].BindOptions.Later"),
        (with_host(FieldOfTheFuture={"a": [0, 1]}), "HostConfig.FieldOfTheFuture"),
        ({"Image": "x", "Healthcheck": {"Test": ["CMD", "true"], "Shell": "sh"}}, "Healthcheck.Shell"),
        ({"Image": "x", "NetworkDisabled": True}, "NetworkDisabled"),
        ({"Image": "x", "Shell": ["sh"]}, "Shell"),
        ({"Image": "x",
        "NetworkingConfig": {"EndpointsConfig": {"n": {"IPAMConfig": {"Future": ["1.1.1.1"]}}}}},
         "NetworkingConfig.EndpointsConfig.n.IPAMConfig.Future"),
    ],
)  # fmt: skip
def test_unsupported_fields_are_refused_by_name(body: dict[str, Any], name: str) -> None:
    with pytest.raises(NotSupported) as caught:
        container_create(body)
    assert caught.value.message == f"{name} is not supported yet"


@pytest.mark.parametrize(
    "host",
    [
        {"MemorySwappiness": None}, {"MemorySwappiness": -1}, {"PidsLimit": None}, {"Memory": 0},
        {"LogConfig": {"Type": "json-file", "Config": {}}},
        {"LogConfig": {"Type": "", "Config": None}}, {"Runtime": "runc"}, {"Isolation": "default"},
        {"RestartPolicy": {"Name": "", "MaximumRetryCount": None}}, {"RestartPolicy": None}, {"PortBindings": None},
        {"UsernsMode": "host"}, {"Ulimits": None}, {"Annotations": {}}, {"StorageOpt": None}, {"Mounts": None},
    ],
)  # fmt: skip
def test_dockers_own_defaults_are_no_requests(host: dict[str, Any]) -> None:
    assert container_create(with_host(**host)).host == container_create({"Image": "x"}).host


@pytest.mark.parametrize(
    "body",
    [
        {"Image": ["x"]}, {"Image": "x", "Env": [1]}, {"Image": "x", "Labels": []}, {"Image": "x", "Cmd": 5},
        {"Image": "x", "Tty": "yes"}, {"Image": "x", "HostConfig": "x"}, with_host(Binds="/a:/b"),
        with_host(CapAdd=[None]), {"Image": "x", "Volumes": {"d": {}}}, {"Image": "x", "Volumes": {"/": {}}},
        with_host(Mounts="x"), with_host(Mounts=["x"]),
        with_host(Mounts=[{"Type": "tmpfs", "Target": 5}]), with_host(RestartPolicy="no"), with_host(ShmSize=-1),
        with_host(Dns=["x"]), with_host(LogConfig="x"), {"Image": "x", "NetworkingConfig": []},
        {"Image": "x", "NetworkingConfig": {"EndpointsConfig": []}},
        {"Image": "x", "NetworkingConfig": {"EndpointsConfig": {"a": "b"}}},
        {"Image": "x", "NetworkingConfig": {"EndpointsConfig": {"a": {"Aliases": "b"}}}},
        {"Image": "x", "ExposedPorts": {"0/tcp": {}}}, {"Image": "x", "ExposedPorts": {"80/icmp": {}}},
        {"Image": "x", "ExposedPorts": {"80-/tcp": {}}}, {"Image": "x", "StopTimeout": "5"},
        with_host(Mounts=[{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": "1m"}}]),
    ],
)  # fmt: skip
def test_wrong_types_are_the_callers_fault(body: dict[str, Any]) -> None:
    with pytest.raises(EngineError) as caught:
        container_create(body)
    assert isinstance(caught.value, InvalidParameter), caught.value


def test_exposed_ports_get_their_protocol() -> None:
    config, _, _ = container_create({"Image": "x", "ExposedPorts": {"80": {}, "53/udp": {}, "90-92/tcp": None}})
    assert sorted(config.exposed_ports) == ["53/udp", "80/tcp", "90-92/tcp"]


def test_published_ports_are_kept_as_they_were_asked_for_and_exposed() -> None:
    bindings = {"80": [{"HostPort": "8080"}, {"HostIp": "::"}], "53/udp": [], "90/tcp": None}
    config, host, _ = container_create(with_host(PortBindings=bindings, PublishAllPorts=True))
    assert host.port_bindings == {
        "80/tcp": (PortBinding(host_port="8080"), PortBinding(host_ip="::")), "53/udp": (), "90/tcp": (),
    }  # fmt: skip
    assert host.publish_all_ports
    assert sorted(config.exposed_ports) == ["53/udp", "80/tcp", "90/tcp"]
    assert container_create({"Image": "x"}).host.port_bindings is None


def test_mounts_are_kept_as_they_were_asked_for() -> None:
    asked = [
        {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True, "BindOptions": {"Propagation": "rslave"}},
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 0o700}},
        {"Type": "volume", "Source": "v", "Target": "/v",
         "VolumeOptions": {"NoCopy": True, "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs"}}}},
    ]  # fmt: skip
    body = with_host(Binds=["/x:/y"], VolumesFrom=["a:ro"], VolumeDriver="local", Mounts=asked)
    host = container_create(body).host
    assert (host.binds, host.volumes_from, host.volume_driver) == (("/x:/y",), ("a:ro",), "local")
    assert list(msgspec.to_builtins(host.mounts)) == asked
    assert bind_mount_sources(body) == ["/a"]


def attach(mode: str, wanted: dict[str, Any], **body: Any) -> tuple[str, list[str]]:
    _, host, endpoints = container_create(
        {"Image": "x", **body, "HostConfig": {"NetworkMode": mode}, "NetworkingConfig": {"EndpointsConfig": wanted}}
    )
    return host.network_mode, [e.network for e in endpoints]


def test_attachments_keep_the_order_in_which_they_were_declared() -> None:
    assert attach("sn1", {"my-network": {}, "sn1": {}}) == ("sn1", ["sn1", "my-network"])
    assert attach("a", {"c": {}, "b": {}, "a": None}) == ("a", ["a", "c", "b"])
    assert attach("", {}) == ("default", [])
    assert attach("default", {"default": {}}) == ("default", ["bridge"])
    assert attach("bridge", {"bridge": {}}) == ("bridge", ["bridge"])
    assert attach("", {"b": {}, "a": {}}) == ("b", ["b", "a"])
    assert attach("host", {"host": {}}) == ("host", ["host"])


def test_mac_of_the_older_api_goes_to_the_first_network() -> None:
    body = {"Image": "x", "MacAddress": "02:42:ac:11:00:02", "HostConfig": {"NetworkMode": "n"}}
    assert container_create(body).endpoints == (EndpointConfig(network="n", mac="02:42:ac:11:00:02"),)
    body["NetworkingConfig"] = {"EndpointsConfig": {"n": {"MacAddress": "02:42:ac:11:00:03"}}}
    with pytest.raises(InvalidParameter, match="conflicting MAC address"):
        container_create(body)


def test_endpoint_remembers_what_was_said_and_what_was_not() -> None:
    config = endpoint_config("n", {"IPAMConfig": {"IPv4Address": "10.0.0.2"}, "Aliases": [], "DriverOpts": {}}, "E.")
    assert (config.ipv4, config.has_ipam_config, config.has_aliases, config.has_driver_opts) == (
        "10.0.0.2",
        True,
        True,
        True,
    )
    config = endpoint_config("n", None, "E.")
    assert (config.has_ipam_config, config.has_aliases, config.has_driver_opts) == (False, False, False)


def test_network_create() -> None:
    body = network_create(
        {"Name": "n", "CheckDuplicate": True, "Driver": "bridge", "Scope": "", "EnableIPv4": None,
         "ConfigFrom": {"Network": ""},
         "IPAM": {"Driver": "default", "Options": {"a": "b"}, "Config": [
             {"Subnet": "10.1.0.0/24", "IPRange": "10.1.0.128/25", "Gateway": "10.1.0.9",
              "AuxiliaryAddresses": {"h": "10.1.0.7"}},
             {"Subnet": "fd00::/64", "AuxiliaryAddresses": None, "IPRange": None, "Gateway": None}]},
         "Internal": True, "Options": None, "Labels": {"k": "v"}}
    )  # fmt: skip
    assert body.subnets() == (
        Subnet("10.1.0.0/24", "10.1.0.9", "10.1.0.128/25", {"h": "10.1.0.7"}),
        Subnet("fd00::/64"),
    )
    assert (body.enable_ipv4, body.enable_ipv6, body.internal, body.options, body.ipam_options()) == (
        True, False, True, {}, {"a": "b"},
    )  # fmt: skip


def test_exec_create() -> None:
    body = exec_create({"Cmd": "ls", "ConsoleSize": [24, 80], "Env": None, "Detach": True})
    assert (body.cmd, body.console_size, body.env) == (("ls",), (24, 80), ())
    with pytest.raises(NotSupported, match="Odd is not supported yet"):
        exec_create({"Cmd": ["ls"], "Odd": 1})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = st.sampled_from(sorted({*CLI_BODY["HostConfig"], *CLI_BODY, "Mounts", "ExposedPorts", "MacAddress", "Tmpfs"}))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(top=st.dictionaries(_FIELDS, JSON, max_size=4), host=st.dictionaries(_FIELDS, JSON, max_size=4))
def test_any_json_is_decoded_or_refused(top: dict[str, Any], host: dict[str, Any]) -> None:
    for body in (top, {**top, "HostConfig": host}):
        try:
            container_create(body)
        except EngineError:
            pass
        else:
            bind_mount_sources(body)


def test_filters_in_both_forms() -> None:
    known = {"name", "label"}
    assert parse_filters('{"name":{"a":true,"b":false}}', known) == {"name": ["a"]}
    assert parse_filters('{"name":["a","b"],"label":[]}', known) == {"name": ["a", "b"], "label": []}
    assert parse_filters("", known) == {}
    for text in ("{", "[]", '{"name":5}', '{"name":[1]}', '"x"'):
        with pytest.raises(InvalidParameter, match="invalid filter"):
            parse_filters(text, known)
    with pytest.raises(InvalidParameter, match="invalid filter 'nosuch'"):
        parse_filters('{"nosuch":[]}', known)
    assert parse_filters('{"name":["("]}', known).matches("name", "x") is False  # a broken pattern matches nothing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None), ("0", None), ("1700000000", 1_700_000_000_000_000_000), ("1700000000.5",
        1_700_000_000_500_000_000),
        ("1700000000.000000001", 1_700_000_000_000_000_001), ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
        ("2023-11-14T23:13:20.25+01:00", 1_700_000_000_250_000_000),
    ],
)  # fmt: skip
def test_times(text: str, expected: int | None) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("nginx*", "nginx:1", True), ("*", "a/b", False), ("*/b", "a/b", True), ("ngin?", "nginx", True),
        ("[a-n]ginx", "nginx", True), ("[^n]ginx", "nginx", False), ("[", "[", False), ("a.c", "abc", False),
        ("a\\*", "a*", True), ("a[", "a", False),
    ],
)  # fmt: skip
def test_globs(pattern: str, text: str, expected: bool) -> None:
    assert matches(pattern, text) is expected
