"""Gateway modes and the other options of the bridge driver, by command: what they do, and how they are shown."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request

import pytest

from tsunagu.testing.commandline import CommandLine

pytestmark = pytest.mark.root

DAEMON = "Error response from daemon: "
BRIDGE = "com.docker.network.bridge"
MODE4, MODE6 = f"{BRIDGE}.gateway_mode_ipv4", f"{BRIDGE}.gateway_mode_ipv6"
WEB = "tiny httpd -f -p 80 -h /etc"


def address(cli: CommandLine, name: str, network: str, key: str = "IPAddress") -> str:
    """A container's address on a network."""
    return cli("inspect -f", f'{{{{(index .NetworkSettings.Networks "{network}").{key}}}}}', name).ok()


def bridge_addresses(cli: CommandLine, network: str) -> list[str]:
    """Addresses that the host has on a network's bridge."""
    identity = cli("network inspect -f", '{{.Id}} {{index .Options "com.docker.network.bridge.name"}}', network).ok()
    name = identity.split()[1]
    listing = subprocess.run(["ip", "-o", "addr", "show", name], capture_output=True, text=True, check=True).stdout
    return re.findall(r"inet6? (\S+)/", listing)


def serves(cli: CommandLine, name: str, host: str, port: int = 80) -> bool:
    """Whether the host itself gets the container's page there; a machine beyond the default route may answer, too."""
    place = f"[{host}]" if ":" in host else host
    try:
        with urllib.request.urlopen(f"http://{place}:{port}/hostname", timeout=1) as answer:
            page: str = answer.read().decode().strip()
    except OSError:
        return False
    return page == cli(f"exec {name} cat /etc/hostname").ok()


def fetches(cli: CommandLine, source: str, address: str) -> bool:
    """Whether a container gets a page there."""
    # not with -T: Debian 12's busybox crashes on it
    result = cli(f"exec {source} timeout 2 wget -qO- http://{address}/hostname")
    assert result.code in (0, 1, 143), result
    return result.code == 0


def why(tsunagu: CommandLine, words: str) -> str:
    """The reason's code that `why` gives."""
    reason: str = json.loads(tsunagu(f"why --json {words}").out)["Reason"]
    return reason


def listening(cli: CommandLine, name: str) -> None:
    """Wait until the web server inside answers."""
    cli(f"exec {name} sh -c", "until wget -qO /dev/null http://127.0.0.1/hostname; do sleep 0.05; done").ok()


def test_a_routed_network_opens_published_ports_at_the_containers_own_address(
    cli: CommandLine, tsunagu: CommandLine
) -> None:
    cli(f"network create -o {MODE4}=routed lan").ok()
    cli("network create other").ok()
    result = cli(f"run -d --name web --network lan -p 8099:80 {WEB}")
    assert result.code == 0
    assert "Host addresses and ports are ignored on network lan, which is routed (IPv4)" in result.err
    cli(f"run -d --name closed --network lan {WEB}").ok()
    cli("run -d --name client --network other tiny sleep 3600").ok()
    listening(cli, "web")
    web, closed = address(cli, "web", "lan"), address(cli, "closed", "lan")
    # the port of the host means nothing; Docker shows it as empty
    assert json.loads(cli("inspect -f", "{{json .NetworkSettings.Ports}}", "web").ok()) == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": ""}]
    }
    assert not serves(cli, "web", "127.0.0.1", 8099)
    assert serves(cli, "web", web)
    assert fetches(cli, "client", web)
    assert not fetches(cli, "client", closed)
    assert cli(f"exec client ping -c 1 -W 2 {closed}").code == 0  # ICMP passes
    asked = {words: why(tsunagu, words) for words in ("neighbour web:80", "neighbour closed:80", "outside web:80")}
    assert asked == {
        "neighbour web:80": "routed", "neighbour closed:80": "unpublished", "outside web:80": "needs-route",
    }  # fmt: skip
    cli("restart -t 0 web").ok()
    listening(cli, "web")
    assert fetches(cli, "client", address(cli, "web", "lan"))
    cli("stop -t 0 web").ok()
    assert cli("port web").ok() == ""


def test_an_isolated_network_has_no_host(cli: CommandLine, tsunagu: CommandLine) -> None:
    sentence = f"{DAEMON}gateway mode 'isolated' can only be used for an internal network"
    cli.refuses(cli(f"network create -o {MODE4}=isolated alone"), 1, sentence)
    options = f"-o {MODE4}=isolated -o {MODE6}=isolated -o {BRIDGE}.name=alone0"
    cli(f"network create --internal --ipv6 {options} alone").ok()
    configs = json.loads(cli("network inspect -f", "{{json .IPAM.Config}}", "alone").ok())
    assert [sorted(config) for config in configs] == [["Subnet"], ["Subnet"]]  # nobody is the gateway
    cli(f"run -d --name web --network alone {WEB}").ok()
    cli("run -d --name peer --network alone tiny sleep 3600").ok()
    listening(cli, "web")
    assert bridge_addresses(cli, "alone") == []
    assert fetches(cli, "peer", "web")
    assert not serves(cli, "web", address(cli, "web", "alone"))
    assert not serves(cli, "web", address(cli, "web", "alone", "GlobalIPv6Address"))
    assert "default" not in cli("exec peer ip route").ok()
    assert why(tsunagu, "host web:80") == why(tsunagu, "peer host") == "host-absent"


