"""A check-up's comparisons: one line where all is well, else sentence, remedy and level for each thing."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from tsunagu.model.checkup import Chain, DiskState, Finding, Level, LinkState, SandboxState
from tsunagu.model.container import Config, Container, HostConfig, State, Status
from tsunagu.model.network import (
    ICC,
    BridgePlan,
    Endpoint,
    EndpointConfig,
    InterfacePlan,
    Network,
    PublishedPort,
    port_group,
)
from tsunagu.model.world import ContainerCreated, NetworkCreated, World, apply
from tsunagu.rules import checkup
from tsunagu.wire import nft_listing

PORT = PublishedPort(protocol="tcp", host_ip="0.0.0.0", host_port=8080, container_port=80)
BRIDGE = BridgePlan(name="br-1", mtu=1500, addresses=("10.1.0.1/24",), routes_loopback=True)
INSIDE = InterfacePlan(
    host_name="veth1", name="eth0", bridge="br-1", mac="02:00:00:00:00:01", mtu=1500, addresses=("10.1.0.2/24",)
)
LINKS = (
    LinkState(name="br-1", kind="bridge", addresses=("10.1.0.1/24",)),
    LinkState(name="veth1", kind="veth", master="br-1", group=port_group("br-1")),
)
SYSCTLS = {
    "net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "0", "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/br-1/rp_filter": "0", "net/ipv4/conf/br-1/route_localnet": "1",
    "net/ipv6/conf/br-1/disable_ipv6": "1", "net/bridge/bridge-nf-call-iptables": "0",
}  # fmt: skip


def network(n: int, **settings: object) -> Network:
    return Network(id=f"{n}" * 64, name=f"net{n}", bridge=f"br-{n}", **settings)  # type: ignore[arg-type]


def container(*networks: int) -> Container:
    endpoints = tuple(
        Endpoint(
            config=EndpointConfig(network=f"net{n}"), id=f"{n}" * 64, network_id=f"{n}" * 64, network_name=f"net{n}",
            ipv4=f"10.{n}.0.2", ports=(PORT,) if n == 1 else (),
        )
        for n in networks
    )  # fmt: skip
    return Container(
        id="c" * 64, name="web", created=1, image_id="", path="x", args=(), config=Config(), host=HostConfig(),
        endpoints=endpoints, state=State(status=Status.RUNNING, pid=1),
    )  # fmt: skip


def world(*networks: Network, joined: tuple[int, ...] = (1,)) -> World:
    found = World()
    for one in networks or (network(1),):
        found = apply(found, NetworkCreated(one))
    return apply(found, ContainerCreated(container(*joined)))


@dataclass
class Case:
    found: list[Finding]
    level: Level = Level.OK
    said: str = ""
    remedy: str = ""
    repair: str = ""
    others: list[str] = field(default_factory=list)


def link(number: int, **changes: object) -> list[LinkState]:
    changed = list(LINKS)
    changed[number] = replace(changed[number], **changes)
    return changed


OWNERS, PLANS = {"c" * 64: container(1)}, {"c" * 64: [INSIDE]}
BRIDGES = {"1" * 64: BRIDGE}
WELL = {"c" * 64: SandboxState(addresses={"eth0": ("10.1.0.2/24",)})}
V6 = world(network(1, enable_ipv6=True))
APART = world(network(1, options={ICC: "false"}))
SEVERAL = world(network(1), network(2), joined=(1, 2))
DROPS = Chain(where="ip filter FORWARD", drops=True)
LEASED = {"1" * 64: {"10.1.0.2": "c" * 64}}
CASES = {
    "forwarding": Case(checkup.forwarding(world(), SYSCTLS), said="forwards IPv4"),
    "forwarding off": Case(
        checkup.forwarding(world(), {**SYSCTLS, "net/ipv4/ip_forward": "0"}),
        Level.WRONG, "does not forward IPv4", "sysctl -w net.ipv4.ip_forward=1", "forwarding",
    ),
    "forwarding of IPv6, when asked for": Case(
        checkup.forwarding(V6, SYSCTLS), Level.WRONG, "does not forward IPv6",
        "sysctl -w net.ipv6.conf.all.forwarding=1", "forwarding",
    ),
    "settings": Case(checkup.sysctls(world(), BRIDGES, SYSCTLS)),
    "settings that the kernel does not have": Case(checkup.sysctls(world(), BRIDGES, {})),
    "answers from loopback": Case(
        checkup.sysctls(world(), BRIDGES, {**SYSCTLS, "net/ipv4/conf/br-1/route_localnet": "0"}),
        Level.WRONG, "route_localnet is off on br-1", "sysctl -w net.ipv4.conf.br-1.route_localnet=1", "bridge",
    ),
    "IPv6 where none should be": Case(
        checkup.sysctls(world(), BRIDGES, {**SYSCTLS, "net/ipv6/conf/br-1/disable_ipv6": "0"}),
        Level.WRONG, "IPv6 is on although", "sysctl -w net.ipv6.conf.br-1.disable_ipv6=1", "bridge",
    ),
    "strict filter, one network": Case(
        checkup.sysctls(world(), BRIDGES, {**SYSCTLS, "net/ipv4/conf/all/rp_filter": "1"})
    ),
    "strict filter, two networks": Case(
        checkup.sysctls(SEVERAL, BRIDGES, {**SYSCTLS, "net/ipv4/conf/all/rp_filter": "1"}),
        Level.WARNING, "rp_filter is strict on br-1: what web sends", "sysctl -w net.ipv4.conf.br-1.rp_filter=2",
    ),
    "loose filter wins": Case(
        checkup.sysctls(
            SEVERAL, BRIDGES,
            {**SYSCTLS, "net/ipv4/conf/all/rp_filter": "1", "net/ipv4/conf/br-1/rp_filter": "2"},
        )
    ),
    "bridge netfilter and icc": Case(
        checkup.sysctls(APART, BRIDGES, {**SYSCTLS, "net/bridge/bridge-nf-call-iptables": "1"}),
        Level.WARNING, "neighbours on net1 (enable_icc=false)", "sysctl -w net.bridge.bridge-nf-call-iptables=0",
    ),
    "bridges": Case(checkup.bridges(world(), BRIDGES, LINKS), said="1 bridge "),
    "no bridge": Case(
        checkup.bridges(world(), BRIDGES, []), Level.WRONG, "bridge br-1 of network net1 is missing", repair="bridge"
    ),
    "another kind": Case(
        checkup.bridges(world(), BRIDGES, link(0, kind="dummy")), Level.WRONG, "is no bridge but of kind dummy",
        "ip link delete br-1, then tsunagu doctor --fix",
    ),
    "somebody else's bridge with an MTU of its own": Case(
        checkup.bridges(world(), BRIDGES, link(0, is_ours=False, mtu=9000))
    ),
    "interfaces": Case(checkup.interfaces(OWNERS, PLANS, LINKS), said="1 interface "),
    "an interface elsewhere": Case(
        checkup.interfaces(OWNERS, PLANS, link(1, master="br-2")), Level.WRONG, "is on br-2 instead of br-1",
        repair="interface",
    ),
    "no interface": Case(
        checkup.interfaces(OWNERS, PLANS, LINKS[:1]), Level.WRONG, "veth1 (eth0 of web) is gone", "tsunagu restart web"
    ),
    "sandboxes": Case(checkup.sandboxes(OWNERS, PLANS, WELL)),
    "no sandbox": Case(
        checkup.sandboxes(OWNERS, PLANS, {}), Level.WRONG, "namespace of web is not pinned", "tsunagu restart web"
    ),
    "another sandbox": Case(
        checkup.sandboxes(OWNERS, PLANS, {k: replace(v, is_used=False) for k, v in WELL.items()}),
        Level.WRONG, "web lives in another namespace", "tsunagu restart web",
    ),
    "no interface inside": Case(
        checkup.sandboxes(OWNERS, PLANS, {"c" * 64: SandboxState()}), Level.WRONG, "interface eth0 inside web is gone",
        "tsunagu restart web",
    ),
    "ports": Case(checkup.published(OWNERS, {"c" * 64: {PORT}}), said="1 published port held"),
    "a port that is lost": Case(
        checkup.published(OWNERS, {}), Level.WRONG, "port 0.0.0.0:8080/tcp of web is not held", repair="ports"
    ),
    "leases": Case(checkup.leases(world(), LEASED, LEASED), said="1 address leased"),
    "no lease": Case(
        checkup.leases(world(), LEASED, {}), Level.WRONG, "10.1.0.2 on net1 belongs to web", repair="leases"
    ),
    "a lease of nobody": Case(
        checkup.leases(world(), {}, {"1" * 64: {"10.1.0.9": "d" * 64}}), Level.WRONG,
        "10.1.0.9 is leased to a container that is gone (dddddddddddd)", repair="leases",
    ),
    "disk": Case(checkup.disk([DiskState(path="/x", total=9 << 30, free=3 << 30)]), said="/x has 3.0 GiB left (33%)"),
    "little space": Case(
        checkup.disk([DiskState(path="/x", total=100 << 30, free=3 << 30)]), Level.WARNING, "3.0 GiB left (3%)"
    ),
    "no inodes": Case(
        checkup.disk([DiskState(path="/x", total=100, free=50, inodes=1000, inodes_free=1)]), Level.WRONG,
        "/x has 1 inodes left", others=["/x has 0.0 GiB left (50%)"],
    ),
    "no other firewall": Case(checkup.others([], {"br-1", "mine"}, "br-")),
    "one that drops": Case(
        checkup.others([DROPS], {"br-1"}, "br-"), Level.WARNING, "ip filter FORWARD drops forwarded packets",
        "nft insert rule ip filter FORWARD iifname '\"br-*\"' accept"
        " && nft insert rule ip filter FORWARD oifname '\"br-*\"' accept",
    ),
    "one that drops, of the old kind": Case(
        checkup.others([Chain(where="iptables-legacy FORWARD", drops=True, is_legacy=True)], {"br-1"}, "br-"),
        Level.WARNING, "iptables-legacy FORWARD drops",
        "iptables-legacy -I FORWARD -i br-+ -j ACCEPT && iptables-legacy -I FORWARD -o br-+ -j ACCEPT",
    ),
    "one that drops but knows us": Case(
        checkup.others([replace(DROPS, accepts=('iifname "br-*" accept',))], {"br-1", "br-2"}, "br-")
    ),
    "one that knows some of us": Case(
        checkup.others([replace(DROPS, accepts=('iifname "br-*" accept',))], {"br-1", "mine"}, "br-"),
        Level.WARNING, remedy="nft insert rule ip filter FORWARD iifname '\"mine\"' accept"
        " && nft insert rule ip filter FORWARD oifname '\"mine\"' accept",
    ),
    "one that lets pass": Case(checkup.others([replace(DROPS, drops=False)], {"br-1"}, "br-")),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_findings(name: str) -> None:
    case = CASES[name]
    others = [one for one in case.found if any(text in one.text for text in case.others)]
    assert len(others) == len(case.others)
    (finding,) = [one for one in case.found if one not in others]
    assert (finding.level, finding.repair) == (case.level, case.repair), finding
    assert case.said in finding.text
    if case.remedy:
        assert finding.remedy == case.remedy
    assert (finding.remedy != "") == (case.level is not Level.OK)


RULESET = """\
# Warning: table ip filter is managed by iptables-nft, do not touch!
table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy drop;
	}

	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		iifname "docker0" counter packets 5 bytes 400 accept
		counter packets 1 bytes 1 jump DOCKER
	}
}
table inet firewalld {
	set s {
		type ipv4_addr
	}

	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state established,related accept
		counter packets 9 bytes 9 reject with icmpx admin-prohibited
	}
}
table inet calm {
	chain forward {
		type filter hook forward priority filter; policy accept;
		tcp dport 25 drop
	}
}
table bridge filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
}
table inet ours {
	chain forward {
		type filter hook forward priority filter; policy drop;
	}
}
"""


def test_other_firewalls_are_read() -> None:
    assert nft_listing.forward_chains(RULESET, "ours") == [
        Chain(where="ip filter FORWARD", drops=True, accepts=('iifname "docker0" accept',)),
        Chain(
            where="inet firewalld filter_FORWARD", drops=True, accepts=("ct state established,related accept",)
        ),
        Chain(where="inet calm forward", drops=False),
    ]  # fmt: skip
