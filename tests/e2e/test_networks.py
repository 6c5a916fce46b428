"""Networks by command: create, list, inspect, remove, prune, connect; refusals in Docker's words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tsunagu.testing import golden
from tsunagu.testing.commandline import CommandLine
from tsunagu.testing.engine import EngineProcess

pytestmark = pytest.mark.root

DAEMON = "Error response from daemon: "
INSPECT = """
[
    {
        "Name": "optnet",
        "Id": "<id>",
        "Created": "<time>",
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": [
                {
                    "Subnet": "<subnet>",
                    "IPRange": "<range>",
                    "Gateway": "<gateway>",
                    "AuxiliaryAddresses": {
                        "h1": "<auxiliary>"
                    }
                }
            ]
        },
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": {
            "Network": ""
        },
        "ConfigOnly": false,
        "Containers": {},
        "Options": {
            "com.docker.network.bridge.name": "<bridge>",
            "com.docker.network.driver.mtu": "1400"
        },
        "Labels": {
            "a": "b"
        }
    }
]
"""


@pytest.fixture
def block(cli: CommandLine) -> Iterator[str]:
    """First three numbers of a /24 that the engine itself found free, given back."""
    cli("network create probe").ok()
    subnet = cli("network inspect -f", "{{(index .IPAM.Config 0).Subnet}}", "probe").ok()
    cli("network rm probe").ok()
    yield subnet.rpartition(".")[0]


def test_list_and_inspect(cli: CommandLine) -> None:
    identity = cli("network create --label tier=front app-network").ok()
    lines = [line.split() for line in cli("network ls").ok().splitlines()]
    assert lines[0] == ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]
    assert [line[1:] for line in lines[1:]] == [
        ["app-network", "bridge", "local"],
        ["bridge", "bridge", "local"],
        ["host", "host", "local"],
        ["none", "null", "local"],
    ]
    assert lines[1][0] == identity[:12]
    assert cli("network ls -q --no-trunc --filter label=tier=front").ok() == identity
    assert cli("network ls --filter type=custom --format {{.Name}}").ok() == "app-network"
    assert cli("network ls --filter driver=null --format", "{{.Name}}/{{.Driver}}").ok() == "none/null"
    result = cli("network inspect app-network nosuchnet")
    assert (result.code, len(json.loads(result.out))) == (1, 1)
    cli.refuses(cli("network inspect nosuchnet"), 1, DAEMON + "network nosuchnet not found", out="[]")


def test_options_of_one_network(cli: CommandLine, block: str) -> None:
    cli(
        "network create -d bridge --opt com.docker.network.bridge.name=tsopt0 --opt com.docker.network.driver.mtu=1400 "
        f"--label a=b --gateway {block}.254 --subnet {block}.0/24 --ip-range {block}.128/26 "
        f"--aux-address h1={block}.129 optnet"
    ).ok()
    golden.check(
        INSPECT,
        cli("network inspect optnet").ok(),
        subnet=f"{block}.0/24",
        range=f"{block}.128/26",
        gateway=f"{block}.254",
        auxiliary=f"{block}.129",
        bridge="tsopt0",
    ) if cli.has_current_words else None
    printed = cli("run --rm --network optnet alpine ip -4 addr show eth0").ok()
    assert f"inet {block}.128/24 brd {block}.255 scope global eth0" in printed
    assert "mtu 1400" in printed
    # the auxiliary address is skipped: the next one after .128 is .130
    cli("run -d --name first --network optnet alpine sleep 100").ok()
    assert f"inet {block}.130/24" in cli("run --rm --network optnet alpine ip -4 addr show eth0").ok()
    assert "default via " + block + ".254" in cli("exec first ip route").ok()


def test_static_address(cli: CommandLine, block: str) -> None:
    cli(f"network create --subnet {block}.0/24 sn1").ok()
    printed = cli(f"run --rm --network sn1 --ip {block}.50 alpine ip -4 addr show eth0").ok()
    assert f"inet {block}.50/24" in printed
    sentence = (
        DAEMON + "invalid config for network sn1: invalid endpoint settings:\n"
        "no configured subnet or ip-range contain the IP address 172.32.0.50"
    )
    cli.refuses(cli("run --rm --network sn1 --ip 172.32.0.50 alpine true"), 125, sentence, help_for="run")
    cli(f"run -d --name ip1 --network sn1 --ip {block}.60 alpine sleep 100").ok()
    result = cli(f"run -d --name ip2 --network sn1 --ip {block}.60 alpine sleep 100")
    sentence = DAEMON + "failed to set up container networking: Address already in use"
    cli.refuses(result, 125, sentence, help_for="run", out=result.out.strip())
    assert "ip1" in result.err, "the holder of the address is named"
    cli("network create plain").ok()
    sentence = (
        DAEMON + "invalid config for network plain: invalid endpoint settings:\n"
        "user specified IP address is supported only when connecting to networks with user configured subnets"
    )
    cli.refuses(cli("run --rm --network plain --ip 172.18.0.99 alpine true"), 125, sentence, help_for="run")
    mac = "02:42:ac:11:00:99"
    assert mac in cli(f"run --rm --network sn1 --mac-address {mac} alpine ip link show eth0").ok()


def test_refusals_of_create(cli: CommandLine, block: str) -> None:
    cli(f"network create --subnet {block}.0/24 sn1").ok()
    cli("network create public-network").ok()
    for words, sentence in (
        ("public-network", "network with name public-network already exists"),
        ("bridge", "operation is not permitted on predefined bridge network"),
        ("host", "operation is not permitted on predefined host network"),
        ("''", "invalid name: name is empty"),
        ("--driver nosuch xx1", 'plugin "nosuch" not found'),
        (
            "--subnet 300.1.1.0/24 sn3",
            "invalid network config:\ninvalid subnet 300.1.1.0/24: invalid CIDR block notation",
        ),
        (
            "--subnet 172.30.5.1/24 sn4",
            "invalid network config:\ninvalid subnet 172.30.5.1/24: it should be 172.30.5.0/24",
        ),
    ):
        cli.refuses(cli(f"network create {words}"), 1, DAEMON + sentence)
    result = cli(f"network create --subnet {block}.0/25 sn2")
    cli.refuses(result, 1, DAEMON + "invalid pool request: Pool overlaps with other one on this address space")
    assert "sn1" in result.err, "the holder of the subnet is named"


def test_refusals_of_rm_connect_and_disconnect(cli: CommandLine) -> None:
    cli("network create app-network").ok()
    cli("network create private-network").ok()
    identity = cli("run -d --name web --network private-network alpine sleep 100").ok()
    endpoint = cli("inspect -f", '{{(index .NetworkSettings.Networks "private-network").EndpointID}}', "web").ok()
    for words, sentence in (
        (
            "rm private-network",
            "error while removing network: network private-network has active endpoints "
            f'(name:"web" id:"{endpoint[:12]}")',
        ),
        ("rm nosuchnet", "network nosuchnet not found"),
        ("rm bridge", "bridge is a pre-defined network and cannot be removed"),
        ("connect private-network web", "endpoint with name web already exists in network private-network"),
        ("connect nosuchnet web", "network nosuchnet not found"),
        ("connect private-network nosuchctr", "No such container: nosuchctr"),
        ("disconnect app-network web", f"container {identity} is not connected to network app-network"),
        ("disconnect nosuchnet web", "network nosuchnet not found"),
        (
            "connect --alias zz bridge web",
            "invalid endpoint settings:\n"
            "network-scoped alias is supported only for containers in user defined networks",
        ),
        (
            "connect host web",
            "cannot connect container to host network - container must be created in host network mode",
        ),
    ):
        cli.refuses(cli(f"network {words}"), 1, DAEMON + sentence)
    cli("network disconnect private-network web").ok()
    sentence = f"container {identity} is not connected to network private-network"
    cli.refuses(cli("network disconnect private-network web"), 1, DAEMON + sentence)


def test_alias_needs_a_network_of_ones_own(cli: CommandLine) -> None:
    result = cli("run --rm --network-alias foo alpine true")
    assert result.code == 125
    assert "network-scoped alias" in result.err


def test_connect_while_running(cli: CommandLine) -> None:
    """Section 11 of the transcript: interfaces come and go, the default route follows, a restart keeps addresses."""
    for name in ("neta", "netb"):
        cli(f"network create {name}").ok()
    cli("run -d --name cx --network neta alpine sleep 300").ok()
    cli("network connect --alias other netb cx").ok()
    cli("run -d --name peer --network netb alpine sleep 300").ok()
    template = "{{range $name, $e := .NetworkSettings.Networks}}{{$name}}={{$e.IPAddress}} {{end}}"
    addresses = dict(pair.split("=") for pair in cli("inspect -f", template, "cx").ok().split())
    assert sorted(addresses) == ["neta", "netb"]
    interfaces = re.findall(r"inet ([\d.]+)/24 .* (eth\d)", cli("exec cx ip -4 addr").ok())
    assert interfaces == [(addresses["neta"], "eth0"), (addresses["netb"], "eth1")]
    assert addresses["netb"] in cli("exec peer ping -c 1 other").ok()
    assert cli("exec cx ip route").ok().startswith(f"default via {addresses['neta'].rpartition('.')[0]}.1 dev eth0")
    cli("network disconnect neta cx").ok()
    assert cli("exec cx ip route").ok().startswith(f"default via {addresses['netb'].rpartition('.')[0]}.1 dev eth1")
    cli("restart -t 0 cx").ok()
    assert dict(pair.split("=") for pair in cli("inspect -f", template, "cx").ok().split()) == {
        "netb": addresses["netb"]
    }
    cli("network disconnect netb cx").ok()
    assert "eth" not in cli("exec cx ip addr").ok()
    assert cli("inspect -f", "{{json .NetworkSettings.Networks}}", "cx").ok() == "{}"


def test_networks_do_not_reach_each_other(cli: CommandLine) -> None:
    cli("network create left").ok()
    cli("network create right").ok()
    cli("network create --internal inside").ok()
    cli("run -d --name one --network left alpine sleep 300").ok()
    cli("run -d --name two --network right alpine sleep 300").ok()
    cli("run -d --name three --network inside alpine sleep 300").ok()
    address = cli("inspect -f", "{{.NetworkSettings.Networks.right.IPAddress}}", "two").ok()
    assert cli(f"run --rm --network right alpine ping -c 1 -W 1 {address}").code == 0
    assert cli("exec one ping -c 1 -W 1 two").code == 1
    assert cli(f"exec one ping -c 1 -W 1 {address}").code == 1
    assert "default" not in cli("exec three ip route").ok()
    assert cli(f"exec three ping -c 1 -W 1 {address}").code == 1


def test_communication_inside_one_network_can_be_off(cli: CommandLine) -> None:
    cli("network create --opt com.docker.network.bridge.enable_icc=false noicc").ok()
    cli("run -d --name n1 --network noicc alpine sleep 60").ok()
    result = cli("run --rm --network noicc alpine ping -c 1 -W 1 n1")
    assert (result.code, "100% packet loss" in result.out) == (1, True)


def test_two_families(cli: CommandLine) -> None:
    cli("network create --ipv6 v6net").ok()
    subnets = json.loads(cli("network inspect -f", "{{json .IPAM.Config}}", "v6net").ok())
    assert [("." in s["Subnet"], ":" in s["Subnet"]) for s in subnets] == [(True, False), (False, True)]
    cli("run -d --name six --network v6net alpine sleep 300").ok()
    six = cli("inspect -f", "{{.NetworkSettings.Networks.v6net.GlobalIPv6Address}}", "six").ok()
    assert cli(f"run --rm --network v6net alpine ping -6 -c 1 -W 2 {six}").code == 0
    assert cli("run --rm --network v6net bench dig +short six AAAA").ok() == six
    # a network of IPv4 alone has no IPv6 address on its interface, not even a link-local one
    cli("network create v4net").ok()
    assert "inet6" not in cli("run --rm --network v4net alpine ip addr show eth0").ok()


def test_several_networks_at_run(cli: CommandLine, block: str) -> None:
    if not cli.has_current_words:
        pytest.skip("this docker client takes one --network only")
    cli(f"network create --subnet {block}.0/24 sn1").ok()
    cli("network create my-network").ok()
    out = cli(
        f"run --rm --network name=sn1,alias=q1,ip={block}.77 --network my-network alpine sh -c",
        "ip -4 addr | grep -c eth; ip -4 addr; nslookup q1",
    ).ok()
    assert f"inet {block}.77/24 brd {block}.255 scope global eth0" in out
    assert f"Address: {block}.77" in out


def test_none_and_host(cli: CommandLine) -> None:
    interfaces = cli("run --rm --network none alpine ip addr").ok()
    assert re.findall(r"^\d+: (\S+):", interfaces, re.MULTILINE) == ["lo"]
    assert cli("run --rm --network container:nosuch alpine true").code == 125


def test_prune(cli: CommandLine, engine: EngineProcess) -> None:
    for name in ("used", "idle1", "idle2"):
        cli(f"network create {name}").ok()
    cli("run -d --name box --network used alpine sleep 100").ok()
    lines = cli("network prune -f").ok().splitlines()
    assert lines[0] == "Deleted Networks:"
    assert sorted(line for line in lines[1:] if line) == ["idle1", "idle2"]
    assert cli("network ls --filter type=custom --format {{.Name}}").ok() == "used"


def test_prune_keeps_what_its_filters_say(cli: CommandLine) -> None:
    for name, options in (("red", "--label color=red"), ("blue", "--label color=blue"), ("plain", "")):
        cli(f"network create {options} {name}").ok()
        cli(f"create --name c-{name} {options} alpine true").ok()

    def networks() -> list[str]:
        return sorted(cli("network ls --filter type=custom --format {{.Name}}").ok().split())

    def containers() -> list[str]:
        return sorted(cli("ps -a --format {{.Names}}").ok().split())

    for kind, left in (("network", networks), ("container", containers)):
        before = left()
        cli(f"{kind} prune -f --filter until=1h").ok()
        assert left() == before, "all are younger"
        cli(f"{kind} prune -f --filter label=color=red").ok()
        assert [one for one in before if "red" not in one] == left()
        cli(f"{kind} prune -f --filter label!=color").ok()
        assert [one for one in before if "blue" in one] == left()
        sentence = DAEMON + "invalid filter 'nosuch'"
        cli.refuses(cli(f"{kind} prune -f --filter nosuch=1"), 1, sentence)
        cli(f"{kind} prune -f").ok()
        assert left() == []