def test_an_internal_network_has_the_host_and_nobody_else(cli: CommandLine, tsunagu: CommandLine) -> None:
    cli(f"network create --internal -o {BRIDGE}.name=inside0 inside").ok()
    cli("network create other").ok()
    result = cli(f"run -d --name web --network inside -p 8098:80 {WEB}")
    assert "Published ports are discarded: inside is an internal network, nothing comes in" in result.err
    cli("run -d --name peer --network inside tiny sleep 3600").ok()
    cli("run -d --name client --network other tiny sleep 3600").ok()
    listening(cli, "web")
    (gateway,) = bridge_addresses(cli, "inside")
    web = address(cli, "web", "inside")
    assert serves(cli, "web", web)  # moby#47329: the host reaches it, and is reached at the gateway
    assert cli(f"exec peer ping -c 1 -W 2 {gateway}").code == 0
    assert fetches(cli, "peer", "web")
    assert not serves(cli, "web", "127.0.0.1", 8098)
    assert not fetches(cli, "client", web)
    assert "default" not in cli("exec peer ip route").ok()
    assert why(tsunagu, "peer outside") == "internal-egress"
    assert cli("exec peer nslookup www.example.com").code != 0


def test_a_network_without_ipv4(cli: CommandLine) -> None:
    cli.refuses(cli("network create --ipv4=false none4"), 1, f"{DAEMON}IPv4 or IPv6 must be enabled")
    cli("network create --ipv4=false --ipv6 six").ok()
    (config,) = json.loads(cli("network inspect -f", "{{json .IPAM.Config}}", "six").ok())
    assert ":" in config["Subnet"]
    assert cli("network inspect -f", "{{.EnableIPv4}} {{.EnableIPv6}}", "six").ok() == "false true"
    cli("run -d --name web --network six alpine sleep 3600").ok()
    assert address(cli, "web", "six") == ""
    cli("run -d --name peer --network six bench sleep 3600").ok()
    listed = cli("exec peer ip addr show eth0").ok()
    assert "inet6 " in listed and "inet " not in listed
    assert cli("exec peer dig +short web AAAA").ok() == address(cli, "web", "six", "GlobalIPv6Address")
    assert cli("exec peer dig +short web A").ok() == ""
    assert cli("run --rm --network six alpine ping -6 -c 1 -W 2 web").code == 0


def test_unprotected_trusted_inhibited_and_with_a_source(cli: CommandLine, tsunagu: CommandLine) -> None:
    """What machines outside see is tested packet by packet in tests/kernel/test_reach_is_true.py."""
    cli(f"network create -o {MODE4}=nat-unprotected open").ok()
    cli(f"run -d --name web --network open {WEB}").ok()
    assert why(tsunagu, "neighbour web:80") == "unprotected"
    cli("network create other").ok()
    cli("run -d --name client --network other tiny sleep 3600").ok()
    listening(cli, "web")
    assert fetches(cli, "web", address(cli, "web", "open"))
    assert not fetches(cli, "client", address(cli, "web", "open"))
    cli(f"network create -o {BRIDGE}.trusted_host_interfaces=nowhere0:nowhere1 trusting").ok()
    cli(f"run -d --name trusted --network trusting -p 127.0.0.1::80 {WEB}").ok()
    assert why(tsunagu, "neighbour trusted:80") == "direct-routing"
    cli(f"network create -o {BRIDGE}.inhibit_ipv4=true -o {BRIDGE}.name=inhibited0 inhibited").ok()
    assert bridge_addresses(cli, "inhibited") == []
    cli("run -d --name left --network inhibited tiny sleep 3600").ok()
    assert "default via" in cli("exec left ip route").ok()  # somebody on the network is to have that address
    assert why(tsunagu, "left outside") == "host-absent"
    cli("network create -o com.docker.network.host_ipv4=192.0.2.9 sourced").ok()
    cli("run -d --name sourced --network sourced tiny sleep 3600").ok()
    options = json.loads(cli("network inspect -f", "{{json .Options}}", "sourced").ok())
    assert options == {"com.docker.network.host_ipv4": "192.0.2.9"}


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (f"{MODE4}=bridged", f"failed to parse {MODE4} value: bridged (unknown gateway mode bridged)"),
        (
            f"{BRIDGE}.inhibit_ipv4=maybe",
            f'failed to parse {BRIDGE}.inhibit_ipv4 value: maybe (strconv.ParseBool: parsing "maybe": invalid syntax)',
        ),
        ("com.docker.network.host_ipv4=me", "failed to parse com.docker.network.host_ipv4 value: me (nil ip)"),
        (
            "com.docker.network.advertise_addr_nmsgs=9",
            "com.docker.network.advertise_addr_nmsgs must be in the range 0 to 3",
        ),
        (f"{BRIDGE}.nonsense=1", f"network option {BRIDGE}.nonsense is not supported"),
    ],
)
def test_values_that_options_do_not_take(cli: CommandLine, option: str, sentence: str) -> None:
    cli.refuses(cli(f"network create -o {option} wrong"), 1, DAEMON + sentence)
    assert cli("network ls -q --filter name=wrong").ok() == ""
